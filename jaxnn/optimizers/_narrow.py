"""Parameters of fewer than 32 bits, in which small updates would be lost."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_key, is_inexact, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import OptimizerLike, PyTree
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._averaging import evaluation_params
from jaxnn.optimizers._base import (
    Optimizer,
    apply_updates,
    check_optimizer,
    extra_tolerant,
)
from jaxnn.optimizers._by_path import MaskedNode, where_kept
from jaxnn.optimizers._map_params import is_masked
from jaxnn.optimizers._rates import with_rates_of


class MasterWeightsState(NamedTuple):
    """The state of the optimizer, and the copies in float32 of the params of fewer bits."""

    inner_state: PyTree
    master: PyTree

    def evaluation_params(self, params: PyTree) -> PyTree:
        """What the optimizer has better than the copies, rounded."""
        better = evaluation_params(self.inner_state, _wide_params(self.master, params))
        return jax.tree.map(precision.cast_like, better, params)


class StochasticRoundingState(NamedTuple):
    """The step count, and the key, which stays the same."""

    count: jax.Array  # type: ignore[assignment]
    rng_key: jax.Array


@constructor
def master_weights(optimizer: OptimizerLike) -> Optimizer:
    """Master weights: params of fewer than 32 bits as the rounded copies of params in float32.

    `m = m + u(g, m)`, `w = round(m)`: the optimizer sees gradients and params in float32, and no
    update is lost because it is smaller than half a unit in the last place of a param, which in
    bfloat16 is a 512th of it. Params of 32 bits or more are updated as they would be alone.

    Paper: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740

    Args:
        optimizer: the `Optimizer` or optax transformation.

    Returns:
        An `Optimizer` with state `MasterWeightsState(inner_state, master)`, `MaskedNode()` standing
        for the params that have no copy. The updates of those that have one are in float32, so
        that they end at `round(m)` exactly; they are to be applied as they are: wrap all of a
        chain, and `accumulate` or `lookahead` too. A param that is not `round(m)`, since it was
        changed between steps, is taken as it is.

    Raises:
        TypeError: `optimizer` is not one.
        ValueError: `update` is called without params; the structures differ.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def after_80_steps(optimizer):
        ...     def step(now, _):
        ...         w, state = now
        ...         updates, state = optimizer.update(jnp.ones_like(w), state, w)
        ...         return (nn.optimizers.apply_updates(w, updates), state), None
        ...     w = jnp.full(1, 1.5, jnp.bfloat16)
        ...     return jax.lax.scan(step, (w, optimizer.init(w)), length=80)[0][0]
        >>> adam = nn.optimizers.adam(1e-3)
        >>> after_80_steps(adam), after_80_steps(nn.optimizers.master_weights(adam))
        (Array([1.5], dtype=bfloat16), Array([1.42188], dtype=bfloat16))
    """
    check_optimizer(optimizer, "master_weights: optimizer")
    inner_update = extra_tolerant(optimizer)

    def init(params: PyTree) -> PyTree:
        def copy(p: Any) -> Any:
            return jnp.zeros_like(p, dtype=jnp.float32) if is_narrow(p) else MaskedNode()

        # Zeros are no copies, so that the first update takes the params.
        return MasterWeightsState(optimizer.init(params), jax.tree.map(copy, params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("master_weights", params)
        same_structure("master_weights", params=params, updates=updates)
        before = _wide_params(state.master, params)
        if extra.get("grad") is not None:
            extra["grad"] = jax.tree.map(_widened, extra["grad"])
        if extra.get("value_fn") is not None:
            extra["value_fn"] = _of_wide(extra["value_fn"], params)
        grads = jax.tree.map(_widened, updates)
        moves, inner_state = inner_update(grads, state.inner_state, before, **extra)

        after = apply_updates(before, moves)

        def copied(old: Any, new: jax.Array) -> Any:
            return old if is_masked(old) else new

        def landing(new: jax.Array, move: Any, p: jax.Array) -> jax.Array:
            rounded, p = widen(precision.cast_like(new, p)), widen(p)
            return jnp.where(rounded == p, 0, rounded - p)  # of infinities as well

        master = jax.tree.map(copied, state.master, after, is_leaf=is_masked)
        return where_kept(landing, master, moves, params), MasterWeightsState(inner_state, master)

    return Optimizer(init, with_rates_of(update, optimizer, "inner_state"))


def _wide_params(master: PyTree, params: PyTree) -> PyTree:
    """The copies, where they are those of the params, and otherwise the params."""

    def one(copy: jax.Array, p: jax.Array) -> jax.Array:
        return jnp.where(precision.cast_like(copy, p) == p, copy, widen(p))

    return where_kept(one, master, params)


def _widened(gradient: Any) -> Any:
    return widen(gradient) if is_inexact(jnp.result_type(gradient)) else gradient


def _of_wide(value_fn: Any, params: PyTree) -> Any:
    """A function of the params as one of their copies."""
    return lambda wide: value_fn(jax.tree.map(precision.cast_like, wide, params))


@constructor
def stochastic_rounding(key: jax.Array) -> Optimizer:
    """Round params of fewer than 32 bits up or down at random, so that they are right on average.

    `w + u`, which lies between two numbers of the dtype of w, becomes the upper one with the
    probability `(w + u - lower) / (upper - lower)`. An update smaller than half a unit in the last
    place of w, which rounding to the nearest loses, moves w by a unit now and then. It needs no
    memory, where `master_weights` has a copy in float32, but adds noise.

    Step t = 0, 1, ... draws from `jax.random.fold_in(key, t)`.

    Paper: Gupta et al., Deep Learning with Limited Numerical Precision,
    https://arxiv.org/abs/1502.02551

    Args:
        key: a typed PRNG key.

    Returns:
        An `Optimizer`, the last of a chain: `chain(adam(1e-3), stochastic_rounding(key))`, with
        state `StochasticRoundingState(count, rng_key)`. The updates of params of fewer than 32 bits
        are in float32, so that they end at the rounded number; others stay.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `update` is called without params; the structures differ.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> rounding = nn.optimizers.stochastic_rounding(jax.random.key(0))
        >>> w, u = jnp.full(10000, 1.5, jnp.bfloat16), jnp.full(10000, 1e-3, jnp.bfloat16)
        >>> w = nn.optimizers.apply_updates(w, rounding.update(u, rounding.init(w), w)[0])
        >>> jnp.unique(w), round(float(jnp.mean(w.astype(jnp.float32))), 4)
        (Array([1.5, 1.50781], dtype=bfloat16), 1.501)
    """
    check_key("stochastic_rounding", key)

    def init(params: PyTree) -> PyTree:
        return StochasticRoundingState(moments.zero_count(), jax.random.clone(key))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("stochastic_rounding", params)
        same_structure("stochastic_rounding", params=params, updates=updates)
        leaves, structure = jax.tree.flatten(updates)
        step_key = jax.random.fold_in(state.rng_key, state.count)

        def rounded(position: int, u: Any, p: Any) -> Any:
            narrow = is_narrow(p) and not check.is_of_integer(u)
            return _rounding(jax.random.fold_in(step_key, position), u, p) if narrow else u

        moves = [
            rounded(i, u, p)
            for i, (u, p) in enumerate(zip(leaves, jax.tree.leaves(params), strict=True))
        ]
        state = state._replace(count=moments.next_count(state.count))
        return jax.tree.unflatten(structure, moves), state

    return Optimizer(init, update)


def _rounding(key: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
    """What takes `p` to one of the two neighbours of `p + u` in its dtype."""
    wide_p, wide_u = widen(p), widen(u).astype(jnp.float32)
    nearest = (wide_p + wide_u).astype(p.dtype)
    # The rest has all digits, which the sum of a large and a small number has not.
    rest = (wide_p - widen(nearest)) + wide_u
    largest = jnp.finfo(p.dtype).max
    beyond = jnp.nextafter(nearest, jnp.where(rest > 0, largest, -largest).astype(p.dtype))
    gap = jnp.abs(widen(beyond) - widen(nearest))
    goes_beyond = jax.random.uniform(key, p.shape) * gap < jnp.abs(rest)
    result = widen(jnp.where(goes_beyond, beyond, nearest))
    return jnp.where(result == wide_p, 0, result - wide_p)


def is_narrow(leaf: Any) -> bool:
    """Whether it is floating and has fewer than 32 bits."""
    dtype = jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def keeps_small_updates(opt_state: PyTree) -> bool:
    """Whether an optimizer with this state is made for params of few bits."""

    def is_one(node: Any) -> bool:
        return isinstance(node, MasterWeightsState | StochasticRoundingState)

    return any(is_one(node) for node in jax.tree.leaves(opt_state, is_leaf=is_one))
