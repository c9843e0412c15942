"""How the steps of `fit` get their data: from the device's memory, or batch by batch."""

from contextlib import ExitStack
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arrays import PyTree
from jaxnn._training import engine, program
from jaxnn._training.data.sources import Source
from jaxnn._training.program import Run
from jaxnn._training.task import Task
from jaxnn.metrics._accumulators import merge


class Feed(Protocol):
    """Takes the steps of a run.

    `seen` counts the examples so far, in all and in the current epoch, as a checkpoint keeps them.
    """

    steps_per_epoch: int | None
    seen: tuple[int, int]

    def start(self, key: jax.Array, params: PyTree, state: PyTree) -> Run:
        """The run before the first step."""
        ...

    def advance(self, run: Run, steps: int, within_epoch: bool) -> tuple[Run, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class Resident:
    """Data on the device: one program takes many steps."""

    def __init__(
        self,
        task: Task,
        epochs: int,
        epoch: engine.Epoch,
        key: jax.Array,
        data: PyTree,
        validation: PyTree,
    ) -> None:
        self.task, self.epochs, self.epoch, self.key = task, epochs, epoch, key
        self.data, self.validation = data, validation
        self.steps_per_epoch: int | None = epoch.steps
        self.seen = 0, 0

    def start(self, key: jax.Array, params: PyTree, state: PyTree) -> Run:
        """The run before the first step."""
        run: Run = program.start(
            *(self.task, self.epochs, self.epoch.n, key, self.data, self.validation, params, state)
        )
        return run

    def advance(self, run: Run, steps: int, within_epoch: bool) -> tuple[Run, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
        per_epoch = self.epoch.steps
        epoch = int(run.epoch)
        step = epoch * per_epoch + int(run.position)
        last = (epoch + 1 if within_epoch else self.epochs) * per_epoch
        run = program.run_until(
            *(self.task, self.epoch, run, self.key, self.data, self.validation),
            np.int32(min(step + steps, last)),
        )
        epoch, position = int(run.epoch), int(run.position)
        in_epoch = min(position * self.epoch.size, self.epoch.n)
        self.seen = epoch * self.epoch.n + in_epoch, in_epoch
        return run, epoch * per_epoch + position - step

    def close(self) -> None:
        """Nothing is held."""


class Streamed:
    """Data that come batch by batch: a step each, while the next ones are being read."""

    def __init__(
        self, task: Task, epochs: int, source: Source, validation: PyTree | Source
    ) -> None:
        self.task, self.epochs, self.source, self.validation = task, epochs, source, validation
        self.steps_per_epoch = source.steps
        self.seen = 0, 0
        self._held = ExitStack()
        self._batches: Any = None

    def start(self, key: jax.Array, params: PyTree, state: PyTree) -> Run:
        """The run before the first step."""
        validation = self.validation
        if isinstance(validation, Source):
            validation = _zeros(validation.example)
        example, rows = _zeros(self.source.example), self.source.examples
        run: Run = program.start(
            self.task, self.epochs, rows, key, example, validation, params, state
        )
        return run

    def advance(self, run: Run, steps: int, within_epoch: bool) -> tuple[Run, int]:
        """Take so many steps, or as many as are left of the run or the epoch; and how many."""
        epoch, position, taken = int(run.epoch), int(run.position), 0
        previous: Any = None
        while epoch < self.epochs and taken < steps:
            if self._batches is None:
                self._batches = self._held.enter_context(self.source.batches(epoch, position))
            batch = next(self._batches, None)
            if batch is None:
                self.close()
                run = self._finish(run)
                self.seen = self.seen[0], 0
                epoch, position = epoch + 1, 0
                if within_epoch or np.all(run.carry.stopped):
                    break
                continue
            run, done = program.step(self.task, run, batch, np.int32(self.seen[1]))
            jax.block_until_ready(previous)  # one step runs while the next is handed over
            previous, taken = done, taken + 1
            size = len(next(leaf for leaf in jax.tree.leaves(batch) if leaf.ndim))
            self.seen = self.seen[0] + size, self.seen[1] + size
        return run, taken

    def close(self) -> None:
        """Stop reading."""
        self._held.close()
        self._batches = None

    def _finish(self, run: Run) -> Run:
        if not isinstance(self.validation, Source):
            after: Run = program.finish_epoch(self.task, run, self.validation)
            return after
        with self.validation.batches(0) as batches:
            parts = (program.measure(self.task, run.carry.train, batch) for batch in batches)
            total = next(parts)
            for part in parts:
                total = self.task.beside(merge, 0, 0)(total, part)
        after = program.finish_epoch(self.task, run, None, total)
        return after


def _zeros(example: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
