"""Figures of predictions, against labels and with their spread."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn.plot._figures import BLUE, GRAY, ORANGE, labelled, new_figure, numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def confusion_matrix(matrix: ArrayLike, names: Sequence[str] | None = None) -> "Figure":
    """How often each class, a row, was predicted to be each class, a column.

    Args:
        matrix: `(classes, classes)`, as `nn.metrics.confusion_matrix` gives it. Colours are shares
            of the row, numbers the counts.
        names: the classes' names.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `matrix` is not square; there are not as many names.

    Example:
        >>> import jaxnn as nn
        >>> axes = nn.plot.confusion_matrix([[8, 2], [1, 9]], ["cat", "dog"]).axes[0]
        >>> [text.get_text() for text in axes.texts]
        ['8', '2', '1', '9']
    """
    counts = numbers("confusion_matrix", "matrix", matrix, 2)
    n = len(counts)
    if counts.shape != (n, n) or not n:
        raise ValueError(f"confusion_matrix: matrix has shape {counts.shape}, expected a square")
    names = [str(i) for i in range(n)] if names is None else list(names)
    if len(names) != n:
        raise ValueError(f"confusion_matrix: names has {len(names)} names, expected {n}")
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.where(totals == 0, 1, totals)
    figure = new_figure(1.6 + 0.55 * n, 1.4 + 0.5 * n)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(n), names)
    axes.set_yticks(range(n), names)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


@checked
def roc(scores: ArrayLike, labels: ArrayLike) -> "Figure":
    """The receiver operating characteristic: true against false positive rate, by threshold.

    Args:
        scores: `(n,)`, greater for yes: logits or probabilities.
        labels: `(n,)`, 1 or True for yes, 0 (or -1) for no.

    Returns:
        A `matplotlib.figure.Figure`, with the area under the curve in its title.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the shapes differ; all labels are the same; a score is NaN.

    Example:
        >>> import jaxnn as nn
        >>> nn.plot.roc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).axes[0].get_title()
        'area under the curve 0.750'
    """
    values = numbers("roc", "scores", scores, 1)
    yes = numbers("roc", "labels", labels, 1) > 0
    _check_lengths("roc", values, yes)
    if yes.all() or not yes.any():
        raise ValueError("roc: labels are all the same, expected some of each")
    order = np.argsort(-values, kind="stable")
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    true = np.append(0, np.cumsum(yes[order])[last_of_ties]) / yes.sum()
    false = np.append(0, np.cumsum(~yes[order])[last_of_ties]) / (~yes).sum()
    figure = new_figure(4, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1)
    axes.plot(false, true, color=BLUE)
    area = np.trapezoid(true, false)
    labelled(axes, "false positive rate", "true positive rate", f"area under the curve {area:.3f}")
    axes.set_aspect("equal")
    return figure


@checked
def calibration(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> "Figure":
    """How often what is predicted with some probability is true.

    Args:
        probabilities: `(n,)` of yes, or `(n, classes)`, of which the largest counts.
        labels: `(n,)`: 1 or 0, or the classes.
        bins: into how many equal parts [0, 1] is split.

    Returns:
        A `matplotlib.figure.Figure`: the share of what is true over the mean probability in each
        bin, and the number of examples in each. Its title has the expected calibration error.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a probability is outside [0, 1]; the lengths differ; `bins` is less than 1.

    Example:
        >>> import jaxnn as nn
        >>> figure = nn.plot.calibration([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], bins=2)
        >>> figure.axes[0].get_title()
        'expected calibration error 0.150'
    """
    chances = numbers("calibration", "probabilities", probabilities, (1, 2))
    targets = numbers("calibration", "labels", labels, 1)
    _check_lengths("calibration", chances, targets)
    if bins < 1:
        raise ValueError(f"calibration: bins is {bins}, expected at least 1")
    if not np.all((chances >= 0) & (chances <= 1)):
        raise ValueError(
            f"calibration: probabilities are from {chances.min():.3g} to {chances.max():.3g}, "
            "expected numbers in [0, 1]; of logits nn.sigmoid or nn.softmax makes them"
        )
    right = targets > 0
    if chances.ndim == 2:
        right = chances.argmax(1) == targets
        chances = chances.max(1)
    place = np.minimum((chances * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    full = counts > 0
    predicted = np.bincount(place, chances, bins)[full] / counts[full]
    observed = np.bincount(place, right, bins)[full] / counts[full]
    error = np.sum(counts[full] * np.abs(predicted - observed)) / len(chances)
    figure = new_figure(4.2, 4.8)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1)
    axes.plot(predicted, observed, "o-", color=BLUE)
    labelled(axes, "", "share that is true", f"expected calibration error {error:.3f}")
    edges = np.linspace(0, 1, bins + 1)
    below.bar(edges[:-1], counts, width=1 / bins, align="edge", color=BLUE, edgecolor="white")
    labelled(below, "predicted probability", "examples")
    return figure


@checked
def predictions(
    x: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike | None = None,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
) -> "Figure":
    """Predictions over one feature, with bands of one and of two spreads around them.

    Args:
        x: `(n,)` or `(n, 1)`, in any order.
        mean: the predictions, as `x`.
        spread: their standard deviations, as `x`: with `mean`, what `nn.predict_with_spread` gives.
        data: `(x, y)`, points that the model was trained or is judged on.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the lengths differ, or there are several features; a spread is negative.

    Example:
        >>> import numpy as np, jaxnn as nn
        >>> x = np.linspace(0, 1, 5)
        >>> axes = nn.plot.predictions(x, x ** 2, 0.1 + x, data=(x[:3], x[:3] ** 2)).axes[0]
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['± 2 spreads', '± 1 spread', 'mean', 'data']
    """
    at, means = _columns("predictions", x=x, mean=mean)
    order = np.argsort(at, kind="stable")
    at, means = at[order], means[order]
    figure = new_figure()
    axes = figure.subplots()
    if spread is not None:
        widths = _columns("predictions", x=x, spread=spread)[1][order]
        _check_spread("predictions", widths)
        for times, label in ((2, "± 2 spreads"), (1, "± 1 spread")):
            low, high = means - times * widths, means + times * widths
            axes.fill_between(at, low, high, color=BLUE, alpha=0.18, linewidth=0, label=label)
    axes.plot(at, means, color=BLUE, label="mean")
    if data is not None:
        points = _columns("predictions", **{"data[0]": data[0], "data[1]": data[1]})
        axes.plot(*points, "o", color=ORANGE, markersize=3.5, label="data")
    labelled(axes, "x", "prediction")
    axes.legend(frameon=False, fontsize=8)
    return figure


@checked
def predicted_against_true(
    targets: ArrayLike, predictions: ArrayLike, spread: ArrayLike | None = None
) -> "Figure":
    """The predictions of a regression over what is true: on the diagonal, where both are the same.

    Args:
        targets: `(n,)` or `(n, 1)`.
        predictions: as `targets`.
        spread: as `targets`, standard deviations of the predictions, drawn as bars.

    Returns:
        A `matplotlib.figure.Figure`, with the coefficient of determination in its title.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the lengths differ, or there are several outputs; a spread is negative.

    Example:
        >>> import jaxnn as nn
        >>> nn.plot.predicted_against_true([1, 2, 3, 4], [1.5, 2, 3, 3.5]).axes[0].get_title()
        'R² 0.900'
    """
    true, found = _columns("predicted_against_true", targets=targets, predictions=predictions)
    figure = new_figure(4.2, 4.2)
    axes = figure.subplots()
    ends = [min(true.min(), found.min()), max(true.max(), found.max())]
    axes.plot(ends, ends, "--", color=GRAY, linewidth=1)
    if spread is not None:
        widths = _columns("predicted_against_true", targets=targets, spread=spread)[1]
        _check_spread("predicted_against_true", widths)
        axes.errorbar(true, found, widths, fmt="none", ecolor=GRAY, elinewidth=0.8, alpha=0.6)
    axes.plot(true, found, "o", color=BLUE, markersize=3.5)
    total = np.sum((true - true.mean()) ** 2)
    title = f"R² {1 - np.sum((true - found) ** 2) / total:.3f}" if total > 0 else ""
    labelled(axes, "true", "predicted", title)
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _columns(function: str, **values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of numbers, a number for each example."""
    (first, a), (second, b) = (
        (name, numbers(function, name, value, (1, 2))) for name, value in values.items()
    )
    for name, array in ((first, a), (second, b)):
        if not array.size or array.size != len(a) or array.size != len(array):
            raise ValueError(
                f"{function}: {name} has shape {array.shape} and {first} {a.shape}, expected one "
                "number for each example"
            )
    return a.ravel(), b.ravel()


def _check_spread(function: str, widths: np.ndarray) -> None:
    if np.any(widths < 0):
        raise ValueError(f"{function}: spread is {widths.min():.3g}, expected at least 0")


def _check_lengths(function: str, first: np.ndarray, labels: np.ndarray) -> None:
    if len(first) != len(labels) or not len(labels):
        raise ValueError(
            f"{function}: there are {len(first)} predictions and {len(labels)} labels, expected "
            "as many, one at least"
        )
    if np.isnan(first).any():
        raise ValueError(f"{function}: a prediction is NaN, expected numbers")
