"""One owner of a directory at a time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from jaxnn._training.host.options import CheckpointOptions

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_here: set[tuple[int, Path]] = set()  # the processes, and the directories that their threads own
_guard = threading.Lock()


@contextlib.contextmanager
def opened(options: CheckpointOptions | None) -> Iterator[Path]:
    """The directory of checkpoints, made if need be, and owned; without options nothing."""
    if options is None:
        yield Path()
        return
    directory = Path(os.path.abspath(os.fsdecode(options.directory)))  # wherever one goes later
    directory.mkdir(parents=True, exist_ok=True)
    with owned("fit", directory):
        yield directory


@contextlib.contextmanager
def owned(function: str, directory: Path) -> Iterator[None]:
    """Own a directory, which nobody else can own meanwhile; a process that dies owns nothing.

    Raises:
        BlockingIOError: somebody else owns it.
    """
    place = os.getpid(), directory.resolve()  # a process that is forked off owns nothing
    with _guard:
        if place in _here:
            raise _taken(function, directory, "another thread of this process")
        _here.add(place)
    try:
        with _locked(function, directory):
            yield
    finally:
        with _guard:
            _here.discard(place)


@contextlib.contextmanager
def _locked(function: str, directory: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    # The lock of a process, not of an open file, which children made by fork would keep alive.
    with open(directory / ".owner", "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            number = file.read(20).strip()
            who = f"process {number}" if number else "another process"
            raise _taken(function, directory, who) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _taken(function: str, directory: Path, who: str) -> BlockingIOError:
    return BlockingIOError(
        f"{function}: checkpoint {directory} is in use by {who}, expected a directory for each "
        "run; it is free again when that ends"
    )
