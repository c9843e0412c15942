"""Schedules given by their values at a few counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range, concrete
from jaxnn._core.construction import constructor
from jaxnn._core.types import Scalar, Schedule, Steps
from jaxnn.schedules._counts import (
    as_float,
    between,
    check_positive,
    check_steps,
    half_cosine,
    has_reached,
    progress,
)

INTERPOLATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda part: part,
    "cosine": lambda part: 1 - half_cosine(part),
}


@constructor
def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None
) -> Schedule:
    """Piecewise constant: the value is multiplied by a scale at each boundary.

    Args:
        init_value: the value before the first boundary.
        boundaries_and_scales: the scale, at least 0, by the step count from which on it applies;
            may be traced. None for no boundaries.

    Returns:
        A schedule.

    Raises:
        TypeError: `boundaries_and_scales` is no dict.
        ValueError: a scale or boundary is negative.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})
        >>> [round(float(f(t)), 3) for t in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.05]
    """
    scales = _checked("piecewise_constant_schedule", boundaries_and_scales)

    def schedule(count: ArrayLike) -> jax.Array:
        value = as_float(init_value)
        for boundary, scale in scales.items():
            value = value * jnp.where(has_reached(count, boundary), as_float(scale), 1)
        return jnp.broadcast_to(value, np.shape(count))

    return schedule


@constructor
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"],
    init_value: Scalar,
    boundaries_and_scales: Mapping[int, Scalar] | None = None,
) -> Schedule:
    """Piecewise linear or cosine interpolation between values.

    Args:
        interpolate_type: "linear" or "cosine".
        init_value: the value at t = 0.
        boundaries_and_scales: the scale, at least 0, by the step count of each boundary: the value
            there is that at the boundary before times the scale; may be traced. None for no
            boundaries.

    Returns:
        A schedule, constant from the last boundary on.

    Raises:
        TypeError: `boundaries_and_scales` is no dict.
        ValueError: `interpolate_type` is neither, or a scale or boundary is negative.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.piecewise_interpolate_schedule("linear", 1.0, {10: 3.0, 20: 0.0})
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 15, 20, 100)]
        [1.0, 2.0, 3.0, 1.5, 0.0, 0.0]
    """
    if interpolate_type not in INTERPOLATIONS:
        raise ValueError(
            f"piecewise_interpolate_schedule: interpolate_type is {interpolate_type!r}, expected "
            "'linear' or 'cosine'"
        )
    scales = _checked("piecewise_interpolate_schedule", boundaries_and_scales)
    return _interpolated(interpolate_type, init_value, [*scales], [*scales.values()])


@constructor
def linear_onecycle_schedule(
    transition_steps: Steps,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    pct_final: Scalar = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """The one-cycle policy, linear: up to `peak_value`, back down, and on to almost nothing.

    Paper: Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120

    Args:
        transition_steps: the number of steps T of the whole.
        peak_value: the value at t = `pct_start` T.
        pct_start: the fraction of the steps of the way up.
        pct_final: the fraction of the steps after which it is back at the first value.
        div_factor: the first value is `peak_value / div_factor`.
        final_div_factor: the last value is the first over `final_div_factor`.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` is less than 1, or a fraction or factor out of range.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.linear_onecycle_schedule(100, 1.0, div_factor=10.0)
        >>> [round(float(f(t)), 3) for t in (0, 15, 30, 85, 100)]
        [0.1, 0.55, 1.0, 0.1, 0.0]
    """
    check_steps("linear_onecycle_schedule", "transition_steps", transition_steps)
    _check_cycle("linear_onecycle_schedule", pct_start, pct_final, div_factor, final_div_factor)
    boundaries = [*(_part(f, transition_steps) for f in (pct_start, pct_final)), transition_steps]
    scales = [div_factor, 1 / div_factor, 1 / final_div_factor]
    return _interpolated("linear", peak_value / div_factor, boundaries, scales)


@constructor
def cosine_onecycle_schedule(
    transition_steps: Steps,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """The one-cycle policy, by cosines: up to `peak_value`, then down to almost nothing.

    Paper: Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120

    Args:
        transition_steps: the number of steps T of the whole.
        peak_value: the value at t = `pct_start` T.
        pct_start: the fraction of the steps of the way up.
        div_factor: the first value is `peak_value / div_factor`.
        final_div_factor: the last value is the first over `final_div_factor`.

    Returns:
        A schedule.

    Raises:
        ValueError: `transition_steps` is less than 1, or a fraction or factor out of range.

    Example:
        >>> import jaxnn as nn
        >>> f = nn.schedules.cosine_onecycle_schedule(100, 1.0, div_factor=10.0)
        >>> [round(float(f(t)), 3) for t in (0, 15, 30, 65, 100)]
        [0.1, 0.55, 1.0, 0.5, 0.0]
    """
    check_steps("cosine_onecycle_schedule", "transition_steps", transition_steps)
    _check_cycle("cosine_onecycle_schedule", pct_start, 1.0, div_factor, final_div_factor)
    boundaries = [_part(pct_start, transition_steps), transition_steps]
    scales = [div_factor, 1 / (div_factor * final_div_factor)]
    return _interpolated("cosine", peak_value / div_factor, boundaries, scales)


def _checked(schedule: str, boundaries_and_scales: Mapping[int, Scalar] | None) -> dict[int, Any]:
    if boundaries_and_scales is None:
        return {}
    if not isinstance(boundaries_and_scales, Mapping):
        raise TypeError(
            f"{schedule}: boundaries_and_scales is {boundaries_and_scales!r}, expected a dict"
        )
    for boundary in boundaries_and_scales:
        check_range(schedule, "a boundary of boundaries_and_scales", boundary, 0)
    scales = dict(sorted(boundaries_and_scales.items()))
    for boundary, scale in scales.items():
        check_range(schedule, f"boundaries_and_scales[{boundary}]", scale, 0)
    return scales


def _check_cycle(
    schedule: str,
    pct_start: Scalar,
    pct_final: Scalar,
    div_factor: Scalar,
    final_div_factor: Scalar,
) -> None:
    known = concrete(pct_start)
    check_range(schedule, "pct_start", pct_start, 0, 1)
    check_range(schedule, "pct_final", pct_final, 0 if known is None else float(known), 1)
    check_positive(schedule, div_factor=div_factor, final_div_factor=final_div_factor)


def _part(fraction: Scalar, steps: Steps) -> Any:
    """A fraction of the steps, rounded down; in double precision if both are known."""
    known = concrete(fraction), concrete(steps)
    if known[0] is not None and known[1] is not None:
        return int(known[0] * known[1])
    return jnp.floor(as_float(fraction) * as_float(steps))


def _interpolated(
    kind: str, init_value: Scalar, boundaries: Sequence[Any], scales: Sequence[Scalar]
) -> Schedule:
    """From boundary to boundary, the value at each being the one before times its scale."""

    def schedule(count: ArrayLike) -> jax.Array:
        begin: Any = 0
        value = at_begin = as_float(init_value)
        for boundary, scale in zip(boundaries, scales, strict=True):
            at_end = at_begin * as_float(scale)
            length = jnp.maximum(as_float(boundary) - as_float(begin), 1)
            part = INTERPOLATIONS[kind](progress(count, begin, length))
            value = jnp.where(has_reached(count, begin), between(at_begin, at_end, part), value)
            begin, at_begin = boundary, at_end
        return jnp.where(has_reached(count, begin), at_begin, value)

    return schedule
