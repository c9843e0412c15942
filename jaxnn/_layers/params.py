"""The parameters that many layers have: kernel and bias, scale and bias."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxnn._core.arguments import value_text
from jaxnn._core.arrays import check_key, check_shape, floating

Params = dict[str, jax.Array]
ShapeTuple = tuple[int, ...]


def draw(init: Initializer, key: jax.Array, shape: ShapeTuple, dtype: jnp.dtype) -> jax.Array:
    """What an initializer makes, an array of that shape.

    One without elements needs none, which would divide by 0.
    """
    if not math.prod(shape):
        return jnp.zeros(shape, dtype)
    made = floating(init(key, shape, dtype))
    check_shape(f"initializer {value_text(init)}", "what it made", made, tuple(shape))
    return made


def kernel_and_bias(
    layer: str,
    key: jax.Array,
    kernel_shape: ShapeTuple,
    dtype: jnp.dtype,
    kernel_init: Initializer,
    bias_init: Initializer | None,
    bias_shape: ShapeTuple | None = None,
) -> Params:
    """The kernel and the bias of an affine map, by default one number for each of the last axis.

    Without an initializer there is no bias.
    """
    check_key(layer, key)
    kernel_key, bias_key = jax.random.split(key)
    params = {"kernel": draw(kernel_init, kernel_key, kernel_shape, dtype)}
    if bias_init is not None:
        bias_shape = kernel_shape[-1:] if bias_shape is None else bias_shape
        params["bias"] = draw(bias_init, bias_key, bias_shape, dtype)
    return params


def kernel_and_bias_of(
    layer: str, params: Mapping[str, jax.Array], use_bias: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The kernel, and the bias or None; layers around this one may keep more in the same dict."""
    refuse_unused(layer, params, bias=use_bias)
    return params["kernel"], params["bias"] if use_bias else None


def refuse_unused(layer: str, params: Mapping[str, jax.Array], **used: bool) -> None:
    """Raise if there is a leaf that the layer does not use."""
    for leaf, is_used in used.items():
        if leaf in params and not is_used:
            raise ValueError(f"{layer}: params has '{leaf}', expected none with use_{leaf}=False")


def scale_and_bias(
    layer: str,
    key: jax.Array,
    shape: ShapeTuple,
    dtype: jnp.dtype,
    scale_init: Initializer | None,
    bias_init: Initializer | None,
) -> Params:
    """The scale and the bias of a normalisation, without those that have no initializer."""
    check_key(layer, key)
    scale_key, bias_key = jax.random.split(key)
    params = {}
    if scale_init is not None:
        params["scale"] = draw(scale_init, scale_key, shape, dtype)
    if bias_init is not None:
        params["bias"] = draw(bias_init, bias_key, shape, dtype)
    return params
