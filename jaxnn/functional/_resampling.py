"""Upsampling by repetition or interpolation, and pixel shuffling."""

import itertools
import math
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import along, floating, is_inexact, is_symbolic, widen
from jaxnn._core.meshes import automatic
from jaxnn._core.types import PartialSpatialShape, SpatialShape
from jaxnn.functional._pooling import adaptive_avg_pool
from jaxnn.functional._spatial import output_sizes, per_axis, spatial_rank, split

Method: TypeAlias = Literal["nearest", "linear", "bilinear", "trilinear"]
ResizeMethod: TypeAlias = Literal[
    "nearest", "linear", "bilinear", "trilinear", "cubic", "bicubic", "area"
]


@checked
def upsample(x: ArrayLike, scale: SpatialShape, *, method: Method = "nearest") -> jax.Array:
    """Upsample each spatial axis by a factor `scale`.

    Element `i` is the middle of `[i, i + 1)` along its axis, before and after (half-pixel centres,
    torch's `align_corners=False`), so output `j` lies at `(j + 0.5) / scale - 0.5` of the input.
    "nearest" repeats each element; "linear" weighs the two nearest by their distances, along one
    axis after the other, and continues the first and the last element beyond the edges. `resize`
    takes other sizes and methods.

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
def resize(
    x: ArrayLike,
    output_size: PartialSpatialShape,
    *,
    method: ResizeMethod = "linear",
    antialias: bool = False,
) -> jax.Array:
    """Resample the spatial axes to any size, with half-pixel centres as in `upsample`.

    Output `j` of `m` lies at `(j + 0.5) * n / m - 0.5` of the `n` elements of an axis, and is their
    sum weighted by distance, along one axis after the other:

    - "nearest": the element in whose pixel it lies (torch's "nearest-exact").
    - "linear": the two nearest; beyond the edges, the first and the last element go on.
    - "cubic": the four nearest, by Keys' cubic with `a = -0.75` as in torch; edges as in "linear".
    - "area": the mean of the part, as `adaptive_avg_pool`.

    With `antialias`, the weights of "linear" and "cubic" are spread over `n / m` elements where an
    axis shrinks, and made to add up to 1, and the cubic has `a = -0.5`, as in torch, `jax.image`
    and Pillow.

    Paper: Keys, Cubic Convolution Interpolation for Digital Image Processing,
    https://doi.org/10.1109/TASSP.1981.1163711

    Args:
        x: shape `(*batch, *spatial, channels)`, any dtype.
        output_size: the new size of each spatial axis, None to keep it: `(2,)` for series,
            `(2, 2)` for images.
        method: as above; "bilinear" and "trilinear" are other names of "linear", "bicubic" of
            "cubic".
        antialias: whether high frequencies that a smaller image cannot hold are smoothed away.

    Returns:
        Shape `(*batch, *output_size, channels)` in the dtype of `x`, a floating one unless
        `method` is "nearest".

    Raises:
        TypeError: `output_size` is not of integers.
        ValueError: `method` is unknown or has no antialiasing; `output_size` does not fit the axes
            of `x`; or the size of an axis that changes is symbolic.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[0.0], [7.0], [14.0], [63.0]])
        >>> nn.functional.resize(x, (2,)).ravel()
        Array([ 3.5, 38.5], dtype=float32)
        >>> nn.functional.resize(x, (2,), antialias=True).ravel().round()
        Array([ 5., 34.], dtype=float32)
        >>> nn.functional.resize(x, (3,), method="nearest").ravel()
        Array([ 0., 14., 63.], dtype=float32)
    """
    check_resize(method, antialias)
    if method == "area":
        return adaptive_avg_pool(x, output_size)
    x = jnp.asarray(x) if method == "nearest" else floating(x)
    sizes = output_sizes("resize", x, output_size)
    for axis, _ in sizes:
        if is_symbolic(x.shape[axis]):
            raise ValueError(
                f"resize: axis {axis} of x has {x.shape[axis]} elements, expected a number"
            )

    def resized(x: jax.Array) -> jax.Array:
        y = widen(x) if is_inexact(x.dtype) else x  # a gradient is a sum over what an element gives
        for axis, size in sizes:
            if size == x.shape[axis]:
                continue
            if method == "nearest":
                nearest = np.arange(1, 2 * size, 2) * x.shape[axis] // (2 * size)
                y = jnp.take(y, nearest, axis, mode="clip")
                continue
            weights = jnp.asarray(_weights(x.shape[axis], size, method, antialias), y.dtype)
            y = jnp.tensordot(y, weights, (axis, 1), precision=jax.lax.Precision.HIGHEST)
            y = jnp.moveaxis(y, -1, axis)
        return y.astype(x.dtype)

    return automatic(resized, x, leading=x.ndim - 1 - len(output_size))  # type: ignore[no-any-return]


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


def check_resize(method: ResizeMethod, antialias: bool) -> None:
    """Raise unless `resize` knows the method, with antialiasing if it is wanted."""
    if method not in get_args(ResizeMethod):
        raise ValueError(f"resize: method is {method!r}, expected one of {get_args(ResizeMethod)}")
    if antialias and method in ("nearest", "area"):
        raise ValueError(
            f"resize: method is {method!r} with antialias=True, expected 'linear' or 'cubic'"
        )


def _places(size: int, outputs: int) -> np.ndarray:
    """Where the middles of the outputs lie among the elements."""
    return (np.arange(outputs) + 0.5) * size / outputs - 0.5


def _weights(size: int, outputs: int, method: ResizeMethod, antialias: bool) -> np.ndarray:
    """What each output takes of each element, shape `(outputs, size)`."""
    places = _places(size, outputs)[:, None]
    is_cubic = method in ("cubic", "bicubic")

    def kernel(distance: np.ndarray) -> np.ndarray:
        if is_cubic:
            return _keys_cubic(distance, -0.5 if antialias else -0.75)
        return np.maximum(1 - np.abs(distance), 0)  # type: ignore[no-any-return]

    if antialias:
        weights = kernel((np.arange(size) - places) / max(size / outputs, 1))
        return weights / weights.sum(1, keepdims=True)  # type: ignore[no-any-return]
    taps = np.floor(places) + np.arange(-1, 3)
    weights = np.zeros((outputs, size))
    inside = np.clip(taps, 0, size - 1).astype(int)
    np.add.at(weights, (np.arange(outputs)[:, None], inside), kernel(taps - places))
    return weights


def _keys_cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at the other integers and from 2 on, with a slope of `a` at 1."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


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
