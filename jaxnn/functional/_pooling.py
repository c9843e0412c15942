"""Pooling: the maximum or a mean of the elements in windows of the spatial axes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    along,
    canonical_axes,
    check_range,
    floating,
    is_inexact,
    is_symbolic,
    refuse_complex,
    widen,
)
from jaxnn._core.types import Axes, Padding, PartialSpatialShape, PerAxis, SpatialShape
from jaxnn.functional._spatial import output_sizes
from jaxnn.functional._windows import combine_windows, pooling_windows


@checked
def max_pool(
    x: ArrayLike,
    window_shape: SpatialShape,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> jax.Array:
    """The maximum of each window: `y[i] = max_k x[i * strides + k * window_dilation - low]`.

    Among equal maxima, the gradient goes to the first in row-major order, as in torch. Padding
    counts as -inf (an integer dtype's least value), so a window of padding alone gives that. A NaN
    in a window gives NaN.

    Args:
        x: shape `(*batch, *spatial, channels)`, any real dtype.
        window_shape: the window size, one number for each spatial axis, the last axes before the
            channels: `(2,)` for series, `(2, 2)` for images.
        strides: the strides; `window_shape` if None (flax: 1).
        padding: "VALID" for none; "SAME" for `ceil(size / strides)` outputs; or the padding before
            and after each spatial axis, pairs `(low, high)`, numbers that stand for both, or a
            single number for all axes.
        window_dilation: the dilation of the window (1: none).
        ceil_mode: whether elements at the end that fill no window get one more, as in torch: it
            starts inside of `x` or before it, and counts what it has of `x` and of the padding.

    Returns:
        Shape `(*batch, *outputs, channels)` in the dtype of `x`.

    Raises:
        TypeError: an argument is not of integers, or `x` is complex.
        ValueError: an argument does not fit the axes of `x`, or no window fits into `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> nn.functional.max_pool(x, (2, 2))[0, :, :, 0]
        Array([[ 5.,  7.],
               [13., 15.]], dtype=float32)
    """
    x = _check_real("max_pool", jnp.asarray(x))
    windows = pooling_windows(
        "max_pool", x, window_shape, strides, padding, window_dilation, ceil_mode
    )
    overlaps = all(w.stride == 1 for w in windows)  # the gradient of many maxima is slow at once
    return combine_windows(x, windows, _least(x.dtype), _first_maximum, in_turn=overlaps)


@checked
def avg_pool(
    x: ArrayLike,
    window_shape: SpatialShape,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> jax.Array:
    """The mean of each window: `y[i] = mean_k x[i * strides + k - low]`.

    Args:
        x: shape `(*batch, *spatial, channels)`.
        window_shape, strides, padding, ceil_mode: as in `max_pool`.
        count_include_pad: whether padding counts as zeros, as in torch and flax; if not, the mean
            is that of the elements of `x` alone, as in stax and Keras.

    Returns:
        Shape `(*batch, *outputs, channels)` in the floating dtype of `x`. Sums are float32 or
        wider.

    Raises:
        TypeError: an argument is not of integers.
        ValueError: an argument does not fit the axes of `x`, or no window fits into `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.ones((1, 3, 1))
        >>> nn.functional.avg_pool(x, (2,), padding="SAME").ravel()
        Array([1. , 0.5], dtype=float32)
        >>> nn.functional.avg_pool(x, (2,), padding="SAME", count_include_pad=False).ravel()
        Array([1., 1.], dtype=float32)
    """
    x = floating(x)
    windows = pooling_windows("avg_pool", x, window_shape, strides, padding, ceil_mode=ceil_mode)
    y = combine_windows(widen(x), windows, 0, jnp.add)
    for w in windows:
        if count_include_pad and not w.beyond:
            y = y / w.size
            continue
        low, high = w.pads if count_include_pad else (0, 0)
        first = jnp.arange(y.shape[w.axis]) * w.stride - w.pads[0]
        counted = jnp.minimum(first + w.size, x.shape[w.axis] + high) - jnp.maximum(first, -low)
        y = y / along(jnp.maximum(counted, 1).astype(y.dtype), (w.axis,), y.ndim)
    return y.astype(x.dtype)


@checked
def lp_pool(
    x: ArrayLike,
    window_shape: SpatialShape,
    p: float = 2.0,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
) -> jax.Array:
    """The p-norm of each window: `y[i] = (sum_k |x[i * strides + k - low]|^p)^(1/p)`.

    The gradient of a window of zeros is 0. (Torch sums `x^p`, which for odd `p` differs where `x`
    is negative, and with `ceil_mode` scales the last window as if it were whole.)

    Paper: Sermanet et al., Convolutional Neural Networks Applied to House Numbers Digit
    Classification, https://arxiv.org/abs/1204.3968

    Args:
        x: shape `(*batch, *spatial, channels)`, real.
        window_shape, strides, padding, ceil_mode: as in `max_pool`; padding counts as zeros.
        p: the order of the norm, at least 1 and finite.

    Returns:
        Shape `(*batch, *outputs, channels)` in the floating dtype of `x`. Sums are float32 or
        wider.

    Raises:
        TypeError: an argument is not of numbers, or `x` is complex.
        ValueError: `p` is less than 1 or infinite; an argument does not fit the axes of `x`; or no
            window fits into `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.lp_pool(jnp.array([[3.0], [4.0], [0.0], [0.0]]), (2,)).ravel()
        Array([5., 0.], dtype=float32)
    """
    x = _check_real("lp_pool", floating(x))
    check_range("lp_pool", "p", p, 1)
    if math.isinf(p):
        raise ValueError("lp_pool: p is inf, expected a finite number; max_pool takes the maximum")
    windows = pooling_windows("lp_pool", x, window_shape, strides, padding, ceil_mode=ceil_mode)
    wide = widen(x)
    # An even power is smooth at 0 by itself; jnp.abs has derivative 1 there, and 0 is wanted.
    powers = wide ** int(p) if p % 2 == 0 else (wide * jnp.sign(wide)) ** p
    total = combine_windows(powers, windows, 0, jnp.add)
    is_zero = total == 0
    y = jnp.where(is_zero, 0, jnp.where(is_zero, 1, total) ** (1 / p))
    return y.astype(x.dtype)


@checked
def adaptive_max_pool(x: ArrayLike, output_size: PartialSpatialShape) -> jax.Array:
    """The maximum of each of `output_size` nearly equal parts of the spatial axes.

    Part `i` of `m` of an axis of size `n` is from `floor(i n / m)` to `ceil((i + 1) n / m)`, as in
    torch: parts overlap by an element where `m` does not divide `n`. Among equal maxima, the
    gradient goes to the first in row-major order.

    Args:
        x: shape `(*batch, *spatial, channels)`, any real dtype.
        output_size: the number of outputs along each spatial axis, None to keep an axis as it is:
            `(2,)` for series, `(2, 2)` for images. It may be larger than `x`.

    Returns:
        Shape `(*batch, *output_size, channels)` in the dtype of `x`.

    Raises:
        TypeError: `output_size` is not of integers, or `x` is complex.
        ValueError: `output_size` does not fit the axes of `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0], [5.0], [2.0], [4.0], [3.0]])
        >>> nn.functional.adaptive_max_pool(x, (2,)).ravel()
        Array([5., 4.], dtype=float32)
    """
    x = _check_real("adaptive_max_pool", jnp.asarray(x))
    # The gradient adds up what parts have in common, as many as there are: in float32 or wider.
    y = widen(x) if is_inexact(x.dtype) else x
    # From the last axis to the first, so that the first in row-major order wins.
    for axis, size in reversed(output_sizes("adaptive_max_pool", x, output_size)):
        parts, is_part = _parts("adaptive_max_pool", y, axis, size)
        parts = jnp.where(is_part, parts, jnp.asarray(_least(y.dtype), y.dtype))
        y = jnp.squeeze(maximum_along(parts, axis + 1), axis + 1)
    return y.astype(x.dtype)


@checked
def adaptive_avg_pool(x: ArrayLike, output_size: PartialSpatialShape) -> jax.Array:
    """The mean of each of `output_size` nearly equal parts of the spatial axes.

    The parts are those of `adaptive_max_pool`.

    Args:
        x: shape `(*batch, *spatial, channels)`.
        output_size: as in `adaptive_max_pool`.

    Returns:
        Shape `(*batch, *output_size, channels)` in the floating dtype of `x`. Sums are float32 or
        wider.

    Raises:
        TypeError: `output_size` is not of integers.
        ValueError: `output_size` does not fit the axes of `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0], [5.0], [3.0], [4.0], [2.0]])
        >>> nn.functional.adaptive_avg_pool(x, (2,)).ravel()
        Array([3., 3.], dtype=float32)
    """
    x = floating(x)
    y = widen(x)
    for axis, size in output_sizes("adaptive_avg_pool", x, output_size):
        parts, is_part = _parts("adaptive_avg_pool", y, axis, size)
        count = is_part.sum(axis=axis + 1).astype(y.dtype)
        y = jnp.where(is_part, parts, 0).sum(axis=axis + 1) / count
    return y.astype(x.dtype)


@checked
def global_max_pool(x: ArrayLike, *, axis: Axes | None = None, keepdims: bool = False) -> jax.Array:
    """The maximum of each channel over the spatial axes: `y = max(x, axis)`.

    Among equal maxima, the gradient goes to the first in row-major order. A NaN gives NaN.

    Args:
        x: shape `(batch, *spatial, channels)`, any real dtype.
        axis: the axis or axes to reduce; all but the first and the last if None.
        keepdims: whether the reduced axes stay, with size 1.

    Returns:
        Shape `(batch, channels)`, or `(batch, 1, ..., channels)`, in the dtype of `x`.

    Raises:
        TypeError: `x` is complex.
        ValueError: `axis` is out of range, or None and `x` has fewer than two axes; there is
            nothing along it.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.global_max_pool(jnp.arange(16.0).reshape(2, 2, 2, 2))
        Array([[ 6.,  7.],
               [14., 15.]], dtype=float32)
    """
    x = _check_real("global_max_pool", jnp.asarray(x))
    axes = _nonempty("global_max_pool", x, _spatial_axes("global_max_pool", x, axis))
    if x.size == 0:  # then so is the result
        return jnp.max(x, axes, keepdims=keepdims, initial=_least(x.dtype))
    for a in reversed(axes):
        x = maximum_along(x, a)
    return x if keepdims else jnp.squeeze(x, axes)


@checked
def global_avg_pool(x: ArrayLike, *, axis: Axes | None = None, keepdims: bool = False) -> jax.Array:
    """The mean of each channel over the spatial axes: `y = mean(x, axis)`.

    Paper: Lin et al., Network In Network, https://arxiv.org/abs/1312.4400

    Args:
        x: shape `(batch, *spatial, channels)`.
        axis: the axis or axes to reduce; all but the first and the last if None.
        keepdims: whether the reduced axes stay, with size 1.

    Returns:
        Shape `(batch, channels)`, or `(batch, 1, ..., channels)`, in the floating dtype of `x`.
        Sums are float32 or wider.

    Raises:
        ValueError: `axis` is out of range, or None and `x` has fewer than two axes; there is
            nothing along it.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.global_avg_pool(jnp.arange(16.0).reshape(2, 2, 2, 2))
        Array([[ 3.,  4.],
               [11., 12.]], dtype=float32)
    """
    x = floating(x)
    axes = _nonempty("global_avg_pool", x, _spatial_axes("global_avg_pool", x, axis))
    return jnp.mean(widen(x), axis=axes, keepdims=keepdims).astype(x.dtype)


def _check_real(function: str, x: jax.Array) -> jax.Array:
    refuse_complex(function, "x", x)
    return x


def _first_maximum(a: jax.Array, b: jax.Array) -> jax.Array:
    """The greater one, `a` if they are equal, NaN if one is NaN."""
    return jnp.where((b > a) | (b != b), b, a)


def _least(dtype: jnp.dtype) -> float | int | bool:
    """What is never greater than another number."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -math.inf
    return False if dtype == jnp.bool_ else int(jnp.iinfo(dtype).min)


# Parts of an axis, and whole axes


def _parts(function: str, x: jax.Array, axis: int, size: int) -> tuple[jax.Array, jax.Array]:
    """`axis` as two, `size` parts of equal length, and which elements are of the part."""
    n = x.shape[axis]
    if n % size == 0:
        parts = x.reshape(*x.shape[:axis], size, n // size, *x.shape[axis + 1 :])
        return parts, along(jnp.ones((size, n // size), bool), (axis, axis + 1), parts.ndim)
    if is_symbolic(n):
        raise ValueError(
            f"{function}: axis {axis} of x has {n} elements, expected a multiple of output_size, "
            f"{size}, where their number is symbolic"
        )
    numbers = np.arange(size)
    start, stop = numbers * n // size, -(-(numbers + 1) * n // size)
    index = start[:, None] + np.arange(max(stop - start))
    parts = jnp.take(x, np.minimum(index, n - 1), axis=axis, mode="clip")
    return parts, along(index < stop[:, None], (axis, axis + 1), parts.ndim)


def maximum_along(x: jax.Array, axis: int) -> jax.Array:
    """The maximum, whose first place alone gets the gradient; NaN if there is one."""
    return jnp.take_along_axis(x, jnp.argmax(x, axis, keepdims=True), axis)


def _nonempty(function: str, x: jax.Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    """`axes`, which have elements, or the result has none."""
    kept = math.prod(size for a, size in enumerate(x.shape) if a not in axes)
    if kept and 0 in [x.shape[a] for a in axes]:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected at least one element along axes {axes}"
        )
    return axes


def _spatial_axes(function: str, x: jax.Array, axis: Axes | None) -> tuple[int, ...]:
    if axis is not None:
        return canonical_axes(axis, x.ndim, function)
    if x.ndim < 2:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected shape (batch, *spatial, channels)"
        )
    return tuple(range(1, x.ndim - 1))
