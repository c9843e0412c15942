"""Normalisation: statistics in float32 or wider and in two passes, whatever the input's dtype."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    absolute_square,
    accumulator_dtype,
    along,
    canonical_axes,
    check_count,
    check_range,
    check_shape,
    floating,
    widen,
)
from jaxnn._core.types import Axes
from jaxnn.functional._masks import check_boolean


@checked
def layer_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: Axes = -1,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Normalise each example over `axis`: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.

    Of complex numbers, the variance is the mean of `|x - mean|²`, here as in all normalisations.

    Paper: Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450

    Args:
        x: any shape.
        scale, bias: the shape of the normalised axes, in the order of `x`'s axes, or None.
        axis: the axis or axes to normalise over.
        epsilon: added to the (biased) variance.
        mask: booleans of the rank of `x` that broadcast to its shape, True where an element counts,
            or None: the others are in no statistic, may hold anything, and come out as 0.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: `axis` is out of range, `epsilon` is negative, or the shape of `scale`, `bias`
            or `mask` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.layer_norm(jnp.array([1448.0, 1449.0, 1450.0])).round(3)
        Array([-1.225,  0.   ,  1.225], dtype=float32)
    """
    check_range("layer_norm", "epsilon", epsilon, 0)
    x = floating(x)
    axes = canonical_axes(axis, x.ndim, "layer_norm")
    params = along_axes("layer_norm", x, axes, scale=scale, bias=bias)
    counts = check_mask("layer_norm", x, mask)
    z = _standardized(widen(x), axes, epsilon, counts)
    return counted(affine(z, params), counts).astype(x.dtype)


