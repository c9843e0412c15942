"""Pooling, one window after the other.

Windows of x of shape (*batch, *spatial, channels) are taken over the spatial axes; every batch
index and channel is pooled by itself.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .float64 import Array, in_float64

Result = tuple[Array, Callable[[Array], tuple[Array]]]
PerAxis = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]
Places = list[tuple[int, ...]]  # indices into the spatial axes, in row-major order


def _each(value: PerAxis, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)


def _places_along(
    size: int,
    window_shape: int,
    stride: int,
    padding: str | int | tuple[int, int],
    window_dilation: int,
    ceil_mode: bool,
) -> list[list[int]]:
    """Return the indices of each window along one axis; those < 0 or >= size are padding.

    With ceil_mode, there are windows as long as one starts before `size` and the one before it
    does not see the last element or padding; what is beyond is not of the window.
    """
    extent = (window_shape - 1) * window_dilation + 1
    if padding == "SAME":
        outputs = -(-size // stride)
        missing = max((outputs - 1) * stride + extent - size, 0)
        low, high = missing // 2, missing - missing // 2
    elif padding == "VALID":
        low, high = 0, 0
    else:
        low, high = (padding, padding) if isinstance(padding, int) else padding
    first = list(range(-low, size + high - extent + 1, stride))
    start = first[-1] + stride if first else -low
    if ceil_mode and start < size and start - stride + extent < size + high:
        first.append(start)
    windows = [[start + k * window_dilation for k in range(window_shape)] for start in first]
    return [[place for place in window if place < size + high] for window in windows]


def _windows(
    x: Array,
    window_shape: PerAxis,
    strides: PerAxis | None,
    padding: Padding,
    window_dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> tuple[tuple[int, ...], dict[tuple[int, ...], Places], tuple[int, ...]]:
    """Return the spatial shape, the places of each output's window, and the outputs' shape."""
    n = x.ndim - 2 if isinstance(window_shape, int) else len(window_shape)
    spatial = x.shape[-1 - n : -1]
    sizes = _each(window_shape, n)
    steps = sizes if strides is None else _each(strides, n)
    pads = [padding] * n if isinstance(padding, (str, int)) else list(padding)
    along = [
        _places_along(*arguments, ceil_mode)
        for arguments in zip(spatial, sizes, steps, pads, _each(window_dilation, n), strict=True)
    ]
    return spatial, *_products(along)


def _products(
    along: list[list[list[int]]],
) -> tuple[dict[tuple[int, ...], Places], tuple[int, ...]]:
    outputs = tuple(len(places) for places in along)
    return {
        o: list(itertools.product(*(along[axis][i] for axis, i in enumerate(o))))
        for o in np.ndindex(outputs)
    }, outputs


def _inside(place: tuple[int, ...], spatial: tuple[int, ...]) -> bool:
    return all(0 <= i < n for i, n in zip(place, spatial, strict=True))


def _flat(x: Array, n: int) -> Array:
    """One batch axis, n spatial axes, one channel axis."""
    return x.reshape(-1, *x.shape[x.ndim - 1 - n :])


def _pool(
    x: Array,
    spatial: tuple[int, ...],
    windows: dict[tuple[int, ...], Places],
    outputs: tuple[int, ...],
    one: Callable[[Array, int], tuple[float, Array]],
) -> Result:
    """Pool with `one(values, size) -> (y, dy/dvalues)` of the values inside of a window of a size.

    The gradient of an element is the sum over the windows that it is in.
    """
    n = len(spatial)
    flat = _flat(x, n)
    y = np.zeros((flat.shape[0], *outputs, flat.shape[-1]))
    parts = []
    for b, c in np.ndindex(flat.shape[0], flat.shape[-1]):
        for o, places in windows.items():
            inside = [place for place in places if _inside(place, spatial)]
            values = np.array([flat[(b, *place, c)] for place in inside])
            y[(b, *o, c)], slopes = one(values, len(places))
            parts += [((b, *o, c), (b, *p, c), s) for p, s in zip(inside, slopes, strict=True)]

    def backward(dy: Array) -> tuple[Array]:
        dy, dx = _flat(dy, n), np.zeros(flat.shape)
        for output, place, slope in parts:
            dx[place] += slope * dy[output]
        return (dx.reshape(x.shape),)

    return y.reshape(*x.shape[: x.ndim - 1 - n], *outputs, x.shape[-1]), backward


def _maximum(values: Array, size: int) -> tuple[float, Array]:
    """Return the maximum and the slopes: 1 for the first place that has it, 0 elsewhere."""
    slopes = np.zeros(len(values))
    if len(values) == 0:
        return -np.inf, slopes
    slopes[np.argmax(values)] = 1.0
    return values.max(), slopes


@in_float64
def max_pool(
    x: Array,
    window_shape: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Result:
    """y = the greatest of each window, -inf for padding alone; the first of equals has slope 1."""
    return _pool(
        x, *_windows(x, window_shape, strides, padding, window_dilation, ceil_mode), _maximum
    )


@in_float64
def avg_pool(
    x: Array,
    window_shape: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> Result:
    """y = sum / n with n the size of the window, or the number of its elements inside of x."""

    def mean(values: Array, size: int) -> tuple[float, Array]:
        n = size if count_include_pad else max(len(values), 1)
        return values.sum() / n, np.full(len(values), 1.0 / n)

    return _pool(x, *_windows(x, window_shape, strides, padding, ceil_mode=ceil_mode), mean)


@in_float64
def lp_pool(
    x: Array,
    window_shape: PerAxis,
    p: float = 2.0,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
) -> Result:
    """y = (sum |v|^p)^(1/p); dy/dv = sign(v) (|v| / y)^(p - 1), and 0 where y = 0.

    As y^p = sum |v|^p, p y^(p-1) dy = p |v|^(p-1) sign(v) dv.
    """

    def norm(values: Array, size: int) -> tuple[float, Array]:
        y = (np.abs(values) ** p).sum() ** (1 / p)
        if y == 0:
            return 0.0, np.zeros(len(values))
        return y, np.sign(values) * (np.abs(values) / y) ** (p - 1)

    return _pool(x, *_windows(x, window_shape, strides, padding, ceil_mode=ceil_mode), norm)


@in_float64
def unfold(
    x: Array,
    window_shape: PerAxis,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
) -> Result:
    """y[o, c n + k] = x[place k of the window of o, c], 0 for padding; dx sums what it gave."""
    spatial, windows, outputs = _windows(x, window_shape, strides, padding, window_dilation)
    flat = _flat(x, len(spatial))
    n = len(windows[(0,) * len(spatial)])
    y = np.zeros((flat.shape[0], *outputs, flat.shape[-1] * n))
    copies = [
        ((slice(None), *o, c * n + k), (slice(None), *place, c))
        for o, places in windows.items()
        for k, place in enumerate(places)
        if _inside(place, spatial)
        for c in range(flat.shape[-1])
    ]
    for to, source in copies:
        y[to] = flat[source]

    def backward(dy: Array) -> tuple[Array]:
        dy, dx = _flat(dy, len(spatial)), np.zeros(flat.shape)
        for to, source in copies:
            dx[source] += dy[to]
        return (dx.reshape(x.shape),)

    return y.reshape(*x.shape[: x.ndim - 1 - len(spatial)], *outputs, -1), backward


@in_float64
def fold(
    x: Array, output_size: Sequence[int], window_shape: Sequence[int], **options: Any
) -> Result:
    """y = the transpose of unfold, which is linear, so that dx is unfold of dy."""
    batch = x.shape[: x.ndim - 1 - len(output_size)]
    channels = x.shape[-1] // int(np.prod(window_shape))
    shape = (*batch, *output_size, channels)
    _, transpose = unfold(np.zeros(shape), window_shape, **options)
    (y,) = transpose(x)
    return y, lambda dy: (unfold(dy, window_shape, **options)[0],)


def _parts(
    x: Array, output_size: int | Sequence[int | None]
) -> tuple[tuple[int, ...], dict[tuple[int, ...], Places], tuple[int, ...]]:
    """Part i of m of an axis of size n: the indices from floor(i n / m) to ceil((i + 1) n / m)."""
    n = x.ndim - 2 if isinstance(output_size, int) else len(output_size)
    spatial = x.shape[-1 - n : -1]
    sizes = [output_size] * n if isinstance(output_size, int) else list(output_size)
    along = []
    for total, size in zip(spatial, sizes, strict=True):
        m = total if size is None else size
        along.append(
            [
                [j for j in range(total) if j + 1 > i * total / m and j < (i + 1) * total / m]
                for i in range(m)
            ]
        )
    return spatial, *_products(along)


@in_float64
def adaptive_max_pool(x: Array, output_size: int | Sequence[int | None]) -> Result:
    """y = the greatest of each part; the first of equals has slope 1."""
    return _pool(x, *_parts(x, output_size), _maximum)


@in_float64
def adaptive_avg_pool(x: Array, output_size: int | Sequence[int | None]) -> Result:
    """y = the mean of each part."""
    return _pool(
        x, *_parts(x, output_size), lambda v, size: (v.mean(), np.full(len(v), 1 / len(v)))
    )


def _axes(x: Array, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    given = range(1, x.ndim - 1) if axis is None else np.atleast_1d(axis)
    return tuple(sorted(int(a) % x.ndim for a in given))


@in_float64
def global_max_pool(
    x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Result:
    """y = the maximum over the axes; the first of equals in row-major order has slope 1."""
    axes = _axes(x, axis)
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    rows = x.transpose(*kept, *axes)
    shape = rows.shape[: len(kept)]
    rows = rows.reshape(-1, int(np.prod([x.shape[a] for a in axes], dtype=int)))
    first = np.argmax(rows, 1)
    y = rows[np.arange(len(rows)), first].reshape(shape)

    def backward(dy: Array) -> tuple[Array]:
        drows = np.zeros(rows.shape)
        drows[np.arange(len(rows)), first] = dy.reshape(-1)
        dx = drows.reshape(*shape, *(x.shape[a] for a in axes))
        return (dx.transpose(np.argsort((*kept, *axes))),)

    return np.expand_dims(y, axes) if keepdims else y, backward


@in_float64
def global_avg_pool(
    x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Result:
    """y = the mean over the axes; each element has slope 1 / n."""
    axes = _axes(x, axis)
    n = int(np.prod([x.shape[a] for a in axes], dtype=int))
    y = x.sum(axes, keepdims=True) / n

    def backward(dy: Array) -> tuple[Array]:
        return (np.broadcast_to(dy.reshape(y.shape) / n, x.shape),)

    return y if keepdims else y.reshape(np.delete(x.shape, axes)), backward
