"""What processes that work together tell each other, by a gathering of a few numbers."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np


class PeerError(RuntimeError):
    """Another process failed, at a point where all wait for each other."""


class Vote:
    """What a process says, `own`, and after the context of `vote` what all do, `all`."""

    def __init__(self, count: int) -> None:
        self.own = np.zeros(count, np.int32)
        self.all = self.own[None]


class Group(NamedTuple):
    """The processes of a run: this one alone, or all that there are.

    All of them must ask for the same things in the same order.
    """

    has_others: bool

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return not self.has_others or jax.process_index() == 0

    def gathered(self, values: Any) -> np.ndarray:
        """The values of all processes, in their order along axis 0; 32 bits of each are sent."""
        if not self.has_others or jax.process_count() == 1:
            return np.asarray(values)[None]
        from jax.experimental import multihost_utils  # which few runs need

        return np.asarray(multihost_utils.process_allgather(np.asarray(values)))

    def of_first(self, values: Any) -> np.ndarray:
        """The values of the first process."""
        first: np.ndarray = self.gathered(values)[0]
        return first

    def mark(self) -> str:
        """32 hexadecimal digits that nobody had before, the same in each process."""
        return self.of_first(np.frombuffer(secrets.token_bytes(16), np.uint8)).tobytes().hex()

    def texts(self, text: str) -> list[str]:
        """The texts of all processes."""
        data = np.frombuffer(text.encode(), np.uint8)
        lengths = self.gathered(np.int32(data.size))
        padded = np.zeros(max(lengths), np.uint8)
        padded[: data.size] = data
        rows = zip(self.gathered(padded), lengths, strict=True)
        return [row[:length].tobytes().decode() for row, length in rows]

    @contextmanager
    def vote(self, what: str, count: int = 0) -> Iterator[Vote]:
        """A context that all processes leave together, having told each other `count` numbers.

        If one of them raises, all raise.
        """
        vote = Vote(count)
        try:
            yield vote
        except BaseException:
            self.gathered(np.append(np.int32(1), np.zeros(count, np.int32)))
            raise
        gathered = self.gathered(np.append(np.int32(0), vote.own))
        failed = np.flatnonzero(gathered[:, 0])
        if failed.size:
            raise PeerError(f"{what}: process {failed[0]} failed, whose error says why")
        vote.all = gathered[:, 1:]


ALONE, ALL = Group(False), Group(True)
