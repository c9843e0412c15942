"""Decoupled weight decay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure, select_mask
from jaxnn._core.types import Mask, PyTree, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import EmptyState, Optimizer


class WeightDecaySchedule(NamedTuple):
    """The step count of a scheduled weight decay."""

    count: jax.Array  # type: ignore[assignment]


@constructor
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None
) -> Optimizer:
    """Decoupled weight decay: add the decayed weights to the updates, `u = g + weight_decay * w`.

    Paper: Loshchilov and Hutter, Decoupled Weight Decay Regularization,
    https://arxiv.org/abs/1711.05101

    Args:
        weight_decay: the strength, at least 0 (may be traced), or a schedule `count -> number`.
        mask: which leaves decay: a glob on the path or several of them, a predicate
            `(path, leaf) -> bool`, a tree of booleans or a function from the params to one (as in
            optax), or a boolean for all. None leaves out those with fewer than two axes, as biases
            and scales (optax decays all: `mask=True`).

    Returns:
        An `Optimizer` whose `update` requires the params; with a schedule its state is
        `WeightDecaySchedule(count)`.

    Raises:
        ValueError: `weight_decay` is negative; `update` is called without params; a
            pattern matches no leaf; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> decay = nn.optimizers.add_decayed_weights(0.1)
        >>> params = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full(1, 2.0)}
        >>> grads = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
        >>> decay.update(grads, decay.init(params), params)[0]
        {'bias': Array([1.], dtype=float32), 'kernel': Array([[1.2]], dtype=float32)}
    """
    check.nonnegative("add_decayed_weights", weight_decay=weight_decay)

    def init(params: PyTree) -> PyTree:
        return WeightDecaySchedule(moments.zero_count()) if callable(weight_decay) else EmptyState()

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("add_decayed_weights", params)
        check.gradients("add_decayed_weights", updates)
        same_structure("add_decayed_weights", params=params, updates=updates)
        if callable(weight_decay):
            factor, state = (
                weight_decay(state.count),
                WeightDecaySchedule(moments.next_count(state.count)),
            )
        else:
            factor = weight_decay

        def decayed(g: jax.Array, p: jax.Array, wanted: bool) -> jax.Array:
            if not wanted:
                return g
            wide, g = widen(p), jnp.asarray(g)
            return (widen(g) + hyperparameter(factor, wide.dtype) * wide).astype(g.dtype)

        return jax.tree.map(decayed, updates, params, decaying(params, mask)), state

    return Optimizer(init, update)


def decaying(params: PyTree, mask: Mask | None) -> PyTree:
    """The tree of booleans that says which leaves decay."""
    if mask is None:
        return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
    return select_mask(params, mask, "weight decay: mask")


def decaying_weights(params: PyTree, mask: Mask | None) -> PyTree:
    """The params, with zeros in the place of those that do not decay."""
    return jax.tree.map(
        lambda p, wanted: p if wanted else jnp.zeros_like(p), params, decaying(params, mask)
    )
