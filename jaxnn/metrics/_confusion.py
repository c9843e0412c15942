"""Metrics that are made of counts of predicted and true classes."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree
from jaxnn.metrics._accumulators import CompensatedSum, Metric, merge, summed
from jaxnn.metrics._means import (
    arrays,
    check_equal_shapes,
    check_number_of_classes,
    classes_of,
    counted_of,
    element_weights,
    is_positive,
)

AVERAGES = ("macro", "micro", "weighted", None)


@constructor
def confusion_matrix(
    classes: int | None = None,
    axis: int = -1,
    *,
    threshold: float | None = None,
    ignore_index: int | None = None,
) -> Metric:
    """Confusion matrix: how often each class, a row, was predicted to be each class, a column.

    Args:
        classes: the number of classes along `axis` of the predictions, of which the largest counts;
            the targets are integer labels in the shape without it.
        axis: the axis of the classes.
        threshold: for yes (row and column 1) or no: a prediction is yes where it is greater; the
            targets have the shape of the predictions. Together with `classes`, for labels of which
            several may hold: a matrix for each.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric` whose value has shape `(classes, classes)`, `(2, 2)`, or `(classes, 2, 2)` for
        both arguments: the sums of the weights. Its accumulator is a
        `CompensatedSum(value, compensation)`. A label outside [0, classes) makes the counts NaN.

    Raises:
        ValueError: `classes` is less than 1, or it and `threshold` are both None; the shapes do not
            fit.
        TypeError: `classes` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.confusion_matrix(2)
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
        >>> metric.compute(metric.update(metric.init(), logits, jnp.array([0, 1, 1])))
        Array([[1., 0.],
               [1., 1.]], dtype=float32)
    """
    decide = _decision("confusion_matrix", threshold, classes, axis)
    shape = (*decide.shape, decide.rows)

    def init() -> CompensatedSum:
        return summed(jnp.zeros(shape))

    def update(
        accumulator: CompensatedSum,
        predictions: ArrayLike,
        targets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> PyTree:
        seen = decide(predictions, targets, weights, accumulator.value.dtype, ignore_index)
        is_nan = seen.is_nan & (seen.weight != 0)
        weight = jnp.where(jnp.any(is_nan), jnp.nan, seen.weight)  # it belongs into no column
        row = seen.kind * decide.rows + seen.label
        return merge(accumulator, summed(_totals(row * decide.rows + seen.chosen, weight, shape)))

    def compute(accumulator: CompensatedSum) -> jax.Array:
        return accumulator.total()

    return Metric(init, update, compute)


class CountAccumulator(NamedTuple):
    """Sums of weights for each class: correct predictions, predictions, and targets.

    With a threshold, of the classes no and yes; with `classes` too, a pair for each.
    """

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

    `true positives / predicted`. Give `threshold` for binary classification, `classes` for several
    classes, and both for several labels of which each may hold. As in scikit-learn, 0 / 0 is 0, and
    of several classes one that is neither predicted nor a target is left out of the average.

    Args:
        threshold: a prediction is positive where it is greater (0 for logits, 0.5 for
            probabilities); the targets have the shape of the predictions.
        classes: the number of classes along `axis`. Without `threshold`, a prediction is the
            largest of them, the targets are integer labels in the shape of the predictions without
            it, and one outside [0, classes) makes the result NaN.
        average: over the classes: "macro", the mean; "weighted", weighted by their frequency;
            "micro", of the sums over the classes; None for a value each.
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric` with accumulator `CountAccumulator(correct, predicted, actual)`; NaN for no
        examples.

    Raises:
        ValueError: neither `threshold` nor `classes` is given; `average` is none of the four; the
            shapes do not fit.

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


