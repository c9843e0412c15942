"""How the steps of `fit` get their data: from the device's memory, or batch by batch."""

from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import PyTree
from jaxnn._training import loop
from jaxnn._training.data.arrays import MOST_EXAMPLES, batch_length
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.data.placed import Placed
from jaxnn._training.data.prefetch import InterruptionError
from jaxnn._training.data.sources import Source
from jaxnn._training.loop import Position
from jaxnn._training.outside import Find, look_through, sums_of_each
from jaxnn._training.run import Run
from jaxnn.metrics._accumulators import merge

# This program runs once: optimising it would take three times longer than it saves.
ONCE = {"compiler_options": {"xla_backend_optimization_level": 1}}


class At(NamedTuple):
    """Where a run stands, what has gone into it so far, and so all that a checkpoint has of it.

    `step` counts the steps, and `seen` the examples, in all and in the current epoch. `data` is the
    state of the iterator that batches come from, if it has one. It is one value, so that nothing
    can come between its parts.
    """

    position: Position
    step: int
    seen: tuple[int, int]
    data: Any = None


class Feed(Protocol):
    """Takes the steps of a run, and has where that stands.

    `find_outside` looks through data whose loss is NaN.
    """

    at: At
    steps_per_epoch: int | None
    find_outside: Find | None

    @property
    def is_whole(self) -> bool:
        """Whether no step was cut off that was given the memory of the arrays."""
        ...

    def start(self, params: PyTree, state: PyTree, hyperparams: PyTree) -> None:
        """Put the run before its first step."""
        ...

    def advance(self, steps: int, within_epoch: bool) -> None:
        """Take so many steps, or as many as are left of the run or the epoch."""
        ...

    def interrupt(self) -> None:
        """Wait no longer for a batch; what was learned before stands."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class InMemory:
    """Data on the device: one program takes many steps."""

    def __init__(
        self,
        run: Run,
        epochs: int,
        epoch: Epoch,
        keys: tuple[jax.Array, jax.Array],
        data: PyTree,
        validation: PyTree,
        find_outside: Find | None,
    ) -> None:
        self.run, self.epochs, self.epoch = run, epochs, epoch
        self.find_outside = find_outside
        self.key, self.order_key = keys
        self.data, self.validation = data, validation
        self.steps_per_epoch: int | None = epoch.steps
        self._advance = compiled(loop.advance, run, epoch, donate_argnums=0)

    def start(self, params: PyTree, state: PyTree, hyperparams: PyTree) -> None:
        """Put the run before its first step."""
        start = compiled(loop.start, self.run, loop.history_rows(self.epochs), self.epoch.n, **ONCE)
        self.position: Position = start(
            self.key, self.data, self.validation, params, state, hyperparams
        )

    @property
    def is_whole(self) -> bool:
        """Whether no step was cut off that was given the memory of the arrays."""
        return _is_whole(self.position)

    @property
    def at(self) -> At:
        """Where the run stands, which the position itself tells."""
        epoch, in_epoch = int(self.position.epoch), int(self.position.step)
        seen = min(in_epoch * self.epoch.size, self.epoch.n)
        steps = epoch * self.epoch.steps + in_epoch
        return At(self.position, steps, (epoch * self.epoch.n + seen, seen))

    @at.setter
    def at(self, at: At) -> None:
        self.position = at.position

    def advance(self, steps: int, within_epoch: bool) -> None:
        """Take so many steps, or as many as are left of the run or the epoch."""
        per_epoch = self.epoch.steps
        epoch = int(self.position.epoch)
        step = epoch * per_epoch + int(self.position.step)
        last = (epoch + 1 if within_epoch else self.epochs) * per_epoch
        stop = np.int32(min(step + steps, last))
        self.position = self._advance(
            self.position, self.order_key, self.data, self.validation, stop
        )
        if self.find_outside is not None and (
            np.isnan(self.position.loss) or _validation_is_nan(self.position)
        ):
            find, self.find_outside = self.find_outside, None  # once is enough
            params, state = compiled(self.run.last)(self.position.carry)
            for name, data in (("data", self.data), ("validation", self.validation)):
                if data is not None:
                    look_through(find, f"fit: {name}", params, state, data, self.epoch.size)

    def interrupt(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is read."""


