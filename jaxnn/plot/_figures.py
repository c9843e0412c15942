"""Figures without state: made by matplotlib's own class, not by pyplot."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GRAY = "#2f6fb2", "#d9822b", "#8a8f98"


def new_figure(width: float = 5.6, height: float = 3.6) -> "Figure":
    """An empty figure, in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib (in the extra `plot`): pip install matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def panels(
    function: str, count: int, most: int, width: float, height: float, columns: int | None = None
) -> tuple["Figure", list[Any]]:
    """A figure of so many panels, at most `most`, each of so many inches, and their axes."""
    if most < 1:
        raise ValueError(f"{function}: most is {most}, expected at least 1")
    if not count:
        raise ValueError(f"{function}: there is nothing to show, expected something")
    count = min(count, most)
    columns = min(count, math.ceil(math.sqrt(count)) if columns is None else columns)
    rows = math.ceil(count / columns)
    figure = new_figure(width * columns, height * rows)
    every = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in every[count:]:
        axes.remove()
    return figure, list(every[:count])


def labelled(axes: Any, x: str, y: str, title: str = "") -> None:
    """Name the axes, and leave out the lines that say nothing."""
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.6)
    axes.set_axisbelow(True)


def whole_numbers(axes: Any) -> None:
    """Label the horizontal axis, of epochs, at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def numbers(function: str, name: str, value: Any, ndim: int | tuple[int, ...]) -> np.ndarray:
    """An array in float64 with as many axes as `ndim` says."""
    array = np.asarray(value)
    wanted = (ndim,) if isinstance(ndim, int) else ndim
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32)  # bfloat16 and the like
    if array.ndim not in wanted:
        axes = " or ".join(map(str, wanted))
        raise ValueError(f"{function}: {name} has shape {array.shape}, expected {axes} axes")
    return array.astype(np.float64)