@constructor
def iou(
    threshold: float | None = None,
    *,
    classes: int | None = None,
    average: Literal["macro", "micro", "weighted"] | None = "macro",
    axis: int = -1,
    ignore_index: int | None = None,
) -> Metric:
    """Intersection over union, the Jaccard index; its mean over the classes is the mean IoU.

    `true positives / (predicted + actual - true positives)`, of all pixels of all images. See
    `precision` for the arguments.

    Returns:
        A `Metric`; NaN for no examples.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.iou(0.5)
        >>> scores, labels = jnp.array([[0.9, 0.8], [0.7, 0.1]]), jnp.array([[1, 0], [1, 1]])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.5, dtype=float32)
    """

    def value(counts: CountAccumulator) -> jax.Array:
        return _ratio(counts.correct, counts.predicted + counts.actual - counts.correct)

    return _of_counts("iou", value, threshold, classes, average, axis, ignore_index)


@constructor
def matthews_correlation(
    threshold: float | None = None,
    *,
    classes: int | None = None,
    average: Literal["macro"] | None = "macro",
    axis: int = -1,
    ignore_index: int | None = None,
) -> Metric:
    """The Matthews correlation coefficient (MCC) of predicted and true classes, in [-1, 1].

    `(Σ_c P(both c) - P(predicted c) P(actual c)) / sqrt((1 - Σ_c P(predicted c)²) (1 - Σ_c
    P(actual c)²))`: 0 is what chance gives, however rare a class, and where there is only one.

    Paper: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient,
    2004.

    Args:
        threshold: as in `precision`.
        classes: as in `precision`.
        average: with both of them, over the labels: "macro", the mean; None for a value each.
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric` with accumulator `CountAccumulator(correct, predicted, actual)`; NaN for no
        examples.

    Raises:
        ValueError: neither `threshold` nor `classes` is given; `average` is neither; the shapes do
            not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.matthews_correlation(0.5)
        >>> scores, labels = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 1, 0, 0])
        >>> metric.compute(metric.update(metric.init(), scores, labels)).round(2)
        Array(0.58, dtype=float32)
    """
    metric = "matthews_correlation"
    if average not in ("macro", None):
        raise ValueError(f"{metric}: average is {average!r}, expected 'macro' or None")

    def value(counts: CountAccumulator) -> jax.Array:
        whole = jnp.sum(counts.actual, -1, keepdims=True)
        whole = jnp.where(whole == 0, 1, whole)
        predicted, actual = counts.predicted / whole, counts.actual / whole
        # Of what is rare, where 1 - x would be the difference of numbers that are nearly equal.
        unpredicted, other = (whole - counts.predicted) / whole, (whole - counts.actual) / whole
        wrong = (counts.actual - counts.correct) / whole
        covariance = jnp.sum(predicted * other - wrong, -1)
        variances = jnp.sum(predicted * unpredicted, -1) * jnp.sum(actual * other, -1)
        values = jnp.clip(_ratio(covariance, jnp.sqrt(variances)), -1, 1)
        return values if average is None else jnp.mean(values)

    return _of_matrix(metric, value, threshold, classes, axis, ignore_index)


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
    """A value of the counts of each class, averaged over the classes."""
    if average not in AVERAGES:
        raise ValueError(f"{metric}: average is {average!r}, expected one of {AVERAGES}")

    def averaged(counts: CountAccumulator) -> jax.Array:
        if threshold is not None:
            counts = CountAccumulator(*(of_no_and_yes[..., 1] for of_no_and_yes in counts))
        if classes is None:
            return value(counts)
        if average == "micro":
            return value(CountAccumulator(*(jnp.sum(field) for field in counts)))
        if average is None:
            return value(counts)
        occurs = (threshold is not None) | (counts.predicted != 0) | (counts.actual != 0)
        shares = occurs.astype(counts.actual.dtype) if average == "macro" else counts.actual
        return _ratio(jnp.sum(shares * value(counts)), jnp.sum(shares))

    return _of_matrix(metric, averaged, threshold, classes, axis, ignore_index)


