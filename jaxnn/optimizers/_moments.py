"""Moments of gradients: exponential moving averages, and their bias correction."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import accumulator_dtype, concrete, hyperparameter, promoted
from jaxnn._core.types import PyTree
from jaxnn.optimizers import _precision as precision


def zero_count() -> jax.Array:
    """The count of steps at the beginning."""
    return jnp.zeros((), jnp.int32)


def next_count(count: jax.Array) -> jax.Array:
    """The count of steps plus one, staying at the largest integer instead of overflowing."""
    return jnp.where(count < jnp.iinfo(jnp.int32).max, count + 1, count)


def next_count_of_cycle(count: jax.Array, period: ArrayLike) -> jax.Array:
    """The count of steps plus one, going back by `period` instead of overflowing."""
    back = hyperparameter(period, count.dtype) - 1
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count - back)


def zeros(params: PyTree, dtype: Any = None) -> PyTree:
    """A fresh accumulator for each parameter, float32 or wider unless `dtype` says otherwise."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(p, dtype=dtype or accumulator_dtype(jnp.result_type(p))), params
    )


def zero_squares(params: PyTree, fill: ArrayLike = 0) -> PyTree:
    """As `zeros`, for the real squares of possibly complex gradients."""
    return jax.tree.map(
        lambda p: jnp.full_like(p, fill, dtype=precision.real_dtype(jnp.result_type(p))), params
    )


def moving_average(old: jax.Array, new: jax.Array, decay: Any) -> jax.Array:
    """The exponential moving average `decay * old + (1 - decay) * new`, in float32 or wider."""
    wide = promoted(accumulator_dtype(old.dtype), accumulator_dtype(new.dtype))
    weight = hyperparameter(decay, wide)
    return weight * old.astype(wide) + (1 - weight) * new.astype(wide)


def bias_correction(decay: Any, count: jax.Array, moment: jax.Array) -> jax.Array:
    """`1 - decay^t`: a moving average that began at zero is too small by it after t steps."""
    base = hyperparameter(decay, precision.real_dtype(moment.dtype))
    return (1 - base ** count.astype(base.dtype)).astype(moment.dtype)


def bias_corrected(moment: jax.Array, decay: Any, count: jax.Array) -> jax.Array:
    """A moment with bias correction: `m / (1 - decay^t)`."""
    return moment / bias_correction(decay, count, moment)


def bias_corrected_mean(
    mu: jax.Array, g: jax.Array, b1: Any, count: jax.Array, *, nesterov: bool
) -> jax.Array:
    """The first moment with bias correction; with `nesterov`, that of the next step."""
    if not nesterov:
        return bias_corrected(mu, b1, count)
    weight = hyperparameter(b1, mu.dtype)
    ahead = bias_corrected(mu, b1, next_count(count))
    return weight * ahead + (1 - weight) * bias_corrected(g, b1, count)


def abs_square(g: jax.Array) -> jax.Array:
    """`|g|²`, real for complex `g` too."""
    return jnp.square(g.real) + jnp.square(g.imag) if jnp.iscomplexobj(g) else jnp.square(g)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0 (and value 0 below)."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def clipped(g: jax.Array, limit: jax.Array) -> jax.Array:
    """`g`, its absolute value at most `limit`."""
    return (
        g * at_most(jnp.abs(g), limit).astype(g.dtype)
        if jnp.iscomplexobj(g)
        else jnp.clip(g, -limit, limit)
    )


def at_most(size: jax.Array, limit: jax.Array) -> jax.Array:
    """The factor that makes what is larger than `limit` as large; 1 for what is not."""
    is_small = size <= limit
    return jnp.where(is_small, 1, limit / jnp.where(is_small, 1, size))


def over_root(mean: jax.Array, square: jax.Array, eps: Any, eps_root: Any = 0.0) -> jax.Array:
    """`mean / (√(square + eps_root) + eps)`."""
    root = safe_sqrt(square + hyperparameter(eps_root, square.dtype))
    divisor = (root + hyperparameter(eps, square.dtype)).astype(mean.dtype)
    known = concrete(eps)
    return mean / divisor if known is not None and known > 0 else quotient(mean, divisor)


@jax.custom_jvp
def quotient(x: jax.Array, divisor: jax.Array) -> jax.Array:
    """`x / divisor`, 0 where the divisor is 0.

    Its derivative does not square the divisor: of a root of 1e-30, that would overflow.
    """
    is_zero = divisor == 0
    return jnp.where(is_zero, 0, x / jnp.where(is_zero, 1, divisor))


@quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, divisor), (dx, d_divisor) = primals, tangents
    y = quotient(x, divisor)
    return y, quotient(dx - y * d_divisor, divisor)
