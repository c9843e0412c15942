"""Arithmetic of counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import concrete
from jaxnn._core.types import Scalar, Steps
from jaxnn._core.types import Schedule as Schedule


def as_float(value: ArrayLike) -> jax.Array:
    """A number in the default float, whatever its dtype and however large an integer it is."""
    known = value if isinstance(value, jax.Array) else np.asarray(value, float)
    return jnp.asarray(known).astype(jnp.result_type(float))


def comparable(count: ArrayLike, other: ArrayLike) -> tuple[Any, Any]:
    """Two counts of one dtype: integers, which are exact however large, or else floats.

    Negative integers are 0. Those of the host have 64 bits; next to one of the device, which may
    have 32, what is larger is a float.
    """
    counts = [x if isinstance(x, jax.Array) else np.asarray(x) for x in (count, other)]
    if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in counts):
        return as_float(count), as_float(other)
    first, second = [_at_least_zero(x) for x in counts]
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first, second
    default = jnp.result_type(int)
    for dtype in (default, np.dtype(f"u{default}")):
        if _holds(dtype, first) and _holds(dtype, second):
            return jnp.asarray(first, dtype), jnp.asarray(second, dtype)
    return as_float(first), as_float(second)


def _at_least_zero(count: jax.Array | np.ndarray) -> Any:
    if isinstance(count, np.ndarray):
        return np.asarray(np.maximum(count, 0))
    return jnp.maximum(count, 0)


def _holds(dtype: Any, count: jax.Array | np.ndarray) -> bool:
    known = isinstance(count, np.ndarray)
    largest = np.max(count, initial=0) if known else jnp.iinfo(count.dtype).max
    return bool(largest <= jnp.iinfo(dtype).max)


def since(count: ArrayLike, begin: ArrayLike) -> Any:
    """`count - begin`, 0 before."""
    now, start = comparable(count, begin)
    return (np if isinstance(now, np.ndarray) else jnp).maximum(now, start) - start


def has_reached(count: ArrayLike, boundary: ArrayLike) -> Any:
    """`count >= boundary`."""
    now, start = comparable(count, boundary)
    return now >= start


def progress(count: ArrayLike, begin: ArrayLike, steps: Steps) -> jax.Array:
    """From 0 at `begin`, and before, to 1 after `steps` steps, and later."""
    return jnp.minimum(as_float(since(count, begin)) / as_float(steps), 1)


def whole_periods(elapsed: ArrayLike, period: ArrayLike) -> jax.Array:
    """How many times `period` fits into `elapsed`."""
    steps, of_one = comparable(elapsed, period)
    return as_float(steps // of_one)


def check_steps(schedule: str, name: str, steps: Any) -> None:
    """Raise unless a number of steps, if it is known, is positive."""
    known = concrete(steps)
    if known is not None and known <= 0:
        raise ValueError(f"{schedule}: {name} is {steps}, expected a positive number of steps")


def check_positive(schedule: str, **values: Any) -> None:
    """Raise unless each number, if it is known, is positive."""
    for name, value in values.items():
        known = concrete(value)
        if known is not None and known <= 0:
            raise ValueError(f"{schedule}: {name} is {value}, expected more than 0")


def between(first: Scalar, last: Scalar, part: jax.Array) -> jax.Array:
    """From `first` at part 0 to `last` at part 1, both met exactly."""
    return (1 - part) * as_float(first) + part * as_float(last)


def half_cosine(part: jax.Array) -> jax.Array:
    """From 1 at part 0 down to 0 at part 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * part))
