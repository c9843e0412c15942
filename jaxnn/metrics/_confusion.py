"""Metrics that are made of counts of predicted and true classes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree
from jaxnn.metrics._accumulators import CompensatedSum, Metric, merge, summed
from jaxnn.metrics._means import arrays, check_classes, check_equal_shapes, element_weights

AVERAGES = ("macro", "micro", "weighted", None)


@constructor
def confusion_matrix(classes: int, axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Confusion matrix: how often each class, a row, was predicted to be each class, a column.

    Args:
        classes: the number of classes.
        axis: the axis of the classes in the predictions, of which the largest counts.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric` whose value has shape `(classes, classes)`: the sums of the weights. Its
        accumulator is a `CompensatedSum(value, compensation)`. The targets are integer labels in
        the shape of the predictions without `axis`; one outside [0, classes) makes the counts
        NaN.

    Raises:
        ValueError: `classes` is less than 1, or the shapes do not fit.
        TypeError: `classes` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.confusion_matrix(2)
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
        >>> metric.compute(metric.update(metric.init(), logits, jnp.array([0, 1, 1])))
        Array([[1., 0.],
               [1., 1.]], dtype=float32)
    """
    check_count("confusion_matrix", "classes", classes)

    def init() -> CompensatedSum:
        return summed(jnp.zeros((classes, classes)))

    def update(
        accumulator: CompensatedSum,
        predictions: ArrayLike,
        targets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> PyTree:
        predictions, targets = arrays("confusion_matrix", predictions, targets)
        chosen, label = _classes("confusion_matrix", predictions, targets, classes, axis)
        weight = _weights(accumulator, targets, weights, ignore_index)
        weight = _nan_for_unknown_classes(weight, label, classes)
        is_nan = jnp.any(jnp.isnan(predictions), axis) & (weight != 0)
        weight = jnp.where(jnp.any(is_nan), jnp.nan, weight)  # it belongs into no column
        counts = _totals(label * classes + chosen, weight, classes**2)
        return merge(accumulator, summed(counts.reshape(classes, classes)))

    def compute(accumulator: CompensatedSum) -> jax.Array:
        return accumulator.total()

    return Metric(init, update, compute)


class CountAccumulator(NamedTuple):
    """Sums of weights for each class: correct predictions, predictions, and targets."""

    correct: Any
    predicted: Any
    actual: Any


@constructor
def precision(
    threshold: float | None = None,
    *,
    classes: int | None = None,
    average: Literal["macro", "micro", "weighted"] | None = "macro",
    axis: int = -1,
    ignore_index: int | None = None,
) -> Metric:
    """Precision, the fraction of positive predictions that are correct.

    `true positives / predicted`. Give `threshold` for binary classification or `classes` for
    several classes. As in scikit-learn, 0 / 0 is 0, and a class that is neither predicted nor a
    target is left out of the average.

    Args:
        threshold: a prediction is positive where it is greater (0 for logits, 0.5 for
            probabilities); the targets have the shape of the predictions.
        classes: the number of classes; a prediction is the largest along `axis`, the targets are
            integer labels in the shape of the predictions without it. One outside [0, classes)
            makes the result NaN.
        average: over the classes: "macro", the mean; "weighted", weighted by their frequency;
            "micro", of the sums over the classes; None for a value each.
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric` with accumulator `CountAccumulator(correct, predicted, actual)`; NaN for no
        examples.

    Raises:
        ValueError: both or neither of `threshold` and `classes` are given; `average` is none of
            the four; the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.precision(0.5)
        >>> scores, labels = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 1, 0, 1])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.6666667, dtype=float32)
    """

    def value(counts: CountAccumulator) -> jax.Array:
        return _ratio(counts.correct, counts.predicted)

    return _of_counts("precision", value, threshold, classes, average, axis, ignore_index)


@constructor
def recall(
    threshold: float | None = None,
    *,
    classes: int | None = None,
    average: Literal["macro", "micro", "weighted"] | None = "macro",
    axis: int = -1,
    ignore_index: int | None = None,
) -> Metric:
    """Recall: the fraction of positives that are predicted, `true positives / actual`.

    See `precision` for the arguments.

    Returns:
        A `Metric`; NaN for no examples.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.recall(0.5)
        >>> scores, labels = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 1, 0, 1])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.6666667, dtype=float32)
    """

    def value(counts: CountAccumulator) -> jax.Array:
        return _ratio(counts.correct, counts.actual)

    return _of_counts("recall", value, threshold, classes, average, axis, ignore_index)


@constructor
def f1(
    threshold: float | None = None,
    *,
    classes: int | None = None,
    average: Literal["macro", "micro", "weighted"] | None = "macro",
    axis: int = -1,
    ignore_index: int | None = None,
) -> Metric:
    """F1 score, the harmonic mean of precision and recall.

    `2 true positives / (predicted + actual)`. See `precision` for the arguments.

    Returns:
        A `Metric`; NaN for no examples.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.f1(0.5)
        >>> scores, labels = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 0, 0, 0])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.5, dtype=float32)
    """

    def value(counts: CountAccumulator) -> jax.Array:
        return _ratio(2 * counts.correct, counts.predicted + counts.actual)

    return _of_counts("f1", value, threshold, classes, average, axis, ignore_index)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))


