"""Penalties on one array of weights."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64

Result = tuple[float, Callable[[float], tuple[Array]]]


@in_float64
def l1(w: Array, strength: float) -> Result:
    """strength sum |w|; the derivative at 0 is 0."""
    return strength * np.abs(w).sum(), lambda dy: (dy * strength * np.sign(w),)


@in_float64
def l2(w: Array, strength: float) -> Result:
    """strength sum w^2, without a factor of 1/2."""
    return strength * (w**2).sum(), lambda dy: (dy * 2 * strength * w,)


@in_float64
def elastic_net(w: Array, l1: float, l2: float) -> Result:
    """l1 sum |w| + l2 sum w^2."""
    value = l1 * np.abs(w).sum() + l2 * (w**2).sum()
    return value, lambda dy: (dy * (l1 * np.sign(w) + 2 * l2 * w),)
