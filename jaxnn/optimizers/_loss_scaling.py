"""Loss scaling, for gradients in half precision."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import check_count, check_range, concrete, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.types import OptimizerLike, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant
from jaxnn.optimizers._rates import with_rates_of


class LossScaleState(NamedTuple):
    """The scale, the finite steps since it last changed, the skipped steps, the inner state.

    `at_minimum` says that the scale can fall no further: gradients that are not finite now stay so.
    """

    loss_scale: jax.Array
    at_minimum: jax.Array
    good_steps: jax.Array
    total_skipped: jax.Array
    inner_state: PyTree


@constructor
def dynamic_loss_scale(
    inner: OptimizerLike,
    initial: Scalar = 2.0**15,
    *,
    period: int = 2000,
    factor: Scalar = 2.0,
    minimum: Scalar = 1.0,
) -> Optimizer:
    """Dynamic loss scaling for float16, so that small gradients do not underflow.

    `train_step`, `fit` and `training_run` find the scale in the state and differentiate
    `scale * loss`; `update` divides the gradients by it, in float32. If any gradient is infinite or
    NaN, the update is zero, the state of `inner` is unchanged and the scale is divided by `factor`;
    after `period` finite steps in a row it is multiplied by it. In a loop of your own, multiply the
    loss by `loss_scale(opt_state)`.

    Paper: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740

    Args:
        inner: the `Optimizer` or optax transformation.
        initial: the initial scale, at least `minimum`; may be traced.
        period: the number of finite steps after which the scale grows, at least 1.
        factor: what the scale is multiplied or divided by, more than 1: a power of two changes
            no digit of a gradient; may be traced.
        minimum: the smallest scale, more than 0; may be traced.

    Returns:
        An `Optimizer` with state `LossScaleState(loss_scale, at_minimum, good_steps,
        total_skipped, inner_state)`. It goes around all of a chain: what is inside sees the true
        gradients.

    Raises:
        TypeError: `inner` is not an optimizer, or `period` is not an integer.
        ValueError: an argument is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.dynamic_loss_scale(nn.optimizers.sgd(1.0), initial=4.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> updates, state = optimizer.update(jnp.array([8.0]), state)    # of the scaled loss
        >>> updates, state.loss_scale
        (Array([-2.], dtype=float32), Array(4., dtype=float32))
        >>> updates, state = optimizer.update(jnp.array([jnp.inf]), state)
        >>> updates, state.loss_scale
        (Array([0.], dtype=float32), Array(2., dtype=float32))
    """
    check_optimizer(inner, "dynamic_loss_scale: inner")
    check_count("dynamic_loss_scale", "period", period)
    for name, value, limit in (("factor", factor, 1), ("minimum", minimum, 0)):
        known = concrete(value)
        if known is not None and not known > limit:
            raise ValueError(f"dynamic_loss_scale: {name} is {value}, expected more than {limit}")
    known = concrete(minimum)
    check_range("dynamic_loss_scale", "initial", initial, 0 if known is None else float(known))
    inner_update = extra_tolerant(inner)

    def init(params: PyTree) -> PyTree:
        scale = hyperparameter(initial, jnp.float32)
        at_minimum = scale <= hyperparameter(minimum, scale.dtype)
        return LossScaleState(
            scale, at_minimum, moments.zero_count(), moments.zero_count(), inner.init(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients("dynamic_loss_scale", updates)
        scale: jax.Array = state.loss_scale

        def unscaled(g: jax.Array) -> jax.Array:
            return widen(g) / scale.astype(widen(g).dtype)

        grads = jax.tree.map(unscaled, updates)
        finite = jnp.ones((), bool)
        for leaf in jax.tree.leaves(grads):
            finite &= jnp.all(jnp.isfinite(leaf))

        def use() -> tuple[PyTree, PyTree]:
            true = {name: grads if name == "grad" else value for name, value in extra.items()}
            moves, inner_state = inner_update(grads, state.inner_state, params, **true)
            return jax.tree.map(precision.cast_like, moves, updates), inner_state

        def ignore() -> tuple[PyTree, PyTree]:
            return jax.tree.map(jnp.zeros_like, updates), state.inner_state

        moves, inner_state = lax.cond(finite, use, ignore)
        good = jnp.where(finite, moments.next_count(state.good_steps), 0)
        grows = good >= period
        times, lowest = (hyperparameter(h, scale.dtype) for h in (factor, minimum))
        higher = jnp.where(grows, scale * times, scale)
        scale = jnp.where(finite, higher, jnp.maximum(scale / times, lowest))
        skipped = jnp.where(finite, state.total_skipped, moments.next_count(state.total_skipped))
        good = jnp.where(grows, 0, good)
        return moves, LossScaleState(scale, scale <= lowest, good, skipped, inner_state)

    return Optimizer(init, with_rates_of(update, inner, "inner_state"))


def loss_scale(opt_state: PyTree) -> jax.Array | None:
    """What the loss is to be multiplied by before it is differentiated; None for nothing.

    Args:
        opt_state: the state of an optimizer: of `dynamic_loss_scale`, or of one that has it inside.

    Returns:
        A float32 scalar, or None if there is no `LossScaleState` in it.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.dynamic_loss_scale(nn.optimizers.sgd(0.1), initial=8.0)
        >>> nn.optimizers.loss_scale(optimizer.init(jnp.zeros(1)))
        Array(8., dtype=float32)
    """

    states = loss_scale_states(opt_state)
    return states[0].loss_scale if states else None


def loss_scale_states(opt_state: PyTree) -> list[LossScaleState]:
    """The states of loss scales in the state of an optimizer."""

    def is_one(node: Any) -> bool:
        return isinstance(node, LossScaleState)

    return [node for node in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(node)]
