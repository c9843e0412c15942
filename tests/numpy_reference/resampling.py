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
    matrices = {
        axis: _weights(x.shape[axis], factor, method) for axis, factor in enumerate(scales, first)
    }

    def multiplied(values: Array, by: dict[int, Array]) -> Array:
        for axis, matrix in by.items():
            values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
        return values

    def backward(dy: Array) -> tuple[Array]:
        return (multiplied(dy, {axis: matrix.T for axis, matrix in matrices.items()}),)

    return multiplied(x, matrices), backward


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
