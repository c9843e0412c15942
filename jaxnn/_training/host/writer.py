"""Writing in a thread, while training goes on."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from jaxnn._training.host.warning import warn


class Writer:
    """Does one piece of writing at a time in a thread; a process that ends does not wait for it.

    What fails is told by a warning, since what is already on disk and what was trained since must
    not be lost to it, and tried again with the next piece.
    """

    def __init__(self, told: str) -> None:
        self._told = told
        self._done: SimpleQueue[Exception | None] = SimpleQueue()
        self.is_busy = self.failed = False

    def write(self, piece: Callable[[], None]) -> None:
        """Do a piece of writing after the one before it has ended."""
        self.wait()
        thread = threading.Thread(target=self._do, args=(piece,), name="jaxnn-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many, or the interpreter is about to end
            self._do(piece)
        self.is_busy = True

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the piece under way, for so many seconds at most."""
        if not self.is_busy:
            return
        try:
            error = self._done.get(timeout=seconds)
        except Empty:
            error = TimeoutError(f"it took more than {seconds} seconds")
        else:
            self.is_busy = False
        self.failed = error is not None
        if error is not None:
            self.warn(error)

    def warn(self, error: Exception) -> None:
        """Tell that something could not be written."""
        self.failed = True
        warn(f"{self._told} was not written: {type(error).__name__}: {error}")

    def _do(self, piece: Callable[[], None]) -> None:
        try:
            piece()
        except Exception as error:
            self._done.put(error)
        else:
            self._done.put(None)
