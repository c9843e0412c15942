"""Sharpness-aware minimisation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import check_axis_name, check_count, check_range, downhill
from jaxnn._core.construction import constructor
from jaxnn._core.types import OptimizerLike, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, apply_updates, chain, check_optimizer, extra_tolerant
from jaxnn.optimizers._normalizing import normalize
from jaxnn.optimizers._rates import with_rates_of
from jaxnn.optimizers._sgd import sgd


class SAMState(NamedTuple):
    """The calls since the last update, both states, and the params that the ascent started at.

    `cache` is None in opaque mode.
    """

    steps_since_sync: jax.Array
    opt_state: PyTree
    adv_state: PyTree
    cache: PyTree


@constructor
def sam(
    optimizer: OptimizerLike,
    adv_optimizer: OptimizerLike | None = None,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool | None = None,
    batch_axis_name: str | None = None,
    *,
    rho: Scalar = 0.05,
) -> Optimizer:
    """Sharpness-aware minimization: descend by the gradient at the worst point nearby.

    `ε = rho g / ‖g‖` over all leaves, and the optimizer gets the gradient at `w + ε`.

    In opaque mode an update computes that gradient itself, from a keyword of `update`:
    `value_fn(params) -> loss`, which `train_step`, `fit` and `training_run` pass, or
    `grad_fn(params, i) -> gradients`. Otherwise it takes `sync_period` calls, each with the
    gradients at the params that the last one led to: first the ascent, then the descent from where
    it started.

    Paper: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization,
    https://arxiv.org/abs/2010.01412

    Args:
        optimizer: the `Optimizer` or optax transformation that descends.
        adv_optimizer: the one whose steps are ascended; None for steps of length `rho` along the
            gradient.
        sync_period: one more than the number of ascent steps; 1 is the optimizer alone.
        reset_state: whether to reset the state of `adv_optimizer` with each update.
        opaque_mode: whether an update takes one call. None (optax: False): if `update` is given
            `value_fn` or `grad_fn`.
        batch_axis_name: in opaque mode, the axis to average the gradients over, if any.
        rho: the length of the ascent, at least 0, where `adv_optimizer` is None; may be traced.

    Returns:
        An `Optimizer` with state `SAMState(steps_since_sync, opt_state, adv_state, cache)`. (In
        wrappers of optax, `optax.GradientTransformationExtraArgs(*it)`, so that they pass on what
        the opaque mode needs.)

    Raises:
        TypeError: an optimizer is not one.
        ValueError: a hyperparameter is out of range; `update` lacks what it needs.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def loss(w):
        ...     return jnp.sum(w ** 2) / 2
        >>> optimizer = nn.optimizers.sam(nn.optimizers.sgd(0.1), rho=0.5)
        >>> w = jnp.array([3.0, 4.0])
        >>> updates, _ = optimizer.update(jax.grad(loss)(w), optimizer.init(w), w, value_fn=loss)
        >>> [round(u, 3) for u in updates.tolist()]              # -0.1 (w + 0.5 w / 5)
        [-0.33, -0.44]
    """
    check_optimizer(optimizer, "sam: optimizer")
    check_count("sam", "sync_period", sync_period)
    check_range("sam", "rho", rho, 0)
    adversary = chain(normalize(), sgd(rho)) if adv_optimizer is None else adv_optimizer
    check_optimizer(adversary, "sam: adv_optimizer")
    descend, ascend = extra_tolerant(optimizer), extra_tolerant(adversary)

    def init(params: PyTree) -> PyTree:
        cache = None if opaque_mode else moments.zeros(params)
        return SAMState(moments.zero_count(), optimizer.init(params), adversary.init(params), cache)

    def up(grads: PyTree, adv_state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        steps, adv_state = ascend(grads, adv_state, params)
        return jax.tree.map(lambda u, g: -precision.cast_like(u, g), steps, grads), adv_state

    def in_one_call(
        grads: PyTree, state: SAMState, params: PyTree, extra: dict[str, Any]
    ) -> tuple[PyTree, PyTree]:
        gradient = _gradient_function(extra)
        adv_state, adv_grads, adv_params = state.adv_state, grads, params
        for i in range(sync_period - 1):
            steps, adv_state = up(adv_grads, adv_state, adv_params)
            adv_params = apply_updates(adv_params, steps)
            adv_grads = jax.tree.map(precision.cast_like, gradient(adv_params, i), grads)
            if batch_axis_name is not None:
                check_axis_name("sam", batch_axis_name, "batch_axis_name")
                adv_grads = lax.pmean(adv_grads, batch_axis_name)
        if reset_state:
            adv_state = adversary.init(params)
        updates, opt_state = descend(adv_grads, state.opt_state, params, **extra)
        return updates, state._replace(opt_state=opt_state, adv_state=adv_state)

    def in_several_calls(
        grads: PyTree, state: SAMState, params: PyTree, extra: dict[str, Any]
    ) -> tuple[PyTree, PyTree]:
        is_first, is_last = state.steps_since_sync == 0, state.steps_since_sync >= sync_period - 1
        cache = jax.tree.map(
            lambda p, c: jnp.where(is_first, p.astype(c.dtype), c), params, state.cache
        )

        def go_down() -> tuple[PyTree, PyTree]:
            origin = jax.tree.map(precision.cast_like, cache, params)
            moves, opt_state = descend(grads, state.opt_state, origin, **extra)

            def back_and_down(u: jax.Array, p: jax.Array, o: jax.Array) -> jax.Array:
                wide_u, wide_p, wide_o = precision.in_one_precision(u, p, o)
                return precision.cast_like(wide_o - wide_p + wide_u, u)

            updates = jax.tree.map(back_and_down, moves, params, origin)
            adv_state = adversary.init(params) if reset_state else state.adv_state
            down = SAMState(moments.zero_count(), opt_state, adv_state, cache)
            return jax.tree.map(precision.cast_like, updates, grads), down

        def go_up() -> tuple[PyTree, PyTree]:
            updates, adv_state = up(grads, state.adv_state, params)
            return updates, SAMState(state.steps_since_sync + 1, state.opt_state, adv_state, cache)

        return lax.cond(is_last, go_down, go_up)  # type: ignore[no-any-return]

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("sam", params)
        can_be_opaque = "value_fn" in extra or "grad_fn" in extra
        if opaque_mode and not can_be_opaque:
            call = "that or grad_fn in opaque mode: update(..., params, value_fn=loss)"
            check.keywords("sam", call, value_fn=None)
        is_opaque = can_be_opaque if opaque_mode is None else opaque_mode
        return (in_one_call if is_opaque else in_several_calls)(updates, state, params, extra)

    return Optimizer(init, with_rates_of(update, optimizer, "opt_state"))


def _gradient_function(extra: dict[str, Any]) -> Callable[[PyTree, int], PyTree]:
    """`grad_fn` of the extra keywords, or the gradient of `value_fn`."""
    if "grad_fn" in extra:
        return extra["grad_fn"]  # type: ignore[no-any-return]
    gradient = jax.grad(extra["value_fn"])
    return lambda params, _: jax.tree.map(downhill, gradient(params))
