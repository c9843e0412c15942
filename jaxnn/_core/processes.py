"""What the processes of a run tell each other, by a gathering of a few numbers."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np


class PeerError(RuntimeError):
    """Another process failed, at a point where all wait for each other."""


def is_first() -> bool:
    """Whether this is process 0, or the only one."""
    return jax.process_index() == 0


def gathered(values: Any) -> np.ndarray:
    """The values of all processes, in their order along axis 0; each must ask for them.

    32 bits of each are sent.
    """
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils  # which few runs need

    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def of_first(values: Any) -> np.ndarray:
    """The values of process 0."""
    first: np.ndarray = gathered(values)[0]
    return first


def common_mark() -> str:
    """32 hexadecimal digits that nobody had before, the same in each process."""
    return of_first(np.frombuffer(secrets.token_bytes(16), np.uint8)).tobytes().hex()


@contextmanager
def together(what: str) -> Iterator[None]:
    """Leave the context when all processes do; if one of them raises, all raise."""
    try:
        yield
    except BaseException:
        gathered(np.int32(1))
        raise
    failed = np.flatnonzero(gathered(np.int32(0)))
    if failed.size:
        raise PeerError(f"{what}: process {failed[0]} failed, whose error says why")
