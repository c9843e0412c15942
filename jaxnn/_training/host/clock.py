"""How long a chunk of steps is, and how long training and compiling have taken."""

import contextlib
import threading
import time

import jax

SECONDS_PER_CHUNK = 0.2
MOST_STEPS = 2**30


class Clock:
    """Measures chunks of steps, so that each takes about `SECONDS_PER_CHUNK`.

    The first chunk is a single step, and so is the second if the first had to compile. In a `with`
    statement, it hears what JAX compiles in this thread.

    Attributes:
        seconds_before: the time in the runs that this one continues.
    """

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self._began = self._asked = time.perf_counter()
        self._seconds_per_step = float("inf")
        self._thread = threading.get_ident()
        self._compiling: list[tuple[float, float]] = []  # beginnings and ends, none in another

    def __enter__(self) -> "Clock":
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError, ValueError):  # somebody removed all listeners
            jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if not event.startswith("/jax/core/compile/") or threading.get_ident() != self._thread:
            return
        end = time.perf_counter()
        while self._compiling and self._compiling[-1][0] >= end - duration_secs:
            self._compiling.pop()  # it was a part of this, as a function that another one calls
        self._compiling.append((end - duration_secs, end))

    @property
    def seconds(self) -> float:
        """The time in training, compilation included."""
        return self.seconds_before + time.perf_counter() - self._began

    @property
    def seconds_compiling(self) -> float:
        """The time in which this run waited for tracing and compiling."""
        return sum(end - begin for begin, end in self._compiling)

    @property
    def steps_per_chunk(self) -> int:
        """The number of steps that the next chunk should have."""
        return min(max(1, int(SECONDS_PER_CHUNK / self._seconds_per_step)), MOST_STEPS)

    def begin(self) -> None:
        """A chunk begins."""
        self._asked = time.perf_counter()

    def end(self, steps: int) -> None:
        """The chunk has ended, after so many steps."""
        taken = max(time.perf_counter() - self._asked, 1e-9)
        self._seconds_per_step = taken / max(steps, 1)
