"""Weights as small integers and scales."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import canonical_axes, refuse_complex, widen
from jaxnn._core.types import Axes

IntegerName: TypeAlias = Literal["int8", "int4"]

# Not part of the public floor: nn.quantize_params says what these compute.


def quantize(
    function: str, weight: jax.Array, dtype: IntegerName, axis: Axes
) -> tuple[jax.Array, jax.Array]:
    """Integers, and a scale for each index of `axis`, of size 1 along all other axes."""
    refuse_complex(function, "a kernel", weight)
    wide = widen(weight)
    kept = canonical_axes(axis, weight.ndim, function, "a kernel")
    others = tuple(a for a in range(weight.ndim) if a not in kept)
    most = jnp.iinfo(dtype).max
    largest = jnp.max(jnp.abs(wide), axis=others, keepdims=True)
    scale = jnp.where(largest == 0, jnp.ones_like(largest), largest / most)
    return jnp.round(wide / scale).astype(dtype), scale


def dequantize(integers: jax.Array, scale: jax.Array) -> jax.Array:
    """`integers * scale`, in the dtype of the scales."""
    return integers.astype(scale.dtype) * scale


def straight_through(function: str, weight: jax.Array, dtype: IntegerName, axis: Axes) -> jax.Array:
    """What `weight` is after `quantize` and `dequantize`; its gradient is that of `weight`."""
    rounded = dequantize(*quantize(function, jax.lax.stop_gradient(weight), dtype, axis))
    return rounded.astype(weight.dtype) + (weight - jax.lax.stop_gradient(weight))
