"""Clipping gradients."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    canonical_axes,
    check_range,
    hyperparameter,
    total,
    widen,
)
from jaxnn._core.construction import constructor
from jaxnn._core.types import Arrays, Limit, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scaled


@checked
def global_norm(tree: Arrays) -> jax.Array:
    """The Euclidean norm of all leaves as one vector, `sqrt(Σ |g|²)`; its gradient at 0 is 0.

    Args:
        tree: a tree of floating arrays.

    Returns:
        A scalar, float32 or wider; 0 for a tree without leaves.

    Raises:
        TypeError: a leaf is no array, or the gradient of an integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    check.gradients("global_norm", tree)
    return moments.safe_sqrt(
        total(jnp.sum(moments.abs_square(widen(leaf))) for leaf in jax.tree.leaves(tree))
    )


@constructor
def clip(max_delta: Limit) -> Optimizer:
    """Gradient clipping by value: `u = min(max(g, -max_delta), max_delta)`.

    Complex gradients are clipped by their absolute value.

    Args:
        max_delta: the largest absolute value, at least 0; may be traced.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: `max_delta` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.clip(1.0).update({"w": jnp.array([0.5, -3.0])}, ())[0]
        {'w': Array([ 0.5, -1. ], dtype=float32)}
    """
    check_range("clip", "max_delta", max_delta, 0, math.inf)

    def rule(g: jax.Array) -> tuple[jax.Array]:
        return (moments.clipped(g, hyperparameter(max_delta, precision.real_dtype(g.dtype))),)

    return stateless_transformation(lambda updates, params: leafwise("clip", rule, updates)[0])


@constructor
def clip_by_global_norm(max_norm: Limit) -> Optimizer:
    """Gradient clipping by the global norm: `u = g min(1, max_norm / ‖g‖)`, over all leaves.

    Paper: Pascanu et al., On the difficulty of training Recurrent Neural Networks,
    https://arxiv.org/abs/1211.5063

    Args:
        max_norm: the largest norm, at least 0; may be traced.

    Returns:
        An `Optimizer`. Zero gradients stay zero.

    Raises:
        ValueError: `max_norm` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.clip_by_global_norm(1.0).update({"w": jnp.array([3.0, 4.0])}, ())[0]
        {'w': Array([0.6, 0.8], dtype=float32)}
    """
    check_range("clip_by_global_norm", "max_norm", max_norm, 0, math.inf)

    def clip_all(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        limit = hyperparameter(max_norm, norm.dtype)
        return scaled(updates, moments.at_most(norm, limit))

    return stateless_transformation(clip_all)


@checked
def unitwise_norm(x: ArrayLike, axis: int | Sequence[int] | None = None) -> jax.Array:
    """The Euclidean norm of each unit of a layer, in the place of each of its weights.

    Args:
        x: weights or gradients of a layer, of any shape.
        axis: the axes that make a unit; None for the usual ones: all for a vector, the first for
            2 and 3 axes (dense, attention), all but the last for 4 and 5 (convolutions).

    Returns:
        An array of the shape of `x`, float32 or wider.

    Raises:
        ValueError: `axis` is None and `x` has more than 5 axes; `axis` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 2.0]]))
        Array([[5., 2.],
               [5., 2.]], dtype=float32)
    """
    squares = moments.abs_square(widen(x))
    if axis is not None:
        axes = canonical_axes(axis, squares.ndim, "unitwise_norm")
    elif jnp.squeeze(squares).ndim < 2:
        axes = tuple(range(squares.ndim))
    elif squares.ndim > 5:
        raise ValueError(
            f"unitwise_norm: x has shape {squares.shape} and axis is None, expected at most 5 axes"
        )
    else:
        axes = (0,) if squares.ndim < 4 else tuple(range(squares.ndim - 1))
    return jnp.broadcast_to(moments.safe_sqrt(jnp.sum(squares, axes, keepdims=True)), squares.shape)


@constructor
def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | Sequence[int] | None = None
) -> Optimizer:
    """Adaptive gradient clipping: by the norm of each unit, relative to that of its weights.

    `u = g min(1, clipping max(‖w‖, eps) / ‖g‖)`, with the norms of units: see `unitwise_norm`.

    Paper: Brock et al., High-Performance Large-Scale Image Recognition Without Normalization,
    https://arxiv.org/abs/2102.06171

    Args:
        clipping: the largest ratio of the norms, at least 0; may be traced.
        eps: the smallest norm of weights, at least 0, so that zeros can grow; may be traced.
        axis: the axes that make a unit, the same for all leaves; None for the usual ones.

    Returns:
        An `Optimizer` whose `update` requires the params. Zero gradients stay zero.

    Raises:
        ValueError: a hyperparameter is negative; `update` is called without params; the
            structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> clipped = nn.optimizers.adaptive_grad_clip(0.1)
        >>> w, g = jnp.array([[3.0, 1.0], [4.0, 0.0]]), jnp.array([[5.0, 0.03], [0.0, 0.04]])
        >>> clipped.update(g, clipped.init(w), w)[0]
        Array([[0.5 , 0.03],
               [0.  , 0.04]], dtype=float32)
    """
    check_range("adaptive_grad_clip", "clipping", clipping, 0)
    check_range("adaptive_grad_clip", "eps", eps, 0)

    def rule(g: jax.Array, w: jax.Array) -> tuple[jax.Array]:
        norm, of_weights = unitwise_norm(g, axis), unitwise_norm(w, axis)
        least = hyperparameter(eps, norm.dtype)
        largest = hyperparameter(clipping, norm.dtype) * jnp.maximum(of_weights, least)
        return (g * moments.at_most(norm, largest).astype(g.dtype),)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        check.params("adaptive_grad_clip", params)
        return leafwise("adaptive_grad_clip", rule, updates, given=(params,))[0]

    return stateless_transformation(function)
