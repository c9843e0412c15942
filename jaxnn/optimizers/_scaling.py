"""Multiplying updates by a number or a schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import accumulator_dtype, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._rates import rate, with_rates


class ScaleByScheduleState(NamedTuple):
    """The step count."""

    count: jax.Array  # type: ignore[assignment]


def scaled(updates: PyTree, factor: Any) -> PyTree:
    """Each leaf times `factor`, in the leaf's dtype."""
    check.gradients("scale", updates)

    def one(u: jax.Array) -> jax.Array:
        u = jnp.asarray(u)
        wide = accumulator_dtype(u.dtype)
        return (hyperparameter(factor, wide) * u.astype(wide)).astype(u.dtype)

    return jax.tree.map(one, updates)


@constructor
def scale(step_size: Scalar) -> Optimizer:
    """Multiply the updates by a number: `u = step_size * g`.

    Args:
        step_size: the factor; may be traced.

    Returns:
        An `Optimizer`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.scale(-2.0).update({"w": jnp.array([1.0, 2.0])}, ())[0]
        {'w': Array([-2., -4.], dtype=float32)}
    """
    return stateless_transformation(lambda updates, params: scaled(updates, step_size))


@constructor
def scale_by_schedule(step_size_fn: Callable[[Any], Any]) -> Optimizer:
    """Multiply the updates by a schedule: `u = step_size_fn(count) * g`.

    Args:
        step_size_fn: a function of the step count (0 at the first update).

    Returns:
        An `Optimizer` with state `ScaleByScheduleState(count)`.

    Raises:
        TypeError: `step_size_fn` is not a function.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> halving = nn.optimizers.scale_by_schedule(lambda count: 0.5 ** count)
        >>> state = halving.init({})
        >>> _, state = halving.update({"w": jnp.ones(1)}, state)
        >>> halving.update({"w": jnp.ones(1)}, state)[0]
        {'w': Array([0.5], dtype=float32)}
    """

    if not callable(step_size_fn):
        raise TypeError(
            f"scale_by_schedule: step_size_fn is {step_size_fn!r}, expected a function of the count"
        )

    def init(params: PyTree) -> PyTree:
        return ScaleByScheduleState(moments.zero_count())

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        factor = step_size_fn(state.count)
        return scaled(updates, factor), ScaleByScheduleState(moments.next_count(state.count))

    return Optimizer(init, update)


@constructor
def scale_by_learning_rate(learning_rate: ScalarOrSchedule, *, flip_sign: bool = True) -> Optimizer:
    """Multiply the updates by the negative learning rate: `u = -learning_rate * g`.

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        flip_sign: whether to negate the updates, so that they descend.

    Returns:
        An `Optimizer`; with a schedule its state is `ScaleByScheduleState(count)`.

    Raises:
        ValueError: `learning_rate` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.scale_by_learning_rate(0.5).update({"w": jnp.ones(1)}, ())[0]
        {'w': Array([-0.5], dtype=float32)}
    """
    check.nonnegative("scale_by_learning_rate", learning_rate=learning_rate)
    sign = -1 if flip_sign else 1
    if callable(learning_rate):
        scheduled = scale_by_schedule(lambda count: sign * learning_rate(count))
        by_count = with_rates(
            scheduled.update, lambda before, _: {"": rate(learning_rate(before.count))}
        )
        return Optimizer(scheduled.init, by_count)
    constant = scale(sign * learning_rate)
    return Optimizer(
        constant.init, with_rates(constant.update, lambda *_: {"": rate(learning_rate)})
    )
