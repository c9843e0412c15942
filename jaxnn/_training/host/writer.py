"""Writing in a thread, while training goes on."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from jaxnn._training.host.warning import warn


class Writer:
    """Does one piece of writing at a time in a thread; a process that ends does not wait for it.

    What fails is told by a warning, since what is already on disk and what was trained since must
    not be lost to it, and tried again with the next piece.
    """

    def __init__(self, told: str) -> None:
        self._told = told
        self._piece: _Piece | None = None
        self.failed = False

    @property
    def is_busy(self) -> bool:
        """Whether a piece is under way, or how it ended was not asked for."""
        return self._piece is not None

    @property
    def has_written(self) -> bool:
        """Whether no piece is under way."""
        return self._piece is None or self._piece.has_ended_within(0.0)

    def write(self, write: Callable[[], None]) -> None:
        """Do a piece of writing after the one before it has ended."""
        self.wait()
        self._piece = piece = _Piece(write)
        thread = threading.Thread(target=piece.run, name="jaxnn-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many, or the interpreter is about to end
            piece.run()
        except BaseException:  # Ctrl-C
            if thread.ident is None:
                self._piece = None
            raise

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the piece under way, for so many seconds at most."""
        if self._piece is None:
            return
        error: Exception | None = TimeoutError(f"it took more than {seconds} seconds")
        if self._piece.has_ended_within(seconds):
            error, self._piece = self._piece.error, None
        self.failed = error is not None
        if error is not None:
            self.warn(error)

    def warn(self, error: Exception) -> None:
        """Tell that something could not be written."""
        self.failed = True
        warn(f"{self._told} was not written: {type(error).__name__}: {error}")


class _Piece:
    """A piece of writing; whoever is interrupted while waiting for it can wait again."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self.error: Exception | None = None
        self._has_ended = False
        self._end: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Do it, in a thread."""
        try:
            self._write()
        except Exception as error:
            self.error = error
        self._has_ended = True
        self._end.put(None)

    def has_ended_within(self, seconds: float | None) -> bool:
        """Wait for its end, for so many seconds at most."""
        if not self._has_ended:  # what an interrupted waiting took from the queue is gone
            with suppress(Empty):
                self._end.get() if seconds is None else self._end.get(timeout=seconds)
        return self._has_ended