def _of_counts(
    metric: str,
    value: Callable[[CountAccumulator], jax.Array],
    threshold: float | None,
    classes: int | None,
    average: Literal["macro", "micro", "weighted"] | None,
    axis: int,
    ignore_index: int | None,
) -> Metric:
    if (threshold is None) == (classes is None):
        raise ValueError(
            f"{metric}: threshold is {threshold} and classes is {classes}, expected one of them: "
            "a threshold for binary classification, or a number of classes"
        )
    if average not in AVERAGES:
        raise ValueError(f"{metric}: average is {average!r}, expected one of {AVERAGES}")
    rows = 2 if classes is None else check_count(metric, "classes", classes)

    def init() -> CountAccumulator:
        return CountAccumulator(*(summed(jnp.zeros((rows,))) for _ in CountAccumulator._fields))

    def update(
        accumulator: CountAccumulator,
        predictions: ArrayLike,
        targets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> PyTree:
        predictions, targets = arrays(metric, predictions, targets)
        if threshold is not None:
            check_equal_shapes(metric, predictions, targets, " with a threshold")
            chosen = (predictions > threshold).astype(jnp.int32)
            label = targets.astype(bool).astype(jnp.int32)
        else:
            chosen, label = _classes(metric, predictions, targets, rows, axis)
        weight = _weights(accumulator.correct, targets, weights, ignore_index)
        weight = _nan_for_unknown_classes(weight, label, rows)
        is_nan = (
            jnp.isnan(predictions)
            if threshold is not None
            else jnp.any(jnp.isnan(predictions), axis)
        )
        predicted = jnp.where(is_nan, 0, weight)  # NaN predicts no class
        sums = CountAccumulator(
            _totals(label, jnp.where(chosen == label, predicted, 0), rows),
            _totals(chosen, predicted, rows),
            _totals(label, weight, rows),
        )
        return merge(accumulator, CountAccumulator(*map(summed, sums)))

    def compute(accumulator: CountAccumulator) -> jax.Array:
        counts = CountAccumulator(*(field.total() for field in accumulator))
        weight = jnp.sum(counts.actual)
        if classes is None:
            result = value(counts)[1]
        elif average == "micro":
            result = value(CountAccumulator(*(jnp.sum(field) for field in counts)))
        elif average is None:
            result = value(counts)
        else:
            occurs = ((counts.predicted != 0) | (counts.actual != 0)).astype(weight.dtype)
            shares = occurs if average == "macro" else counts.actual
            result = _ratio(jnp.sum(shares * value(counts)), jnp.sum(shares))
        return jnp.where(weight == 0, jnp.nan, result)

    return Metric(init, update, compute, "more")


def _classes(
    metric: str, predictions: jax.Array, targets: jax.Array, classes: int, axis: int
) -> tuple[jax.Array, jax.Array]:
    """The predicted and the true classes, in one shape."""
    check_classes(metric, predictions, targets, axis)
    if predictions.shape[axis] != classes:
        raise ValueError(
            f"{metric}: predictions have shape {predictions.shape}, expected {classes} classes in "
            f"axis {axis}"
        )
    chosen = jnp.argmax(predictions, axis)
    return chosen, targets.astype(chosen.dtype)


def _weights(
    like: CompensatedSum, targets: jax.Array, weights: ArrayLike | None, ignore_index: int | None
) -> jax.Array:
    """A weight for each target."""
    weight = element_weights(targets.shape, weights, like.value.dtype)
    weight = jnp.broadcast_to(weight, targets.shape)
    return weight if ignore_index is None else jnp.where(targets == ignore_index, 0, weight)


def _nan_for_unknown_classes(weight: jax.Array, label: jax.Array, classes: int) -> jax.Array:
    """The weights, NaN if one that counts is of a class that does not exist."""
    is_unknown = ((label < 0) | (label >= classes)) & (weight != 0)
    return jnp.where(jnp.any(is_unknown), jnp.nan, weight)


def _totals(index: jax.Array, weight: jax.Array, length: int) -> jax.Array:
    """The sum of the weights at each index."""
    return jnp.zeros((length,), weight.dtype).at[index.reshape(-1)].add(weight.reshape(-1))
