"""Gradients of a given length or mean."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scaled


@constructor
def normalize() -> Optimizer:
    """Normalize gradients to global norm 1: `u = g / ‖g‖`, over all leaves; zeros stay zero.

    Returns:
        An `Optimizer` without state.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.normalize().update({"w": jnp.array([3.0, 4.0])}, ())[0]
        {'w': Array([0.6, 0.8], dtype=float32)}
    """

    def function(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        return scaled(updates, 1 / jnp.where(norm > 0, norm, 1))

    return stateless_transformation(function)


@constructor
def normalize_by_update_norm(scale_factor: Scalar = 1.0, eps: Scalar = 1e-6) -> Optimizer:
    """Normalize gradients to one global norm: `u = scale_factor g / (‖g‖ + eps)`, over all leaves.

    Zeros stay zero.

    Args:
        scale_factor: the norm of the updates; may be traced.
        eps: a small constant added to the norm, at least 0; may be traced.

    Returns:
        An `Optimizer` without state.

    Raises:
        ValueError: `eps` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> descent = nn.optimizers.normalize_by_update_norm(-10.0)
        >>> updates, _ = descent.update(jnp.array([3.0, 4.0]), ())
        >>> [round(u, 3) for u in updates.tolist()]
        [-6.0, -8.0]
    """
    check_range("normalize_by_update_norm", "eps", eps, 0)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        norm = global_norm(updates)
        divisor = norm + hyperparameter(eps, norm.dtype)
        return scaled(
            updates,
            hyperparameter(scale_factor, norm.dtype) / jnp.where(divisor > 0, divisor, 1),
        )

    return stateless_transformation(function)


@constructor
def centralize() -> Optimizer:
    """Gradient centralization: subtract from each gradient its mean over all axes but the first.

    Biases stay as they are. The first axis as in optax, for which a `(in, out)` kernel has a mean
    for each input.

    Paper: Yong et al., Gradient Centralization, https://arxiv.org/abs/2004.01461

    Returns:
        An `Optimizer` without state.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> grads = {"kernel": jnp.array([[1.0, 3.0], [5.0, 5.0]]), "bias": jnp.ones(2)}
        >>> nn.optimizers.centralize().update(grads, ())[0]["kernel"]
        Array([[-1.,  1.],
               [ 0.,  0.]], dtype=float32)
    """

    def rule(g: jax.Array) -> tuple[jax.Array]:
        if g.ndim < 2:
            return (g,)
        return (g - jnp.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True),)

    return stateless_transformation(
        lambda updates, params: leafwise("centralize", rule, updates)[0]
    )
