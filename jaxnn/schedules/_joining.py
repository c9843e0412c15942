"""Schedules joined one after the other."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range, concrete
from jaxnn._core.construction import constructor
from jaxnn._core.types import Schedule
from jaxnn.schedules._counts import as_float, has_reached, since
from jaxnn.schedules._warmups import warmup_cosine_decay_schedule


@constructor
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[Any]) -> Schedule:
    """Join schedules one after the other, each with a step count of its own that begins at 0.

    Args:
        schedules: at least one.
        boundaries: the step counts at which the second, third, ... begin, in growing order; may be
            traced.

    Returns:
        A schedule.

    Raises:
        TypeError: an argument is no sequence of its kind.
        ValueError: there are not as many boundaries as schedules, less one, or they do not grow.

    Example:
        >>> import jaxnn as nn
        >>> warmup = nn.schedules.linear_schedule(0.0, 1.0, 10)
        >>> f = nn.schedules.join_schedules([warmup, nn.schedules.step_decay(1.0, 5, 0.5)], [10])
        >>> [round(float(f(t)), 3) for t in (0, 5, 10, 14, 15, 20)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.25]
    """
    if not isinstance(boundaries, (Sequence, jax.Array, np.ndarray)):
        raise TypeError(
            f"join_schedules: boundaries is {boundaries!r}, expected a sequence of counts"
        )
    for i, boundary in enumerate(boundaries):
        check_range("join_schedules", f"boundaries[{i}]", boundary, 0)
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules and {len(boundaries)} boundaries, "
            "expected one boundary between any two schedules"
        )
    known = [at for boundary in boundaries if (at := concrete(boundary)) is not None]
    if any(later < earlier for earlier, later in pairwise(known)):
        raise ValueError(f"join_schedules: boundaries is {boundaries}, expected growing counts")

    def schedule(count: ArrayLike) -> jax.Array:
        value = as_float(schedules[0](count))
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            other = as_float(following(since(count, boundary)))
            value = jnp.where(has_reached(count, boundary), other, value)
        return value

    return schedule


@constructor
def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """SGD with warm restarts: one `warmup_cosine_decay_schedule` after the other.

    Paper: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983

    Args:
        cosine_kwargs: for each cycle, the keyword arguments; it lasts for its `decay_steps`.

    Returns:
        A schedule.

    Raises:
        TypeError: they are no dicts.
        ValueError: there is none, or the steps of one are wrong.

    Example:
        >>> import jaxnn as nn
        >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}
        >>> f = nn.schedules.sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
        >>> [round(float(f(t)), 3) for t in (0, 2, 6, 10, 12, 16, 20)]
        [0.0, 1.0, 0.5, 0.0, 0.5, 0.25, 0.0]
    """
    if not isinstance(cosine_kwargs, Iterable) or isinstance(cosine_kwargs, (str, Mapping)):
        raise TypeError(f"sgdr_schedule: cosine_kwargs is {cosine_kwargs!r}, expected dicts")
    cycles = list(cosine_kwargs)
    for i, cycle in enumerate(cycles):
        if not isinstance(cycle, Mapping) or "decay_steps" not in cycle:
            raise TypeError(
                f"sgdr_schedule: cosine_kwargs[{i}] is {cycle!r}, expected a dict of the arguments "
                "of warmup_cosine_decay_schedule"
            )
    if not cycles:
        raise ValueError("sgdr_schedule: cosine_kwargs is empty, expected one cycle at least")
    boundaries, end = [], 0
    for cycle in cycles:
        end = end + cycle["decay_steps"]
        boundaries.append(end)
    return join_schedules([warmup_cosine_decay_schedule(**c) for c in cycles], boundaries[:-1])
