"""Layers that decode one element at a time: what they need to know, though no number depends on it.

`nn.autoregressive` says that its layer sees one element in each step; what looks along time, and
carries nothing from one step to the next, then raises, and a stack keeps its layers apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_steps: ContextVar[int | None] = ContextVar("steps", default=None)
_by_element: ContextVar[bool] = ContextVar("by_element", default=False)


@contextmanager
def decoded_steps(steps: int) -> Iterator[None]:
    """While the block is traced, a cell is made to run for that many steps in all."""
    token = _steps.set(steps)
    try:
        yield
    finally:
        _steps.reset(token)


@contextmanager
def decoding_by_element() -> Iterator[None]:
    """While the block is traced, a layer over sequences gets one element in each step."""
    token = _by_element.set(True)
    try:
        yield
    finally:
        _by_element.reset(token)


def is_decoded() -> bool:
    """Whether a layer over sequences gets one element in each step."""
    return _by_element.get()


def refuse_in_decoding(what: str, length: int, expected: str) -> None:
    """Raise if a layer that carries nothing looks along time while it is decoded by element."""
    if _by_element.get() and length == 1:
        raise ValueError(
            f"{what} sees one element in each step of nn.autoregressive and nothing before it, "
            f"expected {expected}"
        )


def check_capacity(layer: str, name: str, capacity: int) -> None:
    """Raise if a layer has no room for all elements that are to be decoded."""
    steps = _steps.get()
    if _by_element.get() and steps is not None and capacity < steps:
        raise ValueError(
            f"{layer}: {name} is {capacity}, expected at least {steps}, the number of elements "
            "that are read: the prompt and all new ones but the last"
        )
