"""Figures of many runs."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxnn._core.arguments import checked, value_text
from jaxnn._training.sweeps.sweep import SweepResult
from jaxnn.plot._figures import BLUE, GRAY, ORANGE, labelled, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 20.0  # the largest over the smallest number, from which an axis is logarithmic


@checked
def sweep(
    result: SweepResult, metric: str | None = None, mode: Literal["min", "max"] = "min"
) -> "Figure":
    """A metric of the runs over each hyperparameter, and over pairs where two were varied.

    Args:
        result: what `nn.sweep` returns.
        metric: its name in the table; None for "val_loss" if there is one, else "loss".
        mode: whether less or more of it is better, for the best run, which is told apart.

    Returns:
        A `matplotlib.figure.Figure` with a panel for each hyperparameter that was varied; where
        these are two, also one with both as axes and the mean over the seeds as colour. Runs whose
        metric is not finite are crosses at the edge.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the table has no such metric; all are NaN.

    Example:
        >>> import numpy as np, jaxnn as nn
        >>> table = {"rate": np.array([0.1, 0.01]), "seed": np.zeros(2), "loss": np.array([2.0, 1])}
        >>> result = nn.SweepResult(table, {}, {}, {}, None)
        >>> axes = nn.plot.sweep(result).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('rate', 'loss')
    """
    if not isinstance(result, SweepResult):
        raise TypeError(f"sweep: result is {value_text(result)}, expected what nn.sweep returns")
    best = result.best(metric, mode)
    metric = metric or ("val_loss" if "val_loss" in result.table else "loss")
    names = list(result.table)
    tried = {name: np.asarray(result.table[name], float) for name in names[: names.index("seed")]}
    varied = {name: v for name, v in tried.items() if np.unique(v).size > 1} or tried
    values = np.asarray(result.table[metric], float)
    both = len(varied) == 2
    figure, every = panels("sweep", len(varied) + both, len(names), 3.6, 3.2, columns=3)
    known = np.isfinite(values)
    edge = values[known].max() if mode == "min" else values[known].min()
    for axes, (name, numbers) in zip(every, varied.items(), strict=False):
        axes.scatter(numbers[known], values[known], s=16, color=BLUE)
        lost = numbers[~known]
        axes.scatter(lost, np.full(len(lost), edge), s=24, marker="x", color=GRAY)
        axes.scatter(numbers[best], values[best], s=40, color=ORANGE, label="best run", zorder=3)
        labelled(axes, name, metric)
        _scale(axes.set_xscale, numbers)
        _scale(axes.set_yscale, values[known])
    if both:
        _plane(figure, every[2], varied, values, metric)
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper right", frameon=False)
    return figure


def _plane(
    figure: Any, axes: Any, varied: dict[str, np.ndarray], values: np.ndarray, metric: str
) -> None:
    """Both hyperparameters as axes, and the mean over the seeds as colour."""
    from matplotlib.colors import LogNorm

    (x_name, x), (y_name, y) = varied.items()
    points, which = np.unique(np.stack([x, y]), axis=1, return_inverse=True)
    means = np.bincount(which.ravel(), values) / np.bincount(which.ravel())
    known = np.isfinite(means)
    norm = LogNorm() if _is_wide(means[known]) else None
    image = axes.scatter(*points[:, known], s=90, marker="s", c=means[known], norm=norm)
    axes.scatter(*points[:, ~known], s=40, marker="x", color=GRAY)
    labelled(axes, x_name, y_name)
    _scale(axes.set_xscale, x)
    _scale(axes.set_yscale, y)
    figure.colorbar(image, ax=axes, label=metric)


def _is_wide(values: np.ndarray) -> bool:
    return bool(values.size and values.min() > 0 and values.max() > _WIDE * values.min())


def _scale(set_scale: Any, values: np.ndarray) -> None:
    if _is_wide(values):
        set_scale("log")
