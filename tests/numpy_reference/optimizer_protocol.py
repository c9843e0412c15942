"""What the references of optimizers share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .float64 import Array, as_float64

Schedule = Callable[[int], float]
State = dict[str, Any]


class Reference(NamedTuple):
    """An optimizer of one array."""

    init: Callable[[Array], State]
    update: Callable[[Array, State, Array], tuple[Array, State]]


def value_at(number: float | Schedule, count: int) -> float:
    """A number, or the value of a schedule after `count` updates."""
    return number(count) if callable(number) else number


def zeros(w: Array) -> Array:
    """Zeros in the shape of an array."""
    return np.zeros(np.shape(w))


def decayed(w: Array, weight_decay: float, decay_all: bool) -> Array:
    """What decoupled weight decay subtracts, per unit of the learning rate.

    Nothing for arrays with fewer than two axes (biases, scales), unless `decay_all`.
    """
    return weight_decay * as_float64(w) * (decay_all or np.ndim(w) >= 2)
