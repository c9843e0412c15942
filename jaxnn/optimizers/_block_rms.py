"""Root mean squares of leaves, of updates and of parameters."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._leafwise import leafwise


def _rms(x: jax.Array) -> jax.Array:
    return (
        moments.safe_sqrt(jnp.mean(moments.abs_square(x)))
        if x.size
        else jnp.zeros((), x.real.dtype)
    )


@constructor
def clip_by_block_rms(threshold: Scalar) -> Optimizer:
    """Clip the root mean square of each leaf: `u = g / max(1, rms(g) / threshold)`.

    Paper: Shazeer and Stern, Adafactor, section 6, https://arxiv.org/abs/1804.04235

    Args:
        threshold: the largest root mean square, more than 0; may be traced.

    Returns:
        An `Optimizer`. Zero gradients stay zero.

    Raises:
        ValueError: `threshold` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.clip_by_block_rms(1.0).update({"w": jnp.array([4.0, -4.0])}, ())[0]
        {'w': Array([ 1., -1.], dtype=float32)}
    """
    check_range("clip_by_block_rms", "threshold", threshold, 0)

    def rule(g: jax.Array) -> tuple[jax.Array, ...]:
        rms = _rms(g)
        excess = jnp.maximum(rms / hyperparameter(threshold, rms.dtype), 1)
        return (g / excess.astype(g.dtype),)

    return stateless_transformation(
        lambda updates, params: leafwise("clip_by_block_rms", rule, updates)[0]
    )


@constructor
def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> Optimizer:
    """Scale updates by the root mean square of the parameters: `u = g max(rms(w), min_scale)`.

    Paper: Shazeer and Stern, Adafactor, section 8, https://arxiv.org/abs/1804.04235

    Args:
        min_scale: the smallest factor, so that parameters that are 0 can grow; may be traced.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: `min_scale` is negative; `update` is called without params; the
            structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> g, w = jnp.array([1.0, -0.5]), jnp.array([6.0, 8.0])
        >>> nn.optimizers.scale_by_param_block_rms().update(g, (), w)[0]
        Array([ 7.071068, -3.535534], dtype=float32)
    """
    check_range("scale_by_param_block_rms", "min_scale", min_scale, 0)

    def rule(g: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
        rms = _rms(w)
        return (g * jnp.maximum(rms, hyperparameter(min_scale, rms.dtype)).astype(g.dtype),)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        check.params("scale_by_param_block_rms", params)
        return leafwise("scale_by_param_block_rms", rule, updates, given=(params,))[0]

    return stateless_transformation(function)
