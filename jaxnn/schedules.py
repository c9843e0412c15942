"""Schedules: functions of the number of updates so far, with optax's names and arguments.

A schedule can be given wherever an optimizer takes a learning rate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import Scalar, check_range, concrete

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "warmup_cosine_decay_schedule",
]

Schedule = Callable[[Any], Any]


def _check_steps(schedule: str, name: str, steps: Any) -> None:
    known = concrete(steps)
    if known is not None and known <= 0:
        raise ValueError(f"{schedule}: {name} is {steps}, expected a positive number of steps")


def _as_float(value: ArrayLike) -> jax.Array:
    return jnp.asarray(value).astype(jnp.result_type(float))


def _half_cosine(progress: jax.Array, exponent: Scalar) -> jax.Array:
    """From 1 at progress 0 down to 0 at progress 1."""
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return cosine ** _as_float(exponent)


def constant_schedule(value: Scalar) -> Schedule:
    """Always the same: `f(t) = value`.

    Args:
        value: the value; may be traced.

    Returns:
        A schedule.

    Example:
        >>> import jaxnn as nn
        >>> nn.schedules.constant_schedule(0.1)(1000)
        0.1
    """
    return lambda count: value


def cosine_decay_schedule(
    init_value: Scalar, decay_steps: Scalar, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    """Half a cosine from `init_value` down to `alpha * init_value`, which it keeps.

    `f(t) = init_value ((1 - alpha) (½ (1 + cos(π min(t, T) / T)))^exponent + alpha)`, T being
    `decay_steps`.

    Paper: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983

    Args:
        init_value: the value at t = 0.
        decay_steps: the number of steps T of the decay, at least 1.
        alpha: the last value as a fraction of the first.
        exponent: bends the curve.

    Returns:
        A schedule.

    Raises:
        ValueError: `decay_steps` is known and less than 1.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.cosine_decay_schedule(1.0, 100)
        >>> [round(float(f(t)), 3) for t in (0, 50, 100, 1000)]
        [1.0, 0.5, 0.0, 0.0]
    """
    _check_steps("cosine_decay_schedule", "decay_steps", decay_steps)

    def schedule(count: ArrayLike) -> jax.Array:
        progress = jnp.clip(_as_float(count) / _as_float(decay_steps), 0, 1)
        cosine = _half_cosine(progress, exponent)
        lowest = _as_float(alpha)
        return _as_float(init_value) * ((1 - lowest) * cosine + lowest)

    return schedule


def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """A straight line up to `peak_value`, then half a cosine down to `end_value`, which it keeps.

    Paper: Goyal et al., Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677 (warm-up);
    Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983 (cosine)

    Args:
        init_value: the value at t = 0.
        peak_value: the value at t = `warmup_steps`.
        warmup_steps: the number of steps of the line, at least 0.
        decay_steps: the number of steps of the whole, the line included.
        end_value: the value from t = `decay_steps` on.
        exponent: bends the cosine.

    Returns:
        A schedule.

    Raises:
        ValueError: the steps are known and not `0 <= warmup_steps < decay_steps`.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 60, 110)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_range("warmup_cosine_decay_schedule", "warmup_steps", warmup_steps, 0)
    _check_steps(
        "warmup_cosine_decay_schedule", "decay_steps - warmup_steps", decay_steps - warmup_steps
    )

    def schedule(count: ArrayLike) -> jax.Array:
        t, warmup, whole = _as_float(count), _as_float(warmup_steps), _as_float(decay_steps)
        first, peak, last = _as_float(init_value), _as_float(peak_value), _as_float(end_value)
        rising = first + (peak - first) * jnp.clip(t / jnp.maximum(warmup, 1), 0, 1)
        progress = jnp.clip((t - warmup) / (whole - warmup), 0, 1)
        falling = last + (peak - last) * _half_cosine(progress, exponent)
        return jnp.where(t < warmup, rising, falling)

    return schedule


def exponential_decay(
    init_value: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """A geometric decay: `f(t) = init_value decay_rate^((t - transition_begin) / steps)`.

    Args:
        init_value: the value until t = `transition_begin`.
        transition_steps: the number of steps in which the value is multiplied by `decay_rate`.
        decay_rate: the factor, more than 0; the value grows if it is more than 1.
        transition_begin: the step at which the decay begins.
        staircase: whether the exponent is rounded down to a whole number.
        end_value: a bound of the value: below for a decay, above for growth; None for none.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` or `decay_rate` is known and not positive (optax makes the
            schedule constant then).

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.exponential_decay(1.0, 10, 0.5)
        >>> [round(float(f(t)), 3) for t in (0, 10, 20, 25)]
        [1.0, 0.5, 0.25, 0.177]
    """
    _check_steps("exponential_decay", "transition_steps", transition_steps)
    known = concrete(decay_rate)
    if known is not None and known <= 0:
        raise ValueError(f"exponential_decay: decay_rate is {decay_rate}, expected more than 0")

    def schedule(count: ArrayLike) -> jax.Array:
        begun = jnp.maximum(_as_float(count) - _as_float(transition_begin), 0)
        exponent = begun / _as_float(transition_steps)
        if staircase:
            exponent = jnp.floor(exponent)
        rate = _as_float(decay_rate)
        value = _as_float(init_value) * rate**exponent
        if end_value is None:
            return value
        bound = _as_float(end_value)
        return jnp.where(rate < 1, jnp.maximum(value, bound), jnp.minimum(value, bound))

    return schedule
