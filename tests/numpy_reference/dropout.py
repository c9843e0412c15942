"""Noise that regularises, with the mask or the noise given."""

import math
from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


@in_float64
def dropout(x: Array, keep: Array, rate: float) -> tuple[Array, Callable]:
    """y = x keep / (1 - rate) with a mask of zeros and ones; a rate of 1 gives zeros."""
    if rate == 1:
        return np.zeros_like(x), lambda dy: (np.zeros_like(x), None, None)
    scale = keep / (1.0 - rate)
    return x * scale, lambda dy: (dy * scale, None, None)


@in_float64
def alpha_dropout(x: Array, keep: Array, rate: float) -> tuple[Array, Callable]:
    """y = a (x keep + c (1 - keep)) + b, whose mean is 0 and variance 1 if those of x are.

    With q = 1 - rate: the mean of x keep + c (1 - keep) is c rate, and its variance
    q + c^2 rate - (c rate)^2 = q + c^2 q rate; a is one over its root and b = -a c rate.
    A rate of 1 gives zeros.
    """
    if rate == 1:
        return np.zeros_like(x), lambda dy: (np.zeros_like(x), None, None)
    c = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
    q = 1.0 - rate
    a = 1.0 / math.sqrt(q + c**2 * q * rate)
    y = a * (x * keep + c * (1 - keep)) - a * c * rate
    return y, lambda dy: (dy * a * keep, None, None)


@in_float64
def gaussian_noise(x: Array, noise: Array, stddev: float) -> tuple[Array, Callable]:
    """y = x + stddev noise."""
    return x + stddev * noise, lambda dy: (dy, stddev * dy, None)


@in_float64
def gaussian_dropout(x: Array, noise: Array, rate: float) -> tuple[Array, Callable]:
    """y = x (1 + sqrt(rate / (1 - rate)) noise)."""
    stddev = math.sqrt(rate / (1.0 - rate))
    factor = 1.0 + stddev * noise
    return x * factor, lambda dy: (dy * factor, dy * x * stddev, None)
