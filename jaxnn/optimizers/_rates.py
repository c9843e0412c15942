"""The learning rate of a step, read from an optimizer's states before and after."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.paths import path_text
from jaxnn._core.types import PyTree

Rates = dict[str, jax.Array]  # by group of the parameters, "" if there is but one


def with_rates(
    update: Callable[..., Any], rates: Callable[[Any, Any], Rates]
) -> Callable[..., Any]:
    """`update`, with `rates(state before, state after)` attached.

    Attached to the function, since an optimizer is a pair as in optax and its states are optax's.
    It is there to be recorded: no number in training depends on it.
    """
    update.learning_rates = rates  # type: ignore[attr-defined]
    return update


def with_rates_of(update: Callable[..., Any], inner: Any, field: str) -> Callable[..., Any]:
    """`update` of a wrapper with the rates of `inner`, whose state is `field` of the wrapper's."""
    return with_rates(
        update,
        lambda before, after: learning_rates(inner, getattr(before, field), getattr(after, field)),
    )


def learning_rates(transformation: Any, before: PyTree, after: PyTree) -> Rates:
    """The learning rates of the step from one state to the other, `{}` if none is known.

    A transformation without `rates` attached may keep it in its state by that name, as
    `inject_hyperparams` and line searches do, optax's too.
    """
    rates = getattr(transformation.update, "learning_rates", None)
    if rates is not None:
        return rates(before, after)  # type: ignore[no-any-return]
    named = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(after)
        if path_text(path).split("/")[-1] == "learning_rate" and jnp.ndim(leaf) == 0
    ]
    return {"": rate(named[0])} if len(named) == 1 else {}


def rate(value: Any) -> jax.Array:
    """A learning rate in the default float dtype."""
    return hyperparameter(value, jnp.result_type(float))


def product(parts: Iterable[Rates]) -> Rates:
    """The rates of transformations one after the other; what has no groups applies to all."""
    whole: Rates = {}
    for part in parts:
        names = whole.keys() | part.keys()
        groups = [name for name in sorted(names) if name] or list(names)
        whole = {name: _factor(whole, name) * _factor(part, name) for name in groups}
    return whole


def _factor(rates: Rates, name: str) -> jax.Array:
    return rates.get(name, rates.get("", rate(1.0)))
