"""How the steps of `fit` get their data: from the device's memory, or batch by batch."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.programs import compiled
from jaxnn._core.types import PyTree
from jaxnn._training import loop
from jaxnn._training.data.arrays import MOST_EXAMPLES, batch_length
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.data.sources import Source
from jaxnn._training.loop import Position
from jaxnn._training.run import Run
from jaxnn.metrics._accumulators import merge

# This program runs once: optimising it would take three times longer than it saves.
ONCE = {"compiler_options": {"xla_backend_optimization_level": 1}}


Find = Callable[[str, PyTree, PyTree, PyTree], None]


class Feed(Protocol):
    """Takes the steps of a run.

    `seen` counts the examples so far, in all and in the current epoch, as a checkpoint keeps them.
    `find_outside` looks through a batch whose loss is NaN.
    """

    steps_per_epoch: int | None
    seen: tuple[int, int]
    find_outside: Find | None

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
        find_outside: Find | None,
    ) -> None:
        self.run, self.epochs, self.epoch = run, epochs, epoch
        self.find_outside = find_outside
        self.key, self.order_key = keys
        self.data, self.validation = data, validation
        self.steps_per_epoch: int | None = epoch.steps
        self.seen = 0, 0
        self._advance = compiled(loop.advance, run, epoch, donate_argnums=0)

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
        stop = np.int32(min(step + steps, last))
        position = self._advance(position, self.order_key, self.data, self.validation, stop)
        epoch, in_epoch = int(position.epoch), int(position.step)
        seen = min(in_epoch * self.epoch.size, self.epoch.n)
        self.seen = epoch * self.epoch.n + seen, seen
        if self.find_outside is not None and np.isnan(position.loss):
            self._look_through(position)
        return position, epoch * per_epoch + in_epoch - step

    def _look_through(self, position: Position) -> None:
        assert self.find_outside is not None
        find, self.find_outside = self.find_outside, None  # once is enough
        params, state = compiled(self.run.last)(position.carry)
        for first in range(0, self.epoch.n, self.epoch.size):
            rows = slice(first, first + self.epoch.size)
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], self.data)
            find(f"fit: data, from example {first} on,", params, state, batch)

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
    ) -> None:
        self.run, self.epochs, self.key = run, epochs, key
        self.find_outside = find_outside
        self.source, self.validation = source, validation
        self.steps_per_epoch = source.steps
        self.seen = 0, 0
        self._held = ExitStack()
        self._batches: Any = None
        self._take_step = compiled(loop.step, run, donate_argnums=0)

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
            first = np.int32(min(self.seen[1], MOST_EXAMPLES))
            position, loss = self._take_step(position, batch, first)
            if previous is not None:  # one step runs while the next is handed over
                self._check(previous[0], previous[1], position)
            previous, taken = (batch, loss), taken + 1
            size = batch_length(batch)
            self.seen = self.seen[0] + size, self.seen[1] + size
        if previous is not None:
            self._check(previous[0], previous[1], position)
        return position, taken

    def _check(self, batch: PyTree, loss: jax.Array, position: Position) -> None:
        """Wait for a step, and look through its batch if its loss is NaN."""
        if np.isnan(loss) and self.find_outside is not None:
            find, self.find_outside = self.find_outside, None
            params, state = compiled(self.run.last)(position.carry)
            find("fit: a batch of data", params, state, batch)

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
