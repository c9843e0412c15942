"""Metrics: triples of pure functions over an accumulator whose parts add.

The accumulators of two batches, or of two devices, are merged by adding them leaf by leaf, as
`jax.lax.psum` does; what is computed from the sum is the metric of the whole set, exactly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import PyTree, accumulator_dtype

__all__ = ["Metric", "accuracy", "mean"]


class Metric(NamedTuple):
    """A metric: three pure functions.

    `init() -> accumulator`, all zeros;
    `update(accumulator, predictions, targets=None, weights=None) -> accumulator`, with one weight
    for each example (axis 0), 1 if None;
    `compute(accumulator) -> value`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean()
        >>> first = metric.update(metric.init(), jnp.array([1.0, 2.0]))
        >>> second = metric.update(metric.init(), jnp.array([6.0]))
        >>> metric.compute(jax.tree.map(jnp.add, first, second))
        Array(3., dtype=float32)
    """

    init: Callable[[], PyTree]
    update: Callable[..., PyTree]
    compute: Callable[[PyTree], Any]


class MeanAccumulator(NamedTuple):
    """A weighted sum of values and the sum of their weights."""

    total: jax.Array
    weight: jax.Array


def mean(function: Callable[[Any, Any], ArrayLike] | None = None) -> Metric:
    """The weighted mean over all elements: `Σ w v / Σ w`, NaN for none.

    Args:
        function: `function(predictions, targets) -> values`, of shape `(batch, ...)`, as any of
            `nn.losses`; None for the predictions themselves.

    Returns:
        A `Metric`.

    Raises:
        ValueError: the weights are not one for each example.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> error = nn.metrics.mean(nn.losses.absolute_error)
        >>> sums = error.update(error.init(), jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0]))
        >>> error.compute(sums)
        Array(2., dtype=float32)
    """

    def init() -> PyTree:
        return MeanAccumulator(jnp.zeros(()), jnp.zeros(()))

    def update(
        accumulator: PyTree, predictions: Any, targets: Any = None, weights: ArrayLike | None = None
    ) -> PyTree:
        values = predictions if function is None else function(predictions, targets)
        total, weight = weighted_sums(values, weights)
        return MeanAccumulator(
            accumulator.total + total.astype(accumulator.total.dtype),
            accumulator.weight + weight.astype(accumulator.weight.dtype),
        )

    def compute(accumulator: PyTree) -> jax.Array:
        some = accumulator.weight != 0
        quotient = accumulator.total / jnp.where(some, accumulator.weight, 1)
        return jnp.where(some, quotient, jnp.nan)

    return Metric(init, update, compute)


def weighted_sums(
    values: ArrayLike, weights: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """`(Σ w v, Σ w)` over all elements, the weights being one for each example of axis 0.

    Values with weight 0 count for nothing, NaN and infinity included.
    """
    values = jnp.asarray(values)
    values = values.astype(accumulator_dtype(values.dtype))
    if weights is None:
        return jnp.sum(values), jnp.asarray(values.size, values.dtype)
    weights = jnp.asarray(weights).astype(values.dtype)
    if values.ndim == 0 or weights.shape != values.shape[:1]:
        raise ValueError(
            f"weights have shape {weights.shape}, expected one for each example of values of "
            f"shape {values.shape}"
        )
    per_value = weights.reshape(weights.shape + (1,) * (values.ndim - 1))
    weighted = jnp.where(per_value != 0, per_value * values, 0)
    elements_per_example = values.size // max(values.shape[0], 1)
    return jnp.sum(weighted), jnp.sum(weights) * elements_per_example


def accuracy(threshold: float | None = None, axis: int = -1) -> Metric:
    """The fraction of right predictions.

    Args:
        threshold: None for classes: the prediction is the largest logit (or probability) along
            `axis`. A number for yes or no: the prediction is yes where it is more than the
            threshold (0 for logits, 0.5 for probabilities).
        axis: the axis of the classes.

    Returns:
        A `Metric`. For classes the targets are integers, in the shape of the predictions without
        `axis`, or distributions of the same shape, of which the largest counts; for yes or no
        they have the shape of the predictions.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.accuracy()
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
        >>> metric.compute(metric.update(metric.init(), logits, jnp.array([0, 1, 1])))
        Array(0.6666667, dtype=float32)
    """

    def is_right(predictions: ArrayLike, targets: ArrayLike | None) -> jax.Array:
        if targets is None:
            raise ValueError("accuracy: targets is None, expected an array")
        predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
        same_shape = predictions.shape == targets.shape
        if threshold is None:
            classes = jnp.argmax(predictions, axis)
            if same_shape:
                targets = jnp.argmax(targets, axis)
        else:
            classes = predictions > threshold
            targets = targets.astype(bool)
        if classes.shape != targets.shape:
            raise ValueError(
                f"accuracy: predictions have shape {predictions.shape} and targets "
                f"{targets.shape}, expected targets of the same shape"
                + ("" if threshold is not None else f" or of shape {classes.shape}")
            )
        return classes == targets.astype(classes.dtype)

    return mean(is_right)
