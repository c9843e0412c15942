"""A line search: how far to go along an update."""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range, downhill, hyperparameter, total, widen
from jaxnn._core.construction import constructor
from jaxnn._core.types import Limit, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, apply_updates
from jaxnn.optimizers._scaling import scaled


class ZoomLinesearchInfo(NamedTuple):
    """How many points the search tried, and by how much its last one violates each condition."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class ScaleByZoomLinesearchState(NamedTuple):
    """The step size that was found, the value and the gradient there, and how the search went.

    `info` is a `ZoomLinesearchInfo(num_linesearch_steps, decrease_error, curvature_error)`.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: PyTree
    info: ZoomLinesearchInfo


class Point(NamedTuple):
    """A point on the line: the step to it, the value and the slope there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class Search(NamedTuple):
    """Where a search stands.

    `low` is the best point so far. Once the search is bracketed, a step that meets both conditions
    lies between `low` and `high`, on either side; before, `high` means nothing. `other` is the
    point that they replaced last. `taken` and `grad` are what the search returns if it ends here;
    `decreased` tells whether `taken` meets the first condition.
    """

    count: jax.Array  # type: ignore[assignment]
    ended: jax.Array
    bracketed: jax.Array
    low: Point
    high: Point
    other: Point
    decreased: jax.Array
    taken: Point
    grad: PyTree
    decrease_error: jax.Array
    curvature_error: jax.Array


def real_vdot(a: PyTree, b: PyTree) -> jax.Array:
    """The real inner product, `Re Σ a* b`, over all leaves, in float32 or wider."""
    products = jax.tree.map(lambda x, y: jnp.sum((downhill(widen(x)) * widen(y)).real), a, b)
    return total(jax.tree.leaves(products))


@constructor
def scale_by_zoom_linesearch(
    max_linesearch_steps: Scalar,
    max_learning_rate: Scalar | None = None,
    tol: Scalar = 0.0,
    increase_factor: Scalar = 2.0,
    slope_rtol: Scalar = 1e-4,
    curv_rtol: Limit = 0.9,
    approx_dec_rtol: Scalar | None = 1e-6,
    stepsize_precision: Scalar = 1e-5,
    initial_guess_strategy: Literal["one", "keep"] = "keep",
    verbose: bool = False,
) -> Optimizer:
    """Multiply the update u by a step size η that meets the strong Wolfe conditions.

    With the slope `s(η) = ∇f(w + η u) · u`:

    - decrease: `f(w + η u) <= f(w) + slope_rtol η s(0)`, or, where f is flat to rounding,
      `s(η) <= (2 slope_rtol - 1) s(0)` and `f(w + η u) <= f(w) + approx_dec_rtol |f(w)|`;
    - curvature: `|s(η)| <= curv_rtol |s(0)|`.

    The step grows by `increase_factor` until such an η is bracketed; then the bracket shrinks by
    cubic or quadratic interpolation, or by half. Each point costs a value and a gradient.

    Papers: Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6,
    https://doi.org/10.1007/978-0-387-40065-5; Hager and Zhang, Algorithm 851, equation 23,
    https://doi.org/10.1145/1132973.1132979

    Args:
        max_linesearch_steps: how many points are tried, at least 1. If none meets both conditions,
            the lowest that meets the first is taken.
        max_learning_rate: the largest η, or None.
        tol: by how much a condition may be violated, at least 0.
        increase_factor: how the step grows, above 1.
        slope_rtol: see above.
        curv_rtol: see above; `inf` leaves out the second condition.
        approx_dec_rtol: see above; None for the first form of the decrease alone.
        stepsize_precision: the size of a bracket at which a point that meets the first condition
            is good enough.
        initial_guess_strategy: "one" begins at η = 1, for (quasi-)Newton methods; "keep" at the
            last η.
        verbose: whether to print how each search went.

    Returns:
        An `Optimizer` with state `ScaleByZoomLinesearchState(learning_rate, value, grad, info)`;
        its `update` needs the params and the keywords `value`, `grad`, and `value_fn`, a function
        of the params. Extra keywords that `value_fn` names are passed to it. `train_step`, `fit`
        and `training_run` pass all three. (In wrappers of optax,
        `optax.GradientTransformationExtraArgs(*it)`, so that they pass them on.)

    Raises:
        ValueError: an argument is out of range; `update` lacks what it needs.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def f(w):
        ...     return jnp.sum(w ** 2)
        >>> search = nn.optimizers.scale_by_zoom_linesearch(15)
        >>> optimizer = nn.optimizers.chain(nn.optimizers.sgd(10.0), search)
        >>> w = jnp.array([1.0, 2.0])
        >>> value, grad = jax.value_and_grad(f)(w)
        >>> updates, _ = optimizer.update(
        ...     grad, optimizer.init(w), w, value=value, grad=grad, value_fn=f)
        >>> bool(jnp.abs(w + updates).max() < 1e-5)
        True
    """
    name = "scale_by_zoom_linesearch"
    check.whole(name, 1, max_linesearch_steps=max_linesearch_steps)
    check_range(name, "increase_factor", increase_factor, 1)
    check_range(name, "curv_rtol", curv_rtol, 0, math.inf)
    check.nonnegative(
        name,
        tol=tol,
        slope_rtol=slope_rtol,
        stepsize_precision=stepsize_precision,
        max_learning_rate=max_learning_rate,
        approx_dec_rtol=approx_dec_rtol,
    )
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(
            f"{name}: initial_guess_strategy is {initial_guess_strategy!r}, expected 'one' or "
            "'keep'"
        )

    def init(params: PyTree) -> PyTree:
        dtype = precision.widest_real_dtype(params)

        def unknown() -> jax.Array:
            return jnp.full((), jnp.finfo(dtype).max, dtype)

        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=unknown(),
            grad=jax.tree.map(jnp.zeros_like, params),
            info=ZoomLinesearchInfo(jnp.zeros((), jnp.int32), unknown(), unknown()),
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

        def real(number: ArrayLike) -> jax.Array:
            return hyperparameter(number, dtype)

        value_and_grad = jax.value_and_grad(value_fn)
        known = declared_by(value_fn, extra)

        def evaluated(step: jax.Array) -> tuple[Point, PyTree]:
            there = apply_updates(params, scaled(updates, step))
            new_value, new_grad = value_and_grad(there, **known)
            new_grad = jax.tree.map(downhill, new_grad)
            return Point(step, real(new_value), real(real_vdot(new_grad, updates))), new_grad

        start = Point(real(0.0), real(value), real(real_vdot(grad, updates)))

        def decrease_error(p: Point) -> jax.Array:
            error = p.value - start.value - real(slope_rtol) * p.step * start.slope
            if approx_dec_rtol is not None:
                slope_error = p.slope - (2 * real(slope_rtol) - 1) * start.slope
                rise = p.value - start.value - real(approx_dec_rtol) * jnp.abs(start.value)
                error = jnp.minimum(error, jnp.maximum(slope_error, rise))
            return violation(error)

        def curvature_error(p: Point) -> jax.Array:
            return violation(jnp.abs(p.slope) - real(curv_rtol) * jnp.abs(start.slope))

        guess = real(1.0) if initial_guess_strategy == "one" else state.learning_rate
        limit = real(jnp.inf if max_learning_rate is None else max_learning_rate)

        def try_next(s: Search) -> Search:
            grown = jnp.where(s.count == 0, guess, real(increase_factor) * s.low.step)
            step = jnp.where(s.bracketed, _between(s), jnp.minimum(grown, limit))
            new, new_grad = evaluated(step)
            errors = decrease_error(new), curvature_error(new)
            decreases = errors[0] <= real(tol)
            meets_both = decreases & (errors[1] <= real(tol))

            is_first = (s.count == 0) & ~s.bracketed
            too_far = (errors[0] > 0) | ((new.value >= s.low.value) & ~is_first)
            turned = jnp.where(s.bracketed, new.slope * (s.high.step - s.low.step), new.slope) >= 0
            high = _where(too_far, new, _where(turned, s.low, s.high))
            low = _where(too_far, s.low, new)
            replaced = _where(too_far | turned, s.high, s.low)
            bracketed = s.bracketed | too_far | turned

            lowest = jnp.where(s.decreased, s.taken.value, start.value)
            improves = decreases & (~s.bracketed | (new.value < lowest))
            falls_back = ~s.decreased & (errors[0] < jnp.inf)
            take = meets_both | improves | falls_back
            decreased = s.decreased | improves

            narrow = jnp.abs(s.high.step - s.low.step) <= real(stepsize_precision)
            ended = (
                meets_both
                | (s.count + 1 >= hyperparameter(max_linesearch_steps, s.count.dtype))
                | (s.bracketed & narrow & decreased)
                | (~bracketed & (step >= limit))
            )
            return Search(
                count=s.count + 1,
                ended=ended,
                bracketed=bracketed,
                low=low,
                high=high,
                other=_where(s.bracketed, replaced, low),
                decreased=decreased,
                taken=_where(take, new, s.taken),
                grad=_where(take, jax.tree.map(precision.cast_like, new_grad, s.grad), s.grad),
                decrease_error=errors[0],
                curvature_error=errors[1],
            )

        before = Search(
            count=jnp.zeros((), jnp.int32),
            ended=jnp.zeros((), bool),
            bracketed=jnp.zeros((), bool),
            low=start,
            high=start,
            other=start,
            decreased=jnp.zeros((), bool),
            taken=start,
            grad=jax.tree.map(precision.cast_like, grad, state.grad),
            decrease_error=real(jnp.inf),
            curvature_error=real(jnp.inf),
        )
        found = lax.while_loop(lambda s: ~s.ended, try_next, before)
        info = ZoomLinesearchInfo(found.count, found.decrease_error, found.curvature_error)
        if verbose:
            jax.debug.print(
                "line search: {} points, step {}, value {}, decrease error {}, curvature error {}",
                *(found.count, found.taken.step, found.taken.value, *info[1:]),
            )
        return scaled(updates, found.taken.step), ScaleByZoomLinesearchState(
            found.taken.step, found.taken.value, found.grad, info
        )

    return Optimizer(init, update)


def declared_by(value_fn: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The extra keywords that are named by a function."""
    wanted = inspect.signature(value_fn).parameters
    return {key: given for key, given in extra.items() if key in wanted}


