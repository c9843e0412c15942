"""One owner of a directory at a time."""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from jaxnn._core.processes import Group
from jaxnn._training.host.options import CheckpointOptions

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_here: set[tuple[int, Path]] = set()  # the processes, and the directories that their threads own
_guard = threading.Lock()


class Place(NamedTuple):
    """A directory that is owned; `hold` raises if somebody else came to own it."""

    directory: Path
    hold: Callable[[], None]


@contextlib.contextmanager
def opened(options: CheckpointOptions, group: Group) -> Iterator[Place]:
    """The directory of checkpoints, made if need be, and owned by the first of the processes."""
    with ExitStack() as held:
        with group.vote("fit: checkpoint"):
            place = held.enter_context(_opened(options)) if group.is_first else None
        yield place or Place(_directory(options), lambda: None)


def _directory(options: CheckpointOptions) -> Path:
    return Path(os.path.abspath(os.fsdecode(options.directory)))  # wherever one goes later


@contextlib.contextmanager
def _opened(options: CheckpointOptions) -> Iterator[Place]:
    directory = _directory(options)
    if os.path.lexists(directory) and not directory.is_dir():
        raise NotADirectoryError(f"fit: checkpoint {directory} is there and is no directory")
    directory.mkdir(parents=True, exist_ok=True)
    with owned("fit", directory) as hold:
        yield Place(directory, hold)


@contextlib.contextmanager
def owned(function: str, directory: Path) -> Iterator[Callable[[], None]]:
    """Own a directory, which nobody else can own meanwhile; a process that dies owns nothing.

    What is yielded takes the lock again, which the system gives away as soon as anything in this
    process has read its file, as who copies the directory does.

    Raises:
        BlockingIOError: somebody else owns it.
    """
    place = os.getpid(), directory.resolve()  # a process that is forked off owns nothing
    with _guard:
        if place in _here:
            raise _taken(function, directory, "another thread of this process")
        _here.add(place)
    try:
        with _locked(function, directory) as hold:
            yield hold
    finally:
        with _guard:
            _here.discard(place)


@contextlib.contextmanager
def _locked(function: str, directory: Path) -> Iterator[Callable[[], None]]:
    if fcntl is None:
        yield lambda: None
        return
    # The lock of a process, not of an open file, which children made by fork would keep alive.
    path = directory / ".owner"
    with open(path, "r+b", buffering=0, opener=_open_itself) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{function}: {path} is no regular file, expected one or nothing")

        def hold() -> None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                number = os.pread(file.fileno(), 20, 0).strip()
                who = f"process {number.decode()}" if number.isdigit() else "another process"
                raise _taken(function, directory, who) from None

        hold()
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        yield hold


def _open_itself(path: str, flags: int) -> int:
    """Open a file, made if need be, but not what a link in its place points to."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _taken(function: str, directory: Path, who: str) -> BlockingIOError:
    return BlockingIOError(
        f"{function}: checkpoint {directory} is in use by {who}, expected a directory for each "
        "run; it is free again when that ends"
    )
