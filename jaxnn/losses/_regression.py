"""Regression losses, one value per element."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import LEAST_POSITIVE, absolute, check_range, hyperparameter, widen
from jaxnn._core.meshes import placed_like
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import fitting, masked


def _errors(
    loss: str, predictions: ArrayLike, targets: ArrayLike | None, where: ArrayLike | None
) -> jax.Array:
    """`predictions - targets`, refusing to broadcast; 0 where `where` is False."""
    if targets is None:
        return masked(widen(predictions), where, loss)
    predictions, targets = fitting(loss, predictions=predictions, targets=targets)
    return masked(predictions - targets, where, loss)


@checked
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
    return jnp.square(_errors("squared_error", predictions, targets, where))


@checked
def l2_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, where: ArrayLike | None = None
) -> jax.Array:
    """Half the squared error, `(predictions - targets)² / 2`, whose derivative is the error.

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
        >>> nn.losses.l2_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
        Array([0. , 4.5], dtype=float32)
    """
    return 0.5 * jnp.square(_errors("l2_loss", predictions, targets, where))


@checked
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
    return absolute(_errors("absolute_error", predictions, targets, where))


@checked
def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    delta: Scalar = 1.0,
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
        ValueError: the shapes differ, or `delta` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.huber_loss(jnp.array([1.0, 2.0]), jnp.array([1.5, 5.0]))
        Array([0.125, 2.5  ], dtype=float32)
    """
    check_range("huber_loss", "delta", delta, 0)
    size = absolute(_errors("huber_loss", predictions, targets, where))
    delta = hyperparameter(delta, size.dtype)
    quadratic = jnp.minimum(size, delta)
    return 0.5 * jnp.square(quadratic) + delta * (size - quadratic)


@checked
def log_cosh(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, where: ArrayLike | None = None
) -> jax.Array:
    """The log-cosh loss, `log cosh(predictions - targets)`: a smooth absolute error.

    Its derivative is the hyperbolic tangent of the error. Small errors keep their precision, which
    they lose in `log(exp(e) + exp(-e)) - log 2`, as optax has it.

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
        >>> nn.losses.log_cosh(jnp.array([0.001, 1.0, 100.0])).tolist()
        [5.00000...e-07, 0.433780..., 99.306854...]
    """
    errors = _errors("log_cosh", predictions, targets, where)
    size = absolute(errors)
    is_small = size < 1
    half = jnp.where(is_small, errors, 0) / 2
    near = jnp.log1p(2 * jnp.square(jnp.sinh(half)))
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.where(is_small, near, far)


@checked
def quantile_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    quantile: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The quantile or pinball loss: `q e` for `e >= 0`, else `(q - 1) e`; `e` the error.

    The error is `targets - predictions`: with q = 0.9, a prediction that is too low costs nine
    times as much as one that is too high, and the best constant is the 0.9-quantile.

    Paper: Koenker and Bassett, Regression Quantiles, 1978.

    Args:
        predictions: any shape.
        targets: the same shape.
        quantile: q in [0, 1], a number or an array that broadcasts to the shape of `predictions`
            (one for each output); may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or `quantile` is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.quantile_loss(jnp.array([1.0, 1.0]), jnp.array([3.0, -1.0]), 0.75)
        Array([1.5, 0.5], dtype=float32)
    """
    check_range("quantile_loss", "quantile", quantile, 0, 1)
    errors = -_errors("quantile_loss", predictions, targets, where)
    quantile = hyperparameter(quantile, errors.dtype)
    try:
        quantile = placed_like(jnp.broadcast_to(quantile, errors.shape), errors)
    except ValueError as error:
        raise ValueError(
            f"quantile_loss: quantile has shape {quantile.shape}, expected one that broadcasts to "
            f"the shape {errors.shape} of the predictions"
        ) from error
    return errors * jnp.where(errors < 0, quantile - 1, quantile)


@checked
def absolute_percentage_error(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 1e-7,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The absolute error in percent: `100 |predictions - targets| / max(|targets|, epsilon)`.

    Its mean is Keras' `mean_absolute_percentage_error` (MAPE); scikit-learn's is a hundredth.

    Args:
        predictions: any shape.
        targets: the same shape.
        epsilon: the least size of a target, for those below it; more than 0, may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ, or `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.absolute_percentage_error(jnp.array([9.0, 3.0]), jnp.array([10.0, 2.0]))
        Array([10., 50.], dtype=float32)
    """
    function = "absolute_percentage_error"
    check_range(function, "epsilon", epsilon, LEAST_POSITIVE)
    errors = _errors(function, predictions, targets, where)
    _, targets = fitting(function, predictions=predictions, targets=targets)
    size = absolute(masked(targets, where, function, 1))
    return 100 * absolute(errors) / jnp.maximum(size, hyperparameter(epsilon, size.dtype))


@checked
def squared_logarithmic_error(
    predictions: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The squared error of logarithms: `(log(1 + predictions) - log(1 + targets))²`.

    For targets that grow exponentially. Negative numbers count as 0, with gradient 0. Its mean is
    the `mean_squared_logarithmic_error` (MSLE) of Keras and scikit-learn.

    Args:
        predictions: any shape.
        targets: the same shape.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.squared_logarithmic_error(jnp.array([0.0, 99.0]), jnp.array([0.0, 9.0]))
        Array([0.     , 5.30189...], dtype=float32)
    """
    function = "squared_logarithmic_error"
    pair = fitting(function, predictions=predictions, targets=targets)
    first, second = (masked(x, where, function) for x in pair)
    return jnp.square(_log1p(first) - _log1p(second))


def _log1p(x: jax.Array) -> jax.Array:
    return jnp.log1p(jnp.where(x < 0, 0, x))