@checked
def rms_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    axis: Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Divide by the root mean square over `axis`.

    `y = x / sqrt(mean(|x|²) + epsilon) * (scale_offset + scale)`

    Paper: Zhang and Sennrich, Root Mean Square Layer Normalization,
    https://arxiv.org/abs/1910.07467

    Args:
        x: any shape.
        scale: the shape of the normalised axes, in the order of `x`'s axes, or None.
        axis: the axis or axes to normalise over.
        epsilon: added to the mean square (torch's default is the `eps` of the dtype).
        scale_offset: added to the scale, in float32 or wider; without a scale it does nothing.
        mask: as in `layer_norm`.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: `axis` is out of range, `epsilon` is negative, or the shape of `scale` or `mask`
            does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.rms_norm(jnp.array([1.0, -1.0, 5.0])).round(3)
        Array([ 0.333, -0.333,  1.667], dtype=float32)
    """
    check_range("rms_norm", "epsilon", epsilon, 0)
    x = floating(x)
    axes = canonical_axes(axis, x.ndim, "rms_norm")
    params = along_axes("rms_norm", x, axes, scale=scale)
    if "scale" in params and scale_offset:
        params["scale"] = params["scale"] + scale_offset
    counts = check_mask("rms_norm", x, mask)
    wide = counted(widen(x), counts)
    mean_square = _mean(absolute_square(wide), axes, counts)
    z = counted(wide * lax.rsqrt(mean_square + epsilon).astype(wide.dtype), counts)
    return affine(z, params).astype(x.dtype)


@checked
def group_norm(
    x: ArrayLike,
    num_groups: int,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Normalise each example over each group of channels, and over all that is neither.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`, with the mean and the biased variance of
    the `channels / num_groups` neighbouring channels of a group at all positions. With one group it
    is layer norm over all axes but the first, with as many as there are channels `instance_norm`.

    Paper: Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494

    Args:
        x: shape `(batch, ...)`; `axis` holds the channels.
        num_groups: the number of groups that the channels are divided into.
        scale, bias: shape `(channels,)`, or None.
        axis: the axis of the channels, not the first.
        epsilon: added to the variance.
        mask: as in `layer_norm`.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `num_groups` is not an integer, or `mask` not boolean.
        ValueError: `num_groups` does not divide the channels; `axis` is out of range or the first;
            `epsilon` is negative; the shape of `scale`, `bias` or `mask` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
        >>> nn.functional.group_norm(x, 2).round(3)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    check_range("group_norm", "epsilon", epsilon, 0)
    x = floating(x)
    num_groups = check_count("group_norm", "num_groups", num_groups)
    channel = _channel_axis("group_norm", x, axis)
    channels = x.shape[channel]
    if channels % num_groups:
        raise ValueError(
            f"group_norm: x has {channels} channels in axis {axis}, expected a multiple of "
            f"num_groups={num_groups}"
        )
    params = along_axes("group_norm", x, (channel,), scale=scale, bias=bias)
    counts = check_mask("group_norm", x, mask)
    in_groups = *x.shape[:channel], num_groups, channels // num_groups, *x.shape[channel + 1 :]
    grouped = widen(x).reshape(in_groups)
    z = _standardized(
        grouped,
        other_axes((0, channel), grouped.ndim),
        epsilon,
        None if counts is None else counts.reshape(in_groups),
    )
    return counted(affine(z.reshape(x.shape), params), counts).astype(x.dtype)


@checked
def instance_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Normalise each channel of each example over all positions.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`, with the biased variance.

    Paper: Ulyanov et al., Instance Normalization, https://arxiv.org/abs/1607.08022

    Args:
        x: shape `(batch, ...)` with at least one axis of positions; `axis` holds the channels.
        scale, bias: shape `(channels,)`, or None.
        axis: the axis of the channels, not the first.
        epsilon: added to the variance.
        mask: as in `layer_norm`.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: `x` has no axis besides batch and channels; `axis` is out of range or the
            first; `epsilon` is negative; the shape of `scale`, `bias` or `mask` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> nn.functional.instance_norm(x).round(3)
        Array([[[-1., -1.],
                [ 1.,  1.]]], dtype=float32)
    """
    check_range("instance_norm", "epsilon", epsilon, 0)
    x = floating(x)
    channel = _channel_axis("instance_norm", x, axis)
    if x.ndim < 3:
        raise ValueError(
            f"instance_norm: x has shape {x.shape}, expected axes besides batch and "
            "channels to normalise over"
        )
    params = along_axes("instance_norm", x, (channel,), scale=scale, bias=bias)
    counts = check_mask("instance_norm", x, mask)
    z = _standardized(widen(x), other_axes((0, channel), x.ndim), epsilon, counts)
    return counted(affine(z, params), counts).astype(x.dtype)


@checked
def unit_norm(x: ArrayLike, *, axis: Axes = -1, epsilon: float = 1e-6) -> jax.Array:
    """Scale to Euclidean length 1 over `axis`: `y = x / max(‖x‖, epsilon)`.

    Zero stays zero, and its gradient is finite. Applied to queries and keys it makes their
    products cosines (QK norm).

    Args:
        x: any shape.
        axis: the axis or axes to normalise over.
        epsilon: the length below which `x` is divided by `epsilon`, so large that its square is not
            0 in float32; gradients grow up to `1 / epsilon` (torch's default is 1e-12).

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or `epsilon` is too small.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.unit_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
        Array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    check_range("unit_norm", "epsilon", epsilon, math.sqrt(LEAST_POSITIVE))
    x = floating(x)
    axes = canonical_axes(axis, x.ndim, "unit_norm")
    wide = widen(x)
    square = jnp.sum(absolute_square(wide), axis=axes, keepdims=True)
    # The maximum is taken before the root, whose derivative at 0 is infinite.
    inverse = lax.rsqrt(jnp.maximum(square, epsilon**2)).astype(wide.dtype)
    return (wide * inverse).astype(x.dtype)


@checked
def local_response_norm(
    x: ArrayLike,
    size: int = 5,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    axis: int = -1,
) -> jax.Array:
    """Damp each channel by its neighbours: `y = x / (k + alpha / size * Σ |x|²)^beta`.

    The sum runs over the `size` channels from `c - size // 2` to `c + (size - 1) // 2`, as far as
    there are any. As in torch `alpha` is divided by `size`; the paper does not divide it, and has
    `size = 5`, `alpha = 1e-4`, `beta = 0.75`, `k = 2`.

    Paper: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012,
    https://papers.nips.cc/paper/4824

    Args:
        x: any shape; `axis` holds the channels.
        size: the number of neighbouring channels that are summed.
        alpha, beta, k: the constants of the formula, `alpha` at least 0 and `k` more than 0.
        axis: the axis of the channels.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: `size` is less than 1; `alpha` or `k` is too small; `axis` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])
        >>> nn.functional.local_response_norm(x, 3, alpha=3.0, beta=1.0).round(3)
        Array([0.5  , 0.   , 0.   , 0.333, 0.333], dtype=float32)
    """
    check_range("local_response_norm", "alpha", alpha, 0)
    check_range("local_response_norm", "k", k, LEAST_POSITIVE)
    x = floating(x)
    size = check_count("local_response_norm", "size", size)
    (channel,) = canonical_axes(axis, x.ndim, "local_response_norm")
    wide = widen(x)
    windows, padding = [1] * x.ndim, [(0, 0)] * x.ndim
    windows[channel], padding[channel] = size, (size // 2, (size - 1) // 2)
    square = absolute_square(wide)
    total = lax.reduce_window(square, 0.0, lax.add, windows, [1] * x.ndim, padding)
    return (wide * jnp.power(k + alpha / size * total, -beta).astype(wide.dtype)).astype(x.dtype)


# What the functions share


def other_axes(axes: Iterable[int], ndim: int) -> tuple[int, ...]:
    """Those of `ndim` axes that are not in `axes`."""
    return tuple(a for a in range(ndim) if a not in axes)


def along_axes(
    function: str, x: jax.Array, axes: tuple[int, ...], **params: ArrayLike | None
) -> dict[str, jax.Array]:
    """Those of `params` that are given: checked, and shaped and cast to go with a widened `x`."""
    wide = {}
    for name, param in params.items():
        if param is not None:
            of = f"x in axis {axes}"
            check_shape(function, name, param, tuple(x.shape[a] for a in axes), of)
            wide[name] = along(param, axes, x.ndim).astype(accumulator_dtype(x.dtype))
    return wide


def affine(z: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """`z * scale + bias`, or what there is of it."""
    if "scale" in params:
        z = z * params["scale"]
    return z + params["bias"] if "bias" in params else z


def check_mask(function: str, x: jax.Array, mask: ArrayLike | None) -> jax.Array | None:
    """`mask` in the shape of `x`, if there is one."""
    if mask is None:
        return None
    mask = check_boolean(function, jnp.asarray(mask), true="the element counts")
    fits = mask.ndim == x.ndim and all(map(lambda m, n: m in (1, n), mask.shape, x.shape))
    if not fits:
        hint = ": mask[..., None] adds one" if mask.shape == x.shape[:-1] else ""
        raise ValueError(
            f"{function}: mask has shape {mask.shape}, expected {x.ndim} axes, each of size 1 or "
            f"as in x, of shape {x.shape}{hint}"
        )
    return jnp.broadcast_to(mask, x.shape)


def counted(x: jax.Array, counts: jax.Array | None) -> jax.Array:
    """`x` where it counts, and 0 elsewhere, whatever is there."""
    return x if counts is None else jnp.where(counts, x, 0)


def _mean(x: jax.Array, axes: tuple[int, ...], counts: jax.Array | None) -> jax.Array:
    """The mean of what counts, 0 where nothing does; `x` is 0 elsewhere."""
    if counts is None:
        return jnp.mean(x, axis=axes, keepdims=True)
    n = jnp.sum(counts, axis=axes, keepdims=True, dtype=x.real.dtype)
    return jnp.sum(x, axis=axes, keepdims=True) / jnp.maximum(n, 1).astype(x.dtype)


def _standardized(
    x: jax.Array, axes: tuple[int, ...], epsilon: float, counts: jax.Array | None
) -> jax.Array:
    x = counted(x, counts)
    centered = counted(x - _mean(x, axes, counts), counts)
    var = _mean(absolute_square(centered), axes, counts)
    return counted(centered * lax.rsqrt(var + epsilon).astype(x.dtype), counts)


def _channel_axis(function: str, x: jax.Array, axis: int) -> int:
    (channel,) = canonical_axes(axis, x.ndim, function)
    if channel == 0:
        raise ValueError(
            f"{function}: axis is {axis}, the first of x of shape {x.shape}, expected another: "
            "the first holds the batch"
        )
    return channel
