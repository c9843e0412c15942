"""Integers that index something: where they are outside, programs give NaN, and this finds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import numpy as np

_is_looking: ContextVar[bool] = ContextVar("is_looking", default=False)


class OutOfBoundsError(ValueError):
    """An integer is outside of what it indexes.

    Attributes:
        value: the integer.
        place: where it is, an index for each axis.
        size: how many there are; integers from 0 to `size - 1` would be right.
        user: what indexes by it.
    """

    def __init__(self, user: str, value: int, place: tuple[int, ...], size: int) -> None:
        super().__init__(
            f"{user}: the integer {value} at {place} is outside, expected 0 to {size - 1}"
        )
        self.user, self.value, self.place, self.size = user, value, place, size


@contextmanager
def looking_for_integers_outside() -> Iterator[None]:
    """Let `check_bounds` look at values, in functions that run without being traced."""
    token = _is_looking.set(True)
    try:
        yield
    finally:
        _is_looking.reset(token)


def check_bounds(user: str, integers: jax.Array, size: int, ignored: int | None = None) -> None:
    """Raise `OutOfBoundsError` for an integer outside of [0, size), if somebody is looking.

    Otherwise, and of traced arrays, nothing is known of the values.
    """
    if not _is_looking.get() or isinstance(integers, jax.core.Tracer):
        return
    values = np.asarray(integers)
    outside = (values < 0) | (values >= size)
    if ignored is not None:
        outside &= values != ignored
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        raise OutOfBoundsError(user, int(values[place]), place, size)
