"""Activations with a parameter."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import compute_dtype, refuse_complex, spread


@checked
def prelu(x: ArrayLike, negative_slope: ArrayLike) -> jax.Array:
    """The rectifier with a learned slope: `y = x if x > 0 else negative_slope * x`.

    The derivative at 0 is the slope, as in torch.

    Paper: He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852

    Args:
        x: any shape.
        negative_slope: shape `()` for one slope, or `(channels,)` for one in each channel, the last
            axis of `x`.

    Returns:
        The shape and dtype of `x`, to which the slope is cast (an integer `x` is cast to its).

    Raises:
        TypeError: `x` or the slope is complex.
        ValueError: the shape of `negative_slope` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.prelu(jnp.array([-4.0, 0.0, 4.0]), 0.25)
        Array([-1.,  0.,  4.], dtype=float32)
    """
    x, slope = jnp.asarray(x), jnp.asarray(negative_slope)
    if slope.shape not in ((), x.shape[-1:]):
        raise ValueError(
            f"prelu: negative_slope has shape {slope.shape} and x {x.shape}, expected shape () or "
            "that of the last axis of x"
        )
    dtype = compute_dtype(x, slope)
    x, slope = x.astype(dtype), slope.astype(dtype)
    refuse_complex("prelu", "x", x)
    slope = spread(slope, (x.ndim - 1,) if slope.ndim else (), x.shape)
    return jnp.where(x > 0, x, slope * x)
