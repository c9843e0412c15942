"""Leaving out updates that are not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import OptimizerLike, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant
from jaxnn.optimizers._rates import with_rates_of


class ApplyIfFiniteState(NamedTuple):
    """The counts of non-finite gradients, in a row and in total, and the inner state.

    `last_finite` says whether the last gradients were finite.
    """

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: PyTree


class ZeroNansState(NamedTuple):
    """Whether each leaf of the last gradients had a NaN."""

    found_nan: PyTree


@constructor
def zero_nans() -> Optimizer:
    """Put 0 in the place of NaN in the gradients.

    Returns:
        An `Optimizer` with state `ZeroNansState(found_nan)`: a boolean for each leaf.

    Raises:
        TypeError: a leaf is the gradient of an integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> first = nn.optimizers.zero_nans()
        >>> updates, state = first.update(jnp.array([jnp.nan, 2.0]), first.init(jnp.ones(2)))
        >>> updates, state.found_nan
        (Array([0., 2.], dtype=float32), Array(True, dtype=bool))
    """

    def init(params: PyTree) -> PyTree:
        return ZeroNansState(jax.tree.map(lambda _: jnp.zeros((), bool), params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients("zero_nans", updates)
        found = jax.tree.map(lambda g: jnp.any(jnp.isnan(g)), updates)
        return jax.tree.map(lambda g: jnp.where(jnp.isnan(g), 0, g), updates), ZeroNansState(found)

    return Optimizer(init, update)


@constructor
def apply_if_finite(inner: OptimizerLike, max_consecutive_errors: Scalar) -> Optimizer:
    """Skip updates whose gradients contain an infinity or NaN: zeros, and the state is unchanged.

    After `max_consecutive_errors` of them in a row the next is applied, so that a diverged run
    shows it.

    Args:
        inner: the `Optimizer` or optax transformation.
        max_consecutive_errors: how many non-finite gradients in a row are skipped, at least 0; may
            be traced.

    Returns:
        An `Optimizer` with state `ApplyIfFiniteState(notfinite_count, last_finite,
        total_notfinite, inner_state)`.

    Raises:
        TypeError: `inner` is not an optimizer.
        ValueError: `max_consecutive_errors` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.apply_if_finite(nn.optimizers.sgd(1.0), 5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> updates, state = optimizer.update(jnp.array([1.0, jnp.nan]), state)
        >>> updates, state.total_notfinite
        (Array([0., 0.], dtype=float32), Array(1, dtype=int32))
    """
    check_optimizer(inner, "apply_if_finite: inner")
    check.whole("apply_if_finite", 0, max_consecutive_errors=max_consecutive_errors)
    inner_update = extra_tolerant(inner)

    def init(params: PyTree) -> PyTree:
        good = jnp.ones((), bool)
        return ApplyIfFiniteState(
            moments.zero_count(), good, moments.zero_count(), inner.init(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients("apply_if_finite", updates)
        finite = jnp.ones((), bool)
        for leaf in jax.tree.leaves(updates):
            finite &= jnp.all(jnp.isfinite(leaf))
        bad = jnp.where(finite, 0, moments.next_count(state.notfinite_count))
        limit = hyperparameter(max_consecutive_errors, bad.dtype)

        def use() -> tuple[PyTree, PyTree]:
            moves, inner_state = inner_update(updates, state.inner_state, params, **extra)
            return jax.tree.map(precision.cast_like, moves, updates), inner_state

        def ignore() -> tuple[PyTree, PyTree]:
            return jax.tree.map(jnp.zeros_like, updates), state.inner_state

        moves, inner_state = lax.cond(finite | (bad > limit), use, ignore)
        all_bad = jnp.where(
            finite, state.total_notfinite, moments.next_count(state.total_notfinite)
        )
        return moves, ApplyIfFiniteState(bad, finite, all_bad, inner_state)

    return Optimizer(init, with_rates_of(update, inner, "inner_state"))
