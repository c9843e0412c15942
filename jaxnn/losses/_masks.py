"""The `where=` of the losses."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def masked(values: jax.Array, where: ArrayLike | None, loss: str) -> jax.Array:
    """`values` where `where` is True, else 0 with gradient 0."""
    if where is None:
        return values
    where = jnp.asarray(where)
    if where.shape != values.shape:
        raise ValueError(f"{loss}: where has shape {where.shape}, expected shape {values.shape}")
    return jnp.where(where, values, 0)
