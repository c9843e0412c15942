"""Checks of the arguments of optimizers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arrays import check_range, concrete
from jaxnn._core.paths import path_text
from jaxnn._core.types import PyTree


def params(function: str, params: PyTree) -> None:
    """Raise unless `update` was given the params."""
    if params is None:
        raise ValueError(f"{function}: params is None, expected update(..., params)")


def keywords(function: str, call: str, **given: Any) -> None:
    """Raise unless `update` was given all of these keywords, as `call` shows."""
    for name, value in given.items():
        if value is None:
            raise ValueError(
                f"{function}: {name} is None, expected {call}; wrappers of optax pass it on to "
                "optax.GradientTransformationExtraArgs(*optimizer) alone"
            )


def line_search(
    function: str,
    params_given: PyTree,
    value: Any,
    grad: PyTree,
    value_fn: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """The function to search on, once all is there that a line search needs."""
    params(function, params_given)
    call = "update(..., params, value=loss, grad=gradients, value_fn=f)"
    keywords(function, call, value=value, grad=grad, value_fn=value_fn)
    assert value_fn is not None
    return value_fn


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
    """Raise unless each decay rate is in [0, 1], see `_in_range`."""
    for name, value in decays.items():
        _in_range(function, name, value, 0, 1)


def nonnegative(function: str, **values: Any) -> None:
    """Raise unless each hyperparameter is at least 0, see `_in_range`."""
    for name, value in values.items():
        _in_range(function, name, value, 0)


def whole(function: str, low: int, **values: Any) -> None:
    """Raise unless each number of steps is an integer, `low` at least, see `_in_range`."""
    for name, value in values.items():
        _in_range(function, name, value, low)
        known = concrete(value)
        if known is not None and known % 1 != 0:
            raise ValueError(f"{function}: {name} is {value}, expected an integer")


def _in_range(function: str, name: str, value: Any, low: float, high: float | None = None) -> None:
    """Raise for a number that is out of range, or a schedule that begins with one.

    None passes, since signatures say where it may stand, and so does what is traced.
    """
    if value is None:
        return
    if callable(value):
        name, value = f"{name}(0)", value(jnp.zeros((), jnp.int32))
        if np.ndim(value):
            raise ValueError(f"{function}: {name} has shape {np.shape(value)}, expected a number")
    check_range(function, name, value, low, high)
