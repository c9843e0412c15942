"""Epochs of batches from data in memory."""

from typing import Any, NamedTuple

import jax

from jaxnn._core.layer import child_key
from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import take_batch
from jaxnn._training.data.shuffle import epoch_seeds
from jaxnn._training.members import BatchOfEach


class Epoch(NamedTuple):
    """How `n` examples make an epoch: `full` batches of `size`, then one of `left`, if not 0."""

    n: int
    size: int
    shuffle: bool

    @property
    def full(self) -> int:
        """The number of full batches."""
        return self.n // self.size

    @property
    def left(self) -> int:
        """The size of the last, smaller batch."""
        return self.n % self.size

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.full + (self.left > 0)

    def order(self, key: jax.Array, number: Any) -> jax.Array | None:
        """What fixes the order of the examples in epoch `number`; None for that of the data.

        With an array of keys, one for each member, each has its own order.
        """
        if not self.shuffle or self.size == self.n:
            return None

        def one(key: jax.Array) -> jax.Array:
            return epoch_seeds(child_key(key, "shuffle"), number)

        return jax.vmap(one)(key) if key.ndim else one(key)

    def batch(self, data: PyTree, order: jax.Array | None, first: Any, size: int) -> PyTree:
        """The batch of `size` examples from position `first` on, in this order."""
        if order is None or order.ndim == 1:
            return take_batch(data, self.n, first, size, order)

        def of_one(seeds: jax.Array) -> PyTree:
            return take_batch(data, self.n, first, size, seeds)

        return BatchOfEach(jax.vmap(of_one)(order))
