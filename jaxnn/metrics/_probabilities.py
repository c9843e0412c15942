"""Metrics of predicted probabilities: how surprising the truth is, how far they can be trusted."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_count, floating, widen
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree
from jaxnn.losses import sigmoid_binary_cross_entropy, softmax_cross_entropy
from jaxnn.metrics._accumulators import Metric, merge, summed
from jaxnn.metrics._means import (
    MeanAccumulator,
    arrays,
    check_equal_shapes,
    classes_of,
    counted_of,
    element_weights,
    is_positive,
    mean_of,
)


@constructor
def log_loss(
    classes: int | None = None,
    axis: int = -1,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
) -> Metric:
    """Log loss: the mean cross-entropy of the true classes.

    `mean -log p(class)` for several classes, `mean -(t log p + (1 - t) log(1 - p))` for yes or no.

    Args:
        classes: None for one or several questions of yes or no: the targets have the shape of the
            predictions. Otherwise the number of classes along `axis` of the predictions; the
            targets are integer labels in the shape without it.
        axis: the axis of the classes.
        from_logits: whether the predictions are logits; otherwise probabilities, which are kept
            away from 0 (and 1) by the precision of their dtype, as in scikit-learn.
        ignore_index: the target of elements to ignore; None for none.

    Returns:
        A `Metric`; NaN for a label outside [0, classes).

    Raises:
        ValueError: `classes` is less than 1; the shapes do not fit.
        TypeError: `classes` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.log_loss(2, from_logits=False)
        >>> probabilities = jnp.array([[0.5, 0.5], [0.25, 0.75]])
        >>> metric.compute(metric.update(metric.init(), probabilities, jnp.array([0, 1]))).round(4)
        Array(0.4904, dtype=float32)
    """
    if classes is not None:
        check_count("log_loss", "classes", classes)

    def entropy(
        predictions: ArrayLike, targets: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array | None]:
        predictions, targets = arrays("log_loss", predictions, targets)
        logits = widen(predictions)
        if not from_logits:
            margin = float(jnp.finfo(floating(predictions).dtype).eps)
            p = jnp.clip(logits, margin, 1 - margin)
            logits = jnp.log(p) if classes is not None else jnp.log(p) - jnp.log1p(-p)
        counted = counted_of(targets, ignore_index)
        if classes is not None:
            classes_of("log_loss", predictions, targets, classes, axis)
            return softmax_cross_entropy(logits, targets, axis, ignore_index=ignore_index), counted
        check_equal_shapes("log_loss", predictions, targets, " without classes")
        yes = jnp.where(is_positive(targets), targets, jnp.zeros_like(targets))
        return sigmoid_binary_cross_entropy(logits, yes), counted

    return mean_of(entropy, better="less")


@constructor
def expected_calibration_error(
    classes: int | None = None,
    bins: int = 15,
    axis: int = -1,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
) -> Metric:
    """Expected calibration error: how far confidence is from how often it is right.

    `Σ_b |Σ_{i in b} w_i (right_i - confidence_i)| / Σ w` over bins b of equal width of the
    confidence: the largest probability with `classes`, else the probability of yes, which is right
    where the target is yes.

    Paper: Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        classes: as in `log_loss`.
        bins: the number of bins of [0, 1], each of which includes its upper edge.
        axis: the axis of the classes.
        from_logits: whether the predictions are logits; otherwise probabilities.
        ignore_index: the target of elements to ignore; None for none.

    Returns:
        A `Metric` with accumulator `MeanAccumulator(total, weight)`, the total of each bin; NaN for
        a label outside [0, classes).

    Raises:
        ValueError: `classes` or `bins` is less than 1; the shapes do not fit.
        TypeError: `classes` or `bins` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.expected_calibration_error(from_logits=False)
        >>> probabilities = jnp.array([0.75, 0.75, 0.75, 0.75])
        >>> sums = metric.update(metric.init(), probabilities, jnp.array([1, 0, 1, 0]))
        >>> metric.compute(sums)
        Array(0.25, dtype=float32)
    """
    metric = "expected_calibration_error"
    check_count(metric, "bins", bins)
    if classes is not None:
        check_count(metric, "classes", classes)

    def init() -> MeanAccumulator:
        return MeanAccumulator(summed(jnp.zeros((bins,))), summed(jnp.zeros(())))

    def confidence_and_right(
        predictions: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        scores = widen(predictions)
        if classes is None:
            check_equal_shapes(metric, predictions, targets, " without classes")
            yes = jax.nn.sigmoid(scores) if from_logits else scores
            return yes, is_positive(targets)
        chosen, label = classes_of(metric, predictions, targets, classes, axis)
        probabilities = jax.nn.softmax(scores, axis) if from_logits else scores
        is_class = (label >= 0) & (label < classes)
        return jnp.where(is_class, jnp.max(probabilities, axis), jnp.nan), chosen == label

    def update(
        accumulator: PyTree, predictions: Any, targets: Any = None, weights: ArrayLike | None = None
    ) -> PyTree:
        predictions, targets = arrays(metric, predictions, targets)
        confidence, right = confidence_and_right(predictions, targets)
        dtype = accumulator.total.value.dtype
        w = jnp.broadcast_to(element_weights(targets.shape, weights, dtype), targets.shape)
        counted = counted_of(targets, ignore_index)
        w = w if counted is None else jnp.where(counted, w, 0)
        gap = jnp.where(w != 0, w * (right.astype(dtype) - confidence.astype(dtype)), 0)
        place = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        gaps = jnp.zeros((bins,), dtype).at[place.reshape(-1)].add(gap.reshape(-1))
        return merge(accumulator, MeanAccumulator(summed(gaps), summed(jnp.sum(w))))

    def compute(accumulator: PyTree) -> jax.Array:
        gaps, weight = (field.total() for field in accumulator)
        some = weight != 0
        total = jnp.sum(jnp.abs(gaps))
        return jnp.where(some, total / jnp.where(some, weight, 1), jnp.nan)

    return Metric(init, update, compute, "less")
