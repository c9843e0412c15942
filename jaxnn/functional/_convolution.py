"""Convolutions and their transposes."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    check_count,
    check_shape,
    compute_dtype,
    floating,
    is_symbolic,
    spread,
)
from jaxnn._core.decoding import refuse_in_decoding
from jaxnn._core.meshes import automatic, shape_like
from jaxnn._core.types import Padding, PerAxis
from jaxnn.functional._convolution_forms import (
    Convolution,
    convolution,
    swap_channels,
    transposed_convolution,
)
from jaxnn.functional._spatial import (
    KernelGeometry,
    Pads,
    kernel_geometry,
    pads_of,
    per_axis,
    split,
    unchecked_pads,
)


@checked
def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    feature_group_count: int = 1,
) -> jax.Array:
    """A convolution: `y[i] = Σ_k x[i * strides + k * kernel_dilation - low] @ kernel[k] + bias`.

    The kernel is not flipped (a cross-correlation), as in torch and flax. An axis of `n` elements
    gives `(n + low + high - kernel_dilation * (size - 1) - 1) // strides + 1` outputs, `size` being
    that of the kernel and `low` and `high` the padding:

    - a pair `(low, high)` for each spatial axis, a number that stands for both, or a single number
      for all axes, of zeros; "VALID" is 0.
    - "SAME": zeros for `ceil(n / strides)` outputs. With `total = max(0, (ceil(n / strides) - 1) *
      strides + kernel_dilation * (size - 1) + 1 - n)`, `low` is `total // 2` and `high` the rest
      (torch has more on the right too, and refuses strides).
    - "CIRCULAR", "REFLECT", "REPLICATE": as many elements as in "SAME" (in flax, as many as for
      `strides=1`), those of `x` repeated with period `n`; mirrored at its first and last elements,
      which are not repeated themselves; or its first and its last element repeated. For other
      amounts pad `x` by `jnp.pad` and take "VALID".
    - "CAUSAL", for one spatial axis: `kernel_dilation * (size - 1)` zeros before it, so that an
      output depends on no later input.

    Args:
        x: shape `(*batch, *spatial, in)`, with 1 to 3 spatial axes and any number of batch axes.
        kernel: shape `(*spatial, in / groups, out)`; its rank gives the number of spatial axes.
        bias: shape `(out,)`, or None.
        strides: the strides, one number for all spatial axes or one for each.
        padding: the padding of each spatial axis, as above.
        kernel_dilation: the dilation of the kernel (1: none), one number or one for each axis.
        feature_group_count: the number of groups into which input and output channels are divided;
            each group of outputs sees its group of inputs alone. As many groups as input channels
            are a depthwise convolution.

    Returns:
        Shape `(*batch, *outputs, out)` in the dtype of `x`, to which kernel and bias are cast (an
        integer `x` is cast to theirs).

    Raises:
        TypeError: `strides`, `kernel_dilation` or `feature_group_count` is not of integers.
        ValueError: the shapes do not fit, there is no output, or the reflection is wider than `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0], [2.0], [4.0], [8.0]])
        >>> difference = jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
        >>> nn.functional.conv(x, difference, padding="VALID").ravel()
        Array([1., 2., 4.], dtype=float32)
        >>> nn.functional.conv(x, difference, padding="CAUSAL").ravel()
        Array([1., 1., 2., 4.], dtype=float32)
        >>> nn.functional.conv(x, difference, padding="CIRCULAR").ravel()
        Array([ 1.,  2.,  4., -7.], dtype=float32)
    """
    x, kernel = jnp.asarray(x), floating(kernel)
    rank = _check_channels("conv", x, kernel, feature_group_count)
    batch, sizes = split(x, rank)
    if len(batch) == 1 and kernel.shape[0] > 1:  # the first spatial axis is where time would be
        refuse_in_decoding("conv", sizes[0], "layers that carry what they need, in nn.stacked_cell")
    geometry = kernel_geometry("conv", kernel, strides, kernel_dilation)
    pads = pads_of("conv", sizes, geometry, padding)
    dtype = compute_dtype(x, kernel)

    def of_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        rows = _padded_with_itself(x.reshape(math.prod(batch), *x.shape[-1 - rank :]), pads)
        c = _convolution(rows, kernel, geometry, pads, feature_group_count)
        y = convolution(c, rows, kernel)
        return y.reshape(*batch, *y.shape[1:])

    y = automatic(of_rows, x.astype(dtype), kernel.astype(dtype), leading=len(batch))
    return _add_bias("conv", y, bias)


@checked
def conv_transpose(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    feature_group_count: int = 1,
    output_size: PerAxis | None = None,
) -> jax.Array:
    """A transposed convolution: `y[i * strides + k * kernel_dilation - low] += x[i] @ kernel[k]`.

    The sum is over all `i` and `k`, and `bias` is added. This is the transpose of `conv` as a
    linear map, also called deconvolution. It takes what comes out of a `conv` with the same
    `strides`, `padding`, `kernel_dilation` and `feature_group_count` back to the size of what went
    in: `Σ conv(z, c) x = Σ z conv_transpose(x, kernel)` if `kernel` is `c` with the two channel
    axes swapped (within each group). So what is padding in `conv` is cut off here; with "CIRCULAR",
    "REFLECT" and "REPLICATE" it is added to where it had come from, and with "CAUSAL" an output
    depends on no earlier input.

    Torch's kernel is that of the `conv`, `(in, out / groups, *spatial)`. Its `output_padding=p` is
    an `output_size` greater by `p`, or a `high` smaller by `p`. `flax.linen.ConvTranspose` flips
    the spatial axes of this kernel.

    Args:
        x: shape `(*batch, *spatial, in)`, with 1 to 3 spatial axes and any number of batch axes.
        kernel: shape `(*spatial, in / groups, out)`.
        bias: shape `(out,)`, or None.
        strides, padding, kernel_dilation, feature_group_count: those of the `conv`.
        output_size: the size of the spatial axes of the result, any that the `conv` takes to that
            of `x`; None for `n * strides`, or for `(n - 1) * strides + kernel_dilation * (size - 1)
            + 1 - low - high`, the least there is, if the padding is "VALID" or in numbers.

    Returns:
        Shape `(*batch, *output_size, out)` in the dtype of `x`, to which kernel and bias are cast
        (an integer `x` is cast to theirs).

    Raises:
        TypeError: `strides`, `kernel_dilation`, `feature_group_count` or `output_size` is not of
            integers.
        ValueError: the shapes do not fit, or `output_size` is not one that `conv` takes to that of
            `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x, kernel = jnp.array([[1.0], [10.0]]), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        >>> nn.functional.conv_transpose(x, kernel, strides=2, padding="VALID").ravel()
        Array([ 1.,  2., 13., 20., 30.], dtype=float32)
        >>> nn.functional.conv_transpose(x, kernel, strides=2).ravel()
        Array([ 1.,  2., 13., 20.], dtype=float32)
    """
    x, kernel = jnp.asarray(x), floating(kernel)
    rank = _check_channels("conv_transpose", x, kernel, feature_group_count)
    batch, sizes = split(x, rank)
    geometry = kernel_geometry("conv_transpose", kernel, strides, kernel_dilation)
    if output_size is None:
        wanted = _default_output_size(sizes, geometry, padding)
    else:
        wanted = per_axis("conv_transpose", "output_size", output_size, rank)
    pads = pads_of("conv_transpose", wanted, geometry, padding)
    made = tuple(
        (size + low + high - extent) // stride + 1
        for size, (low, high), extent, stride in zip(
            wanted, pads.pairs, geometry.extents, geometry.strides, strict=True
        )
    )
    if made != sizes:
        raise ValueError(
            f"conv_transpose: output_size is {wanted}, of which the convolution makes {made}, "
            f"expected a size of which it makes {sizes}, that of x"
        )
    dtype = compute_dtype(x, kernel)

    def of_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        rows = x.reshape(math.prod(batch), *x.shape[-1 - rank :])
        of_conv = swap_channels(kernel, feature_group_count)
        pad = partial(_padded_with_itself, pads=pads)
        shape = (rows.shape[0], *wanted, kernel.shape[-1])
        before = jax.eval_shape(pad, jax.ShapeDtypeStruct(shape, dtype))
        c = _convolution(before, of_conv, geometry, pads, feature_group_count)
        y = transposed_convolution(c, rows, of_conv)
        (before_pad,) = jax.linear_transpose(pad, shape_like(shape, y))(y)
        x_like: jax.Array = before_pad.reshape(*batch, *shape[1:])
        return x_like

    y = automatic(of_rows, x.astype(dtype), kernel.astype(dtype), leading=len(batch))
    return _add_bias("conv_transpose", y, bias)


def _padded_with_itself(x: jax.Array, pads: Pads) -> jax.Array:
    """`x` with the padding that is not zeros."""
    if pads.mode == "constant":
        return x
    if pads.mode in ("wrap", "edge") and is_symbolic(*x.shape[1:-1]):  # which jnp.pad does not take
        for axis, (low, high) in enumerate(pads.pairs, 1):
            size = x.shape[axis]
            index = jnp.arange(low + size + high) - low
            index = jnp.remainder(index, size) if pads.mode == "wrap" else index
            x = jnp.take(x, index, axis, mode="clip")
        return x
    return jnp.pad(x, [(0, 0), *pads.pairs, (0, 0)], mode=pads.mode)


def _convolution(
    x: jax.Array | jax.ShapeDtypeStruct,
    kernel: jax.Array,
    geometry: KernelGeometry,
    pads: Pads,
    groups: int,
) -> Convolution:
    sizes, size = x.shape[1:-1], kernel.shape[:-2]
    zeros = pads.pairs if pads.mode == "constant" else ((0, 0),) * len(sizes)
    return Convolution(sizes, size, geometry.strides, geometry.dilation, zeros, groups)


# Arguments


def _check_channels(function: str, x: jax.Array, kernel: jax.Array, groups: int) -> int:
    """The number of spatial axes, if x, kernel and groups fit each other."""
    check_count(function, "feature_group_count", groups)
    rank = kernel.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"{function}: kernel has shape {kernel.shape}, expected shape "
            "(*spatial, in / groups, out) with 1 to 3 spatial axes"
        )
    if 0 in kernel.shape or kernel.shape[-1] % groups:
        raise ValueError(
            f"{function}: kernel has shape {kernel.shape}, expected no empty axis and outputs that "
            f"{groups} groups divide"
        )
    channels = kernel.shape[-2] * groups
    if x.ndim <= rank or x.shape[-1] != channels:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected shape (*batch, *spatial, {channels}) "
            f"with {rank} spatial axes to fit a kernel of shape {kernel.shape} and {groups} groups"
        )
    return rank


def _default_output_size(
    sizes: tuple[int, ...], geometry: KernelGeometry, padding: Padding
) -> tuple[int, ...]:
    """The size that `conv_transpose` gives where none is asked for."""
    if isinstance(padding, str) and padding != "VALID":
        return tuple(size * step for size, step in zip(sizes, geometry.strides, strict=True))
    pairs = unchecked_pads("conv_transpose", sizes, geometry, padding).pairs
    least = tuple(
        (size - 1) * step + extent - low - high
        for size, extent, step, (low, high) in zip(
            sizes, geometry.extents, geometry.strides, pairs, strict=True
        )
    )
    if min(least) < 1:
        raise ValueError(
            f"conv_transpose: x has spatial shape {sizes}, of which padding {padding} leaves "
            f"{least}, expected at least 1 along each axis"
        )
    return least


def _add_bias(function: str, y: jax.Array, bias: ArrayLike | None) -> jax.Array:
    if bias is None:
        return y
    check_shape(function, "bias", bias, y.shape[-1:])
    return y + spread(jnp.asarray(bias).astype(y.dtype), (y.ndim - 1,), y.shape)
