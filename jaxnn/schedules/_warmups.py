"""Schedules that begin with a linear warm-up."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range
from jaxnn._core.construction import constructor
from jaxnn._core.types import Scalar, Schedule, Steps
from jaxnn.schedules._counts import (
    as_float,
    between,
    check_steps,
    half_cosine,
    has_reached,
    progress,
    since,
)
from jaxnn.schedules._decays import exponential_decay


@constructor
def warmup_constant_schedule(
    init_value: Scalar, peak_value: Scalar, warmup_steps: Steps
) -> Schedule:
    """Linear warm-up to `peak_value`, and constant from then on.

    Paper: Goyal et al., Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677

    Args:
        init_value: the value at t = 0.
        peak_value: the value from t = `warmup_steps` on.
        warmup_steps: the number of warm-up steps, at least 0. With 0 steps it is `peak_value`
            from the first (in optax, `init_value` for ever).

    Returns:
        A schedule.

    Raises:
        ValueError: `warmup_steps` is negative.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.warmup_constant_schedule(0.0, 1.0, 10)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 1000)]
        [0.0, 0.5, 1.0, 1.0]
    """
    check_range("warmup_constant_schedule", "warmup_steps", warmup_steps, 0)
    return _warmed_up(init_value, peak_value, warmup_steps, lambda count: peak_value)


@constructor
def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Steps,
    decay_steps: Steps,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """Linear warm-up to `peak_value`, then cosine decay to `end_value`.

    Paper: Goyal et al., Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677 (warm-up);
    Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983 (cosine)

    Args:
        init_value: the value at t = 0.
        peak_value: the value at t = `warmup_steps`.
        warmup_steps: the number of warm-up steps, at least 0.
        decay_steps: the number of steps in total, the warm-up included.
        end_value: the value from t = `decay_steps` on.
        exponent: the power of the cosine.

    Returns:
        A schedule.

    Raises:
        ValueError: the steps are not `0 <= warmup_steps < decay_steps`, or `exponent` negative.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 60, 110)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_range("warmup_cosine_decay_schedule", "warmup_steps", warmup_steps, 0)
    check_range("warmup_cosine_decay_schedule", "exponent", exponent, 0)
    check_steps(
        "warmup_cosine_decay_schedule", "decay_steps - warmup_steps", decay_steps - warmup_steps
    )

    def falling(count: ArrayLike) -> jax.Array:
        left = half_cosine(progress(count, 0, decay_steps - warmup_steps)) ** as_float(exponent)
        return between(end_value, peak_value, left)

    return _warmed_up(init_value, peak_value, warmup_steps, falling)


@constructor
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Steps,
    transition_steps: Steps,
    decay_rate: Scalar,
    transition_begin: Steps = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Linear warm-up to `peak_value`, then `exponential_decay`.

    Args:
        init_value: the value at t = 0.
        peak_value: the value at t = `warmup_steps`.
        warmup_steps: the number of warm-up steps, at least 0.
        transition_steps: the number of steps in which the value is multiplied by `decay_rate`.
        decay_rate: the factor, more than 0.
        transition_begin: the number of steps after the warm-up at which the decay begins.
        staircase: whether to decay at discrete intervals: the exponent is rounded down.
        end_value: a bound of the value: below for a decay, above for growth; None for none.

    Returns:
        A schedule.

    Raises:
        ValueError: `warmup_steps` is negative, or the arguments of the decay are wrong.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.warmup_exponential_decay_schedule(0.0, 1.0, 10, 20, 0.5)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 30, 50)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    check_range("warmup_exponential_decay_schedule", "warmup_steps", warmup_steps, 0)
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return _warmed_up(init_value, peak_value, warmup_steps, decay)


