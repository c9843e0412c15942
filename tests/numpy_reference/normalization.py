"""Normalisation.

Most of them standardise x over some axes, then scale and shift by parameters that live on some
axes: layer norm on the same axes, batch, group and instance norm on the axis of the channels.

Under a mask, means run over the elements that count, n of them (or 1 for none), and y is 0
elsewhere: with x, y, and so dy, set to 0 there, each sum is the one over what counts.
"""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64

Axes = tuple[int, ...]


def _others(axes: Axes, ndim: int) -> Axes:
    return tuple(i for i in range(ndim) if i not in axes)


def _spread(parameter: Array, axes: Axes, x: Array) -> Array:
    """Give a parameter that lives on some axes of x the rank of x."""
    return parameter.reshape([n if i in axes else 1 for i, n in enumerate(x.shape)])


def _counts(x: Array, mask: Array | None) -> Array:
    return np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)


def _mean(x: Array, axes: Axes, counts: Array) -> Array:
    total = np.where(counts, x, 0).sum(axes, keepdims=True)
    return total / np.maximum(counts.sum(axes, keepdims=True), 1)


def _standardize(x: Array, axes: Axes, epsilon: float, counts: Array) -> tuple[Array, Callable]:
    """z = (x - mean) r with r = (var + epsilon)^-1/2.

    dmean/dx = 1/n, and dr/dx = -r^3 (x - mean)/n = -r^2 z/n, so
    dx = r (dz - mean(dz) - z mean(dz z)).
    """
    centred = np.where(counts, x - _mean(x, axes, counts), 0)
    r = 1.0 / np.sqrt(_mean(centred**2, axes, counts) + epsilon)
    z = centred * r

    def backward(dz: Array) -> Array:
        mean, slope = _mean(dz, axes, counts), _mean(dz * z, axes, counts)
        return np.where(counts, r * (dz - mean - z * slope), 0)

    return z, backward


def _affine(
    z: Array, scale: Array | None, bias: Array | None, axes: Axes, counts: Array
) -> tuple[Array, Callable]:
    """y = scale z + bias; dz = scale dy, and the parameters sum over the axes they lack."""
    gain = 1.0 if scale is None else _spread(scale, axes, z)
    y = gain * z if bias is None else gain * z + _spread(bias, axes, z)
    shared = _others(axes, z.ndim)

    def backward(dy: Array) -> tuple[Array, Array | None, Array | None]:
        dy = np.where(counts, dy, 0)
        dscale = None if scale is None else (dy * z).sum(shared)
        dbias = None if bias is None else dy.sum(shared)
        return gain * dy, dscale, dbias

    return np.where(counts, y, 0), backward


def _standardize_then_affine(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    over: Axes,
    on: Axes,
    epsilon: float,
    mask: Array | None,
) -> tuple[Array, Callable]:
    counts = _counts(x, mask)
    z, standardize_backward = _standardize(x, over, epsilon, counts)
    y, affine_backward = _affine(z, scale, bias, on, counts)

    def backward(dy: Array) -> tuple[Array, Array | None, Array | None]:
        dz, dscale, dbias = affine_backward(dy)
        return standardize_backward(dz), dscale, dbias

    return y, backward


@in_float64
def layer_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int | Axes = -1,
    epsilon: float = 1e-5,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """Standardise each example over `axis`; scale and bias have the shape of those axes."""
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    return _standardize_then_affine(x, scale, bias, over=axes, on=axes, epsilon=epsilon, mask=mask)


