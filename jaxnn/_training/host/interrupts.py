"""Ctrl-C and signals to terminate, as wishes to stop that are heard between two steps."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

# SIGHUP comes when a terminal is closed, or a connection lost; Windows has none.
_TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_SECONDS_OF_ONE = 1.0


class Wish:
    """Whether somebody wants training to end. A handler only sets it, and takes no lock.

    `termination` is the signal by which the process is to end, which is sent again.
    """

    is_set = False
    termination: int | None = None


@contextmanager
def interruptible(*, at_termination: Callable[[], None] | None) -> Iterator[Wish]:
    """A wish that the first Ctrl-C makes; the second raises `KeyboardInterrupt` as usual.

    So do SIGTERM and SIGHUP, unless `at_termination` is None, which they call to end what is waited
    for. More than one within a second count as one: who ends a group of processes may send it to
    each and to the group. Such a signal is sent again when the context is left: whoever handles it
    usually does so then. Outside of the main
    thread, in a process that was forked off, or where somebody else handles Ctrl-C, nothing
    changes; asyncio's handler is replaced, which would cancel the task that waits for the result.
    """
    wish, process = Wish(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    usual: dict[int, Any] = {}
    heard: dict[int, float] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        is_forked = os.getpid() != process  # a worker of the data, which is to end at once
        first = heard.setdefault(number, time.monotonic())
        is_repeated = time.monotonic() - first > _SECONDS_OF_ONE
        if is_forked or is_repeated or number == signal.SIGINT:
            signal.signal(number, usual[number])
        if is_forked or is_repeated:
            signal.raise_signal(number)
            return
        wish.is_set = True
        if number in _TERMINATION and at_termination is not None:
            wish.termination = number
            at_termination()

    if _is_usual(signal.getsignal(signal.SIGINT)):
        usual[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    for number in _TERMINATION if at_termination is not None else []:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            usual[number] = signal.getsignal(number)
    for number in usual:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if wish.termination is not None:
            signal.raise_signal(wish.termination)


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
