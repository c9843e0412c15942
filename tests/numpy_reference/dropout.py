"""Dropout, with the mask given."""

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
