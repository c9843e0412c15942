"""Layer and batch normalisation.

Both standardise x over some axes, then scale and shift by parameters that live on some axes:
layer norm on the same axes, batch norm on the feature axis, which is the one not averaged over.
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


def _standardize(x: Array, axes: Axes, epsilon: float) -> tuple[Array, Callable]:
    """z = (x - mean) r with r = (var + epsilon)^-1/2.

    dmean/dx = 1/n, and dr/dx = -r^3 (x - mean)/n = -r^2 z/n, so
    dx = r (dz - mean(dz) - z mean(dz z)).
    """
    centred = x - x.mean(axes, keepdims=True)
    r = 1.0 / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)
    z = centred * r

    def backward(dz: Array) -> Array:
        mean, slope = dz.mean(axes, keepdims=True), (dz * z).mean(axes, keepdims=True)
        return r * (dz - mean - z * slope)

    return z, backward


def _affine(
    z: Array, scale: Array | None, bias: Array | None, axes: Axes
) -> tuple[Array, Callable]:
    """y = scale z + bias; dz = scale dy, and the parameters sum over the axes they lack."""
    gain = 1.0 if scale is None else _spread(scale, axes, z)
    y = gain * z if bias is None else gain * z + _spread(bias, axes, z)
    shared = _others(axes, z.ndim)

    def backward(dy: Array) -> tuple[Array, Array | None, Array | None]:
        dscale = None if scale is None else (dy * z).sum(shared)
        dbias = None if bias is None else dy.sum(shared)
        return gain * dy, dscale, dbias

    return y, backward


def _standardize_then_affine(
    x: Array, scale: Array | None, bias: Array | None, over: Axes, on: Axes, epsilon: float
) -> tuple[Array, Callable]:
    z, standardize_backward = _standardize(x, over, epsilon)
    y, affine_backward = _affine(z, scale, bias, on)

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
) -> tuple[Array, Callable]:
    """Standardise each example over `axis`; scale and bias have the shape of those axes."""
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    return _standardize_then_affine(x, scale, bias, over=axes, on=axes, epsilon=epsilon)


@in_float64
def batch_norm_training(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> tuple[Array, Callable]:
    """Standardise each feature by the statistics of the batch, which depend on x too."""
    feature = (axis % x.ndim,)
    over = _others(feature, x.ndim)
    return _standardize_then_affine(x, scale, bias, over=over, on=feature, epsilon=epsilon)


@in_float64
def batch_norm(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> tuple[Array, Callable]:
    """y = scale z + bias with z = (x - mean) r, r = (var + epsilon)^-1/2, statistics given.

    dx = r dz, dmean = -sum r dz, and as dr/dvar = -r^3 / 2, dvar = -sum z r^2 dz / 2.
    """
    feature = (axis % x.ndim,)
    batch = _others(feature, x.ndim)
    r = 1.0 / np.sqrt(_spread(var, feature, x) + epsilon)
    z = (x - _spread(mean, feature, x)) * r
    y, affine_backward = _affine(z, scale, bias, feature)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dz, dscale, dbias = affine_backward(dy)
        dx = r * dz
        return dx, -dx.sum(batch), -(z * r * dx).sum(batch) / 2, dscale, dbias

    return y, backward


@in_float64
def batch_statistics(x: Array, axis: int = -1) -> tuple[tuple[Array, Array], Callable]:
    """Return the mean and the biased variance of each feature over all other axes.

    dmean/dx = 1/n and dvar/dx = 2 (x - mean) / n: the mean within var adds nothing, as
    x - mean sums to 0.
    """
    feature = (axis % x.ndim,)
    batch = _others(feature, x.ndim)
    mean = x.mean(batch)
    centred = x - _spread(mean, feature, x)
    n = x.size // x.shape[axis]

    def backward(dy: tuple[Array, Array]) -> tuple[Array]:
        dmean, dvar = (_spread(d, feature, x) for d in dy)
        return ((dmean + 2 * centred * dvar) / n,)

    return (mean, (centred**2).mean(batch)), backward
