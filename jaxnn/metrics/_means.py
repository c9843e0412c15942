"""Metrics that are means over examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    accumulator_dtype,
    canonical_axes,
    check_count,
    check_range,
    hyperparameter,
    wide_integers,
    widen,
)
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.losses import (
    Weighted,
    absolute_error,
    absolute_percentage_error,
    softmax_cross_entropy,
    squared_error,
)
from jaxnn.losses._left_out import values_to_average
from jaxnn.metrics._accumulators import CompensatedSum, Metric, merge, summed
from jaxnn.metrics._functions import Better


class MeanAccumulator(NamedTuple):
    """A weighted sum of values, and the sum of their weights."""

    total: CompensatedSum | jax.Array
    weight: CompensatedSum | jax.Array


@constructor
def mean(
    function: Callable[[Any, Any], ArrayLike] | None = None, *, better: Better | None = None
) -> Metric:
    """The weighted mean over all elements: `Σ w v / Σ w`, NaN for none.

    Args:
        function: `function(predictions, targets) -> values`, of shape `(batch, ...)`, as any of
            `nn.losses`, or `nn.losses.Weighted`; None for the predictions themselves.
        better: whether "less" or "more" of it is better, for early stopping; None for unknown.

    Returns:
        A `Metric` with accumulator `MeanAccumulator(total, weight)`.

    Raises:
        ValueError: the weights are not one for each example.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> error = nn.metrics.mean(nn.losses.absolute_error)
        >>> sums = error.update(error.init(), jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0]))
        >>> error.compute(sums)
        Array(2., dtype=float32)
    """

    def values(predictions: Any, targets: Any) -> tuple[ArrayLike, None]:
        if function is None:
            return predictions, None
        return values_to_average("mean", function, predictions, targets), None

    return mean_of(values, better=better)


@constructor
def accuracy(
    threshold: float | None = None, axis: int = -1, *, ignore_index: int | None = None
) -> Metric:
    """Accuracy: the fraction of correct predictions.

    Args:
        threshold: None for several classes: the prediction is the largest logit (or probability)
            along `axis`. A number for binary classification: a prediction is positive where it is
            greater (0 for logits, 0.5 for probabilities).
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore, as of padded tokens; None for none.

    Returns:
        A `Metric`. NaN is wrong. The targets are integer labels, in the shape of the predictions
        without `axis`, or distributions of the same shape, of which the largest counts; in binary
        classification they have the shape of the predictions.

    Raises:
        ValueError: the shapes do not fit, or there is one class only.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.accuracy()
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
        >>> metric.compute(metric.update(metric.init(), logits, jnp.array([0, 1, 1])))
        Array(0.6666667, dtype=float32)
    """

    def is_right(
        predictions: ArrayLike, targets: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array | None]:
        predictions, targets = arrays("accuracy", predictions, targets)
        same_shape = predictions.shape == targets.shape
        if threshold is not None:
            check_equal_shapes("accuracy", predictions, targets, " with a threshold")
            correct = (predictions > threshold) == is_positive(targets)
            return correct & ~jnp.isnan(predictions), counted_of(targets, ignore_index)
        if same_shape and predictions.ndim > 1 and predictions.shape[axis] > 1:
            targets = jnp.argmax(targets, axis)
        check_classes("accuracy", predictions, targets, axis)
        classes = jnp.argmax(predictions, axis)
        correct = classes == targets.astype(classes.dtype)
        correct &= ~jnp.any(jnp.isnan(predictions), axis)  # of NaN, argmax takes the first
        return correct, counted_of(targets, ignore_index)

    return mean_of(is_right, better="more")


@constructor
def top_k_accuracy(k: int, axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Top-k accuracy: the fraction of labels among the k largest predictions.

    Of equal predictions the first counts as the largest, as in `accuracy`, which it equals for
    k = 1.

    Args:
        k: the number of predictions, at least 1.
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore; None for none.

    Returns:
        A `Metric`. The targets are integer labels, in the shape of the predictions without `axis`.

    Raises:
        ValueError: `k` is less than 1, or the shapes do not fit.
        TypeError: `k` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.top_k_accuracy(2)
        >>> logits = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
        >>> metric.compute(metric.update(metric.init(), logits, jnp.array([2, 0])))
        Array(0.5, dtype=float32)
    """
    check_count("top_k_accuracy", "k", k)

    def is_right(
        predictions: ArrayLike, targets: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array | None]:
        predictions, targets = arrays("top_k_accuracy", predictions, targets)
        check_classes("top_k_accuracy", predictions, targets, axis)
        scores = jnp.moveaxis(predictions, axis, -1)
        classes = jnp.arange(scores.shape[-1]).reshape((1,) * targets.ndim + (-1,))
        label = targets[..., None].astype(classes.dtype)
        own = jnp.sum(jnp.where(classes == label, scores, 0), -1, keepdims=True, dtype=scores.dtype)
        is_ahead = ~(scores <= own) | ((scores == own) & (classes < label))  # NaN is ahead of all
        rank = jnp.sum(is_ahead, -1)
        exists = (targets >= 0) & (targets < scores.shape[-1])
        return (rank < k) & exists, counted_of(targets, ignore_index)

    return mean_of(is_right, better="more")


