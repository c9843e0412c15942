"""Learning rate schedules: functions of the number of updates made so far."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant_schedule(value: float) -> Schedule:
    """Return `value` at every count."""
    return lambda count: value


def cosine_decay_schedule(
    init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """init ((1 - alpha) c^exponent + alpha) with c = (1 + cos(pi t)) / 2, t = count / steps <= 1.

    Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    def schedule(count: int) -> float:
        c = (1 + math.cos(math.pi * min(count / decay_steps, 1.0))) / 2
        return init_value * ((1 - alpha) * c**exponent + alpha)

    return schedule


def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """A line from init to peak, then a cosine to end at decay_steps, which counts the warmup."""
    alpha = end_value / peak_value if peak_value else 0.0
    cosine = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)

    def schedule(count: int) -> float:
        if count < warmup_steps:
            return init_value + (peak_value - init_value) * count / warmup_steps
        return cosine(count - warmup_steps)

    return schedule


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """init decay_rate^((count - begin) / steps), whole powers if staircase, up to end_value."""

    def schedule(count: int) -> float:
        power = max(count - transition_begin, 0) / transition_steps
        value = init_value * decay_rate ** (math.floor(power) if staircase else power)
        if end_value is None:
            return value
        return max(value, end_value) if decay_rate < 1 else min(value, end_value)

    return schedule
