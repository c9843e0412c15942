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


def linear_schedule(
    init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """A line through (begin, init) and (begin + steps, end), flat outside."""

    def schedule(count: int) -> float:
        if count <= transition_begin:
            return init_value
        if count >= transition_begin + transition_steps:
            return end_value
        slope = (end_value - init_value) / transition_steps
        return init_value + slope * (count - transition_begin)

    return schedule


def polynomial_schedule(
    init_value: float,
    end_value: float,
    power: float,
    transition_steps: int,
    transition_begin: int = 0,
) -> Schedule:
    """end + (init - end) r^power, r the fraction of the steps that is left."""

    def schedule(count: int) -> float:
        left = transition_begin + transition_steps - count
        r = min(max(left, 0), transition_steps) / transition_steps
        return end_value + (init_value - end_value) * r**power

    return schedule


def step_decay(init_value: float, step_size: int, decay_rate: float = 0.1) -> Schedule:
    """init, multiplied by the rate once for each whole step_size."""

    def schedule(count: int) -> float:
        return init_value * decay_rate ** (count // step_size)

    return schedule


def piecewise_constant_schedule(
    init_value: float, boundaries_and_scales: dict[int, float] | None = None
) -> Schedule:
    """init times the scales of all boundaries that are not greater than the count."""

    def schedule(count: int) -> float:
        scales = (boundaries_and_scales or {}).items()
        return init_value * math.prod(scale for boundary, scale in scales if boundary <= count)

    return schedule


def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: float,
    boundaries_and_scales: dict[int, float] | None = None,
) -> Schedule:
    """Knots (0, init), (b1, init s1), (b2, init s1 s2), ..., joined by lines or half cosines."""
    knots = [(0, init_value)]
    for boundary, scale in sorted((boundaries_and_scales or {}).items()):
        knots.append((boundary, knots[-1][1] * scale))

    def schedule(count: int) -> float:
        if count >= knots[-1][0]:
            return knots[-1][1]
        k = next(k for k in range(len(knots) - 1) if knots[k][0] <= count < knots[k + 1][0])
        (begin, first), (end, last) = knots[k], knots[k + 1]
        part = (count - begin) / (end - begin)
        if interpolate_type == "cosine":
            part = math.sin(part * math.pi / 2) ** 2
        return first + (last - first) * part

    return schedule


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Lines from peak / div to peak, back to peak / div and down to peak / (div final)."""
    up, down = int(pct_start * transition_steps), int(pct_final * transition_steps)
    scales = {up: div_factor, down: 1 / div_factor, transition_steps: 1 / final_div_factor}
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, scales)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Half cosines from peak / div to peak and from there down to peak / (div final)."""
    scales = {
        int(pct_start * transition_steps): div_factor,
        transition_steps: 1 / (div_factor * final_div_factor),
    }
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, scales)


def join_schedules(schedules: list[Schedule], boundaries: list[int]) -> Schedule:
    """The last schedule that has begun, at the count since it did."""

    def schedule(count: int) -> float:
        begun = [0, *(b for b in boundaries if b <= count)]
        return schedules[len(begun) - 1](count - begun[-1])

    return schedule


def warmup_constant_schedule(init_value: float, peak_value: float, warmup_steps: int) -> Schedule:
    """A line, then the peak."""
    return _warmup(init_value, peak_value, warmup_steps, lambda count: peak_value)


def warmup_exponential_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """A line, then an exponential decay."""
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return _warmup(init_value, peak_value, warmup_steps, decay)


def inverse_sqrt_schedule(init_value: float, peak_value: float, warmup_steps: int) -> Schedule:
    """A line, then peak sqrt(warmup / t). Vaswani et al. 2017, arXiv:1706.03762."""

    def falling(since_warmup: int) -> float:
        return peak_value * math.sqrt(warmup_steps / (warmup_steps + since_warmup))

    return _warmup(init_value, peak_value, warmup_steps, falling)


def warmup_stable_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    shape: str = "linear",
) -> Schedule:
    """A line, the peak, then down by a line, half a cosine or 1 - sqrt."""

    def falling(since_warmup: int) -> float:
        part = min(max((since_warmup - stable_steps) / decay_steps, 0.0), 1.0)
        left = {
            "linear": 1 - part,
            "cosine": math.cos(part * math.pi / 2) ** 2,
            "sqrt": 1 - math.sqrt(part),
        }[shape]
        return end_value + (peak_value - end_value) * left

    return _warmup(init_value, peak_value, warmup_steps, falling)


def sgdr_schedule(cosine_kwargs: list[dict[str, float]]) -> Schedule:
    """Cycle after cycle; the last one goes on."""

    def schedule(count: int) -> float:
        for kwargs in cosine_kwargs[:-1]:
            if count < kwargs["decay_steps"]:
                return warmup_cosine_decay_schedule(**kwargs)(count)
            count -= kwargs["decay_steps"]
        return warmup_cosine_decay_schedule(**cosine_kwargs[-1])(count)

    return schedule


def _warmup(first: float, peak: float, steps: int, following: Schedule) -> Schedule:
    def schedule(count: int) -> float:
        if count < steps:
            return first + (peak - first) * count / steps
        return following(count - steps)

    return schedule