@constructor
def perplexity(axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Perplexity: the exponential of the mean cross-entropy.

    As many equally likely classes would be as hard to predict.

    Args:
        axis: the axis of the classes.
        ignore_index: the label of elements to ignore, as of padded tokens; None for none.

    Returns:
        A `Metric`. The predictions are logits, the targets integer labels in the shape of the
        logits without `axis`, or distributions, as in `softmax_cross_entropy`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.perplexity()
        >>> tokens = jnp.array([[0, 1, 2], [3, 4, 5]])
        >>> metric.compute(metric.update(metric.init(), jnp.zeros((2, 3, 8)), tokens)).round(3)
        Array(8., dtype=float32)
    """

    def entropy(
        predictions: ArrayLike, targets: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array | None]:
        predictions, targets = arrays("perplexity", predictions, targets)
        values = softmax_cross_entropy(predictions, targets, axis, ignore_index=ignore_index)
        return values, counted_of(targets, ignore_index)

    return mean_of(entropy, jnp.exp, better="less")


@constructor
def mean_absolute_error() -> Metric:
    """Mean absolute error: the mean over all elements of `|predictions - targets|`.

    Returns:
        A `Metric`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean_absolute_error()
        >>> predictions, targets = jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(2., dtype=float32)
    """
    return mean(absolute_error, better="less")


@constructor
def mean_absolute_percentage_error() -> Metric:
    """Mean absolute percentage error: the mean of `100 |predictions - targets| / |targets|`.

    In percent, as in Keras; scikit-learn's is a hundredth of it. Targets of less than 1e-7 count as
    1e-7: see `nn.losses.absolute_percentage_error`.

    Returns:
        A `Metric`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean_absolute_percentage_error()
        >>> predictions, targets = jnp.array([9.0, 3.0]), jnp.array([10.0, 2.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(30., dtype=float32)
    """
    return mean(absolute_percentage_error, better="less")


@constructor
def mean_squared_error() -> Metric:
    """Mean squared error: the mean over all elements of `(predictions - targets)²`.

    Returns:
        A `Metric`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean_squared_error()
        >>> predictions, targets = jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(5., dtype=float32)
    """
    return mean(squared_error, better="less")


@constructor
def root_mean_squared_error() -> Metric:
    """Root mean squared error: the square root of the mean of `(predictions - targets)²`.

    Of several outputs, scikit-learn averages the roots, one for each; here there is one root.

    Returns:
        A `Metric`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.root_mean_squared_error()
        >>> predictions, targets = jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(1., dtype=float32)
    """
    return mean_of(
        lambda predictions, targets: (squared_error(predictions, targets), None),
        jnp.sqrt,
        better="less",
    )


@constructor
def psnr(data_range: Scalar = 1.0) -> Metric:
    """Peak signal-to-noise ratio in decibels: `10 log10(data_range² / mean squared error)`.

    The mean over examples, each with a ratio of its own: infinite where it has no error.

    Args:
        data_range: the largest value less the smallest that a signal can have, as 255 or 1 for
            images; more than 0.

    Returns:
        A `Metric`. The predictions and targets have the same shape, `(batch, ...)`.

    Raises:
        ValueError: `data_range` is not positive; the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.psnr()
        >>> images, wanted = jnp.full((2, 8, 8, 3), 0.5), jnp.full((2, 8, 8, 3), 0.6)
        >>> metric.compute(metric.update(metric.init(), images, wanted)).round(2)
        Array(20., dtype=float32)
    """
    check_range("psnr", "data_range", data_range, LEAST_POSITIVE)

    def ratio(predictions: ArrayLike, targets: ArrayLike | None) -> tuple[jax.Array, None]:
        predictions, targets = arrays("psnr", predictions, targets)
        check_equal_shapes("psnr", predictions, targets)
        if predictions.ndim == 0:
            raise ValueError("psnr: predictions have shape (), expected (batch, ...)")
        errors = squared_error(widen(predictions), widen(targets))
        error = jnp.mean(errors, range(1, errors.ndim))
        peak = 20 * jnp.log10(hyperparameter(data_range, error.dtype))
        return peak - 10 * jnp.log10(error), None

    return mean_of(ratio, better="more")


def mean_of(
    function: Callable[[Any, Any], tuple[ArrayLike, jax.Array | None]],
    last: Callable[[jax.Array], jax.Array] = lambda value: value,
    *,
    better: Better | None,
) -> Metric:
    """The mean of the values of a function, which may tell which of them count; then `last`."""

    def init() -> MeanAccumulator:
        return MeanAccumulator(summed(jnp.zeros(())), summed(jnp.zeros(())))

    def update(
        accumulator: PyTree, predictions: Any, targets: Any = None, weights: ArrayLike | None = None
    ) -> PyTree:
        values, counted = function(predictions, targets)
        if isinstance(values, Weighted):
            values, weights = _with_own_weights(values, weights)
        sums = weighted_sums(values, weights, counted)
        dtype = accumulator.total.value.dtype
        return merge(accumulator, MeanAccumulator(*(summed(s.astype(dtype)) for s in sums)))

    def compute(accumulator: PyTree) -> jax.Array:
        total, weight = (_number(field) for field in accumulator)
        some = weight != 0
        return last(jnp.where(some, total / jnp.where(some, weight, 1), jnp.nan))

    return Metric(init, update, compute, better)


def _with_own_weights(weighted: Weighted, weights: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    if np.shape(weighted.values) != np.shape(weighted.weights):
        raise ValueError(
            f"Weighted: the values have shape {np.shape(weighted.values)} and their weights "
            f"{np.shape(weighted.weights)}, expected one shape"
        )
    values, own = map(jnp.atleast_1d, weighted)  # one value, of the whole batch, is a mean
    if weights is not None:
        own = own * element_weights(own.shape, weights, own.dtype)
    return values, own


def _number(part: CompensatedSum | jax.Array) -> jax.Array:
    return part.total() if isinstance(part, CompensatedSum) else part


def counted_of(targets: jax.Array, ignore_index: int | None) -> jax.Array | None:
    return None if ignore_index is None else targets != ignore_index


def weighted_sums(
    values: ArrayLike, weights: ArrayLike | None = None, counted: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """`(Σ w v, Σ w)` over all elements, the weights being one for each example of axis 0.

    Values with weight 0, or not `counted`, count for nothing, NaN and infinity included.
    """
    values = jnp.asarray(values)
    values = values.astype(accumulator_dtype(values.dtype))
    if weights is None and counted is None:
        return jnp.sum(values), jnp.asarray(values.size, values.dtype)
    per_value = element_weights(values.shape, weights, values.dtype)
    if counted is not None:
        per_value = jnp.where(counted, per_value, 0)
    weighted = jnp.where(per_value != 0, per_value * values, 0)
    values_per_weight = values.size // max(per_value.size, 1)
    return jnp.sum(weighted), jnp.sum(per_value) * values_per_weight


def element_weights(
    shape: tuple[int, ...], weights: ArrayLike | None, dtype: jnp.dtype
) -> jax.Array:
    """Weights, of the first axes of `shape`, so that they broadcast to it; ones for None."""
    if weights is None:
        return jnp.ones((1,) * len(shape), dtype)
    weights = jnp.asarray(weights).astype(dtype)
    if weights.ndim == 0 or weights.shape != shape[: weights.ndim]:
        raise ValueError(
            f"weights have shape {weights.shape}, expected the shape {shape} of the values or its "
            "first axes: one for each example at least"
        )
    return weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))


def arrays(
    metric: str, predictions: ArrayLike, targets: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Both as arrays; targets are required."""
    if targets is None:
        raise ValueError(f"{metric}: targets is None, expected an array")
    return jnp.asarray(predictions), wide_integers(targets)


def is_positive(targets: jax.Array) -> jax.Array:
    """Which binary labels are positive: those above 0, of 0 and 1 as of -1 and 1."""
    return targets if targets.dtype == bool else targets > 0


def check_equal_shapes(
    metric: str, predictions: jax.Array, targets: jax.Array, where: str = ""
) -> None:
    """Raise unless there is a target for each prediction, as `where` needs it."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{metric}: predictions have shape {predictions.shape} and targets {targets.shape}, "
            f"expected targets of the same shape{where}"
        )


def classes_of(
    metric: str, predictions: jax.Array, targets: jax.Array, classes: int, axis: int
) -> tuple[jax.Array, jax.Array]:
    """The predicted and the true classes, in one shape."""
    check_classes(metric, predictions, targets, axis)
    check_number_of_classes(metric, predictions, classes, axis)
    chosen = jnp.argmax(predictions, axis)
    return chosen, targets.astype(chosen.dtype)


def check_number_of_classes(metric: str, predictions: jax.Array, classes: int, axis: int) -> None:
    """Raise unless the predictions have as many classes along `axis`."""
    (axis,) = canonical_axes(axis, predictions.ndim, metric, "predictions")
    if predictions.shape[axis] != classes:
        raise ValueError(
            f"{metric}: predictions have shape {predictions.shape}, expected {classes} classes in "
            f"axis {axis}"
        )


def check_classes(metric: str, predictions: jax.Array, targets: jax.Array, axis: int) -> None:
    """Raise unless there is a target for each vector of predictions along `axis`."""
    (axis,) = canonical_axes(axis, predictions.ndim, metric, "predictions")
    if predictions.shape[axis] == 1 or (predictions.ndim == 1 and targets.ndim == 1):
        raise ValueError(
            f"{metric}: predictions have shape {predictions.shape}, expected two classes at least "
            f"in axis {axis}; one score for each example is a binary model, which accuracy(0.0) "
            "takes for logits and accuracy(0.5) for probabilities"
        )
    expected = predictions.shape[:axis] + predictions.shape[axis + 1 :]
    if targets.shape != expected:
        raise ValueError(
            f"{metric}: predictions have shape {predictions.shape} and targets {targets.shape}, "
            f"expected targets of the same shape or of shape {expected}"
        )
