"""Rprop: a step size of its own for each parameter, for gradients without noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import accumulator_dtype, concrete, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale


class ScaleByRpropState(NamedTuple):
    """The step sizes, and the last updates."""

    step_sizes: PyTree
    prev_updates: PyTree


@constructor
def scale_by_rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Optimizer:
    """The sign of the gradient times Rprop's step size: `u = η sign(g)`.

    See `rprop` for the update rule and the arguments.

    Returns:
        An `Optimizer` of real gradients with state `ScaleByRpropState(step_sizes, prev_updates)`.

    Raises:
        TypeError: `learning_rate` is a schedule; the gradients are complex.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_rprop(0.25, eta_plus=2.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (8.0, 0.1, -3.0):               # the same sign, then another: no step
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        ...     print(updates, state.step_sizes)
        [0.25] [0.25]
        [0.5] [0.5]
        [0.] [0.25]
    """
    check.nonnegative(
        "scale_by_rprop",
        learning_rate=learning_rate,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_step_size=min_step_size,
        max_step_size=max_step_size,
    )
    low, high = concrete(min_step_size), concrete(max_step_size)
    if low is not None and high is not None and low > high:
        raise ValueError(
            f"scale_by_rprop: min_step_size is {min_step_size}, expected at most max_step_size, "
            f"{max_step_size}"
        )

    def init(params: PyTree) -> PyTree:
        step_sizes = jax.tree.map(
            lambda p: jnp.full_like(p, learning_rate, accumulator_dtype(jnp.result_type(p))), params
        )
        return ScaleByRpropState(step_sizes, moments.zeros(params))

    def rule(g: jax.Array, size: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
        if jnp.iscomplexobj(g):
            raise TypeError("scale_by_rprop: the gradients are complex, expected real ones")
        low, high, slower, faster = (
            hyperparameter(value, g.dtype)
            for value in (min_step_size, max_step_size, eta_minus, eta_plus)
        )
        agreement = jnp.sign(g) * jnp.sign(last)
        changed = jnp.clip(size * jnp.where(agreement > 0, faster, slower), low, high)
        size = jnp.where(agreement == 0, size, changed)
        step = jnp.where(agreement < 0, 0, size * jnp.sign(g))
        return step, size, step

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        updates, *steps = leafwise(
            "scale_by_rprop", rule, updates, state.step_sizes, state.prev_updates
        )
        return updates, ScaleByRpropState(*steps)

    return Optimizer(init, update)


@constructor
def rprop(
    learning_rate: Scalar,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Optimizer:
    """Rprop: `w = w - η sign(g)`, with a step size η for each parameter.

    Where the sign of the gradient stays, `η = min(eta_plus η, max_step_size)`; where it changes,
    `η = max(eta_minus η, min_step_size)` and there is no update; where there was no update before,
    η stays. torch's Rprop is the same; optax (up to 0.2.8) makes every update one step late, the
    first being zero. It is meant for gradients of the whole data set: on mini-batches the signs
    change by chance.

    Papers: Riedmiller and Braun, A direct adaptive method for faster backpropagation learning,
    https://doi.org/10.1109/ICNN.1993.298623; without going back: Igel and Hüsken, 2000.

    Args:
        learning_rate: the initial step size, at least 0; may be traced, but is no schedule.
        eta_minus: the factor of the step size where the sign changes.
        eta_plus: the factor of the step size where the sign stays.
        min_step_size: the smallest step size.
        max_step_size: the largest step size.

    Returns:
        An `Optimizer` of real gradients with state
        `(ScaleByRpropState(step_sizes, prev_updates), ...)`.

    Raises:
        ValueError: a hyperparameter is negative.
        TypeError: `learning_rate` is a schedule.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.rprop(0.1)
        >>> w = jnp.array([1.0, -2.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(60):
        ...     updates, state = optimizer.update(2 * w, state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> bool((abs(w) < 1e-4).all())
        True
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
