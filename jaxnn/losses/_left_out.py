"""Which values of a loss are zeros that stand for nothing: a mean would count them."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from jaxnn.losses._weighted import Weighted


class LeftOut(NamedTuple):
    """What a loss was told to leave out of values of a shape, and how the mean leaves it out."""

    shape: tuple[int, ...]
    what: str
    remedy: str


_told: ContextVar[list[LeftOut] | None] = ContextVar("left_out", default=None)


def values_to_average(where: str, loss: Callable[[Any, Any], Any], *arguments: Any) -> Any:
    """The values of a loss, unless some are zeros that stand for nothing."""
    told: list[LeftOut] = []
    token = _told.set(told)
    try:
        values = loss(*arguments)
    finally:
        _told.reset(token)
    if not isinstance(values, Weighted):
        for shape, what, remedy in told:
            if shape and shape == np.shape(values):
                raise ValueError(
                    f"{where}: {what}, whose zeros would count in the mean, expected {remedy}"
                )
    return values


def tell_of_label(loss: str, shape: tuple[int, ...], ignore_index: int | None) -> None:
    """Tell that the values of a label are zeros, if there is one."""
    if ignore_index is not None:
        remedy = f"nn.losses.ignoring(loss, {ignore_index})"
        _tell(LeftOut(shape, f"{loss} has ignore_index={ignore_index}", remedy))


def tell_of_mask(loss: str, shape: tuple[int, ...]) -> None:
    """Tell that the values that a mask hides are zeros."""
    _tell(LeftOut(shape, f"{loss} has where=", "nn.losses.Weighted(values, where)"))


def _tell(left_out: LeftOut) -> None:
    told = _told.get()
    if told is not None:
        told.append(left_out)
