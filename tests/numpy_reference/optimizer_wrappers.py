"""Transformations and wrappers of optimizers, written from their papers, for a dict of arrays.

`init(weights)` gives the state; `update(gradients, state, weights, problem)` gives what is to be
ADDED to the weights and the next state. `problem` has the functions `value` and `gradient` of the
weights, for what needs them. Where a rule can be written without a recursion, it is: averages are
sums over all that has been, L-BFGS has its matrix.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import optimizers
from .float64 import Array, as_float64

Arrays = dict[str, Array]
Schedule = Callable[[int], float]


class Problem(NamedTuple):
    """What is minimised."""

    value: Callable[[Arrays], float]
    gradient: Callable[[Arrays], Arrays]


class TreeReference(NamedTuple):
    """An optimizer of a dict of arrays."""

    init: Callable[[Arrays], Any]
    update: Callable[[Arrays, Any, Arrays, Problem | None], tuple[Arrays, Any]]


def each(reference: optimizers.Reference) -> TreeReference:
    """An optimizer of one array, for each of a dict."""

    def init(weights: Arrays) -> Any:
        return {path: reference.init(w) for path, w in weights.items()}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        both = {
            path: reference.update(gradients[path], state[path], w) for path, w in weights.items()
        }
        return {p: delta for p, (delta, _) in both.items()}, {p: s for p, (_, s) in both.items()}

    return TreeReference(init, update)


def of_gradients(
    function: Callable[[Arrays, Arrays], Arrays], optimizer: TreeReference
) -> TreeReference:
    """An optimizer of `function(gradients, weights)` in the place of the gradients."""

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        return optimizer.update(function(gradients, weights), state, weights, problem)

    return TreeReference(optimizer.init, update)


def walk(
    optimizer: TreeReference, problem: Problem, weights: Arrays, steps: int
) -> tuple[list[Arrays], list[Any]]:
    """The weights and the states after each step."""
    state, visited, states = optimizer.init(weights), [], []
    for _ in range(steps):
        deltas, state = optimizer.update(problem.gradient(weights), state, weights, problem)
        weights = {path: w + deltas[path] for path, w in weights.items()}
        visited.append(weights)
        states.append(state)
    return visited, states


# Some leaves one way, some another


def partition(transforms: Mapping[str, TreeReference]) -> TreeReference:
    """Each leaf by the first glob that matches its path, in which * is any text."""

    def group(path: str) -> str:
        return next(
            glob for glob in transforms if re.fullmatch(re.escape(glob).replace(r"\*", ".*"), path)
        )

    def part(tree: Arrays, glob: str) -> Arrays:
        return {path: leaf for path, leaf in tree.items() if group(path) == glob}

    def init(weights: Arrays) -> Any:
        return {glob: one.init(part(weights, glob)) for glob, one in transforms.items()}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, new_state = {}, {}
        for glob, one in transforms.items():
            own, new_state[glob] = one.update(
                part(gradients, glob), state[glob], part(weights, glob), problem
            )
            deltas |= own
        return deltas, new_state

    return TreeReference(init, update)


def freeze() -> TreeReference:
    """Nothing moves."""
    return TreeReference(
        lambda weights: {}, lambda g, s, w, problem=None: ({p: 0.0 * a for p, a in g.items()}, s)
    )


def masked(inner: TreeReference, glob: str, others: TreeReference) -> TreeReference:
    """`inner` for the leaves whose path matches, `others` for the rest."""
    return partition({glob: inner, "*": others})


# When to move


def accumulate(
    optimizer: TreeReference, every: int | Schedule, use_grad_mean: bool = True
) -> TreeReference:
    """One update for the mean, or the sum, of so many gradients."""

    def init(weights: Arrays) -> Any:
        return {"gathered": [], "updates": 0, "inner": optimizer.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        gathered = [*state["gathered"], gradients]
        needed = every(state["updates"]) if callable(every) else every
        if len(gathered) < needed:
            return {p: np.zeros(np.shape(w)) for p, w in weights.items()}, state | {
                "gathered": gathered
            }
        combine = np.mean if use_grad_mean else np.sum
        combined = {p: combine([g[p] for g in gathered], axis=0) for p in gradients}
        deltas, inner = optimizer.update(combined, state["inner"], weights, problem)
        return deltas, {"gathered": [], "updates": state["updates"] + 1, "inner": inner}

    return TreeReference(init, update)


def apply_if_finite(inner: TreeReference, max_consecutive_errors: int) -> TreeReference:
    """No move by gradients with an infinity or a NaN, up to so many of them in a row."""

    def init(weights: Arrays) -> Any:
        return {"bad": 0, "inner": inner.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        is_bad = not all(np.all(np.isfinite(g)) for g in gradients.values())
        bad = state["bad"] + 1 if is_bad else 0
        if is_bad and bad <= max_consecutive_errors:
            return {p: np.zeros(np.shape(w)) for p, w in weights.items()}, state | {"bad": bad}
        deltas, new_inner = inner.update(gradients, state["inner"], weights, problem)
        return deltas, {"bad": bad, "inner": new_inner}

    return TreeReference(init, update)


def dynamic_loss_scale(
    inner: TreeReference,
    initial: float = 2.0**15,
    period: int = 2000,
    factor: float = 2.0,
    minimum: float = 1.0,
) -> TreeReference:
    """The moves by gradients of a scaled loss; the scale falls if they overflow, else rises."""

    def init(weights: Arrays) -> Any:
        return {"scale": initial, "good": 0, "inner": inner.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        scale = state["scale"]
        if not all(np.all(np.isfinite(g)) for g in gradients.values()):
            lower = {"scale": max(scale / factor, minimum), "good": 0, "inner": state["inner"]}
            return {p: np.zeros(np.shape(w)) for p, w in weights.items()}, lower
        true = {path: g / scale for path, g in gradients.items()}
        deltas, new_inner = inner.update(true, state["inner"], weights, problem)
        good = state["good"] + 1
        if good == period:
            scale, good = scale * factor, 0
        return deltas, {"scale": scale, "good": good, "inner": new_inner}

    return TreeReference(init, update)


def reduce_on_plateau(
    optimizer: TreeReference,
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: float = 0.0,
) -> TreeReference:
    """The moves of `optimizer` times a factor that falls when the mean loss has stopped falling.

    As the scheduler of that name in Keras and torch, on means of `accumulation_size` losses.
    """

    def scale_after(values: list[float]) -> float:
        scale, best, waited, rest = 1.0, math.inf, 0, 0
        for i in range(len(values) // accumulation_size):
            mean = float(np.mean(values[i * accumulation_size : (i + 1) * accumulation_size]))
            part = 1 - rtol if best > 0 else 1 + rtol
            is_better = mean < part * best - atol
            if is_better:
                best = mean
            if rest > 0:
                rest, waited = rest - 1, 0
                continue
            waited = 0 if is_better else waited + 1
            if waited == patience:
                scale, waited, rest = max(scale * factor, min_scale), 0, cooldown
        return scale

    def init(weights: Arrays) -> Any:
        return {"values": [], "inner": optimizer.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        assert problem is not None
        values = [*state["values"], problem.value(weights)]
        deltas, inner = optimizer.update(gradients, state["inner"], weights, problem)
        scale = scale_after(values)
        return {p: scale * d for p, d in deltas.items()}, {"values": values, "inner": inner}

    return TreeReference(init, update)


# Averages


def ema(learning_rate: float | Schedule, decay: float, debias: bool = True) -> optimizers.Reference:
    """Descent by the average of the gradients so far, the weight of each `decay^age`.

    The weights sum to 1 if debiased, else to `1 - decay^t`.
    """

    def init(w: Array) -> optimizers.State:
        return {"gradients": []}

    def update(g: Array, state: optimizers.State, w: Array) -> tuple[Array, optimizers.State]:
        gradients = [*state["gradients"], as_float64(g)]
        ages = np.arange(len(gradients))[::-1]
        shares = (1 - decay) * decay**ages
        if debias:
            shares = shares / shares.sum()
        rate = learning_rate(len(gradients) - 1) if callable(learning_rate) else learning_rate
        return -rate * np.tensordot(shares, gradients, 1), {"gradients": gradients}

    return optimizers.Reference(init, update)


def params_ema(optimizer: TreeReference, decay: float | Schedule) -> TreeReference:
    """The optimizer, and in its state the average of the weights it has been to.

    The weight of the t-th is 1 - decay(t) times the decays after it, over the sum of all.
    """

    def init(weights: Arrays) -> Any:
        return {"visited": [], "average": weights, "inner": optimizer.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, inner = optimizer.update(gradients, state["inner"], weights, problem)
        visited = [*state["visited"], {p: w + deltas[p] for p, w in weights.items()}]
        decays = [decay(t) if callable(decay) else decay for t in range(len(visited))]
        shares = np.array(
            [(1 - d) * math.prod(decays[t + 1 :]) for t, d in enumerate(decays)], np.float64
        )
        shares = shares / shares.sum()
        average = {p: np.tensordot(shares, [w[p] for w in visited], 1) for p in weights}
        return deltas, {"visited": visited, "average": average, "inner": inner}

    return TreeReference(init, update)


def lookahead(
    fast_optimizer: TreeReference,
    sync_period: int,
    slow_step_size: float,
    reset_state: bool = False,
) -> TreeReference:
    """Zhang et al. 2019, arXiv:1907.08610, algorithm 1, one inner step at a time."""

    def init(weights: Arrays) -> Any:
        return {"steps": 0, "slow": weights, "fast": fast_optimizer.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, fast = fast_optimizer.update(gradients, state["fast"], weights, problem)
        steps = state["steps"] + 1
        if steps % sync_period:
            return deltas, state | {"steps": steps, "fast": fast}
        slow = {
            p: (1 - slow_step_size) * old + slow_step_size * (weights[p] + deltas[p])
            for p, old in state["slow"].items()
        }
        if reset_state:
            fast = fast_optimizer.init(weights)
        moves = {p: slow[p] - w for p, w in weights.items()}
        return moves, {"steps": steps, "slow": slow, "fast": fast}

    return TreeReference(init, update)


def schedule_free(
    base_optimizer: TreeReference,
    learning_rate: float | Schedule,
    b1: float = 0.9,
    weight_lr_power: float = 2.0,
) -> TreeReference:
    """Defazio et al. 2024, arXiv:2405.15682, section 2: x is a weighted mean of all z.

    The weight of the z after step t is the largest rate so far, to a power; the rate of step t is
    that of count t, as in optax. `average` in the state is x.
    """

    def init(weights: Arrays) -> Any:
        base = base_optimizer.init(weights)
        return {"z": weights, "visited": [], "rates": [], "average": weights, "base": base}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        step = len(state["rates"]) + 1
        rates = [*state["rates"], learning_rate(step) if callable(learning_rate) else learning_rate]
        deltas, base = base_optimizer.update(gradients, state["base"], weights, problem)
        z = {p: old + deltas[p] for p, old in state["z"].items()}
        visited = [*state["visited"], z]
        largest = np.maximum.accumulate(np.array(rates, np.float64))
        shares = largest**weight_lr_power / np.sum(largest**weight_lr_power)
        x = {p: np.tensordot(shares, [one[p] for one in visited], 1) for p in weights}
        moves = {p: b1 * x[p] + (1 - b1) * z[p] - w for p, w in weights.items()}
        new_state = {"z": z, "visited": visited, "rates": rates, "average": x, "base": base}
        return moves, new_state

    return TreeReference(init, update)


def warmed_up(peak: float, warmup_steps: int | None) -> float | Schedule:
    """A rate that rises from 0 to its peak over so many steps."""
    if warmup_steps is None:
        return peak
    return lambda count: peak * min(count / warmup_steps, 1.0)


def schedule_free_sgd(
    learning_rate: float = 1.0,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    weight_lr_power: float = 2.0,
) -> TreeReference:
    """Schedule-free gradient descent."""
    rate = warmed_up(learning_rate, warmup_steps)
    return schedule_free(each(optimizers.sgd(rate)), rate, b1, weight_lr_power)


def schedule_free_adamw(
    learning_rate: float = 0.0025,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    weight_lr_power: float = 2.0,
) -> TreeReference:
    """Schedule-free AdamW: the base is AdamW with b1 = 0."""
    rate = warmed_up(learning_rate, warmup_steps)
    base = optimizers.adamw(rate, 0.0, b2, eps, weight_decay=weight_decay)
    return schedule_free(each(base), rate, b1, weight_lr_power)


# Of the gradients


def _norm(arrays: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.sum(a * a)) for a in arrays.values()))


def normalize(gradients: Arrays, weights: Arrays) -> Arrays:
    """g / |g|, the norm over all; zeros stay."""
    norm = _norm(gradients)
    return {p: g / norm if norm else g for p, g in gradients.items()}


def normalize_by_update_norm(
    gradients: Arrays, weights: Arrays, scale_factor: float = 1.0, eps: float = 1e-6
) -> Arrays:
    """scale_factor g / (|g| + eps), the norm over all."""
    return {p: scale_factor * g / (_norm(gradients) + eps) for p, g in gradients.items()}


def centralize(gradients: Arrays, weights: Arrays) -> Arrays:
    """Each row, along the first axis, less its mean: Yong et al. 2020, arXiv:2004.01461, eq. 1."""
    return {
        p: np.stack([row - np.mean(row) for row in g]) if np.ndim(g) > 1 else g
        for p, g in gradients.items()
    }


def unitwise_norm(x: Array, axis: int | Sequence[int] | None = None) -> Array:
    """The norm of the unit that each element is of, in its place."""
    x = as_float64(x)
    if axis is None:
        usual = {2: (0,), 3: (0,), 4: (0, 1, 2), 5: (0, 1, 2, 3)}
        axis = usual[x.ndim] if np.squeeze(x).ndim > 1 else tuple(range(x.ndim))
    axes = {a % x.ndim for a in ([axis] if isinstance(axis, int) else axis)}
    y = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        unit = tuple(slice(None) if a in axes else i for a, i in enumerate(index))
        y[index] = math.sqrt(float(np.sum(x[unit] ** 2)))
    return y


def adaptive_grad_clip(
    gradients: Arrays,
    weights: Arrays,
    clipping: float,
    eps: float = 1e-3,
    axis: int | Sequence[int] | None = None,
) -> Arrays:
    """Brock et al. 2021, arXiv:2102.06171, equation 3, element by element."""
    clipped = {}
    for p, g in gradients.items():
        norms, limits = unitwise_norm(g, axis), unitwise_norm(weights[p], axis)
        u = np.array(g, np.float64)
        for index in np.ndindex(*u.shape):
            largest = clipping * max(limits[index], eps)
            if norms[index] > largest:
                u[index] *= largest / norms[index]
        clipped[p] = u
    return clipped


def keep_params_nonnegative(optimizer: TreeReference) -> TreeReference:
    """The optimizer, stopped at zero."""

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, state = optimizer.update(gradients, state, weights, problem)
        return {p: np.maximum(w + deltas[p], 0) - w for p, w in weights.items()}, state

    return TreeReference(optimizer.init, update)


def project_params(
    projection: Callable[[Arrays], Arrays], optimizer: TreeReference
) -> TreeReference:
    """The optimizer, its weights projected after each step."""

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, state = optimizer.update(gradients, state, weights, problem)
        there = projection({p: w + deltas[p] for p, w in weights.items()})
        return {p: there[p] - w for p, w in weights.items()}, state

    return TreeReference(optimizer.init, update)


def projection_non_negative(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(as_float64(x), 0)


def projection_box(x: Array, lower: Array, upper: Array) -> Array:
    """min(max(x, lower), upper)."""
    return np.minimum(np.maximum(as_float64(x), lower), upper)


def projection_linf_ball(x: Array, scale: float = 1.0) -> Array:
    """The box of that half width."""
    return projection_box(x, -scale, scale)


def projection_l2_ball(x: Array, scale: float = 1.0) -> Array:
    """On the sphere, if it is outside."""
    norm = np.sqrt((as_float64(x) ** 2).sum())
    return as_float64(x) * (scale / norm if norm > scale else 1)


def projection_simplex(x: Array, scale: float = 1.0) -> Array:
    """max(x - tau, 0), with tau by bisection: the sum falls as it grows."""
    x = as_float64(x)
    low, high = x.min() - scale, x.max()
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(x - tau, 0).sum() > scale else (low, tau)
    return np.maximum(x - high, 0)


def projection_l1_ball(x: Array, scale: float = 1.0) -> Array:
    """On the face of its signs, if it is outside."""
    x = as_float64(x)
    return x if np.abs(x).sum() <= scale else np.sign(x) * projection_simplex(np.abs(x), scale)


def scale_by_backtracking_linesearch(
    optimizer: TreeReference,
    slope_rtol: float = 1e-4,
    decrease_factor: float = 0.8,
    increase_factor: float = 1.5,
    max_learning_rate: float = 1.0,
    max_backtracking_steps: int = 20,
) -> TreeReference:
    """Nocedal and Wright, algorithm 3.1, from a step that grows between searches."""

    def init(weights: Arrays) -> Any:
        return {"inner": optimizer.init(weights), "step": 1.0}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        assert problem is not None
        deltas, inner = optimizer.update(gradients, state["inner"], weights, problem)
        slope = sum((gradients[p] * deltas[p]).sum() for p in weights)
        step, value = (
            min(state["step"] * increase_factor, max_learning_rate),
            problem.value(weights),
        )
        for _ in range(max_backtracking_steps):
            there = problem.value({p: w + step * deltas[p] for p, w in weights.items()})
            if there <= value + slope_rtol * step * slope:
                break
            step *= decrease_factor
        return {p: step * d for p, d in deltas.items()}, {"inner": inner, "step": step}

    return TreeReference(init, update)


def zero_nans(gradients: Arrays, weights: Arrays) -> Arrays:
    """0 for NaN."""
    return {p: np.where(np.isnan(g), 0, g) for p, g in gradients.items()}


def incremental_update(new: Array, old: Array, step_size: float) -> Array:
    """The point that far between them."""
    return as_float64(old) + step_size * (as_float64(new) - as_float64(old))


def periodic_update(new: Array, old: Array, steps: int, update_period: int) -> Array:
    """The new one at every so many steps."""
    return new if steps % update_period == 0 else old


def master_weights(optimizer: TreeReference, rounded: Callable[[Array], Array]) -> TreeReference:
    """The optimizer of weights with all digits; the weights are those, rounded."""

    def init(weights: Arrays) -> Any:
        return {"master": weights, "inner": optimizer.init(weights)}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        deltas, inner = optimizer.update(gradients, state["inner"], state["master"], problem)
        master = {p: w + deltas[p] for p, w in state["master"].items()}
        moves = {p: rounded(master[p]) - w for p, w in weights.items()}
        return moves, {"master": master, "inner": inner}

    return TreeReference(init, update)


# By the function


def sam(optimizer: TreeReference, rho: float = 0.05, sync_period: int = 2) -> TreeReference:
    """Foret et al. 2021, arXiv:2010.01412, algorithm 1, with p = 2: the gradient at w + e."""

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        assert problem is not None
        there = weights
        for _ in range(sync_period - 1):
            g = problem.gradient(there)
            there = {p: w + rho * normalize(g, weights)[p] for p, w in there.items()}
        return optimizer.update(problem.gradient(there), state, weights, problem)

    return TreeReference(optimizer.init, update)


def scale_by_zoom_linesearch(
    along: Callable[[float], tuple[float, float]],
    max_linesearch_steps: int = 20,
    slope_rtol: float = 1e-4,
    curv_rtol: float = 0.9,
    approx_dec_rtol: float = 1e-6,
    increase_factor: float = 2.0,
    stepsize_precision: float = 1e-5,
    guess: float = 1.0,
) -> float:
    """Nocedal and Wright, algorithms 3.5 and 3.6: a step that meets the strong Wolfe conditions.

    `along(step)` gives the value and the slope there. The decrease may also be Hager and Zhang's
    approximate one. Out of tries, it is the lowest point that decreases, or else the last.
    """
    value_0, slope_0 = along(0.0)
    tries = 0
    lowest: tuple[float, float] | None = None  # value, step

    def decreases(step: float, value: float, slope: float) -> bool:
        exactly = value <= value_0 + slope_rtol * step * slope_0
        nearly = value <= value_0 + approx_dec_rtol * abs(value_0)
        return exactly or (nearly and slope <= (2 * slope_rtol - 1) * slope_0)

    def is_flat(slope: float) -> bool:
        return abs(slope) <= curv_rtol * abs(slope_0)

    # Algorithm 3.5: grow until something is bracketed.
    previous = (0.0, value_0, slope_0)
    step = guess
    while True:
        value, slope = along(step)
        tries += 1
        new = (step, value, slope)
        if not decreases(*new) or (tries > 1 and value >= previous[1]):
            low, high = previous, new
            break
        lowest = (value, step)
        if is_flat(slope):
            return step
        if slope >= 0:
            low, high = new, previous
            break
        if tries == max_linesearch_steps:
            return step
        previous, step = new, increase_factor * step

    # Algorithm 3.6: shrink the bracket. `other` is the end that was given up last.
    other = None
    while tries < max_linesearch_steps:
        width = abs(high[0] - low[0])
        step = _interpolated(low, high, other)
        value, slope = along(step)
        tries += 1
        new = (step, value, slope)
        if decreases(*new):
            if is_flat(slope):
                return step
            if value < (value_0 if lowest is None else lowest[0]):
                lowest = (value, step)
        if not decreases(*new) or value >= low[1]:
            other, high = high, new
        elif slope * (high[0] - low[0]) >= 0:
            other, high, low = high, low, new
        else:
            other, low = low, new
        if width <= stepsize_precision and lowest is not None:
            break
    return step if lowest is None else lowest[1]


def _interpolated(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    other: tuple[float, float, float] | None,
) -> float:
    """The minimum of the cubic or the parabola through the points, or the middle."""
    left, right = sorted([low[0], high[0]])
    width = right - left
    a = high[0] - low[0]
    if other is not None:
        # A t^3 + B t^2 + slope t through both rises: a linear system.
        b = other[0] - low[0]
        rises = [high[1] - low[1] - low[2] * a, other[1] - low[1] - low[2] * b]
        with np.errstate(all="ignore"):
            try:
                A, B = np.linalg.solve([[a**3, a**2], [b**3, b**2]], rises)
                root = math.sqrt(B * B - 3 * A * low[2])
                step = low[0] + (root - B) / (3 * A)
            except (np.linalg.LinAlgError, ValueError, ZeroDivisionError):
                step = math.nan
        if left + 0.2 * width < step < right - 0.2 * width:
            return float(step)
    curvature = (high[1] - low[1] - low[2] * a) / a**2
    step = low[0] - low[2] / (2 * curvature) if curvature else math.nan
    if left + 0.1 * width < step < right - 0.1 * width:
        return float(step)
    return (low[0] + high[0]) / 2


def scale_by_lbfgs(
    pairs: Sequence[tuple[Array, Array]], g: Array, scale_init_precond: bool = True
) -> Array:
    """H g with the matrix H: Nocedal and Wright, equation 7.16, from the oldest pair (s, y) on."""
    n = len(g)
    gamma = 1.0
    if scale_init_precond:
        gamma = min(1.0, 1 / float(np.linalg.norm(g)))
        if pairs:
            s, y = pairs[-1]
            gamma = float(s @ y) / float(y @ y)
    H = gamma * np.eye(n)
    for s, y in pairs:
        rho = 1 / float(s @ y)
        V = np.eye(n) - rho * np.outer(y, s)
        H = V.T @ H @ V + rho * np.outer(s, s)
    return H @ g


def lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True, learning_rate: float | None = None
) -> TreeReference:
    """L-BFGS with the line search above; by `learning_rate`, if given, and no line search."""

    def flat(arrays: Arrays) -> Array:
        return np.concatenate([np.ravel(arrays[p]) for p in sorted(arrays)])

    def like(vector: Array, arrays: Arrays) -> Arrays:
        cuts = np.cumsum([np.size(arrays[p]) for p in sorted(arrays)])[:-1]
        parts = zip(sorted(arrays), np.split(vector, cuts), strict=True)
        return {p: part.reshape(np.shape(arrays[p])) for p, part in parts}

    def init(weights: Arrays) -> Any:
        return {"points": []}

    def update(
        gradients: Arrays, state: Any, weights: Arrays, problem: Problem | None = None
    ) -> tuple[Arrays, Any]:
        assert problem is not None
        w, g = flat(weights), flat(gradients)
        points = [*state["points"], (w, g)][-memory_size - 1 :]
        pairs = [(w1 - w0, g1 - g0) for (w0, g0), (w1, g1) in itertools.pairwise(points)]
        pairs = [(s, y) for s, y in pairs if s @ y > 0]
        direction = -scale_by_lbfgs(pairs, g, scale_init_precond)

        def along(step: float) -> tuple[float, float]:
            there = like(w + step * direction, weights)
            return problem.value(there), float(flat(problem.gradient(there)) @ direction)

        step = scale_by_zoom_linesearch(along) if learning_rate is None else learning_rate
        return like(step * direction, weights), {"points": points}

    return TreeReference(init, update)
