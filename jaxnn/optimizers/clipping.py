"""Clipping gradients."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import PyTree, accumulator_dtype, check_range, hyperparameter, total, widen
from jaxnn.optimizers.base import (
    Optimizer,
    abs_square,
    safe_sqrt,
    stateless_transformation,
)


def global_norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm of all leaves as one vector, `sqrt(Σ |g|²)`; its gradient at 0 is 0.

    Args:
        tree: a tree of floating arrays.

    Returns:
        A scalar, float32 or wider; 0 for a tree without leaves.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    return safe_sqrt(total(jnp.sum(abs_square(widen(leaf))) for leaf in jax.tree.leaves(tree)))


def clip(max_delta: ArrayLike) -> Optimizer:
    """Clip each element: `u = min(max(g, -max_delta), max_delta)`.

    Args:
        max_delta: the largest absolute value, at least 0; may be traced.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: `max_delta` is known and negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.clip(1.0).update({"w": jnp.array([0.5, -3.0])}, ())[0]
        {'w': Array([ 0.5, -1. ], dtype=float32)}
    """
    check_range("clip", "max_delta", max_delta, 0)

    def clipped(g: jax.Array) -> jax.Array:
        bound = hyperparameter(max_delta, accumulator_dtype(g.dtype)).astype(g.dtype)
        return jnp.clip(g, -bound, bound)

    return stateless_transformation(lambda updates, params: jax.tree.map(clipped, updates))


def clip_by_global_norm(max_norm: ArrayLike) -> Optimizer:
    """Shrink all gradients together: `u = g min(1, max_norm / ‖g‖)`, the norm over all leaves.

    Paper: Pascanu et al., On the difficulty of training Recurrent Neural Networks,
    https://arxiv.org/abs/1211.5063

    Args:
        max_norm: the largest norm, at least 0; may be traced.

    Returns:
        An `Optimizer`. Zero gradients stay zero.

    Raises:
        ValueError: `max_norm` is known and negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.clip_by_global_norm(1.0).update({"w": jnp.array([3.0, 4.0])}, ())[0]
        {'w': Array([0.6, 0.8], dtype=float32)}
    """
    check_range("clip_by_global_norm", "max_norm", max_norm, 0)

    def clip_all(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        limit = hyperparameter(max_norm, norm.dtype)
        factor = jnp.where(norm <= limit, 1, limit / jnp.where(norm <= limit, 1, norm))

        def shrunk(g: jax.Array) -> jax.Array:
            wide = widen(g)
            return (wide * hyperparameter(factor, wide.dtype)).astype(g.dtype)

        return jax.tree.map(shrunk, updates)

    return stateless_transformation(clip_all)
