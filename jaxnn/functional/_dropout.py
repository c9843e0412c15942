"""Dropout and noise."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    canonical_axes,
    check_key,
    check_range,
    concrete,
    floating,
    hyperparameter,
    real_dtype,
    refuse_complex,
    widen,
)
from jaxnn._core.types import Axes, Scalar


@checked
def dropout(key: jax.Array, x: ArrayLike, rate: Scalar, *, broadcast_dims: Axes = ()) -> jax.Array:
    """Set each element to zero with probability `rate`, scale the others to keep the mean.

    `y = x * keep / (1 - rate)`, `keep ~ Bernoulli(1 - rate)`; a rate of 1 gives zeros.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        key: a typed PRNG key. Under `jax.shard_map` every device draws the same mask, unless its
            index is folded in: `jax.random.fold_in(key, jax.lax.axis_index("batch"))`.
        x: any shape, floating (integers become the default float).
        rate: the probability of dropping an element, in [0, 1]; may be traced.
        broadcast_dims: the axes along which elements are dropped together: `(1,)` drops a feature
            of a sequence `(batch, time, features)` at all times.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `rate` is known and outside [0, 1]; `broadcast_dims` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.dropout(jax.random.key(0), jnp.ones(8), 0.5)
        Array([...], dtype=float32)
    """
    x = floating(x)
    together = canonical_axes(broadcast_dims, x.ndim, "dropout: broadcast_dims")
    mask = tuple(1 if a in together else size for a, size in enumerate(x.shape))
    return _drop("dropout", key, x, rate, mask)


@checked
def spatial_dropout(key: jax.Array, x: ArrayLike, rate: Scalar) -> jax.Array:
    """Set whole channels to zero with probability `rate`, scale the others to keep the mean.

    `y = x * keep / (1 - rate)`, where `keep` is the same all over the spatial axes: neighbouring
    pixels are alike, so that dropping single ones would hide little. A rate of 1 gives zeros.

    Paper: Tompson et al., Efficient Object Localization Using Convolutional Networks,
    https://arxiv.org/abs/1411.4280

    Args:
        key: a typed PRNG key.
        x: shape `(batch, *spatial, channels)`.
        rate: the probability of dropping a channel of an example, in [0, 1]; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `rate` is known and outside [0, 1], or `x` has fewer than two axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> y = nn.functional.spatial_dropout(jax.random.key(0), jnp.ones((2, 5, 5, 3)), 0.5)
        >>> bool((y == y[:, :1, :1]).all())
        True
    """
    x = floating(x)
    if x.ndim < 2:
        raise ValueError(
            f"spatial_dropout: x has shape {x.shape}, expected shape (batch, *spatial, channels)"
        )
    mask = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
    return _drop("spatial_dropout", key, x, rate, mask)


@checked
def stochastic_depth(key: jax.Array, x: ArrayLike, rate: Scalar) -> jax.Array:
    """Set whole examples to zero with probability `rate`, scale the others to keep the mean.

    `y = x * keep / (1 - rate)`, with one `keep` for each example: on a residual branch this leaves
    out the branch ("drop path"). A rate of 1 gives zeros.

    Paper: Huang et al., Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382

    Args:
        key: a typed PRNG key.
        x: shape `(batch, ...)`.
        rate: the probability of dropping an example, in [0, 1]; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `rate` is known and outside [0, 1], or `x` has no batch axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> y = nn.functional.stochastic_depth(jax.random.key(0), jnp.ones((4, 3)), 0.5)
        >>> bool((y == y[:, :1]).all())
        True
    """
    x = floating(x)
    if x.ndim == 0:
        raise ValueError("stochastic_depth: x is a scalar, expected shape (batch, ...)")
    return _drop("stochastic_depth", key, x, rate, (x.shape[0], *[1] * (x.ndim - 1)))


def _drop(
    function: str, key: jax.Array, x: jax.Array, rate: Scalar, mask_shape: tuple[int, ...]
) -> jax.Array:
    """`x` times a mask of a shape that broadcasts to that of `x`, scaled to keep the mean."""
    check_key(function, key)
    check_range(function, "rate", rate, 0, 1)
    wide = widen(x)
    # In float32: bfloat16 cannot tell 0.999 from 1.
    rate = hyperparameter(rate, real_dtype(wide.dtype))
    keep = _keep(key, rate, mask_shape)
    scale = jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1), 0)
    return jnp.where(keep, wide * scale.astype(wide.dtype), 0).astype(x.dtype)


def _keep(key: jax.Array, rate: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Booleans of which each is false with probability `rate`, exact to 2^-32.

    Drawing is what dropout costs, so a word of 32 bits decides twice: as it is, and with its halves
    swapped. What one of the two tells of the other is below 2^-16.
    """
    *others, n = shape or (1,)
    words = jax.random.bits(key, (*others, (n + 1) // 2), "uint32")
    swapped = (words << 16) | (words >> 16)
    uniform = lax.concatenate([words, swapped], len(others))
    least = (rate * 2.0**32).astype("uint32")  # saturates
    return ((lax.slice_in_dim(uniform, 0, n, axis=-1) >= least) & (rate < 1)).reshape(shape)


_SELU_AT_MINUS_INFINITY = -1.7580993408473766  # -alpha * scale


@checked
def alpha_dropout(key: jax.Array, x: ArrayLike, rate: Scalar) -> jax.Array:
    """Dropout for `selu`, which keeps mean 0 and variance 1.

    `y = a * (x if keep else c) + b`, where `c = -1.758` is what `selu` gives at minus infinity,
    `keep ~ Bernoulli(q)`, `q = 1 - rate`, `a = (q + c^2 q rate)^(-1/2)` and `b = -a c rate`. A rate
    of 1 gives zeros, as in torch.

    Paper: Klambauer et al., Self-Normalizing Neural Networks, https://arxiv.org/abs/1706.02515

    Args:
        key: a typed PRNG key.
        x: any shape, of mean 0 and variance 1 if `y` is to be.
        rate: the probability of dropping an element, in [0, 1]; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key, or `x` is complex.
        ValueError: `rate` is known and outside [0, 1].

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x_key, key = jax.random.split(jax.random.key(0))
        >>> x = jax.random.normal(x_key, 100_000)
        >>> y = nn.functional.alpha_dropout(key, x, 0.3)
        >>> bool(abs(y.mean()) < 0.02), bool(abs(y.var() - 1) < 0.02)
        (True, True)
    """
    check_key("alpha_dropout", key)
    check_range("alpha_dropout", "rate", rate, 0, 1)
    x = floating(x)
    refuse_complex("alpha_dropout", "x", x)
    wide = widen(x)
    rate = hyperparameter(rate, wide.dtype)
    c = _SELU_AT_MINUS_INFINITY
    kept = jnp.where(rate < 1, 1 - rate, 1)
    a = jnp.where(rate < 1, lax.rsqrt(kept * (1 + c**2 * rate)), 0)
    keep = _keep(key, rate, x.shape)
    return (a * (jnp.where(keep, wide, c) - c * rate)).astype(x.dtype)


@checked
def gaussian_noise(key: jax.Array, x: ArrayLike, stddev: Scalar) -> jax.Array:
    """Add normal noise: `y = x + stddev * n`, `n ~ N(0, 1)`.

    Args:
        key: a typed PRNG key.
        x: any shape, floating (integers become the default float).
        stddev: the standard deviation of the noise, at least 0; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `stddev` is known and negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> y = nn.functional.gaussian_noise(jax.random.key(0), jnp.ones(100_000), 2.0)
        >>> y.mean().round(1), y.std().round(1)
        (Array(1., dtype=float32), Array(2., dtype=float32))
    """
    check_key("gaussian_noise", key)
    check_range("gaussian_noise", "stddev", stddev, 0)
    x = floating(x)
    wide = widen(x)
    noise = jax.random.normal(key, x.shape, wide.dtype)
    return (wide + hyperparameter(stddev, wide.dtype) * noise).astype(x.dtype)


@checked
def gaussian_dropout(key: jax.Array, x: ArrayLike, rate: Scalar) -> jax.Array:
    """Multiply by normal noise of mean 1: `y = x * n`, `n ~ N(1, rate / (1 - rate))`.

    Mean and variance of `y` are those of dropout with the same `rate`.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        key: a typed PRNG key.
        x: any shape, floating (integers become the default float).
        rate: in [0, 1), for at 1 the variance is infinite; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key, or `x` is complex.
        ValueError: `rate` is known and outside [0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> y = nn.functional.gaussian_dropout(jax.random.key(0), jnp.ones(100_000), 0.5)
        >>> y.mean().round(1), y.var().round(1)
        (Array(1., dtype=float32), Array(1., dtype=float32))
    """
    check_key("gaussian_dropout", key)
    check_below_1("gaussian_dropout", rate)
    x = floating(x)
    refuse_complex("gaussian_dropout", "x", x)
    wide = widen(x)
    rate = hyperparameter(rate, wide.dtype)
    variance = rate / (1 - rate)
    positive = variance > 0
    stddev = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    noise = jax.random.normal(key, x.shape, wide.dtype)
    return (wide * (1 + stddev * noise)).astype(x.dtype)


def check_below_1(function: str, rate: Scalar) -> None:
    """Raise unless `0 <= rate < 1`; traced values pass."""
    check_range(function, "rate", rate, 0, 1)
    known = concrete(rate)
    if known is not None and (known == 1).any():
        raise ValueError(f"{function}: rate is {rate}, expected a number in [0, 1)")
