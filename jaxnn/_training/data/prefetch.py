"""Drawing the next items in a thread while the current one is worked on."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import jax

T = TypeVar("T")

Outcome = tuple[Any, BaseException | None]  # what a function returned, or raised

_END: Any = object()
PATIENCE = 1.0  # seconds for which a source is waited for that somebody interrupted


class InterruptionError(Exception):
    """The next item is not waited for any longer."""


class Prefetched(Iterator[T]):
    """Items that a thread draws; a handler of signals may `interrupt` the waiting for the next."""

    is_interrupted = False

    def __init__(self, items: Iterator[T], drawn: "SimpleQueue[Outcome]") -> None:
        self._items, self._drawn = items, drawn

    def __next__(self) -> T:
        return next(self._items)

    def interrupt(self) -> None:
        """Raise `InterruptionError` where an item is waited for, after those that are there."""
        self.is_interrupted = True
        self._drawn.put((None, InterruptionError()))


@contextmanager
def prefetched(items: Generator[T, None, None], ahead: int) -> Iterator[Iterator[T]]:
    """The items of a generator, drawn by a thread that is at most `ahead` items in front.

    All of the generator's code runs in that thread, under the `jax.enable_x64` and the
    `jax.default_device` of the caller; what it raises is raised where the item would have come.
    Leaving the context, however, closes the generator and waits for the thread, which finishes the
    item that it is at. If that takes for ever, a second Ctrl-C ends the waiting, as does an
    interruption after a second, and the thread does not keep the process alive.

    Args:
        items: a generator that has not been started.
        ahead: how many items may be drawn and not yet asked for; 0 for no thread: each item is
            drawn when it is asked for.

    Returns:
        A context manager that gives an iterator.

    Example:
        >>> from jaxnn._training.data.prefetch import prefetched
        >>> with prefetched((i * i for i in range(4)), ahead=2) as squares:
        ...     print(list(squares))
        [0, 1, 4, 9]
    """
    if ahead == 0:
        with closing(items):
            yield items
        return
    # Only queues, no locks: Ctrl-C can interrupt Python's locks where they are left locked.
    asked: SimpleQueue[None] = SimpleQueue()
    drawn: SimpleQueue[Outcome] = SimpleQueue()
    closed: SimpleQueue[Outcome] = SimpleQueue()
    left = False
    config: Any = jax.config
    x64, device = config.jax_enable_x64, config.jax_default_device

    def draw() -> None:
        with jax.enable_x64(x64), jax.default_device(device):
            while True:
                asked.get()
                if left:
                    break
                drawn.put(_outcome(lambda: next(items, _END)))
            closed.put(_outcome(items.close))

    def take() -> Generator[T, None, None]:
        while (item := _result(drawn.get())) is not _END:
            asked.put(None)
            yield item

    thread = threading.Thread(target=draw, name="jaxnn-prefetch", daemon=True)
    thread.start()
    taken = take()
    taken_ahead = Prefetched(taken, drawn)
    try:
        for _ in range(ahead):
            asked.put(None)
        yield taken_ahead
    finally:
        left = True
        asked.put(None)
        taken.close()
        # First of all: if Ctrl-C interrupts join, Python 3.11 takes the thread for dead.
        outcome: Outcome | None = None
        with suppress(Empty):
            outcome = closed.get(timeout=PATIENCE) if taken_ahead.is_interrupted else closed.get()
        if outcome is not None:
            thread.join()
            _result(outcome)


def _outcome(function: Callable[[], Any]) -> Outcome:
    try:
        return function(), None
    except BaseException as error:
        return None, error


def _result(outcome: Outcome) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value