def violation(error: jax.Array) -> jax.Array:
    """By how much a condition is violated; infinity for NaN."""
    return jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))


def _where(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _between(s: Search) -> jax.Array:
    """The next step to try in a bracket: a minimum of an interpolation, if far from the ends."""
    width = jnp.abs(s.high.step - s.low.step)
    left, right = jnp.minimum(s.low.step, s.high.step), jnp.maximum(s.low.step, s.high.step)

    def is_inside(step: jax.Array, margin: float) -> jax.Array:
        return (step > left + margin * width) & (step < right - margin * width)

    cubic, quadratic = _cubic_minimum(s.low, s.high, s.other), _quadratic_minimum(s.low, s.high)
    otherwise = jnp.where(is_inside(quadratic, 0.1), quadratic, (s.low.step + s.high.step) / 2)
    return jnp.where(is_inside(cubic, 0.2), cubic, otherwise)


def _quadratic_minimum(a: Point, b: Point) -> jax.Array:
    """Where the parabola through both points with the slope of the first is stationary."""
    d = b.step - a.step
    return a.step - a.slope * d**2 / (2 * (b.value - a.value - a.slope * d))


def _cubic_minimum(a: Point, b: Point, c: Point) -> jax.Array:
    """Where the cubic through three points with the slope of the first has its minimum.

    With t from a: `A t³ + B t² + slope t` is b's and c's rise. NaN or infinite if there is none.
    """
    tb, tc = b.step - a.step, c.step - a.step
    rb, rc = b.value - a.value - a.slope * tb, c.value - a.value - a.slope * tc
    scale = tb**2 * tc**2 * (tb - tc)
    A = (tc**2 * rb - tb**2 * rc) / scale
    B = (tb**3 * rc - tc**3 * rb) / scale
    return a.step + (jnp.sqrt(B**2 - 3 * A * a.slope) - B) / (3 * A)


def line_searches(state: PyTree) -> list[Any]:
    """The states of line searches in the state of an optimizer, optax's too."""

    def is_search(node: Any) -> bool:
        return {"value", "grad"} <= set(getattr(node, "_fields", ()))

    return [node for node in jax.tree.leaves(state, is_leaf=is_search) if is_search(node)]


@constructor
def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[jax.Array, PyTree]]:
    """`jax.value_and_grad`, or what a line search has found at the params it led to.

    For functions that are the same at each step: a step of `lbfgs` then costs what its line
    search does.

    Args:
        value_fn: a function of the params, and of more, that returns a scalar.

    Returns:
        `f(params, *args, state, **kwargs) -> (value, gradient)`: those in the optimizer's `state`;
        before the first step, or after a step to no finite value, those computed.

    Raises:
        ValueError: in a call, there is not one line search in `state`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def f(w):
        ...     return jnp.sum((w - 1) ** 4)
        >>> optimizer, w = nn.optimizers.lbfgs(), jnp.zeros(2)
        >>> state = optimizer.init(w)
        >>> value_and_grad = nn.optimizers.value_and_grad_from_state(f)
        >>> @jax.jit
        ... def step(w, state):
        ...     value, grad = value_and_grad(w, state=state)
        ...     updates, state = optimizer.update(
        ...         grad, state, w, value=value, grad=grad, value_fn=f)
        ...     return nn.optimizers.apply_updates(w, updates), state
        >>> for _ in range(20):
        ...     w, state = step(w, state)
        >>> bool(jnp.abs(w - 1).max() < 0.01)
        True
    """

    def value_and_grad(
        params: PyTree, *args: Any, state: PyTree, **kwargs: Any
    ) -> tuple[jax.Array, PyTree]:
        found = line_searches(state)
        if len(found) != 1 or found[0].grad is None:
            raise ValueError(
                f"value_and_grad_from_state: state has {len(found)} line searches with value and "
                "gradient, expected one"
            )
        last = found[0]

        def computed() -> tuple[jax.Array, PyTree]:
            value, grad = jax.value_and_grad(value_fn)(params, *args, **kwargs)
            return precision.cast_like(value, last.value), jax.tree.map(
                precision.cast_like, jax.tree.map(downhill, grad), last.grad
            )

        is_known = last.value < jnp.finfo(last.value.dtype).max  # optax begins with infinity
        return lax.cond(is_known, lambda: (last.value, last.grad), computed)  # type: ignore[no-any-return]

    return value_and_grad
