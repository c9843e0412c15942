"""Batches where they belong: on the device, or over those of a sharding, in step with others."""

from collections.abc import Callable, Iterator

import numpy as np

from jaxnn._core.processes import ALONE
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import batch_length
from jaxnn._training.data.prefetch import InterruptionError
from jaxnn._training.data.sources import Source


def own_rows(sharding: Sharding | None) -> Callable[[int], np.ndarray] | None:
    """Which rows of a batch to read where others read the rest; None for all."""
    return None if sharding is None or not sharding.group.has_others else sharding.own_rows


class Placed:
    """The batches of a source, of which several processes take the next one together.

    Args:
        what: what errors begin with.
        source: where the batches come from.
        batches: those of an epoch; of several processes, each has its part.
        sharding: where they go; None for where they are.
        first: the number in the epoch of the first example.
    """

    def __init__(
        self,
        what: str,
        source: Source,
        batches: Iterator[PyTree],
        sharding: Sharding | None,
        first: int = 0,
    ) -> None:
        self._what, self._source, self._batches = what, source, batches
        self._sharding, self._first = sharding, first
        self._group = ALONE if sharding is None else sharding.group

    def __iter__(self) -> Iterator[PyTree]:
        return self

    def __next__(self) -> PyTree:
        """The next batch; `InterruptionError` where one process need not wait for its own."""
        batch, is_interrupted = None, False
        with self._group.vote(self._what, 2) as vote:
            try:
                batch = next(self._batches, None)
            except InterruptionError:
                is_interrupted = True
            vote.own[:] = 0 if batch is None else batch_length(batch), is_interrupted
        lengths, interruptions = vote.all.T
        if interruptions.any():
            raise InterruptionError
        size = self._source.batch_size
        if size is None and (lengths != lengths[0]).any():
            raise ValueError(
                f"{self._what} has, from example {self._first} of an epoch on, batches of "
                f"{', '.join(map(str, lengths))} examples in the processes, where 0 stands for "
                "none, expected as many in each"
            )
        if batch is None:
            raise StopIteration
        if self._sharding is not None:
            if size is not None and self._source.examples is not None:
                size = min(size, self._source.examples - self._first)
            batch = self._sharding.put_batch(batch, size)
        self._first += batch_length(batch)
        return batch
