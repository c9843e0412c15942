"""Hyperparameters in the state of an optimizer."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arguments import value_text
from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import OptimizerLike, PyTree
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant


class WrappedScheduleState(NamedTuple):
    """The step count of a schedule."""

    count: jax.Array  # type: ignore[assignment]


class InjectStatefulHyperparamsState(NamedTuple):
    """The step count, the hyperparameters by name, the states of their schedules, the inner state.

    `hyperparams` has the values that the last update used; those that are not scheduled may be
    replaced by others. `hyperparams_states` has a `WrappedScheduleState(count)` for each schedule.
    """

    count: jax.Array  # type: ignore[assignment]
    hyperparams: dict[str, jax.Array]
    hyperparams_states: dict[str, WrappedScheduleState]
    inner_state: PyTree


@constructor
def inject_hyperparams(
    inner_factory: Callable[..., OptimizerLike],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., Optimizer]:
    """Keep the hyperparameters of an optimizer in its state, where they can be changed.

    Args:
        inner_factory: the constructor, as `nn.optimizers.adam` or one of optax.
        static_args: the names of the arguments that are not hyperparameters: functions that are not
            schedules, and integers that must be static. Booleans, strings and None never are.
        hyperparam_dtype: dtype of those that are floating; None for the widest of the params,
            float32 at least.

    Returns:
        A constructor with the same arguments, each a number or a schedule `count -> number`. The
        state is `InjectStatefulHyperparamsState(count, hyperparams, hyperparams_states,
        inner_state)`: `state.hyperparams["learning_rate"] = 0.01` holds from the next update on,
        unless it is scheduled.

    Raises:
        TypeError: `inner_factory` is no function, or `static_args` no names.
        ValueError: `static_args` has a name that is no argument.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.inject_hyperparams(nn.optimizers.sgd)(learning_rate=1.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> state.hyperparams["learning_rate"] = 0.25
        >>> optimizer.update(jnp.ones(1), state)[0]
        Array([-0.25], dtype=float32)
    """
    if not callable(inner_factory):
        raise TypeError(
            f"inject_hyperparams: inner_factory is {inner_factory!r}, expected a constructor"
        )
    if not isinstance(static_args, Iterable):
        raise TypeError(f"inject_hyperparams: static_args is {static_args!r}, expected names")
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if unknown := sorted(static - signature.parameters.keys()):
        raise ValueError(
            f"inject_hyperparams: static_args has {unknown[0]!r}, expected names among "
            f"{list(signature.parameters)}"
        )

    @functools.wraps(inner_factory)
    def injected(*args: Any, **kwargs: Any) -> Optimizer:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name not in static}
        schedules = {name: value for name, value in given.items() if callable(value)}
        numbers = {name: value for name, value in given.items() if _is_number(value)}
        dynamic = schedules.keys() | numbers.keys()
        fixed = {name: v for name, v in bound.arguments.items() if name not in dynamic}

        def converted(values: dict[str, Any], tree: PyTree) -> dict[str, jax.Array]:
            dtype = hyperparam_dtype or precision.widest_real_dtype(tree)
            return {name: _in_dtype(value, dtype) for name, value in values.items()}

        def at(states: dict[str, WrappedScheduleState]) -> dict[str, Any]:
            return {name: schedule(states[name].count) for name, schedule in schedules.items()}

        def init(params: PyTree) -> PyTree:
            states = {name: WrappedScheduleState(moments.zero_count()) for name in schedules}
            hyperparams = converted(numbers | at(states), params)
            inner = inner_factory(**fixed, **hyperparams)
            check_optimizer(inner, "inject_hyperparams: what inner_factory makes")
            return InjectStatefulHyperparamsState(
                moments.zero_count(), hyperparams, states, inner.init(params)
            )

        def update(
            updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, PyTree]:
            values = state.hyperparams | at(state.hyperparams_states)
            hyperparams = converted(values, updates if params is None else params)
            inner = inner_factory(**fixed, **hyperparams)
            updates, inner_state = extra_tolerant(inner)(
                updates, state.inner_state, params, **extra
            )
            states = {
                name: WrappedScheduleState(moments.next_count(s.count))
                for name, s in state.hyperparams_states.items()
            }
            count = moments.next_count(state.count)
            return updates, InjectStatefulHyperparamsState(count, hyperparams, states, inner_state)

        return Optimizer(init, update)

    # A schedule may stand for any number.
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    injected.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    injected.__name__ = f"inject_hyperparams({value_text(inner_factory)})"
    return constructor(injected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | jax.Array | np.ndarray | np.generic) and not isinstance(
        value, bool
    )


def _in_dtype(value: Any, dtype: Any) -> jax.Array:
    """A hyperparameter as an array, in `dtype` if it is floating."""
    array = jnp.asarray(value)
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    return hyperparameter(array, dtype) if is_floating else array