@in_float64
def batch_norm_training(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """Standardise each feature by the statistics of the batch, which depend on x too."""
    feature = (axis % x.ndim,)
    over = _others(feature, x.ndim)
    return _standardize_then_affine(
        x, scale, bias, over=over, on=feature, epsilon=epsilon, mask=mask
    )


@in_float64
def batch_norm(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """y = scale z + bias with z = (x - mean) r, r = (var + epsilon)^-1/2, statistics given.

    dx = r dz, dmean = -sum r dz, and as dr/dvar = -r^3 / 2, dvar = -sum z r^2 dz / 2.
    """
    feature = (axis % x.ndim,)
    batch = _others(feature, x.ndim)
    r = 1.0 / np.sqrt(_spread(var, feature, x) + epsilon)
    counts = _counts(x, mask)
    z = np.where(counts, (x - _spread(mean, feature, x)) * r, 0)
    y, affine_backward = _affine(z, scale, bias, feature, counts)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dz, dscale, dbias = affine_backward(dy)
        dx = r * dz
        return dx, -dx.sum(batch), -(z * r * dx).sum(batch) / 2, dscale, dbias

    return y, backward


@in_float64
def batch_statistics(
    x: Array, axis: int = -1, mask: Array | None = None
) -> tuple[tuple[Array, Array], Callable]:
    """Return the mean and the biased variance of each feature over all other axes.

    dmean/dx = 1/n and dvar/dx = 2 (x - mean) / n: the mean within var adds nothing, as
    x - mean sums to 0.
    """
    feature = (axis % x.ndim,)
    batch = _others(feature, x.ndim)
    counts = _counts(x, mask)
    mean = _mean(x, batch, counts)
    centred = np.where(counts, x - mean, 0)
    n = np.maximum(counts.sum(batch, keepdims=True), 1)

    def backward(dy: tuple[Array, Array]) -> tuple[Array]:
        dmean, dvar = (_spread(d, feature, x) for d in dy)
        return (np.where(counts, (dmean + 2 * centred * dvar) / n, 0),)

    return (mean.reshape(-1), _mean(centred**2, batch, counts).reshape(-1)), backward


@in_float64
def rms_norm(
    x: Array,
    scale: Array | None = None,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """y = (offset + scale) z with z = x r, r = (mean(x^2) + epsilon)^-1/2.

    dr/dx = -r^3 x / n = -r^2 z / n, so dx = r (dz - z mean(dz z)).
    """
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    counts = _counts(x, mask)
    x = np.where(counts, x, 0)
    r = (_mean(x**2, axes, counts) + epsilon) ** -0.5
    z = x * r
    factor = scale if scale is None else scale_offset + scale
    y, affine_backward = _affine(z, factor, None, axes, counts)

    def backward(dy: Array) -> tuple[Array, Array | None]:
        dz, dscale, _ = affine_backward(dy)
        return np.where(counts, r * (dz - z * _mean(dz * z, axes, counts)), 0), dscale

    return y, backward


@in_float64
def group_norm(
    x: Array,
    num_groups: int,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """Standardise one block at a time: the channels of a group, of one example, as one long vector.

    The blocks share nothing but scale and bias, so each has the gradient of a vector by itself.
    """
    channel = axis % x.ndim
    size = x.shape[channel] // num_groups
    counts = _counts(x, mask)
    z, blocks = np.empty_like(x), []
    for example in range(x.shape[0]):
        for group in range(num_groups):
            block = [slice(None)] * x.ndim
            block[0] = slice(example, example + 1)
            block[channel] = slice(group * size, (group + 1) * size)
            index = tuple(block)
            axes = tuple(range(x.ndim))
            z[index], block_backward = _standardize(x[index], axes, epsilon, counts[index])
            blocks.append((index, block_backward))
    y, affine_backward = _affine(z, scale, bias, (channel,), counts)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dz, dscale, dbias = affine_backward(dy)
        dx = np.empty_like(x)
        for index, block_backward in blocks:
            dx[index] = block_backward(dz[index])
        return dx, dscale, dbias

    return y, backward


@in_float64
def instance_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: Array | None = None,
) -> tuple[Array, Callable]:
    """Standardise each channel of each example over its positions."""
    channel = axis % x.ndim
    positions = _others((0, channel), x.ndim)
    return _standardize_then_affine(x, scale, bias, positions, (channel,), epsilon, mask)


@in_float64
def unit_norm(x: Array, axis: int | Axes = -1, epsilon: float = 1e-6) -> tuple[Array, Callable]:
    """y = x / n with n = |x|, one vector at a time; y = x / epsilon where n < epsilon.

    dn = <y, dx>, so that dx = (dy - y <y, dy>) / n: what lies along y is projected out.
    """
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    others = _others(axes, x.ndim)
    y, vectors = np.empty_like(x), []
    for i in np.ndindex(*(x.shape[a] for a in others)):
        index = tuple(i[others.index(a)] if a in others else slice(None) for a in range(x.ndim))
        n = np.sqrt((x[index] ** 2).sum())
        y[index] = x[index] / max(n, epsilon)
        vectors.append((index, n))

    def backward(dy: Array) -> tuple[Array]:
        dx = np.empty_like(x)
        for index, n in vectors:
            radial = y[index] * (y[index] * dy[index]).sum() if n > epsilon else 0.0
            dx[index] = (dy[index] - radial) / max(n, epsilon)
        return (dx,)

    return y, backward


@in_float64
def local_response_norm(
    x: Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    axis: int = -1,
) -> tuple[Array, Callable]:
    """y_c = x_c d_c^-beta with d_c = k + (alpha / size) sum of x_j^2 over the window of c.

    dd_c/dx_j = 2 (alpha / size) x_j for each j in the window of c, so
    dx_j = dy_j d_j^-beta - 2 beta (alpha / size) x_j sum dy_c x_c d_c^(-beta - 1) over the c in
    whose window j is.
    """
    by_channel = np.moveaxis(x, axis, 0)
    channels = len(by_channel)
    rate = alpha / size
    windows = [
        [j for j in range(c - size // 2, c - size // 2 + size) if 0 <= j < channels]
        for c in range(channels)
    ]
    d = np.stack([k + rate * sum(by_channel[j] ** 2 for j in window) for window in windows])
    y = by_channel * d**-beta

    def backward(dy: Array) -> tuple[Array]:
        dy = np.moveaxis(dy, axis, 0)
        dx = dy * d**-beta
        for c, window in enumerate(windows):
            for j in window:
                slope = dy[c] * by_channel[c] * d[c] ** (-beta - 1)
                dx[j] -= 2 * beta * rate * by_channel[j] * slope
        return (np.moveaxis(dx, 0, axis),)

    return np.moveaxis(y, 0, axis), backward
