"""Checks of the arguments of optimizers."""

from typing import Any

import jax

from jaxnn._core.arrays import check_range
from jaxnn._core.paths import path_text
from jaxnn._core.types import PyTree


def params(function: str, params: PyTree) -> None:
    """Raise unless `update` was given the params."""
    if params is None:
        raise ValueError(f"{function}: params is None, expected update(..., params)")


def gradients(function: str, tree: PyTree) -> None:
    """Raise if a leaf is what `jax.grad` gives for an integer: no optimizer moves it."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_of_integer(leaf):
            raise TypeError(
                f"{function}: the gradient at {path_text(path)!r} has dtype float0, that of an "
                "integer parameter, expected floating parameters: keep integers in the state, or "
                "leave them out by partition({..., path: freeze()})"
            )


def is_of_integer(gradient: Any) -> bool:
    """Whether it is the gradient of an integer, which says nothing but its shape."""
    return getattr(gradient, "dtype", None) == jax.dtypes.float0


def decay_rates(function: str, **decays: Any) -> None:
    """Raise unless each decay rate is in [0, 1]; tracers pass."""
    for name, value in decays.items():
        check_range(function, name, value, 0, 1)


def nonnegative(function: str, **values: Any) -> None:
    """Raise unless each hyperparameter is at least 0; tracers pass."""
    for name, value in values.items():
        check_range(function, name, value, 0)
