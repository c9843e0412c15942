"""Probabilities that can be trusted, of a classifier that is trained already."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import canonical_axes, widen
from jaxnn.metrics._means import element_weights

LARGEST = 1000.0
STEPS = 40


@checked
def temperature_scaling(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, axis: int = -1
) -> jax.Array:
    """The temperature T for which `softmax(logits / T)` has the least cross-entropy.

    One number, found on examples that were not trained on, which makes the probabilities of a
    trained classifier calibrated and leaves its decisions as they are. The loss is convex in `1 /
    T`: T is found by bisection of its derivative. See `nn.metrics.expected_calibration_error`.

    Paper: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599

    Args:
        logits: shape `(batch, ..., classes)`, of held-out examples.
        labels: integer classes, in the shape of the logits without `axis`.
        weights: weights of the examples, of the first axes of the labels; None for 1.
        axis: the axis of the classes.

    Returns:
        A scalar in [0.001, 1000]; at an end of it if all decisions are right, or the logits are
        worse than none.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> T = nn.temperature_scaling(logits, jnp.array([0, 0, 1, 1]))
        >>> jax.nn.softmax(logits / T)[0].round(2)        # three of four are right
        Array([0.75, 0.25], dtype=float32)
    """
    logits, labels = widen(logits), jnp.asarray(labels)
    (axis,) = canonical_axes(axis, logits.ndim, "temperature_scaling", "logits")
    if labels.shape != logits.shape[:axis] + logits.shape[axis + 1 :]:
        raise ValueError(
            f"temperature_scaling: logits have shape {logits.shape} and labels {labels.shape}, "
            f"expected labels in the shape of the logits without axis {axis}"
        )
    scores = jnp.moveaxis(logits, axis, -1)
    places = jnp.arange(scores.shape[-1], dtype=jnp.int32).reshape((1,) * labels.ndim + (-1,))
    is_own = labels.astype(jnp.int32)[..., None] == places
    margins = scores - jnp.sum(jnp.where(is_own, scores, 0), -1, keepdims=True)
    w = element_weights(labels.shape, weights, scores.dtype)

    def slope(log_inverse: jax.Array) -> jax.Array:
        """The derivative of the loss in 1 / T, which grows with it."""
        p = jax.nn.softmax(margins * jnp.exp(log_inverse), -1)
        return jnp.sum(w * jnp.sum(p * margins, -1))

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        falls = slope(middle) < 0
        return jnp.where(falls, middle, low), jnp.where(falls, high, middle)

    limit = jnp.log(jnp.asarray(LARGEST, scores.dtype))
    low, high = lax.fori_loop(0, STEPS, halve, (-limit, limit))
    return jnp.exp(-(low + high) / 2)
