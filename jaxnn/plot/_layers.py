"""Figures of layers and of learning rates."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn._core.arguments import checked, value_text
from jaxnn._diagnosis.findings import Diagnosis
from jaxnn.plot._figures import BLUE, GRAY, ORANGE, labelled, new_figure, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def layers_over_depth(diagnosis: Diagnosis) -> "Figure":
    """What layers put out and the gradients with respect to it, from the first layer to the last.

    Args:
        diagnosis: what `nn.diagnose` returns.

    Returns:
        A `matplotlib.figure.Figure` with a panel for each, on logarithmic axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the diagnosis has no layers.

    Example:
        >>> import numpy as np, jaxnn as nn
        >>> layers = {"path": np.array(["0", "2"]), "std": np.array([1.0, 0.5]),
        ...           "gradient_norm": np.array([0.1, 0.2])}
        >>> figure = nn.plot.layers_over_depth(nn.Diagnosis((), layers, {}, {}))
        >>> [axes.get_title() for axes in figure.axes]
        ['standard deviation of outputs', 'norm of gradients']
    """
    _check("layers_over_depth", diagnosis, "layers")
    paths = diagnosis.layers["path"]
    figure = new_figure(4.6, 1.2 + 0.28 * len(paths))
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(paths))
    for axes, name, title, colour in (
        (left, "std", "standard deviation of outputs", BLUE),
        (right, "gradient_norm", "norm of gradients", ORANGE),
    ):
        values = diagnosis.layers[name]
        positive = np.where(values > 0, values, np.nan)
        axes.plot(positive, places, "o-", color=colour, markersize=4)
        labelled(axes, "", "", title)
        axes.title.set_fontsize(9)
        if np.any(values > 0):
            axes.set_xscale("log")
            _at_least_two_decades(axes, values[values > 0])
    left.set_yticks(places, paths)
    left.invert_yaxis()
    return figure


def _check(function: str, diagnosis: Diagnosis, part: str) -> None:
    if not isinstance(diagnosis, Diagnosis):
        raise TypeError(
            f"{function}: diagnosis is {value_text(diagnosis)}, expected what nn.diagnose returns"
        )
    columns = getattr(diagnosis, part)
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError(f"{function}: diagnosis has no {part}, expected that of nn.diagnose")


def _at_least_two_decades(axes: Any, values: np.ndarray) -> None:
    """Limits that small differences do not fill, with a label at each power of ten alone."""
    from matplotlib.ticker import NullFormatter

    middle = np.sqrt(values.min() * values.max())
    axes.set_xlim(min(values.min() / 1.6, middle / 10), max(values.max() * 1.6, middle * 10))
    axes.xaxis.set_minor_formatter(NullFormatter())


@checked
def layers_over_time(history: Mapping[str, Any], kind: str) -> "Figure":
    """What `record` has in the history of each layer: paths from top to bottom, epochs across.

    Args:
        history: that of a `FitResult` or `training_run`, with entries such as
            "gradient_norm/0/kernel", from `record=["gradient_norm/*"]`.
        kind: the part before the path, such as "gradient_norm" or "activation_std".

    Returns:
        A `matplotlib.figure.Figure`, colours on a logarithmic scale where all values are positive.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history has nothing of that kind, or that of several runs.

    Example:
        >>> import jaxnn as nn
        >>> history = {"gradient_norm/0/kernel": [1.0, 0.1], "gradient_norm/2/kernel": [2.0, 0.3]}
        >>> axes = nn.plot.layers_over_time(history, "gradient_norm").axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['0/kernel', '2/kernel']
    """
    start = f"{kind}/"
    found = {n.removeprefix(start): np.asarray(history[n]) for n in history if n.startswith(start)}
    if not found:
        kinds = sorted({name.partition("/")[0] for name in history if "/" in name})
        raise ValueError(
            f"layers_over_time: kind is {kind!r}, of which history has nothing, expected one of "
            f"{kinds}"
        )
    values = np.stack([np.asarray(v, np.float64) for v in found.values()])
    if values.ndim != 2:
        raise ValueError(
            f"layers_over_time: history has shape {values.shape[1:]} for each path, expected a "
            "number for each epoch, as of one run"
        )
    from matplotlib.colors import LogNorm

    figure = new_figure(5.6, 1.3 + 0.26 * len(found))
    axes = figure.subplots()
    norm = LogNorm() if np.all(values > 0) and values.max() > values.min() else None
    extent = (0.5, values.shape[1] + 0.5, len(found) - 0.5, -0.5)
    image = axes.imshow(values, aspect="auto", cmap="viridis", norm=norm, extent=extent)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel="epoch", title=kind)
    whole_numbers(axes)
    figure.colorbar(image, ax=axes)
    return figure


@checked
def rate_range(diagnosis: Diagnosis) -> "Figure":
    """The learning-rate range test: the loss after some steps by multiples of the rate.

    Args:
        diagnosis: what `nn.diagnose` returns.

    Returns:
        A `matplotlib.figure.Figure`; rates at which the loss was not finite are crosses at the top.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the diagnosis has no rates.

    Example:
        >>> import numpy as np, jaxnn as nn
        >>> rates = {"multiple": np.array([0.1, 1.0, 10.0]), "loss": np.array([0.9, 0.3, np.inf])}
        >>> diagnosis = nn.Diagnosis((), {}, rates, {"loss_at_start": 1.0})
        >>> nn.plot.rate_range(diagnosis).axes[0].get_xscale()
        'log'
    """
    _check("rate_range", diagnosis, "rates")
    multiples, losses = diagnosis.rates["multiple"], diagnosis.rates["loss"]
    start = diagnosis.numbers.get("loss_at_start", float(np.max(losses[np.isfinite(losses)])))
    top = 2 * start - min(np.min(losses), 0)
    inside = losses <= top
    figure = new_figure()
    axes = figure.subplots()
    axes.axhline(start, color=GRAY, linewidth=1, linestyle="--", label="at the start")
    axes.axvline(1, color=GRAY, linewidth=1, label="the rate given")
    axes.plot(multiples[inside], losses[inside], "o-", color=BLUE, label="after some steps")
    above = multiples[~inside]
    axes.plot(above, np.full(len(above), top), "x", color=ORANGE, label="above, or not finite")
    axes.set_xscale("log")
    labelled(axes, "multiple of the learning rate", "loss")
    axes.legend(frameon=False, fontsize=8)
    return figure
