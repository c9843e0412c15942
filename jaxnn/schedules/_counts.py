"""Arithmetic of counts."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import concrete
from jaxnn._core.types import Scalar
from jaxnn._core.types import Schedule as Schedule


def as_float(value: ArrayLike) -> jax.Array:
    """A number in the default float, whatever its dtype."""
    return jnp.asarray(value).astype(jnp.result_type(float))


def comparable(count: ArrayLike, other: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Two counts as default integers, which are exact however large, or else as floats."""
    count, other = jnp.asarray(count), jnp.asarray(other)
    are_integers = all(jnp.issubdtype(x.dtype, jnp.integer) for x in (count, other))
    dtype = jnp.result_type(int) if are_integers else jnp.result_type(float)
    return count.astype(dtype), other.astype(dtype)


def since(count: ArrayLike, begin: ArrayLike) -> jax.Array:
    """`count - begin`, 0 before."""
    count, begin = comparable(count, begin)
    return jnp.maximum(count - begin, 0)


def has_reached(count: ArrayLike, boundary: ArrayLike) -> jax.Array:
    """`count >= boundary`."""
    count, boundary = comparable(count, boundary)
    return count >= boundary


def progress(count: ArrayLike, begin: ArrayLike, steps: Scalar) -> jax.Array:
    """From 0 at `begin`, and before, to 1 after `steps` steps, and later."""
    return jnp.minimum(as_float(since(count, begin)) / as_float(steps), 1)


def whole_periods(elapsed: ArrayLike, period: ArrayLike) -> jax.Array:
    """How many times `period` fits into `elapsed`."""
    elapsed, period = comparable(elapsed, period)
    return as_float(elapsed // period)


def check_steps(schedule: str, name: str, steps: Any) -> None:
    """Raise unless a number of steps, if it is known, is positive."""
    known = concrete(steps)
    if known is not None and known <= 0:
        raise ValueError(f"{schedule}: {name} is {steps}, expected a positive number of steps")


def between(first: Scalar, last: Scalar, part: jax.Array) -> jax.Array:
    """From `first` at part 0 to `last` at part 1, both met exactly."""
    return (1 - part) * as_float(first) + part * as_float(last)


def half_cosine(part: jax.Array) -> jax.Array:
    """From 1 at part 0 down to 0 at part 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * part))
