"""Upsampling and pixel shuffling."""

from collections.abc import Callable, Sequence
from itertools import product
from math import floor, prod
from typing import Any

import numpy as np

from .float64 import Array, in_float64


def _each(value: Any, ndim: int) -> tuple[int, ...]:
    """Return a number for each spatial axis; one alone stands for all axes but the outer two."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * (ndim - 2)


def _weights(size: int, factor: int, method: str) -> Array:
    """Return the matrix of shape (outputs, inputs) of one axis.

    The middle of output j is (j + 1/2) / factor in units of the inputs, whose middles are at
    1/2, 3/2, ...; beyond the first and last middles it is moved to them.
    """
    weights = np.zeros((size * factor, size))
    for j in range(size * factor):
        middle = (j + 0.5) / factor
        if method == "nearest":
            weights[j, floor(middle)] = 1.0
            continue
        place = min(max(middle - 0.5, 0.0), size - 1.0)
        before = floor(place)
        after = min(before + 1, size - 1)
        weights[j, before] += 1.0 - (place - before)
        weights[j, after] += place - before
    return weights


@in_float64
def upsample(x: Array, scale: Any, method: str = "nearest") -> tuple[Array, Callable]:
    """Multiply each spatial axis by a matrix; the gradient, by its transpose."""
    scales = _each(scale, x.ndim)
    first = x.ndim - 1 - len(scales)
    return _by_matrices(
        x,
        {
            axis: _weights(x.shape[axis], factor, method)
            for axis, factor in enumerate(scales, first)
        },
    )


def _by_matrices(x: Array, matrices: dict[int, Array]) -> tuple[Array, Callable]:
    def multiplied(values: Array, by: dict[int, Array]) -> Array:
        for axis, matrix in by.items():
            values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
        return values

    def backward(dy: Array) -> tuple[Array]:
        return (multiplied(dy, {axis: matrix.T for axis, matrix in matrices.items()}),)

    return multiplied(x, matrices), backward


def _kernel(distance: float, cubic: bool, a: float) -> float:
    """Return 1 - d within 1; or Keys' cubic, (a + 2) d^3 - (a + 3) d^2 + 1 within 1 and
    a (d^3 - 5 d^2 + 8 d - 4) within 2.
    """
    d = abs(distance)
    if not cubic:
        return max(1.0 - d, 0.0)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def _resize_weights(size: int, outputs: int, method: str, antialias: bool) -> Array:
    """Return the matrix of shape (outputs, inputs) of one axis.

    Without antialiasing every element of an axis that goes on beyond its edges counts, those
    outside for the last inside; with it, those inside count alone, and their weights add up to 1.
    """
    weights = np.zeros((outputs, size))
    ratio = size / outputs
    cubic = method in ("cubic", "bicubic")
    for j in range(outputs):
        if method == "nearest":
            weights[j, floor((j + 0.5) * ratio)] = 1.0
        elif method == "area":
            part = slice(j * size // outputs, -(-(j + 1) * size // outputs))
            weights[j, part] = 1.0 / len(range(size)[part])
        elif antialias:
            for i in range(size):
                distance = i + 0.5 - (j + 0.5) * ratio
                weights[j, i] = _kernel(distance / max(ratio, 1.0), cubic, -0.5)
            weights[j] /= weights[j].sum()
        else:
            for i in range(-3, size + 3):
                inside = min(max(i, 0), size - 1)
                weights[j, inside] += _kernel(i + 0.5 - (j + 0.5) * ratio, cubic, -0.75)
    return weights


@in_float64
def resize(
    x: Array, output_size: Sequence, method: str = "linear", antialias: bool = False
) -> tuple[Array, Callable]:
    """Multiply each spatial axis by a matrix; the gradient, by its transpose."""
    first = x.ndim - 1 - len(output_size)
    return _by_matrices(
        x,
        {
            axis: _resize_weights(x.shape[axis], size, method, antialias)
            for axis, size in enumerate(output_size, first)
            if size is not None
        },
    )


def _places(factors: tuple[int, ...], channels: int) -> list[tuple[tuple, int, int]]:
    """Return, for each offset and channel of the fine array, the channel of the coarse one.

    The coarse channel is c for the first factors, with the offsets as further digits.
    """
    places = []
    for c in range(channels):
        for offset in product(*map(range, factors)):
            coarse = c
            for digit, base in zip(offset, factors, strict=True):
                coarse = coarse * base + digit
            fine = tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))
            places.append((fine, c, coarse))
    return places


def _shuffled(x: Array, factors: tuple[int, ...]) -> Array:
    first = x.ndim - 1 - len(factors)
    sizes = (n * f for n, f in zip(x.shape[first:-1], factors, strict=True))
    y = np.empty((*x.shape[:first], *sizes, x.shape[-1] // prod(factors)))
    for fine, c, coarse in _places(factors, y.shape[-1]):
        y[(..., *fine, c)] = x[..., coarse]
    return y


def _unshuffled(x: Array, factors: tuple[int, ...]) -> Array:
    first = x.ndim - 1 - len(factors)
    sizes = (n // f for n, f in zip(x.shape[first:-1], factors, strict=True))
    y = np.empty((*x.shape[:first], *sizes, x.shape[-1] * prod(factors)))
    for fine, c, coarse in _places(factors, x.shape[-1]):
        y[..., coarse] = x[(..., *fine, c)]
    return y


@in_float64
def pixel_shuffle(x: Array, factor: Any) -> tuple[Array, Callable]:
    """Copy channel c r^2 + i r + j to the pixels (h r + i, w r + j) of channel c.

    A permutation, whose transpose is its inverse.
    """
    factors = _each(factor, x.ndim)
    return _shuffled(x, factors), lambda dy: (_unshuffled(dy, factors),)


@in_float64
def pixel_unshuffle(x: Array, factor: Any) -> tuple[Array, Callable]:
    """Copy the pixels (h r + i, w r + j) of channel c to channel c r^2 + i r + j, and back."""
    factors = _each(factor, x.ndim)
    return _unshuffled(x, factors), lambda dy: (_shuffled(dy, factors),)
