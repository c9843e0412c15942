"""Regression losses, one value per element."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import absolute, check_range, hyperparameter, promoted, widen
from jaxnn.losses._masks import masked


def _errors(loss: str, predictions: ArrayLike, targets: ArrayLike | None) -> jax.Array:
    """`predictions - targets`, refusing to broadcast."""
    predictions = widen(predictions)
    if targets is None:
        return predictions
    targets = jnp.asarray(targets)
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{loss}: predictions have shape {predictions.shape} and targets {targets.shape}, "
            "expected equal shapes"
        )
    dtype = promoted(predictions.dtype, targets.dtype)
    return predictions.astype(dtype) - targets.astype(dtype)


def squared_error(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, where: ArrayLike | None = None
) -> jax.Array:
    """The squared error, `(predictions - targets)²`.

    Args:
        predictions: any shape.
        targets: the same shape; zeros if None.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
        Array([0., 9.], dtype=float32)
    """
    errors = masked(_errors("squared_error", predictions, targets), where, "squared_error")
    return jnp.square(errors)


def absolute_error(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, where: ArrayLike | None = None
) -> jax.Array:
    """The absolute error, `|predictions - targets|`; its derivative at 0 is 0.

    Args:
        predictions: any shape.
        targets: the same shape; zeros if None.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
        Array([0., 3.], dtype=float32)
    """
    errors = masked(_errors("absolute_error", predictions, targets), where, "absolute_error")
    return absolute(errors)


def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    delta: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Huber loss: `e² / 2` for `|e| <= delta`, else `delta (|e| - delta / 2)`.

    Paper: Huber, Robust Estimation of a Location Parameter, 1964.

    Args:
        predictions: any shape.
        targets: the same shape; zeros if None.
        delta: where the quadratic becomes linear, at least 0; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ, or `delta` is known and negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.huber_loss(jnp.array([1.0, 2.0]), jnp.array([1.5, 5.0]))
        Array([0.125, 2.5  ], dtype=float32)
    """
    check_range("huber_loss", "delta", delta, 0)
    size = absolute(masked(_errors("huber_loss", predictions, targets), where, "huber_loss"))
    delta = hyperparameter(delta, size.dtype)
    quadratic = jnp.minimum(size, delta)
    return 0.5 * jnp.square(quadratic) + delta * (size - quadratic)
