"""How the steps of `fit` get their data: from the device's memory, or batch by batch."""

from contextlib import ExitStack
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.programs import compiled
from jaxnn._core.types import PyTree
from jaxnn._training import loop
from jaxnn._training.data.arrays import MOST_EXAMPLES
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.data.sources import Source
from jaxnn._training.loop import Position
from jaxnn._training.run import Run
from jaxnn.metrics._accumulators import merge

# This program runs once: optimising it would take three times longer than it saves.
ONCE = {"compiler_options": {"xla_backend_optimization_level": 1}}


class Feed(Protocol):
    """Takes the steps of a run.

    `seen` counts the examples so far, in all and in the current epoch, as a checkpoint keeps them.
    """

    steps_per_epoch: int | None
    seen: tuple[int, int]

    def start(self, params: PyTree, state: PyTree) -> Position:
        """The run before the first step."""
        ...

    def advance(self, position: Position, steps: int, within_epoch: bool) -> tuple[Position, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
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
    ) -> None:
        self.run, self.epochs, self.epoch = run, epochs, epoch
        self.key, self.order_key = keys
        self.data, self.validation = data, validation
        self.steps_per_epoch: int | None = epoch.steps
        self.seen = 0, 0

    def start(self, params: PyTree, state: PyTree) -> Position:
        """The run before the first step."""
        start = compiled(loop.start, self.run, self.epochs, self.epoch.n, **ONCE)
        position: Position = start(self.key, self.data, self.validation, params, state)
        return position

    def advance(self, position: Position, steps: int, within_epoch: bool) -> tuple[Position, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
        per_epoch = self.epoch.steps
        epoch = int(position.epoch)
        step = epoch * per_epoch + int(position.step)
        last = (epoch + 1 if within_epoch else self.epochs) * per_epoch
        advance = compiled(loop.advance, self.run, self.epoch, donate_argnums=0)
        stop = np.int32(min(step + steps, last))
        position = advance(position, self.order_key, self.data, self.validation, stop)
        epoch, in_epoch = int(position.epoch), int(position.step)
        seen = min(in_epoch * self.epoch.size, self.epoch.n)
        self.seen = epoch * self.epoch.n + seen, seen
        return position, epoch * per_epoch + in_epoch - step

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
    ) -> None:
        self.run, self.epochs, self.key = run, epochs, key
        self.source, self.validation = source, validation
        self.steps_per_epoch = source.steps
        self.seen = 0, 0
        self._held = ExitStack()
        self._batches: Any = None

    def start(self, params: PyTree, state: PyTree) -> Position:
        """The run before the first step."""
        validation = self.validation
        if isinstance(validation, Source):
            validation = _zeros(validation.example)
        start = compiled(loop.start, self.run, self.epochs, self.source.examples, **ONCE)
        example = _zeros(self.source.example)
        position: Position = start(self.key, example, validation, params, state)
        return position

    def advance(self, position: Position, steps: int, within_epoch: bool) -> tuple[Position, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
        take_step = compiled(loop.step, self.run, donate_argnums=0)
        epoch, in_epoch, taken = int(position.epoch), int(position.step), 0
        previous: Any = None
        while epoch < self.epochs and taken < steps:
            if self._batches is None:
                self._batches = self._held.enter_context(self.source.batches(epoch, in_epoch))
            batch = next(self._batches, None)
            if batch is None:
                self.close()
                position = self._finish(position)
                self.seen = self.seen[0], 0
                epoch, in_epoch = epoch + 1, 0
                if within_epoch or np.all(position.carry.stopped):
                    break
                continue
            position, done = take_step(position, batch, np.int32(min(self.seen[1], MOST_EXAMPLES)))
            jax.block_until_ready(previous)  # one step runs while the next is handed over
            previous, taken = done, taken + 1
            size = len(next(leaf for leaf in jax.tree.leaves(batch) if leaf.ndim))
            self.seen = self.seen[0] + size, self.seen[1] + size
        return position, taken

    def close(self) -> None:
        """Stop reading."""
        self._held.close()
        self._batches = None

    def _finish(self, position: Position) -> Position:
        finish = compiled(loop.finish_epoch, self.run, donate_argnums=0)
        if not isinstance(self.validation, Source):
            return finish(position, self.validation)  # type: ignore[no-any-return]
        measure = compiled(self.run.measure)
        with self.validation.batches(0) as batches:
            parts = (measure(position.carry, batch) for batch in batches)
            total = next(parts)
            for part in parts:
                total = (jax.vmap(merge) if position.carry.stopped.ndim else merge)(total, part)
        return finish(position, None, total)  # type: ignore[no-any-return]


def _zeros(example: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
