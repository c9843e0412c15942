"""Upsampling by repetition or interpolation, and pixel shuffling."""

import itertools
import math
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import along, floating, is_inexact, widen
from jaxnn._core.meshes import automatic
from jaxnn._core.types import SpatialShape
from jaxnn.functional._spatial import per_axis, spatial_rank, split

Method: TypeAlias = Literal["nearest", "linear", "bilinear", "trilinear"]


@checked
def upsample(x: ArrayLike, scale: SpatialShape, *, method: Method = "nearest") -> jax.Array:
    """Upsample each spatial axis by a factor `scale`.

    Element `i` is the middle of `[i, i + 1)` along its axis, before and after (half-pixel centres,
    torch's `align_corners=False`), so output `j` lies at `(j + 0.5) / scale - 0.5` of the input.
    "nearest" repeats each element; "linear" weighs the two nearest by their distances, along one
    axis after the other, and continues the first and the last element beyond the edges. For other
    sizes and methods there is `jax.image.resize`.

    Args:
        x: shape `(*batch, *spatial, channels)`, any dtype.
        scale: the upsampling factor, one number for each spatial axis, the last axes before the
            channels: `(2,)` for series, `(2, 2)` for images.
        method: "nearest" or "linear"; "bilinear" and "trilinear" are other names of the latter.

    Returns:
        Shape `(*batch, *(scale * spatial), channels)` in the dtype of `x`, a floating one for
        "linear".

    Raises:
        TypeError: `scale` is not of integers.
        ValueError: `method` is unknown, `scale` does not fit the axes of `x`, or there is nothing
            to interpolate.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[0.0], [8.0]])
        >>> nn.functional.upsample(x, (4,), method="linear").ravel()
        Array([0., 0., 1., 3., 5., 7., 8., 8.], dtype=float32)
        >>> nn.functional.upsample(x, (2,)).ravel()
        Array([0., 0., 8., 8.], dtype=float32)
    """
    check_method(method)
    x = jnp.asarray(x) if method == "nearest" else floating(x)
    rank = spatial_rank("upsample", "scale", scale, x.shape)
    scales = per_axis("upsample", "scale", scale, rank)
    if method != "nearest" and 0 in x.shape[-1 - rank : -1]:
        raise ValueError(f"upsample: x has shape {x.shape}, expected elements to interpolate")

    def upsampled(x: jax.Array) -> jax.Array:
        y = widen(x) if is_inexact(x.dtype) else x  # a gradient is a sum over what an element gives
        for axis, factor in enumerate(scales, start=x.ndim - 1 - rank):
            if method == "nearest":
                y = jnp.repeat(y, factor, axis)
            elif factor > 1:
                y = _interpolate(y, factor, axis)
        return y.astype(x.dtype)

    return automatic(upsampled, x, leading=x.ndim - 1 - rank)  # type: ignore[no-any-return]


@checked
def pixel_shuffle(x: ArrayLike, factor: SpatialShape) -> jax.Array:
    """Channels become pixels: `(h, w, c * r * r)` to `(h * r, w * r, c)`, for `factor` `r`.

    Channel `c * r * r + i * r + j` of pixel `(h, w)` is channel `c` of pixel `(h * r + i,
    w * r + j)`, as in torch (TensorFlow's `depth_to_space` has `c` as the fastest index, not the
    slowest), and likewise for other numbers of spatial axes.

    Paper: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network, https://arxiv.org/abs/1609.05158

    Args:
        x: shape `(*batch, *spatial, channels)`, any dtype.
        factor: the upsampling factor, one number for each spatial axis, the last axes
            before the channels: `(2,)` for series, `(2, 2)` for images.

    Returns:
        Shape `(*batch, *(factor * spatial), channels / product of the factors)`.

    Raises:
        TypeError: `factor` is not of integers.
        ValueError: `factor` does not fit the axes of `x`, or its product does not divide the
            channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.pixel_shuffle(jnp.arange(4).reshape(1, 1, 1, 4), (2, 2))[0, :, :, 0]
        Array([[0, 1],
               [2, 3]], dtype=int32)
    """
    x = jnp.asarray(x)
    rank = spatial_rank("pixel_shuffle", "factor", factor, x.shape)
    factors = per_axis("pixel_shuffle", "factor", factor, rank)
    batch, sizes = split(x, rank)
    channels, rest = divmod(x.shape[-1], math.prod(factors))
    if rest:
        raise ValueError(
            f"pixel_shuffle: x has shape {x.shape}, expected channels that {math.prod(factors)} "
            f"divides, the pixels made of each with factor {factor}"
        )
    n = len(batch)
    pixels = zip(range(n, n + rank), range(n + rank + 1, n + 2 * rank + 1), strict=True)
    order = (*range(n), *itertools.chain(*pixels), n + rank)

    def shuffled(x: jax.Array) -> jax.Array:
        y = x.reshape(*batch, *sizes, channels, *factors).transpose(order)
        return y.reshape(*batch, *(s * f for s, f in zip(sizes, factors, strict=True)), channels)

    return automatic(shuffled, x, leading=n)  # type: ignore[no-any-return]


