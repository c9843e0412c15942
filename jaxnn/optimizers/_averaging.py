"""Averages of updates and of parameters, and the parameters to evaluate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.arrays import check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import OptimizerLike, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import (
    Optimizer,
    apply_updates,
    check_optimizer,
    extra_tolerant,
    value_at,
)
from jaxnn.optimizers._by_path import where_kept
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._rates import with_rates_of


class EmaState(NamedTuple):
    """The step count and the exponential moving average of the updates."""

    count: jax.Array  # type: ignore[assignment]
    ema: PyTree


@constructor
def ema(
    decay: Scalar, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """Exponential moving average of the updates: `m = decay m + (1 - decay) g`, `u = m`.

    With `debias`, the bias correction `u = m / (1 - decay^t)` at step t.

    Args:
        decay: decay rate of the moving average, in [0, 1]; may be traced.
        debias: whether to apply bias correction.
        accumulator_dtype: dtype of the moving average; None for float32 or wider.

    Returns:
        An `Optimizer` with state `EmaState(count, ema)`.

    Raises:
        ValueError: `decay` is outside [0, 1]; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> average = nn.optimizers.ema(0.5)
        >>> u, state = average.update(jnp.array([3.0]), average.init(jnp.zeros(1)))
        >>> average.update(jnp.array([6.0]), state)[0]
        Array([5.], dtype=float32)
    """
    check_range("ema", "decay", decay, 0, 1)

    def init(params: PyTree) -> PyTree:
        return EmaState(moments.zero_count(), moments.zeros(params, accumulator_dtype))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        count = moments.next_count(state.count)

        def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, ...]:
            m = moments.moving_average(m, g, decay)
            return moments.bias_corrected(m, decay, count) if debias else m, m

        updates, average = leafwise("ema", rule, updates, state.ema)
        return updates, EmaState(count, average)

    return Optimizer(init, update)


class ParamsEmaState(NamedTuple):
    """The optimizer's state, the step count, and the average of the parameters.

    `weight` is the sum of the weights in the average: `1 - decay^count`.
    """

    inner_state: PyTree
    count: jax.Array  # type: ignore[assignment]
    weight: jax.Array
    ema: PyTree

    def evaluation_params(self, params: PyTree) -> PyTree:
        """The average; before the first update, the params."""

        def one(average: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(self.count > 0, average.astype(jnp.result_type(p)), p)

        return where_kept(one, self.ema, params)


@constructor
def params_ema(optimizer: OptimizerLike, decay: ScalarOrSchedule = 0.999) -> Optimizer:
    """Exponential moving average of the parameters, kept beside any optimizer: Polyak averaging.

    `m = decay m + (1 - decay) w` over the parameters w after each update, with bias correction: the
    initial parameters count for nothing. The optimizer moves as it would alone; `evaluation_params`
    gives the average, and so do `fit` and `training_run`.

    Paper: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging,
    https://doi.org/10.1137/0330046

    Args:
        optimizer: the `Optimizer` or optax transformation.
        decay: decay rate of the average, in [0, 1]; may be traced; or a schedule
            `count -> number`: `lambda t: t / (t + 1)` gives the plain mean of all.

    Returns:
        An `Optimizer` with state `ParamsEmaState(inner_state, count, weight, ema)`, the average in
        float32 or wider. Its updates are to be applied as they are: wrap all of a chain.

    Raises:
        TypeError: `optimizer` is not one.
        ValueError: `decay` is outside [0, 1]; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.params_ema(nn.optimizers.sgd(1.0), decay=0.5)
        >>> w = jnp.array([1.0])
        >>> state = optimizer.init(w)
        >>> for g in (-2.0, -3.0):                   # from 1 to 3 and 6
        ...     updates, state = optimizer.update(jnp.array([g]), state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> nn.optimizers.evaluation_params(state, w)   # (3 / 4 + 6 / 2) / (3 / 4)
        Array([5.], dtype=float32)
    """
    check_optimizer(optimizer, "params_ema: optimizer")
    check_range("params_ema", "decay", decay, 0, 1)
    inner_update = extra_tolerant(optimizer)

    def init(params: PyTree) -> PyTree:
        weight = jnp.zeros((), jnp.result_type(float))
        return ParamsEmaState(
            optimizer.init(params), moments.zero_count(), weight, moments.zeros(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("params_ema", params)
        updates, inner_state = inner_update(updates, state.inner_state, params, **extra)
        old = hyperparameter(value_at(decay, state.count), state.weight.dtype)
        weight = old * state.weight + (1 - old)
        share = (1 - old) / jnp.where(weight > 0, weight, 1)

        def towards(average: jax.Array, w: jax.Array) -> jax.Array:
            w = widen(w).astype(average.dtype)
            return average + share.astype(average.dtype) * (w - average)

        average = jax.tree.map(towards, state.ema, apply_updates(params, updates))
        return updates, ParamsEmaState(
            inner_state, moments.next_count(state.count), weight, average
        )

    return Optimizer(init, with_rates_of(update, optimizer, "inner_state"))


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate and to keep, where the optimizer has better ones than the last.

    These are the average of `params_ema`, the slow weights of `lookahead` and the average of
    `schedule_free`, also inside a `chain`, a `partition` or another wrapper; otherwise the params
    unchanged. `fit` and `training_run` validate with them and return them.

    Args:
        opt_state: the state of an optimizer. Every part of it that has a method
            `evaluation_params(params)` is used.
        params: the parameters being trained.

    Returns:
        A tree of the same structure, shapes and dtypes as `params`.

    Raises:
        ValueError: the state is of other params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.lookahead(nn.optimizers.sgd(1.0), 5, 0.5)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        >>> nn.optimizers.evaluation_params(state, jnp.zeros(1))
        Array([1.], dtype=float32)
    """

    def knows_better(node: Any) -> bool:
        return hasattr(node, "evaluation_params")

    for node in jax.tree.leaves(opt_state, is_leaf=knows_better):
        if knows_better(node):
            params = better_params("evaluation_params", node, params)
    return params


def better_params(function: str, node: Any, params: PyTree) -> PyTree:
    """The better parameters that a part of a state knows, where `params` fit it."""
    try:
        return node.evaluation_params(params)
    except ValueError as error:
        raise ValueError(
            f"{function}: params has leaves at {leaf_paths(params)[:3]}, expected the params that "
            f"the state is of: {error}"
        ) from error
