"""Gradient accumulation: one update for several batches."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, concrete, floating, hyperparameter, total, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import Arrays, Limit, OptimizerLike, PyTree, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant, value_at
from jaxnn.optimizers._line_search import line_searches
from jaxnn.optimizers._rates import with_rates_of

SkipFunction = Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, PyTree]]


class MultiStepsState(NamedTuple):
    """The accumulated gradients of `mini_step` mini-batches, after `gradient_step` updates.

    `acc_weight` is the sum of the weights of those mini-batches, `acc_value` the accumulated
    keyword `value`.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: PyTree
    acc_grads: PyTree
    skip_state: PyTree = ()
    acc_weight: PyTree = ()
    acc_value: PyTree = ()


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

    The update is computed from the mean of their gradients, `Σ weight g / Σ weight`. The weight of
    a mini-batch is the keyword `weight` of `update`: what the mean over it was divided by, as the
    number of its examples, which `train_step`, `fit` and `training_run` pass. So the update is that
    of one large batch, however the examples or tokens are spread. Without the keyword, each
    mini-batch counts the same, as in optax. All other calls return updates of zero, and neither run
    the optimizer nor change its state; so does the last, if all weights were 0.

    Args:
        optimizer: the `Optimizer` or optax transformation that makes the updates. Schedules in it
            count updates, not calls. It gets the mean of the keyword `value` as that of the
            gradients, the latter as `grad` too if there is one, and the sum of the weights as
            `weight`; other keywords reach it from the last call alone. A line search, which needs
            the objective of all mini-batches, is refused.
        every: the number of mini-batches per update, at least 1; or a function of the number of
            updates so far.
        use_grad_mean: whether to average gradients and values; otherwise they are summed, whatever
            the weights.
        should_skip_update_fn: None, or `f(updates, gradient_step, params) -> (skip, info)`, as
            `skip_not_finite`: a mini-batch for which `skip` is true is left out. `info` is kept in
            the state.
        accumulator_dtype: dtype of the accumulated gradients; None for float32 or wider.

    Returns:
        An `Optimizer` with state `MultiStepsState(mini_step, gradient_step, inner_opt_state,
        acc_grads, skip_state, acc_weight, acc_value)`.

    Raises:
        TypeError: `optimizer` is not one.
        ValueError: `every` is less than 1 or infinite; the structures differ; `optimizer` has a
            line search.

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
        >>> for g, tokens in ((1.0, 3), (9.0, 1)):   # (3 * 1 + 1 * 9) / 4
        ...     updates, state = optimizer.update(jnp.array([g]), state, weight=tokens)
        >>> updates
        Array([-3.], dtype=float32)
    """
    check_optimizer(optimizer, "accumulate: optimizer")
    check.whole("accumulate", 1, every=every)
    inner_update = extra_tolerant(optimizer)

    def skipping(
        updates: PyTree, gradient_step: jax.Array, params: PyTree
    ) -> tuple[jax.Array, PyTree]:
        if should_skip_update_fn is None:
            return jnp.asarray(False), ()
        return should_skip_update_fn(updates, gradient_step, params)

    def init(params: PyTree) -> PyTree:
        zeros = jax.tree.map(lambda p: jnp.zeros(np.shape(p), jnp.result_type(p)), params)
        _, skip_state = skipping(zeros, moments.zero_count(), zeros)
        inner = optimizer.init(params)
        if line_searches(inner) and (callable(every) or concrete(every) != 1):
            raise ValueError(
                f"accumulate: optimizer is {optimizer!r}, whose line search needs the objective of "
                "all mini-batches, expected one without line search, or batches of that size"
            )
        dtype = precision.widest_real_dtype(params)
        return MultiStepsState(
            moments.zero_count(),
            moments.zero_count(),
            inner,
            moments.zeros(params, accumulator_dtype),
            skip_state,
            jnp.zeros((), dtype),
            jnp.zeros((), dtype),
        )

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        value: Any = None,
        weight: Any = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        check.gradients("accumulate", updates)
        same_structure("accumulate", state=state.acc_grads, updates=updates)
        skip, skip_state = skipping(updates, state.gradient_step, params)
        gathered = jnp.where(skip, state.mini_step, moments.next_count(state.mini_step))
        needed = hyperparameter(value_at(every, state.gradient_step), gathered.dtype)
        one = _checked_weight(weight, state.acc_weight.dtype)
        counts = ~skip & (one != 0)
        total = jnp.where(counts, state.acc_weight + one, state.acc_weight)
        parts = total / jnp.where(counts, one, 1)  # so many times the weight of this one

        def add(acc: jax.Array, g: jax.Array) -> jax.Array:
            wide, g = widen(acc), widen(g).astype(widen(acc).dtype)
            if not use_grad_mean:
                return jnp.where(skip, acc, (wide + g).astype(acc.dtype))
            g = (g - wide) / parts.astype(wide.dtype)
            return jnp.where(counts, (wide + g).astype(acc.dtype), acc)

        acc_grads = jax.tree.map(add, state.acc_grads, updates)
        acc_value = state.acc_value
        if value is not None:
            acc_value = add(acc_value, hyperparameter(value, acc_value.dtype))

        def move() -> tuple[PyTree, PyTree]:
            grads = jax.tree.map(precision.cast_like, acc_grads, updates)
            combined: dict[str, Any] = {}
            if value is not None:
                combined["value"] = acc_value.astype(floating(value).dtype)
            if extra.get("grad") is not None:
                combined["grad"] = grads
            if weight is not None:
                combined["weight"] = total
            moves, inner = inner_update(grads, state.inner_opt_state, params, **extra | combined)
            zeros = jax.tree.map(jnp.zeros_like, acc_grads)
            return jax.tree.map(precision.cast_like, moves, updates), state._replace(
                mini_step=moments.zero_count(),
                gradient_step=moments.next_count(state.gradient_step),
                inner_opt_state=inner,
                acc_grads=zeros,
                skip_state=skip_state,
                acc_weight=jnp.zeros_like(total),
                acc_value=jnp.zeros_like(acc_value),
            )

        def wait() -> tuple[PyTree, PyTree]:
            # If a whole mean has no weight, it is begun anew.
            is_full = ~skip & (gathered >= needed)
            return jax.tree.map(jnp.zeros_like, updates), state._replace(
                mini_step=jnp.where(is_full, 0, gathered),
                acc_grads=acc_grads,
                skip_state=skip_state,
                acc_weight=total,
                acc_value=acc_value,
            )

        moves_now = ~skip & (gathered >= needed) & (total != 0)
        return lax.cond(moves_now, move, wait)  # type: ignore[no-any-return]

    return Optimizer(init, with_rates_of(update, optimizer, "inner_opt_state"))


def _checked_weight(weight: Any, dtype: Any) -> jax.Array:
    """The weight of a mini-batch in `dtype`, 1 if none is given."""
    if weight is None:
        return jnp.ones((), dtype)
    if jnp.ndim(weight) != 0:
        raise ValueError(
            f"accumulate: weight has shape {np.shape(weight)}, expected a number, by which the "
            "mean over the mini-batch was divided"
        )
    check_range("accumulate", "weight", weight, 0)
    return hyperparameter(weight, dtype)


@checked
def skip_not_finite(
    updates: Arrays, gradient_step: jax.Array, params: PyTree
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether any gradient is infinite or NaN, as `accumulate`'s `should_skip_update_fn`.

    Args:
        updates: a tree of floating arrays.
        gradient_step: unused.
        params: unused.

    Returns:
        A boolean, and `{"should_skip": it, "num_not_finite": how many}`.

    Raises:
        TypeError: a leaf is no array.

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


@checked
def skip_large_updates(
    updates: Arrays, gradient_step: jax.Array, params: PyTree, max_squared_norm: Limit
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether the gradients are large or not finite, as `accumulate`'s `should_skip_update_fn`.

    With `functools.partial(skip_large_updates, max_squared_norm=...)`.

    Args:
        updates: a tree of floating arrays.
        gradient_step: unused.
        params: unused.
        max_squared_norm: the squared global norm from which on they are skipped, at least 0.

    Returns:
        A boolean, and `{"should_skip": it, "norm_squared": the squared norm}`.

    Raises:
        TypeError: `updates` is no tree of arrays.
        ValueError: `max_squared_norm` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> skip, _ = nn.optimizers.skip_large_updates({"w": jnp.array([3.0, 4.0])}, 0, None, 20.0)
        >>> bool(skip)
        True
    """
    check_range("skip_large_updates", "max_squared_norm", max_squared_norm, 0, math.inf)
    check.gradients("skip_large_updates", updates)
    squares = (jnp.sum(moments.abs_square(widen(leaf))) for leaf in jax.tree.leaves(updates))
    norm_squared = total(squares)
    should_skip = ~(norm_squared < hyperparameter(max_squared_norm, norm_squared.dtype))
    return should_skip, {"should_skip": should_skip, "norm_squared": norm_squared}
