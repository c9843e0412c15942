"""Running statistics: the mean and the variance of each feature over the batches of training."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_range, real_dtype
from jaxnn._core.types import PyTree


def check_decay(name: str, decay: float | None) -> None:
    """Refuse a decay rate outside of [0, 1]; None is for the mean of all batches."""
    if decay is not None:
        check_range(name, "decay", decay, 0, 1)


def first_statistics(features: tuple[int, ...], dtype: DTypeLike, decay: float | None) -> PyTree:
    """Mean 0 and variance 1; without a decay rate also the number of batches, of each feature."""
    real = real_dtype(dtype)  # a variance is real
    state = {"mean": jnp.zeros(features, dtype), "var": jnp.ones(features, real)}
    return state if decay is not None else {**state, "count": jnp.zeros(features, real)}


def check_statistics(name: str, state: PyTree, decay: float | None) -> None:
    """Refuse a state that `init` has not made."""
    expected = ["mean", "var"] if decay is not None else ["count", "mean", "var"]
    if not set(expected) <= state.keys():
        raise ValueError(
            f"{name}: state has {sorted(state)}, expected {' and '.join(map(repr, expected))} as "
            "made by init"
        )


def unbiased(var: jax.Array, n: jax.Array) -> jax.Array:
    """The unbiased variance of n elements, of the biased one."""
    n = n.astype(var.dtype)
    return var * (n / jnp.maximum(n - 1, 1))


def next_statistics(
    state: PyTree, mean: jax.Array, var: jax.Array, seen: ArrayLike | None, decay: float | None
) -> PyTree:
    """The statistics after a batch; a feature that is not `seen`, by feature, keeps its own."""
    batch = {"mean": lax.stop_gradient(mean), "var": lax.stop_gradient(var)}
    batch = {name: value.astype(state[name].dtype) for name, value in batch.items()}
    weight = 1 - decay if decay is not None else 1 / (state["count"] + 1)
    new = {k: (1 - weight) * state[k] + weight * value for k, value in batch.items()}
    if decay is None:
        new["count"] = state["count"] + 1
    return new if seen is None else {k: jnp.where(seen, new[k], state[k]) for k in new}
