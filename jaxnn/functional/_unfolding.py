"""Windows of the spatial axes as channels, and their sum."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import floating, widen
from jaxnn._core.meshes import automatic
from jaxnn._core.types import Padding, PerAxis, SpatialShape
from jaxnn.functional._spatial import per_axis, spatial_rank, split
from jaxnn.functional._windows import PoolingWindow, pooling_windows, stack_windows


@checked
def unfold(
    x: ArrayLike,
    window_shape: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
) -> jax.Array:
    """The elements of each window as channels (im2col): `y[i, c, k] = x[i * strides + k - low, c]`.

    Channel `c * n + k` of an output is element `k` of its window, in row-major order, in channel
    `c` of `x`, for `n` elements in a window: torch's order, and that of `pixel_unshuffle`.

    Args:
        x: shape `(*batch, *spatial, channels)`, any dtype.
        window_shape: the window size, one number for each spatial axis, the last axes before the
            channels: `(2,)` for series, `(2, 2)` for images.
        strides: the strides, one number for all spatial axes or one for each.
        padding: as in `max_pool`, of zeros.
        window_dilation: the dilation of the window (1: none).

    Returns:
        Shape `(*batch, *outputs, channels * n)` in the dtype of `x`.

    Raises:
        TypeError: an argument is not of integers.
        ValueError: an argument does not fit the axes of `x`, or no window fits into `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.unfold(jnp.array([[1], [2], [3], [4]]), (2,))
        Array([[1, 2],
               [2, 3],
               [3, 4]], dtype=int32)
    """
    x = jnp.asarray(x)
    windows = pooling_windows("unfold", x, window_shape, strides, padding, window_dilation)

    def unfolded(x: jax.Array) -> jax.Array:
        # A gradient is a sum over the windows that an element is in.
        wide = widen(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x
        return _unfolded(wide, windows).astype(x.dtype)

    return automatic(unfolded, x, leading=x.ndim - 1 - len(windows))  # type: ignore[no-any-return]


@checked
def fold(
    x: ArrayLike,
    output_size: SpatialShape,
    window_shape: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
) -> jax.Array:
    """The sum of windows that overlap (col2im): `y[i * strides + k - low, c] += x[i, c, k]`.

    The transpose, and so the gradient, of `unfold`, with the same arguments. Divided by
    `fold(unfold(ones))` it is the mean.

    Args:
        x: shape `(*batch, *outputs, channels * n)`, as `unfold` returns it for an array of spatial
            shape `output_size`; `n` is the number of elements in a window.
        output_size: the spatial shape of the result.
        window_shape, strides, padding, window_dilation: those of the `unfold`.

    Returns:
        Shape `(*batch, *output_size, channels)` in the floating dtype of `x`. Sums are float32 or
        wider.

    Raises:
        TypeError: an argument is not of integers.
        ValueError: the shape of `x` is not one that `unfold` returns for an array of
            `output_size`, or no window fits into that.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> windows = jnp.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
        >>> nn.functional.fold(windows, (4,), (2,)).ravel()
        Array([  1.,  12., 120., 200.], dtype=float32)
    """
    x = floating(x)
    rank = spatial_rank("fold", "output_size", output_size, x.shape)
    sizes = per_axis("fold", "output_size", output_size, rank)
    batch, outputs = split(x, rank)
    elements = math.prod(per_axis("fold", "window_shape", window_shape, rank))
    channels, rest = divmod(x.shape[-1], elements)
    if rest:
        raise ValueError(
            f"fold: x has shape {x.shape}, expected channels that {elements} divides, the elements "
            f"of a window of {window_shape}"
        )
    wide = widen(x)
    whole = jax.ShapeDtypeStruct((*batch, *sizes, channels), wide.dtype)
    windows = pooling_windows("fold", whole, window_shape, strides, padding, window_dilation)
    expected = jax.eval_shape(lambda y: _unfolded(y, windows), whole).shape
    if expected != x.shape:
        raise ValueError(
            f"fold: x has spatial shape {outputs}, expected {expected[len(batch) : -1]}, the "
            f"windows of an array of {tuple(output_size)}"
        )

    def folded(x: jax.Array) -> jax.Array:
        whole = jax.ShapeDtypeStruct((*x.shape[: len(batch)], *sizes, channels), x.dtype)
        (y,) = jax.linear_transpose(lambda y: _unfolded(y, windows), whole)(x)
        return y  # type: ignore[no-any-return]

    return automatic(folded, wide, leading=len(batch)).astype(x.dtype)  # type: ignore[no-any-return]


def _unfolded(x: jax.Array, windows: list[PoolingWindow]) -> jax.Array:
    y = stack_windows(x, windows)
    elements = math.prod(w.size for w in windows)
    return y.reshape(*y.shape[: x.ndim - 1], x.shape[-1] * elements)