@checked
def pixel_unshuffle(x: ArrayLike, factor: SpatialShape) -> jax.Array:
    """Pixels become channels, the inverse of `pixel_shuffle`: `(h * r, w * r, c)` to `(h, w, ...)`.

    Pixel `(h * r + i, w * r + j)` of channel `c` is channel `c * r * r + i * r + j` of pixel
    `(h, w)`, for `factor` `r`, as in torch, and likewise for other numbers of spatial axes.

    Args:
        x: shape `(*batch, *spatial, channels)`, any dtype.
        factor: the downsampling factor, one number for each spatial axis, the last axes before
            the channels: `(2,)` for series, `(2, 2)` for images.

    Returns:
        Shape `(*batch, *(spatial / factor), channels * product of the factors)`.

    Raises:
        TypeError: `factor` is not of integers.
        ValueError: `factor` does not fit the axes of `x`, or does not divide their sizes.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.arange(8).reshape(1, 2, 4, 1)
        >>> nn.functional.pixel_unshuffle(x, (2, 2))
        Array([[[[0, 1, 4, 5],
                 [2, 3, 6, 7]]]], dtype=int32)
    """
    x = jnp.asarray(x)
    rank = spatial_rank("pixel_unshuffle", "factor", factor, x.shape)
    factors = per_axis("pixel_unshuffle", "factor", factor, rank)
    batch, sizes = split(x, rank)
    if any(s % f for s, f in zip(sizes, factors, strict=True)):
        raise ValueError(
            f"pixel_unshuffle: x has spatial shape {sizes}, expected sizes that factor {factor} "
            "divides"
        )
    n = len(batch)
    coarse = [s // f for s, f in zip(sizes, factors, strict=True)]
    pixels = list(itertools.chain(*zip(coarse, factors, strict=True)))
    of_coarse, of_factors = range(n, n + 2 * rank, 2), range(n + 1, n + 2 * rank, 2)
    order = (*range(n), *of_coarse, n + 2 * rank, *of_factors)

    def unshuffled(x: jax.Array) -> jax.Array:
        y = x.reshape(*batch, *pixels, x.shape[-1]).transpose(order)
        return y.reshape(*batch, *coarse, x.shape[-1] * math.prod(factors))

    return automatic(unshuffled, x, leading=n)  # type: ignore[no-any-return]


def check_method(method: Method) -> None:
    """Raise unless `upsample` knows the method."""
    if method not in get_args(Method):
        raise ValueError(f"upsample: method is {method!r}, expected one of {get_args(Method)}")


def _interpolate(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Linear interpolation along `axis`: `factor` outputs of each element and its neighbours."""
    size = x.shape[axis]
    ends = [(0, 0)] * x.ndim
    ends[axis] = (1, 1)
    padded = jnp.pad(x, ends, mode="edge")
    # The outputs of an element lie at these distances after it, between -0.5 and 0.5.
    distance = (np.arange(factor) + 0.5) / factor - 0.5
    weights = np.maximum(-distance, 0), 1 - np.abs(distance), np.maximum(distance, 0)
    y = sum(
        along(weight.astype(x.dtype), (axis + 1,), x.ndim + 1)
        * jnp.expand_dims(jax.lax.slice_in_dim(padded, shift, shift + size, axis=axis), axis + 1)
        for shift, weight in enumerate(weights)
    )
    return jnp.asarray(y).reshape(*x.shape[:axis], size * factor, *x.shape[axis + 1 :])