class Streamed:
    """Data that come batch by batch: a step each, while the next ones are being read."""

    def __init__(
        self,
        run: Run,
        epochs: int,
        key: jax.Array,
        source: Source,
        validation: PyTree | Source,
        find_outside: Find | None,
        sharding: Sharding | None,
    ) -> None:
        self.run, self.epochs, self.key = run, epochs, key
        self.find_outside = find_outside
        self._sharding = sharding
        self.source, self.validation = source, validation
        self.steps_per_epoch = source.steps
        self._held = ExitStack()
        self._batches: Any = None
        self._take_step = compiled(loop.step, run, donate_argnums=0)

    @property
    def is_whole(self) -> bool:
        """Whether no step was cut off that was given the memory of the arrays."""
        return _is_whole(self.at.position)

    def start(self, params: PyTree, state: PyTree, hyperparams: PyTree) -> None:
        """Put the run before its first step."""
        validation = self.validation
        if isinstance(validation, Source):
            validation = _zeros(validation.example)
        rows = loop.history_rows(self.epochs)
        start = compiled(loop.start, self.run, rows, self.source.examples, **ONCE)
        example = _zeros(self.source.example)
        position = start(self.key, example, validation, params, state, hyperparams)
        self.at = At(position, 0, (0, 0))

    def advance(self, steps: int, within_epoch: bool) -> None:
        """Take so many steps, or as many as are left of the run or the epoch."""
        epoch, in_epoch = int(self.at.position.epoch), int(self.at.position.step)
        last = self.at.step + steps
        previous: Any = None
        sizes: list[int] = []  # of the batches of this epoch and call
        while epoch < self.epochs and self.at.step < last:
            if self._batches is None:
                batches = self.source.batches(epoch, in_epoch, self.at.data)
                self._batches = Placed(
                    "fit: data",
                    self.source,
                    self._held.enter_context(batches),
                    self._sharding,
                    self.at.seen[1],
                )
            first = min(self.at.seen[1], MOST_EXAMPLES)
            try:
                batch = next(self._batches, None)
                if batch is None:
                    self.close()
                    self._finish()
            except InterruptionError:
                break
            if batch is None:
                epoch, in_epoch, sizes = epoch + 1, 0, []
                if within_epoch or np.all(self.at.position.carry.stopped):
                    break
                continue
            size = batch_length(batch)
            seen = self.at.seen[0] + size, self.at.seen[1] + size
            state = self.source.state()
            position, loss = self._take_step(self.at.position, batch, np.int32(first))
            self.at = At(position, self.at.step + 1, seen, state)
            if previous is not None:  # one step runs while the next is handed over
                self._check(*previous)
            previous, in_epoch = (batch, loss), in_epoch + 1
            sizes.append(size)
        if previous is not None:
            self._check(*previous)
        self._forget(sizes[len(sizes) - in_epoch + int(self.at.position.step) :])

    def _forget(self, sizes: list[int]) -> None:
        """Count batches no more that came when the run was at its end."""
        if sizes:
            position, step, (seen, in_epoch), _ = self.at
            self.at = At(position, step - len(sizes), (seen - sum(sizes), in_epoch - sum(sizes)))

    def _check(self, batch: PyTree, loss: jax.Array) -> None:
        """Wait for a step, and look through its batch if its loss is NaN."""
        if np.isnan(loss):
            self._look("fit: a batch of data", batch)

    def _look(self, where: str, batch: PyTree) -> None:
        """Look for what is outside, the first time that something is NaN."""
        if self.find_outside is not None:
            find, self.find_outside = self.find_outside, None
            params, state = compiled(self.run.last)(self.at.position.carry)
            find(where, params, state, batch)

    def interrupt(self) -> None:
        """Wait no longer for a batch; what was learned before stands."""
        for source in (self.source, self.validation):
            if isinstance(source, Source):
                source.interrupt()

    def close(self) -> None:
        """Stop reading."""
        self._held.close()
        self._batches = None

    def _finish(self) -> None:
        """End the epoch."""
        finish, at = compiled(loop.finish_epoch, self.run, donate_argnums=0), self.at
        after = at.step, (at.seen[0], 0)
        if not isinstance(self.validation, Source):
            self.at = At(finish(at.position, self.validation), *after)
            if self.validation is not None and _validation_is_nan(self.at.position):
                self._look("fit: validation", self.validation)
            return
        measure, carry = compiled(self.run.measure), at.position.carry
        with self.validation.batches(0) as batches:
            look = partial(self._look, "fit: a batch of validation")
            placed = Placed("fit: validation", self.validation, batches, self._sharding)
            parts = sums_of_each(partial(measure, carry), placed, look)
            total = next(parts)
            for part in parts:
                total = (jax.vmap(merge) if carry.stopped.ndim else merge)(total, part)
        self.at = At(finish(at.position, None, total), *after)


def _is_whole(position: Position) -> bool:
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(position))


def _validation_is_nan(position: Position) -> bool:
    """Whether the loss over the validation set was NaN after the last epoch."""
    losses = position.history.get("val_loss")
    last = int(position.epoch) - 1
    return losses is not None and last >= 0 and bool(np.isnan(np.asarray(losses)[last]).any())


def _zeros(example: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), example)
