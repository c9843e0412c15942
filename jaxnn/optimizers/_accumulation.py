"""Gradient accumulation: one update for several batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxnn._core.arrays import check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import OptimizerLike, PyTree, ScalarOrSchedule
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant, value_at
from jaxnn.optimizers._rates import with_rates_of

SkipFunction = Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, PyTree]]


class MultiStepsState(NamedTuple):
    """The accumulated gradients of `mini_step` mini-batches, after `gradient_step` updates.

    `acc_weight` is the sum of the weights of the mini-batches.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: PyTree
    acc_grads: PyTree
    skip_state: PyTree = ()
    acc_weight: jax.Array | float = 0.0


@constructor
def accumulate(
    optimizer: OptimizerLike,
    every: ScalarOrSchedule,
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: SkipFunction | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Gradient accumulation: one update for every `every` mini-batches, as `optax.MultiSteps`.

    The update is computed from the mean of their gradients, `Σ w g / Σ w` over the mini-batches,
    where `w` is the keyword `weight` of `update`: what the mean over a mini-batch was divided by,
    as the number of its tokens, so that the result is the gradient of all of them at once. `nn.fit`
    and `nn.train_step` give it; without it each mini-batch has the same weight. All other calls
    return updates of zero, and neither run the optimizer nor change its state.

    Args:
        optimizer: the `Optimizer` or optax transformation that makes the updates. Schedules in it
            count updates, not calls; extra keywords reach it from the last call alone.
        every: the number of mini-batches per update, at least 1; or a function of the number of
            updates so far.
        use_grad_mean: whether to average the gradients; otherwise they are summed, without weights.
        should_skip_update_fn: None, or `f(updates, gradient_step, params) -> (skip, info)`, as
            `skip_not_finite`: a mini-batch for which `skip` is true is left out. `info` is kept in
            the state.
        accumulator_dtype: dtype of the accumulated gradients; None for float32 or wider.

    Returns:
        An `Optimizer` with state `MultiStepsState(mini_step, gradient_step, inner_opt_state,
        acc_grads, skip_state, acc_weight)`.

    Raises:
        TypeError: `optimizer` is not one.
        ValueError: `every` is less than 1; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.accumulate(nn.optimizers.sgd(1.0), every=2)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (2.0, 4.0, 7.0, 9.0):
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        ...     print(updates + 0.0)
        [0.]
        [-3.]
        [0.]
        [-8.]
    """
    check_optimizer(optimizer, "accumulate: optimizer")
    check_range("accumulate", "every", every, 1)
    inner_update = extra_tolerant(optimizer)

    def skipping(
        updates: PyTree, gradient_step: jax.Array, params: PyTree
    ) -> tuple[jax.Array, PyTree]:
        if should_skip_update_fn is None:
            return jnp.asarray(False), ()
        return should_skip_update_fn(updates, gradient_step, params)

    def init(params: PyTree) -> PyTree:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)
        _, skip_state = skipping(zeros, moments.zero_count(), zeros)
        return MultiStepsState(
            moments.zero_count(),
            moments.zero_count(),
            optimizer.init(params),
            moments.zeros(params, accumulator_dtype),
            skip_state,
            jnp.zeros((), jnp.float32),
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, weight: Any = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        same_structure("accumulate", state=state.acc_grads, updates=updates)
        skip, skip_state = skipping(updates, state.gradient_step, params)
        gathered = jnp.where(skip, state.mini_step, moments.next_count(state.mini_step))
        own_weight = hyperparameter(1.0 if weight is None else weight, jnp.float32)
        own_weight = jnp.where(skip, 0, own_weight)
        total = state.acc_weight + own_weight
        if weight is not None:
            extra["weight"] = total
        needed = hyperparameter(value_at(every, state.gradient_step), gathered.dtype)

        def add(acc: jax.Array, g: jax.Array) -> jax.Array:
            wide, g = widen(acc), widen(g).astype(widen(acc).dtype)
            if use_grad_mean:
                some = jnp.where(total == 0, 1, total).astype(wide.dtype)
                g = (g - wide) * own_weight.astype(wide.dtype) / some
            return jnp.where(skip, acc, (wide + g).astype(acc.dtype))

        acc_grads = jax.tree.map(add, state.acc_grads, updates)

        def move() -> tuple[PyTree, PyTree]:
            grads = jax.tree.map(precision.cast_like, acc_grads, updates)
            moves, inner = inner_update(grads, state.inner_opt_state, params, **extra)
            zeros = jax.tree.map(jnp.zeros_like, acc_grads)
            return jax.tree.map(precision.cast_like, moves, updates), MultiStepsState(
                moments.zero_count(),
                moments.next_count(state.gradient_step),
                inner,
                zeros,
                skip_state,
                jnp.zeros_like(total),
            )

        def wait() -> tuple[PyTree, PyTree]:
            return jax.tree.map(jnp.zeros_like, updates), MultiStepsState(
                gathered, state.gradient_step, state.inner_opt_state, acc_grads, skip_state, total
            )

        return lax.cond(~skip & (gathered >= needed), move, wait)  # type: ignore[no-any-return]

    return Optimizer(init, with_rates_of(update, optimizer, "inner_opt_state"))


def skip_not_finite(
    updates: PyTree, gradient_step: jax.Array, params: PyTree
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether any gradient is infinite or NaN, as `accumulate`'s `should_skip_update_fn`.

    Args:
        updates: a tree of floating arrays.
        gradient_step: unused.
        params: unused.

    Returns:
        A boolean, and `{"should_skip": it, "num_not_finite": how many}`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> skip, _ = nn.optimizers.skip_not_finite({"w": jnp.array([1.0, jnp.nan])}, 0, None)
        >>> bool(skip)
        True
    """
    leaves = jax.tree.leaves(updates)
    counts = (jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32) for leaf in leaves)
    num_not_finite = sum(counts, moments.zero_count())
    should_skip = num_not_finite > 0
    return should_skip, {"should_skip": should_skip, "num_not_finite": num_not_finite}
