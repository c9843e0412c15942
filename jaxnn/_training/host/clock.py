"""How long a chunk of steps is, and how long training has taken."""

import time

SECONDS_PER_CHUNK = 0.2


class Clock:
    """Measures chunks of steps, so that each takes about `SECONDS_PER_CHUNK`.

    The first chunk is a single step, and so is the second if the first had to compile.

    Attributes:
        seconds_before: the time in the runs that this one continues.
    """

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self._began = self._asked = time.perf_counter()
        self._seconds_per_step = float("inf")

    @property
    def seconds(self) -> float:
        """The time in training, compilation included."""
        return self.seconds_before + time.perf_counter() - self._began

    def next_chunk(self) -> int:
        """The number of steps that the next chunk should have; its time begins."""
        self._asked = time.perf_counter()
        return max(1, int(SECONDS_PER_CHUNK / self._seconds_per_step))

    def tick(self, steps: int) -> None:
        """The chunk has ended, after so many steps."""
        taken = max(time.perf_counter() - self._asked, 1e-9)
        self._seconds_per_step = taken / max(steps, 1)
