"""Files that are replaced as a whole or not at all."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_STALE_SECONDS = 3600.0
_LONGEST_STEM = 200  # of 255 bytes


@contextlib.contextmanager
def replacing(function: str, path: str | bytes | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of the one at `path` when it is complete.

    Until then it is `.NAME.RANDOM.tmp` in the same directory. An exception removes it. A process
    that is killed leaves it behind, for a later call with the same path to remove.
    """
    path = os.fsdecode(path)
    target = Path(os.path.realpath(path))  # a link stays a link
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"{function}: there is no directory for the file", path
        )
    if target.exists() and not target.is_file():
        raise OSError(f"{function}: {path} is there and is no file, expected a file or nothing")
    temporary = target.with_name(f".{_stem(target)}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            _remove_stale(target, now=os.fstat(file.fileno()).st_mtime)
            if target.exists():
                _take_over(temporary, target.stat())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _stem(target: Path) -> str:
    """The name of the file in that of its parts, which a file system might find too long."""
    name = target.name
    if len(os.fsencode(name)) <= _LONGEST_STEM:
        return name
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _take_over(temporary: Path, old: os.stat_result) -> None:
    """Give a file the mode of another one, and its owner and group where that is allowed."""
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def _remove_stale(target: Path, now: float) -> None:
    """Remove what killed writers left, by the clock of the file system.

    Nobody who still writes leaves his file untouched for an hour; if one did, he would fail to put
    it in place, and the file at the target would stay as it is.
    """
    name = re.compile(rf"\.{re.escape(_stem(target))}\.[0-9a-f]{{16}}\.tmp")
    for other in target.parent.iterdir():
        if name.fullmatch(other.name):
            with contextlib.suppress(OSError):
                if now - other.stat().st_mtime > _STALE_SECONDS:
                    other.unlink()


def _sync(directory: Path) -> None:
    """Make a new name in a directory last through a loss of power, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
