"""Windows that slide along the spatial axes, and the combination of what is in each."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import is_symbolic
from jaxnn._core.types import Padding, PerAxis, SpatialShape
from jaxnn.functional._spatial import explicit_pads, per_axis, spatial_rank

Combine = Callable[[jax.Array, jax.Array], jax.Array]


class PoolingWindow(NamedTuple):
    """The windows along one axis."""

    axis: int
    size: int
    stride: int
    dilation: int
    pads: tuple[int, int] = (0, 0)
    beyond: int = 0  # elements of the last window after the padding

    @property
    def extent(self) -> int:
        """From the first element to the last, both included."""
        return (self.size - 1) * self.dilation + 1


def pooling_windows(
    function: str,
    x: jax.Array | jax.ShapeDtypeStruct,
    window_shape: SpatialShape,
    strides: PerAxis | None,
    padding: Padding,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> list[PoolingWindow]:
    """The windows along each spatial axis, checked."""
    rank = spatial_rank(function, "window_shape", window_shape, x.shape)
    axes = range(x.ndim - 1 - rank, x.ndim - 1)
    sizes = per_axis(function, "window_shape", window_shape, rank)
    steps = per_axis(function, "strides", window_shape if strides is None else strides, rank)
    gaps = per_axis(function, "window_dilation", dilation, rank)
    windows = [PoolingWindow(*fields) for fields in zip(axes, sizes, steps, gaps, strict=True)]
    pads = _pads(function, [x.shape[a] for a in axes], windows, padding)
    windows = [w._replace(pads=pair) for w, pair in zip(windows, pads, strict=True)]
    if ceil_mode:
        windows = [w._replace(beyond=_beyond(function, x, w)) for w in windows]
    for w in windows:
        if sum(w.pads) + x.shape[w.axis] + w.beyond < w.extent:
            raise ValueError(
                f"{function}: axis {w.axis} of x with shape {x.shape} has {x.shape[w.axis]} "
                f"elements and {sum(w.pads)} of padding, expected at least {w.extent} in all, the "
                "extent of the window"
            )
    return windows


def _pads(
    function: str, shape: list[int], windows: list[PoolingWindow], padding: Padding
) -> Sequence[tuple[int, int]]:
    """What is added before and after each spatial axis."""
    if not isinstance(padding, str):
        return explicit_pads(function, padding, len(windows))
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"{function}: padding is {padding!r}, expected 'SAME', 'VALID' or numbers")
    extents, strides = [w.extent for w in windows], [w.stride for w in windows]
    return lax.padtype_to_pads(shape, extents, strides, padding)


def _beyond(function: str, x: jax.Array | jax.ShapeDtypeStruct, w: PoolingWindow) -> int:
    """What one more window has beyond the padding, if it starts inside of `x` or before it."""
    size = x.shape[w.axis]
    if is_symbolic(size):
        raise ValueError(
            f"{function}: axis {w.axis} of x has {size} elements, expected a number with ceil_mode"
        )
    whole, rest = divmod(sum(w.pads) + size - w.extent, w.stride)
    starts_inside = (whole + 1) * w.stride < w.pads[0] + size
    return w.stride - rest if rest and starts_inside else 0


def stack_windows(x: jax.Array, windows: list[PoolingWindow]) -> jax.Array:
    """The elements of each window on further last axes, one for each spatial axis; 0 is padding."""
    x = lax.pad(x, jnp.zeros((), x.dtype), _pad_config(x, windows))
    for w in windows:
        span = x.shape[w.axis] - w.extent + 1
        offsets = range(0, w.extent, w.dilation)
        if w.size <= UNROLLED:
            slices = [lax.slice_in_dim(x, o, o + span, w.stride, w.axis) for o in offsets]
            x = jnp.stack(slices, -1)
        else:  # hundreds of slices take long to compile
            places = jnp.arange(0, span, w.stride)[:, None] + jnp.asarray(offsets)[None]
            x = jnp.moveaxis(jnp.take(x, places, w.axis, mode="clip"), w.axis + 1, -1)
    return x


UNROLLED = 9  # elements of a window


def combine_windows(
    x: jax.Array, windows: list[PoolingWindow], fill: float, combine: Combine, in_turn: bool = False
) -> jax.Array:
    """All elements of each window, combined in row-major order.

    Slices are many times faster on CPU than `lax.reduce_window` and its gradient: for a few
    elements a strided one of each, for many, or `in_turn`, along one axis after the other.
    """
    x = lax.pad(x, jnp.asarray(fill, x.dtype), _pad_config(x, windows))
    if math.prod(w.size for w in windows) <= UNROLLED and not in_turn:
        elements = itertools.product(*(range(w.size) for w in windows))
        return functools.reduce(combine, (_element(x, windows, index) for index in elements))
    # The last axis first, which keeps the order.
    for w in reversed(windows):
        x = _neighbours(x, w, combine)
        x = lax.slice_in_dim(x, 0, x.shape[w.axis], w.stride, w.axis)
    return x


def _pad_config(x: jax.Array, windows: list[PoolingWindow]) -> list[tuple[int, int, int]]:
    config = [(0, 0, 0)] * x.ndim
    for w in windows:
        config[w.axis] = (w.pads[0], w.pads[1] + w.beyond, 0)
    return config


def _element(x: jax.Array, windows: list[PoolingWindow], index: tuple[int, ...]) -> jax.Array:
    """The element `index` of every window."""
    start, limit, strides = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for w, i in zip(windows, index, strict=True):
        start[w.axis] = i * w.dilation
        limit[w.axis] = x.shape[w.axis] - w.extent + 1 + i * w.dilation
        strides[w.axis] = w.stride
    return lax.slice(x, start, limit, strides)


def _neighbours(x: jax.Array, w: PoolingWindow, combine: Combine) -> jax.Array:
    """Each `w.size` neighbours along `w.axis`, combined by doubling: log2(w.size) steps."""

    def cut(x: jax.Array, first: int, length: int) -> jax.Array:
        return lax.slice_in_dim(x, first * w.dilation, first * w.dilation + length, 1, w.axis)

    parts, covered = [], 0
    doubled = x  # combinations of 1, 2, 4, ... neighbours
    for size in (1 << bit for bit in range(w.size.bit_length())):
        if w.size & size:
            parts.append(cut(doubled, covered, x.shape[w.axis] - w.extent + 1))
            covered += size
        if covered < w.size:
            length = doubled.shape[w.axis] - size * w.dilation
            doubled = combine(cut(doubled, 0, length), cut(doubled, size, length))
    return functools.reduce(combine, parts)