def _of_matrix(
    metric: str,
    value: Callable[[CountAccumulator], jax.Array],
    threshold: float | None,
    classes: int | None,
    axis: int,
    ignore_index: int | None,
) -> Metric:
    """A value of the counts."""
    decide = _decision(metric, threshold, classes, axis)

    def init() -> CountAccumulator:
        return CountAccumulator(
            *(summed(jnp.zeros(decide.shape)) for _ in CountAccumulator._fields)
        )

    def update(
        accumulator: CountAccumulator,
        predictions: ArrayLike,
        targets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> PyTree:
        dtype = accumulator.correct.value.dtype
        chosen, label, kind, weight, is_nan = decide(
            predictions, targets, weights, dtype, ignore_index
        )
        predicted = jnp.where(is_nan, 0, weight)  # NaN predicts no class
        counts = (
            (label, jnp.where(chosen == label, predicted, 0)),
            (chosen, predicted),
            (label, weight),
        )
        sums = (_totals(kind * decide.rows + c, w, decide.shape) for c, w in counts)
        return merge(accumulator, CountAccumulator(*map(summed, sums)))

    def compute(accumulator: CountAccumulator) -> jax.Array:
        counts = CountAccumulator(*(field.total() for field in accumulator))
        is_none = jnp.sum(counts.actual) == 0
        return jnp.where(is_none, jnp.nan, value(counts))

    return Metric(init, update, compute, "more")


class _Seen(NamedTuple):
    """What there is to count: the predicted and the true class, of which kind, in one shape."""

    chosen: jax.Array
    label: jax.Array
    kind: jax.Array
    weight: jax.Array
    is_nan: jax.Array


class _Decision(NamedTuple):
    """How classes are told: the largest of `rows`, or by a threshold, of one label or of several.

    There is a count for each place of `shape`: `(rows,)`, or `(labels, rows)`.
    """

    metric: str
    threshold: float | None
    axis: int
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """The number of classes that there are for one label."""
        return self.shape[-1]

    def __call__(
        self,
        predictions: ArrayLike,
        targets: ArrayLike | None,
        weights: ArrayLike | None,
        dtype: jnp.dtype,
        ignore_index: int | None,
    ) -> _Seen:
        predictions, targets = arrays(self.metric, predictions, targets)
        kind = jnp.zeros((1,) * targets.ndim, jnp.int32)
        if self.threshold is None:
            chosen, label = classes_of(self.metric, predictions, targets, self.rows, self.axis)
            is_nan = jnp.any(jnp.isnan(predictions), self.axis)
        else:
            check_equal_shapes(self.metric, predictions, targets, " with a threshold")
            chosen = (predictions > self.threshold).astype(jnp.int32)
            label = is_positive(targets).astype(jnp.int32)
            is_nan = jnp.isnan(predictions)
            if len(self.shape) == 2:
                check_number_of_classes(self.metric, predictions, self.shape[0], self.axis)
                kind = jnp.arange(self.shape[0], dtype=jnp.int32)
                kind = jnp.moveaxis(kind.reshape((1,) * (targets.ndim - 1) + (-1,)), -1, self.axis)
        weight = element_weights(targets.shape, weights, dtype)
        weight = jnp.broadcast_to(weight, targets.shape)
        counted = counted_of(targets, ignore_index)
        weight = weight if counted is None else jnp.where(counted, weight, 0)
        is_unknown = ((label < 0) | (label >= self.rows)) & (weight != 0)
        weight = jnp.where(jnp.any(is_unknown), jnp.nan, weight)
        kind = jnp.broadcast_to(kind, targets.shape).astype(chosen.dtype)
        return _Seen(chosen, label, kind, weight, is_nan)


def _decision(metric: str, threshold: float | None, classes: int | None, axis: int) -> _Decision:
    if threshold is None and classes is None:
        raise ValueError(
            f"{metric}: threshold is None and classes is None, expected one of them at least: a "
            "threshold for binary classification, a number of classes, or both for several labels"
        )
    shape = () if classes is None else (check_count(metric, "classes", classes),)
    return _Decision(metric, threshold, axis, shape if threshold is None else (*shape, 2))


def _totals(index: jax.Array, weight: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The sum of the weights at each index into the flat array."""
    totals = jnp.zeros((math.prod(shape),), weight.dtype)
    return totals.at[index.reshape(-1)].add(weight.reshape(-1)).reshape(shape)
