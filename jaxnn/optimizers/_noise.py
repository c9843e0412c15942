"""Noise in the gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_key, check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer

MANY_STEPS = 2**20  # after which noise comes again, once the count is at its end


class AddNoiseState(NamedTuple):
    """The step count, and the key, which stays the same."""

    count: jax.Array  # type: ignore[assignment]
    rng_key: jax.Array


@constructor
def add_noise(eta: Scalar, gamma: Scalar, key: jax.Array) -> Optimizer:
    """Add Gaussian noise of variance `eta / t^gamma` to the gradients at step t = 1, 2, ...

    Step t draws from `jax.random.fold_in(key, t - 1)` (optax splits the key at each).

    Paper: Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks,
    https://arxiv.org/abs/1511.06807

    Args:
        eta: the variance at the first step, at least 0; may be traced.
        gamma: the exponent of its decay; may be traced. The paper has 0.55.
        key: a typed PRNG key (optax takes an integer too).

    Returns:
        An `Optimizer` with state `AddNoiseState(count, rng_key)`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `eta` is negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> noise = nn.optimizers.add_noise(eta=0.01, gamma=0.55, key=jax.random.key(0))
        >>> updates, _ = noise.update(jnp.zeros(10000), noise.init(jnp.zeros(10000)))
        >>> round(float(jnp.std(updates)), 3)
        0.1
    """
    check_range("add_noise", "eta", eta, 0)
    check_key("add_noise", key)

    def init(params: PyTree) -> PyTree:
        return AddNoiseState(moments.zero_count(), jax.random.clone(key))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients("add_noise", updates)
        count = moments.next_count_of_cycle(state.count, MANY_STEPS)
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(jax.random.fold_in(state.rng_key, state.count), len(leaves))

        def noisy(leaf_key: jax.Array, g: jax.Array) -> jax.Array:
            wide = widen(g)
            real = precision.real_dtype(wide.dtype)
            variance = hyperparameter(eta, real) / count.astype(real) ** hyperparameter(gamma, real)
            noise = jax.random.normal(leaf_key, wide.shape, wide.dtype)
            return (wide + jnp.sqrt(variance).astype(wide.dtype) * noise).astype(
                jnp.asarray(g).dtype
            )

        noised = [noisy(k, g) for k, g in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, noised), AddNoiseState(count, state.rng_key)

    return Optimizer(init, update)
