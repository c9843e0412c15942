"""Ctrl-C and SIGTERM, as wishes to stop that are heard between two steps."""

import functools
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax


class Wish:
    """Whether somebody wants training to end. A handler only sets it, and takes no lock."""

    is_set = False
    terminates = False


@contextmanager
def interruptible(*, hears_sigterm: bool) -> Iterator[Wish]:
    """A wish that the first Ctrl-C makes; the second raises `KeyboardInterrupt` as usual.

    So does SIGTERM, if it is to be heard, which is sent again when the context is left: whoever
    handles it usually does so then. Outside of the main thread, or where somebody else handles
    Ctrl-C, nothing changes; asyncio's handler is replaced, which would cancel the task that waits
    for the result.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    usual: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        wish.is_set = True
        wish.terminates |= number == signal.SIGTERM
        signal.signal(number, usual[number])

    if _is_usual(signal.getsignal(signal.SIGINT)):
        usual[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    if hears_sigterm and signal.getsignal(signal.SIGTERM) not in (None, signal.SIG_IGN):
        usual[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
    for number in usual:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if wish.terminates:
            signal.raise_signal(signal.SIGTERM)


def is_preempted(step: int) -> bool:
    """Whether the platform has told, to any process, that it is going to take the machine away."""
    if not jax.distributed.is_initialized():
        return False
    from jax.experimental import multihost_utils  # which few runs need

    return bool(multihost_utils.reached_preemption_sync_point(step))


def _is_usual(handler: Any) -> bool:
    if isinstance(handler, functools.partial) and "asyncio" in sys.modules:
        of_asyncio = sys.modules["asyncio"].Runner._on_sigint
        return getattr(handler.func, "__func__", None) is of_asyncio
    return handler is signal.default_int_handler
