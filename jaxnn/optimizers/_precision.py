"""The dtypes that transformations compute in and return."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import accumulator_dtype, promoted, widen
from jaxnn._core.types import PyTree


def cast_like(value: ArrayLike, like: ArrayLike) -> jax.Array:
    """`value` in the dtype of `like`."""
    return jnp.asarray(value).astype(jnp.asarray(like).dtype)


def real_dtype(dtype: Any) -> jnp.dtype:
    """The dtype of the square of a gradient: real, float32 or wider."""
    return jnp.finfo(accumulator_dtype(dtype)).dtype


def widest_real_dtype(tree: PyTree) -> jnp.dtype:
    """The real dtype, float32 at least, that is precise enough for all leaves."""
    dtypes = (real_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree))
    return functools.reduce(promoted, dtypes, jnp.dtype(jnp.float32))


def in_one_precision(*arrays: Any) -> list[jax.Array]:
    """Arrays, real and complex, in the widest of their precisions, float32 at least."""
    wide = [widen(a) for a in arrays]
    precision = functools.reduce(promoted, (real_dtype(a.dtype) for a in wide))
    return [a.astype(promoted(a.dtype, precision)) for a in wide]
