"""Figures of runs and of parameters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn.plot._figures import BLUE, ORANGE, labelled, numbers, panels, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def learning_curves(history: Mapping[str, Any], *, log: bool = False) -> "Figure":
    """Loss and metrics over the epochs, those of training and validation in one panel.

    Args:
        history: that of a `FitResult` or `training_run`, arrays `(epochs,)`, or `(epochs, members)`
            with a line for each member. What `record` names by path is for `layers_over_time`.
        log: whether the vertical axes are logarithmic.

    Returns:
        A `matplotlib.figure.Figure` with a panel for each metric.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there is nothing with one number an epoch.

    Example:
        >>> import jaxnn as nn
        >>> figure = nn.plot.learning_curves({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4]})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss']
    """
    shown = {n: np.asarray(v) for n, v in history.items() if n != "epochs" and "/" not in n}
    shown = {name: values for name, values in shown.items() if values.ndim in (1, 2)}
    names = list(dict.fromkeys(name.removeprefix("val_") for name in shown))
    if not names:
        raise ValueError(
            f"learning_curves: history has {sorted(history)}, expected a number for each epoch"
        )
    figure, every = panels("learning_curves", len(names), len(names), 5.2, 3.4, columns=3)
    for axes, name in zip(every, names, strict=True):
        for full, label, colour in (
            (name, "training", BLUE),
            (f"val_{name}", "validation", ORANGE),
        ):
            if full in shown:
                lines = axes.plot(
                    np.arange(1, len(shown[full]) + 1), shown[full], color=colour, linewidth=1.4
                )
                lines[0].set_label(label)
        labelled(axes, "epoch", name)
        whole_numbers(axes)
        if f"val_{name}" in shown:
            axes.legend(frameon=False)
        if log:
            axes.set_yscale("log")
    return figure


@checked
def filters(kernel: ArrayLike, *, most: int = 64) -> "Figure":
    """The filters of a first convolution as pictures, each in a range of its own around 0.

    Args:
        kernel: `(height, width, channels, filters)`, as `params["conv"]["kernel"]`; with 3
            channels in colour, otherwise their mean.
        most: the largest number of filters to show.

    Returns:
        A `matplotlib.figure.Figure` with a panel for each filter.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `kernel` has not four axes; `most` is less than 1.

    Example:
        >>> import jax, jaxnn as nn
        >>> len(nn.plot.filters(jax.random.normal(jax.random.key(0), (3, 3, 1, 5))).axes)
        5
    """
    array = numbers("filters", "kernel", kernel, 4)
    figure, every = panels("filters", array.shape[-1], most, 0.8, 0.8)
    for i, axes in enumerate(every):
        picture = array[..., i]
        size = np.abs(picture).max() or 1.0
        if picture.shape[-1] == 3:
            axes.imshow(0.5 + picture / (2 * size))
        else:
            axes.imshow(picture.mean(-1), cmap="RdBu", vmin=-size, vmax=size)
        axes.set_axis_off()
    return figure
