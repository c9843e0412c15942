"""Activations with a parameter."""

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_key
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, pure, shape_of
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw


@constructor
def prelu(
    *,
    per_channel: bool = False,
    negative_slope_init: Initializer = initializers.constant(0.25),  # noqa: B008
) -> Layer:
    """The rectifier with a learned slope: `y = x if x > 0 else scale * x`.

    The derivative at 0 is the slope, as in torch.

    Paper: He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852

    Args:
        per_channel: whether there is a slope for each channel, the last axis, or one for all.
        negative_slope_init: initializer of the slopes; by default 0.25, as in the paper and torch
            (flax: 0.01).

    Returns:
        A `Layer` with params `{"scale"}`, of shape `(channels,)` or `()`, and the output in the
        dtype of `x`.

    Raises:
        ValueError: `per_channel`, and `x` is a scalar.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.prelu(per_channel=True)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> params["scale"], layer.apply(params, state, jnp.array([[-4.0, 0.0, 4.0]]))[0]
        (Array([0.25, 0.25, 0.25], dtype=float32), Array([[-1.,  0.,  4.]], dtype=float32))
    """

    def init(key: jax.Array, x: PyTree) -> PyTree:
        check_key("prelu", key)
        shape = shape_of("prelu", x)
        if per_channel and not shape:
            raise ValueError("prelu: x is a scalar, expected shape (..., channels)")
        own = shape[-1:] if per_channel else ()
        return {"scale": draw(negative_slope_init, key, own, param_dtype(x))}

    return pure(init, lambda params, x: functional.prelu(x, params["scale"]))
