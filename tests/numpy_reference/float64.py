"""The one number format of the references."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

Array = np.ndarray


def as_float64(value: Any) -> Any:
    """Return floating arrays as float64, and integers, booleans and everything else as they are."""
    if isinstance(value, tuple):
        return tuple(map(as_float64, value))
    if not hasattr(value, "dtype"):
        return value
    array = np.asarray(value)
    return array if array.dtype.kind in "iubc" else array.astype(np.float64)


def in_float64(f: Callable) -> Callable:
    """Make a reference compute in float64 whatever it is given, forward and backward."""

    @wraps(f)
    def reference(*args: Any, **kwargs: Any) -> tuple[Any, Callable]:
        y, backward = f(*map(as_float64, args), **{k: as_float64(v) for k, v in kwargs.items()})
        return y, lambda dy: backward(as_float64(dy))

    return reference
