"""Decays: schedules with one formula."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range
from jaxnn._core.construction import constructor
from jaxnn._core.types import Scalar, Schedule, Steps
from jaxnn.schedules._counts import (
    as_float,
    between,
    check_positive,
    check_steps,
    half_cosine,
    progress,
    since,
    whole_periods,
)


@constructor
def constant_schedule(value: Scalar) -> Schedule:
    """A constant: `f(t) = value`.

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


@constructor
def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: Steps, transition_begin: Steps = 0
) -> Schedule:
    """Linear decay (or growth) from `init_value` to `end_value`, and constant from then on.

    Args:
        init_value: the value until t = `transition_begin`.
        end_value: the value `transition_steps` later, and from there on.
        transition_steps: the number of steps of the transition, at least 1.
        transition_begin: the step at which the transition begins, at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` is less than 1 (optax keeps `init_value` then), or
            `transition_begin` less than 0 (optax takes 0 then).

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.linear_schedule(1.0, 0.0, 10, transition_begin=5)
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 15, 100)]
        [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    check_steps("linear_schedule", "transition_steps", transition_steps)
    check_range("linear_schedule", "transition_begin", transition_begin, 0)

    def schedule(count: ArrayLike) -> jax.Array:
        return between(init_value, end_value, progress(count, transition_begin, transition_steps))

    return schedule


@constructor
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: Scalar,
    transition_steps: Steps,
    transition_begin: Steps = 0,
) -> Schedule:
    """Polynomial decay (or growth) from `init_value` to `end_value`, and constant from then on.

    `f(t) = (init_value - end_value) (1 - s)^power + end_value`, s going from 0 to 1.

    Args:
        init_value: the value until t = `transition_begin`.
        end_value: the value `transition_steps` later, and from there on.
        power: the degree of the polynomial, more than 0; 1 for linear decay.
        transition_steps: the number of steps in which s goes from 0 to 1, at least 1.
        transition_begin: the step at which it begins to, at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` is less than 1 (optax keeps `init_value` then),
            `transition_begin` less than 0 (optax takes 0 then), or `power` not positive.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.polynomial_schedule(1.0, 0.0, 2.0, 10)
        >>> [round(float(f(t)), 3) for t in (0, 5, 9, 10, 100)]
        [1.0, 0.25, 0.01, 0.0, 0.0]
    """
    check_steps("polynomial_schedule", "transition_steps", transition_steps)
    check_range("polynomial_schedule", "transition_begin", transition_begin, 0)
    check_positive("polynomial_schedule", power=power)

    def schedule(count: ArrayLike) -> jax.Array:
        left = 1 - progress(count, transition_begin, transition_steps)
        return between(end_value, init_value, left ** as_float(power))

    return schedule


@constructor
def cosine_decay_schedule(
    init_value: Scalar, decay_steps: Steps, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    """Cosine decay from `init_value` to `alpha * init_value`, and constant from then on.

    `f(t) = init_value ((1 - alpha) (½ (1 + cos(π min(t, T) / T)))^exponent + alpha)`, T being
    `decay_steps`.

    Paper: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983

    Args:
        init_value: the value at t = 0.
        decay_steps: the number of steps T of the decay, at least 1.
        alpha: the final value as a fraction of the initial one.
        exponent: the power of the cosine.

    Returns:
        A schedule.

    Raises:
        ValueError: `decay_steps` is less than 1, or `exponent` negative.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.cosine_decay_schedule(1.0, 100)
        >>> [round(float(f(t)), 3) for t in (0, 50, 100, 1000)]
        [1.0, 0.5, 0.0, 0.0]
    """
    check_steps("cosine_decay_schedule", "decay_steps", decay_steps)
    check_range("cosine_decay_schedule", "exponent", exponent, 0)

    def schedule(count: ArrayLike) -> jax.Array:
        cosine = half_cosine(progress(count, 0, decay_steps)) ** as_float(exponent)
        lowest = as_float(alpha)
        return as_float(init_value) * ((1 - lowest) * cosine + lowest)

    return schedule


@constructor
def exponential_decay(
    init_value: Scalar,
    transition_steps: Steps,
    decay_rate: Scalar,
    transition_begin: Steps = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Exponential decay: `f(t) = init_value decay_rate^((t - transition_begin) / steps)`.

    Args:
        init_value: the value until t = `transition_begin`.
        transition_steps: the number of steps in which the value is multiplied by `decay_rate`.
        decay_rate: the factor, more than 0; the value grows if it is more than 1.
        transition_begin: the step at which the decay begins, at least 0.
        staircase: whether to decay at discrete intervals: the exponent is rounded down.
        end_value: a bound of the value: below for a decay, above for growth; None for none.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` or `decay_rate` is not positive (optax makes the
            schedule constant then), or `transition_begin` less than 0 (optax takes 0 then).

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.exponential_decay(1.0, 10, 0.5)
        >>> [round(float(f(t)), 3) for t in (0, 10, 20, 25)]
        [1.0, 0.5, 0.25, 0.177]
    """
    check_steps("exponential_decay", "transition_steps", transition_steps)
    check_positive("exponential_decay", decay_rate=decay_rate)
    check_range("exponential_decay", "transition_begin", transition_begin, 0)

    def schedule(count: ArrayLike) -> jax.Array:
        elapsed = since(count, transition_begin)
        if staircase:
            exponent = whole_periods(elapsed, transition_steps)
        else:
            exponent = as_float(elapsed) / as_float(transition_steps)
        rate = as_float(decay_rate)
        value = as_float(init_value) * rate**exponent
        if end_value is None:
            return value
        bound = as_float(end_value)
        return jnp.where(rate < 1, jnp.maximum(value, bound), jnp.minimum(value, bound))

    return schedule


@constructor
def step_decay(init_value: Scalar, step_size: Steps, decay_rate: Scalar = 0.1) -> Schedule:
    """Step decay: `f(t) = init_value decay_rate^floor(t / step_size)`.

    As `torch.optim.lr_scheduler.StepLR(step_size, gamma=decay_rate)`, counting updates.

    Args:
        init_value: the value of the first `step_size` steps.
        step_size: the number of steps until the value is next multiplied by `decay_rate`.
        decay_rate: the factor, more than 0.

    Returns:
        A schedule.

    Raises:
        ValueError: `step_size` or `decay_rate` is not positive.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.step_decay(1.0, 30)
        >>> [round(float(f(t)), 3) for t in (0, 29, 30, 59, 60)]
        [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    check_steps("step_decay", "step_size", step_size)
    check_positive("step_decay", decay_rate=decay_rate)
    return exponential_decay(init_value, step_size, decay_rate, staircase=True)
