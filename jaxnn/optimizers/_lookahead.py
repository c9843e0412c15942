"""Lookahead: slow weights that follow fast ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import OptimizerLike, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, check_optimizer, extra_tolerant
from jaxnn.optimizers._by_path import where_kept
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._rates import with_rates_of


class LookaheadState(NamedTuple):
    """The state of the fast optimizer, its steps since the last synchronization, the slow weights.

    Right after a synchronization (`steps_since_sync` is 0) the slow weights are the params.
    """

    fast_state: PyTree
    steps_since_sync: jax.Array
    slow: PyTree

    def evaluation_params(self, params: PyTree) -> PyTree:
        """The slow weights."""

        def one(slow: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(self.steps_since_sync == 0, p, slow.astype(jnp.result_type(p)))

        return where_kept(one, self.slow, params)


@constructor
def lookahead(
    fast_optimizer: OptimizerLike,
    sync_period: Scalar,
    slow_step_size: Scalar,
    reset_state: bool = False,
) -> Optimizer:
    """Lookahead: slow weights φ that follow the fast weights θ of another optimizer.

    After each `sync_period` steps of the fast optimizer, `φ = φ + slow_step_size (θ - φ)` and
    `θ = φ`. The params are θ; φ is in the state (optax keeps both in the params, as
    `LookaheadParams`), and `evaluation_params` gives it.

    Paper: Zhang et al., Lookahead Optimizer: k steps forward, 1 step back,
    https://arxiv.org/abs/1907.08610

    Args:
        fast_optimizer: the `Optimizer` or optax transformation that moves θ.
        sync_period: the number of fast steps per slow one, at least 1; may be traced.
        slow_step_size: how far φ moves towards θ, at least 0; may be traced.
        reset_state: whether to reset the state of the fast optimizer after each slow step.

    Returns:
        An `Optimizer` with state `LookaheadState(fast_state, steps_since_sync, slow)`. Its updates
        are to be applied as they are: wrap all of a chain.

    Raises:
        TypeError: `fast_optimizer` is not an optimizer.
        ValueError: a hyperparameter is out of range; `update` is called without params;
            the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.lookahead(nn.optimizers.sgd(1.0), 2, slow_step_size=0.5)
        >>> w = jnp.array([0.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(4):                       # to 1, 2 and half back, 2, 3 and half back
        ...     updates, state = optimizer.update(jnp.array([-1.0]), state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        ...     print(w)
        [1.]
        [1.]
        [2.]
        [2.]
    """
    check_optimizer(fast_optimizer, "lookahead: fast_optimizer")
    check.whole("lookahead", 1, sync_period=sync_period)
    check.nonnegative("lookahead", slow_step_size=slow_step_size)
    fast_update = extra_tolerant(fast_optimizer)

    def init(params: PyTree) -> PyTree:
        return LookaheadState(
            fast_optimizer.init(params), moments.zero_count(), moments.zeros(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("lookahead", params)
        updates, fast_state = fast_update(updates, state.fast_state, params, **extra)
        meets_before = state.steps_since_sync == 0
        steps = state.steps_since_sync + 1
        meets = steps >= hyperparameter(sync_period, steps.dtype)

        def rule(u: jax.Array, slow: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            slow = jnp.where(meets_before, p, slow)
            new_slow = slow + hyperparameter(slow_step_size, u.dtype) * (p + u - slow)
            return jnp.where(meets, new_slow - p, u), jnp.where(meets, new_slow, slow)

        updates, slow = leafwise("lookahead", rule, updates, state.slow, given=(params,))
        if reset_state:
            fast_state = lax.cond(meets, lambda: fast_optimizer.init(params), lambda: fast_state)
        return updates, LookaheadState(fast_state, jnp.where(meets, 0, steps), slow)

    return Optimizer(init, with_rates_of(update, fast_optimizer, "fast_state"))