@constructor
def inverse_sqrt_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Steps) -> Schedule:
    """Linear warm-up to `peak_value`, then decay by the inverse square root of the step count.

    `f(t) = peak_value sqrt(warmup_steps / t)` from t = `warmup_steps` on. With `init_value = 0` and
    `peak_value = (width * warmup_steps) ** -0.5` it is the schedule of the paper ("Noam"), where
    the first update has t = 1.

    Paper: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762

    Args:
        init_value: the value at t = 0.
        peak_value: the value at t = `warmup_steps`.
        warmup_steps: the number of warm-up steps, at least 1.

    Returns:
        A schedule.

    Raises:
        ValueError: `warmup_steps` is less than 1.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.inverse_sqrt_schedule(0.0, 1.0, 100)
        >>> [round(float(f(t)), 3) for t in (0, 50, 100, 400, 10_000)]
        [0.0, 0.5, 1.0, 0.5, 0.1]
    """
    check_steps("inverse_sqrt_schedule", "warmup_steps", warmup_steps)

    def falling(count: ArrayLike) -> jax.Array:
        warmup = as_float(warmup_steps)
        return as_float(peak_value) * jnp.sqrt(warmup / (as_float(count) + warmup))

    return _warmed_up(init_value, peak_value, warmup_steps, falling)


DECAY_SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda part: 1 - part,
    "cosine": half_cosine,
    "sqrt": lambda part: 1 - jnp.sqrt(part),
}


@constructor
def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Steps,
    stable_steps: Steps,
    decay_steps: Steps,
    end_value: Scalar = 0.0,
    shape: Literal["linear", "cosine", "sqrt"] = "linear",
) -> Schedule:
    """Linear warm-up to `peak_value`, a constant part, then decay to `end_value` (WSD).

    A run can be stopped, or prolonged, by a decay from anywhere in its long stable part.

    Paper: Hu et al., MiniCPM, https://arxiv.org/abs/2404.06395; Hägele et al., Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations, https://arxiv.org/abs/2405.18392

    Args:
        init_value: the value at t = 0.
        peak_value: the value of the stable part.
        warmup_steps: the number of warm-up steps, at least 0.
        stable_steps: the number of steps after it that keep `peak_value`, at least 0.
        decay_steps: the number of steps after those, of the decay alone, at least 1.
        end_value: the value after `warmup_steps + stable_steps + decay_steps` steps, and later.
        shape: what is left of `peak_value - end_value` when part s of the decay is over: "linear"
            for `1 - s`, "cosine" for half a cosine, "sqrt" for `1 - sqrt(s)`.

    Returns:
        A schedule.

    Raises:
        ValueError: a number of steps is out of range, or `shape` is none of the three.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.warmup_stable_decay_schedule(0.0, 1.0, 10, 80, 20)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 90, 100, 110)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    check_range("warmup_stable_decay_schedule", "warmup_steps", warmup_steps, 0)
    check_range("warmup_stable_decay_schedule", "stable_steps", stable_steps, 0)
    check_steps("warmup_stable_decay_schedule", "decay_steps", decay_steps)
    if shape not in DECAY_SHAPES:
        raise ValueError(
            f"warmup_stable_decay_schedule: shape is {shape!r}, expected one of {[*DECAY_SHAPES]}"
        )

    def falling(count: ArrayLike) -> jax.Array:
        left = DECAY_SHAPES[shape](progress(count, stable_steps, decay_steps))
        return between(end_value, peak_value, left)

    return _warmed_up(init_value, peak_value, warmup_steps, falling)


def _warmed_up(
    init_value: Scalar, peak_value: Scalar, warmup_steps: Steps, following: Schedule
) -> Schedule:
    """Linear warm-up, then another schedule, with a step count of its own."""

    def schedule(count: ArrayLike) -> jax.Array:
        part = progress(count, 0, jnp.maximum(as_float(warmup_steps), 1))
        rising = between(init_value, peak_value, part)
        other = as_float(following(since(count, warmup_steps)))
        return jnp.where(has_reached(count, warmup_steps), other, rising)

    return schedule
