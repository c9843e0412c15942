"""Metrics that need all examples at once."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arrays import accumulator_dtype, check_count
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree
from jaxnn.metrics._accumulators import ExampleAccumulator, Metric, merge
from jaxnn.metrics._functions import Better
from jaxnn.metrics._means import (
    arrays,
    check_classes,
    check_equal_shapes,
    check_number_of_classes,
    element_weights,
    is_positive,
)

AVERAGES = ("macro", "weighted", None)


@constructor
def whole_set(
    function: Callable[[jax.Array, jax.Array, jax.Array], Any], *, better: Better | None = None
) -> Metric:
    """A metric that is no sum over examples, such as a rank statistic.

    The accumulator holds every example, so that the result is exact and the memory grows with the
    data set. `nn.evaluate`, `nn.fit` and `nn.training_run` allocate it for all examples beforehand.
    In loops of your own, accumulators are merged by `nn.metrics.merge`, or stacked by
    `jax.lax.scan` and `jax.lax.all_gather` and merged by `nn.metrics.merge_all`; added up, as by
    `jax.lax.psum`, they give NaN.

    Args:
        function: `function(predictions, targets, weights) -> value`, of all examples along axis 0;
            examples of weight 0 may have any values, and must be ignored.
        better: whether "less" or "more" of it is better, for early stopping; None for unknown.

    Returns:
        A `Metric` with accumulator `ExampleAccumulator(columns, parts)`; NaN for no examples.

    Raises:
        ValueError: the weights are not one for each example, or there are no targets.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> def largest_error(predictions, targets, weights):
        ...     return jnp.max(jnp.where(weights > 0, jnp.abs(predictions - targets), 0))
        >>> metric = nn.metrics.whole_set(largest_error)
        >>> predictions, targets = jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(3., dtype=float32)
    """
    return of_whole_set("whole_set", function, better=better)


def of_whole_set(
    metric: str,
    function: Callable[[jax.Array, jax.Array, jax.Array], Any],
    check: Callable[[jax.Array, jax.Array], None] = lambda predictions, targets: None,
    *,
    better: Better | None = "more",
) -> Metric:
    def init() -> ExampleAccumulator:
        return ExampleAccumulator((jnp.zeros((0,)),) * 3, jnp.ones((), jnp.int32))

    def update(
        accumulator: ExampleAccumulator,
        predictions: ArrayLike,
        targets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> PyTree:
        predictions, targets = arrays(metric, predictions, targets)
        check(predictions, targets)
        if predictions.shape[:1] != targets.shape[:1] or predictions.ndim == 0:
            raise ValueError(
                f"{metric}: predictions have shape {predictions.shape} and targets "
                f"{targets.shape}, expected as many examples along axis 0"
            )
        weight = element_weights(predictions.shape[:1], weights, jnp.result_type(float))
        weight = jnp.broadcast_to(weight, predictions.shape[:1])
        return merge(
            accumulator, ExampleAccumulator((predictions, targets, weight), accumulator.parts)
        )

    def compute(accumulator: ExampleAccumulator) -> Any:
        if accumulator.rows == 0:
            return jnp.full((), jnp.nan)
        predictions, targets, weights = accumulator.columns
        value = function(predictions, targets, weights)
        is_sound = (accumulator.parts == 1) & jnp.any(weights != 0)
        return jax.tree.map(lambda leaf: jnp.where(is_sound, leaf, jnp.nan), value)

    return Metric(init, update, compute, better)


@constructor
def roc_auc(
    classes: int | None = None,
    *,
    average: Literal["macro", "weighted"] | None = "macro",
    axis: int = -1,
) -> Metric:
    """The area under the ROC curve: how often a positive has a higher score than a negative.

    `Σ_i Σ_j w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / Σ_i Σ_j w_i w_j` over the positives i and the
    negatives j. Exact, ties and weights included, however the data set is split into batches: see
    `whole_set` for what that takes.

    Paper: Hanley and McNeil, The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve, 1982.

    Args:
        classes: None for binary classification: the predictions are scores (logits as well as
            probabilities), the targets of the same shape. Otherwise the number of classes, each
            against the rest: the predictions have their scores along `axis`, the targets are
            integer labels in the shape without it, or yes and no in the same shape, for labels of
            which several may hold.
        average: over the classes: "macro", the mean; "weighted", weighted by their frequency; None
            for a value each.
        axis: the axis of the classes.

    Returns:
        A `Metric`; NaN without a positive or without a negative, and for a score that is NaN.

    Raises:
        ValueError: `classes` is less than 1; `average` is none of the three; the shapes do not fit.
        TypeError: `classes` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.roc_auc()
        >>> scores, labels = jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([0, 0, 1, 1])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.875, dtype=float32)
    """
    return _of_scores("roc_auc", _area, classes, average, axis)


@constructor
def average_precision(
    classes: int | None = None,
    *,
    average: Literal["macro", "weighted"] | None = "macro",
    axis: int = -1,
) -> Metric:
    """Average precision: the precision at the score of each positive, averaged over the positives.

    The precision at a score is that of predicting "positive" from this score on. Exact, however the
    data set is split into batches: see `whole_set` for what that takes, and `roc_auc` for the
    arguments.

    Returns:
        A `Metric`; NaN without a positive (scikit-learn: 0), and for a score that is NaN.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.average_precision()
        >>> scores, labels = jnp.array([0.1, 0.4, 0.3, 0.8]), jnp.array([0, 0, 1, 1])
        >>> metric.compute(metric.update(metric.init(), scores, labels))
        Array(0.8333334, dtype=float32)
    """
    return _of_scores("average_precision", _mean_precision, classes, average, axis)


def _equal_shapes(metric: str) -> Callable[[jax.Array, jax.Array], None]:
    return lambda predictions, targets: check_equal_shapes(metric, predictions, targets)


def _of_scores(
    metric: str,
    statistic: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    classes: int | None,
    average: Literal["macro", "weighted"] | None,
    axis: int,
) -> Metric:
    """A statistic of scores and weights of the positive and the negative, for each class."""
    if average not in AVERAGES:
        raise ValueError(f"{metric}: average is {average!r}, expected one of {AVERAGES}")

    def of_one(scores: jax.Array, is_positive: jax.Array, weights: jax.Array) -> jax.Array:
        """Of scores and labels in one dimension; those with weight 0 may be NaN."""
        is_nan = jnp.any(jnp.isnan(scores) & (weights != 0))
        scores = jnp.where(weights != 0, scores, 0)
        order = jnp.argsort(scores)
        positive, negative = (
            jnp.where(chosen, weights, 0)[order] for chosen in (is_positive, ~is_positive)
        )
        return jnp.where(is_nan, jnp.nan, statistic(scores[order], positive, negative))

    def of_elements(predictions: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        weights = element_weights(targets.shape, weights, accumulator_dtype(predictions.dtype))
        weights = jnp.broadcast_to(weights, targets.shape).reshape(-1)
        return of_one(predictions.reshape(-1), is_positive(targets.reshape(-1)), weights)

    def of_classes(predictions: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        weights = element_weights(targets.shape, weights, accumulator_dtype(predictions.dtype))
        weights = jnp.broadcast_to(weights, targets.shape)
        scores = jnp.moveaxis(predictions, axis, 0).reshape(classes, -1)
        if targets.shape == predictions.shape:
            weights, is_positive = (
                jnp.moveaxis(x, axis, 0).reshape(classes, -1) for x in (weights, targets != 0)
            )
        else:
            numbers = jnp.arange(classes, dtype=jnp.int32)[:, None]
            is_positive = targets.reshape(-1).astype(jnp.int32)[None] == numbers
            weights = jnp.broadcast_to(weights.reshape(-1), is_positive.shape)
        frequencies = jnp.sum(jnp.where(is_positive, weights, 0), 1)
        values = jax.vmap(of_one)(scores, is_positive, weights)
        if average is None:
            return values
        if average == "macro":
            return jnp.mean(values)
        return jnp.sum(values * frequencies) / jnp.sum(frequencies)

    if classes is None:
        return of_whole_set(metric, of_elements, _equal_shapes(metric))
    check_count(metric, "classes", classes)

    def check(predictions: jax.Array, targets: jax.Array) -> None:
        if targets.shape != predictions.shape or predictions.ndim < 2:
            check_classes(metric, predictions, targets, axis)
        check_number_of_classes(metric, predictions, classes, axis)

    return of_whole_set(metric, of_classes, check)


def _area(scores: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    """The negatives below each positive, and half of those at its score."""
    first, last = ties(scores)
    below, up_to = _sum_below(negative)[first], jnp.cumsum(negative)[last]
    part = (below + up_to) / (2 * jnp.sum(negative))
    return jnp.sum(positive / jnp.sum(positive) * part)


def _mean_precision(scores: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    """The part of positives among those that have each positive's score or more."""
    first, _ = ties(scores)
    above, other = (jnp.sum(w) - _sum_below(w)[first] for w in (positive, negative))
    precision = above / jnp.where(positive == 0, 1, above + other)
    return jnp.sum(positive / jnp.sum(positive) * precision)


def ties(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and the last place with the same score as each place of sorted scores."""
    n = len(scores)
    places, edge, differs = jnp.arange(n), jnp.array([True]), scores[1:] != scores[:-1]
    first = lax.cummax(jnp.where(jnp.concatenate([edge, differs]), places, 0))
    last = lax.cummin(jnp.where(jnp.concatenate([differs, edge]), places, n - 1), reverse=True)
    return first, last


def _sum_below(weights: jax.Array) -> jax.Array:
    """The sum of the weights before each place."""
    return jnp.concatenate([jnp.zeros((1,), weights.dtype), jnp.cumsum(weights)[:-1]])
