"""A line search that goes back: the first step size that decreases enough."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arrays import LEAST_POSITIVE, check_range, downhill, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Limit, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, apply_updates
from jaxnn.optimizers._line_search import declared_by, real_vdot, violation
from jaxnn.optimizers._scaling import scaled


class BacktrackingLinesearchInfo(NamedTuple):
    """How many step sizes the search tried, and by how much the last violates the condition."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The step size that was found, the value and the gradient there, and how the search went.

    `info` is a `BacktrackingLinesearchInfo(num_linesearch_steps, decrease_error)`; `grad` is None
    unless it is stored.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: PyTree
    info: BacktrackingLinesearchInfo


@constructor
def scale_by_backtracking_linesearch(
    max_backtracking_steps: Scalar,
    slope_rtol: Scalar = 1e-4,
    decrease_factor: Scalar = 0.8,
    increase_factor: Limit = 1.5,
    max_learning_rate: Scalar = 1.0,
    atol: Scalar = 0.0,
    rtol: Scalar = 0.0,
    store_grad: bool = False,
) -> Optimizer:
    """Multiply the update u by a step size η that decreases the loss f enough: Armijo's condition.

    `f(w + η u) <= (1 + rtol) f(w) + slope_rtol η ∇f(w)·u + atol`. The first η that is tried is the
    last one times `increase_factor`; it is multiplied by `decrease_factor` until the condition
    holds. Each costs a value, none a gradient. Along an update that does not go downhill there may
    be no such η.

    Paper: Vaswani et al., Painless Stochastic Gradient, https://arxiv.org/abs/1905.09997

    Args:
        max_backtracking_steps: how often η is decreased at most, at least 0. The last η is then
            taken, or 0 where the loss is not finite there.
        slope_rtol: see above, at least 0.
        decrease_factor: in (0, 1].
        increase_factor: at least 1; `inf` begins each search at `max_learning_rate`.
        max_learning_rate: the largest η, more than 0.
        atol: see above, at least 0.
        rtol: see above, at least 0.
        store_grad: whether to compute the gradient at the end of the search, for
            `value_and_grad_from_state`.

    Returns:
        An `Optimizer` with state `ScaleByBacktrackingLinesearchState(learning_rate, value, grad,
        info)`; its `update` needs the params and the keywords `value`, `grad` and `value_fn`, as
        that of `scale_by_zoom_linesearch`.

    Raises:
        ValueError: an argument is out of range; `update` lacks what it needs.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def f(w):
        ...     return jnp.sum(w ** 2)
        >>> search = nn.optimizers.scale_by_backtracking_linesearch(15)
        >>> optimizer = nn.optimizers.chain(nn.optimizers.sgd(10.0), search)
        >>> w = jnp.array([1.0, 2.0])
        >>> value, grad = jax.value_and_grad(f)(w)
        >>> updates, _ = optimizer.update(
        ...     grad, optimizer.init(w), w, value=value, grad=grad, value_fn=f)
        >>> bool(f(w + updates) < f(w))
        True
    """
    name = "scale_by_backtracking_linesearch"
    check.whole(name, 0, max_backtracking_steps=max_backtracking_steps)
    check_range(name, "decrease_factor", decrease_factor, LEAST_POSITIVE, 1)
    check_range(name, "increase_factor", increase_factor, 1, float("inf"))
    check.nonnegative(
        name, slope_rtol=slope_rtol, max_learning_rate=max_learning_rate, atol=atol, rtol=rtol
    )

    def init(params: PyTree) -> PyTree:
        dtype = precision.widest_real_dtype(params)
        unknown = jnp.finfo(dtype).max
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), unknown, dtype),
            grad=jax.tree.map(jnp.zeros_like, params) if store_grad else None,
            info=BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), jnp.full((), unknown, dtype)),
        )

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        value: Any = None,
        grad: PyTree = None,
        value_fn: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        value_fn = check.line_search(name, params, value, grad, value_fn)
        dtype = state.learning_rate.dtype
        known = declared_by(value_fn, extra)

        def real(number: ArrayLike) -> jax.Array:
            return hyperparameter(number, dtype)

        slope = real(real_vdot(grad, updates))
        allowed = (1 + real(rtol)) * real(value)

        def at(step: jax.Array) -> PyTree:
            return apply_updates(params, scaled(updates, step))

        def tried(count: jax.Array, step: jax.Array) -> tuple[jax.Array, ...]:
            there = real(value_fn(at(step), **known))
            return count, step, there, violation(there - allowed - step * real(slope_rtol) * slope)

        def goes_on(search: tuple[jax.Array, ...]) -> jax.Array:
            count, _, _, error = search
            limit = hyperparameter(max_backtracking_steps, count.dtype)
            return (error > real(atol)) & (count <= limit)

        grown = state.learning_rate * real(increase_factor)
        first = jnp.minimum(grown, real(max_learning_rate))
        count, step, there, error = lax.while_loop(
            goes_on,
            lambda search: tried(search[0] + 1, real(decrease_factor) * search[1]),
            tried(jnp.ones((), jnp.int32), first),
        )
        step = jnp.where(jnp.isinf(error), 0, step)
        found = None
        if store_grad:
            gradient = jax.tree.map(downhill, jax.grad(value_fn)(at(step), **known))
            found = jax.tree.map(precision.cast_like, gradient, state.grad)
        there = jnp.where(jnp.isinf(error), real(value), there)
        return scaled(updates, step), ScaleByBacktrackingLinesearchState(
            step, there, found, BacktrackingLinesearchInfo(count, error)
        )

    return Optimizer(init, update)
