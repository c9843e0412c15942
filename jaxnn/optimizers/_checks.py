"""Checks of the arguments of optimizers."""

from typing import Any

from jaxnn._core.arrays import check_range
from jaxnn._core.types import PyTree


def params(function: str, params: PyTree) -> None:
    """Raise unless `update` was given the params."""
    if params is None:
        raise ValueError(f"{function}: params is None, expected update(..., params)")


def decay_rates(function: str, **decays: Any) -> None:
    """Raise unless each decay rate is in [0, 1]; tracers pass."""
    for name, value in decays.items():
        check_range(function, name, value, 0, 1)


def nonnegative(function: str, **values: Any) -> None:
    """Raise unless each hyperparameter is at least 0; tracers pass."""
    for name, value in values.items():
        check_range(function, name, value, 0)
