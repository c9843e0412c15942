"""The host's side of `fit`: how long a chunk of steps is, and who is told of it."""

import time
from typing import Any

import jax
import numpy as np

from jaxnn.callbacks import Callback, Event
from jaxnn.optimizers.averaging import evaluation_params
from jaxnn.training import engine
from jaxnn.training.evaluation import reported

SECONDS_PER_CHUNK = 0.2


class Host:
    """The host's side of a run: the length of the chunks and the calls of the callbacks."""

    def __init__(self, epoch: engine.Epoch, epochs: int, callbacks: list[Callback]) -> None:
        self.epoch, self.epochs, self.callbacks = epoch, epochs, callbacks
        self.began = time.perf_counter()
        self.step, self.steps = 0, epoch.steps * epochs
        self.stopped = False
        self.whole_epochs = any(callback.on_epoch for callback in callbacks)
        self._chunks: list[tuple[int, float]] = []
        self._asked = time.perf_counter()

    def next_target(self) -> np.int32:
        """The step to run to: as many steps as fill the time of a chunk.

        The first two chunks are single steps, one to compile and one to measure.
        """
        self._asked = time.perf_counter()
        length = 1
        if len(self._chunks) > 1:
            steps, seconds = self._chunks[-1]
            length = max(1, int(steps * SECONDS_PER_CHUNK / max(seconds, 1e-9)))
        target = min(self.step + length, self.steps)
        if self.whole_epochs:
            target = min(target, (self.step // self.epoch.steps + 1) * self.epoch.steps)
        return np.int32(target)

    def advance(
        self, target: np.int32, carry: engine.Carry, history: Any, running_loss: jax.Array
    ) -> None:
        """Wait for the chunk, then call the callbacks."""
        jax.block_until_ready(running_loss)
        self._chunks = [*self._chunks[-1:], (int(target) - self.step, self._since_asked())]
        self.step = int(target)
        if not self.callbacks:
            return
        event = self._event(carry, history, float(running_loss))
        at_epoch_end = self.step % self.epoch.steps == 0
        for callback in self.callbacks:
            for function, due in (
                (callback.on_step_chunk, True),
                (callback.on_epoch, at_epoch_end),
            ):
                if function is not None and due and function(event):
                    self.stopped = True

    def end(self, carry: engine.Carry, history: Any) -> None:
        """Call the callbacks for the last time."""
        for callback in self.callbacks:
            if callback.on_end is not None:
                last = self.step // self.epoch.steps - 1
                loss = float(np.asarray(history["loss"])[last]) if last >= 0 else float("nan")
                callback.on_end(self._event(carry, history, loss))

    def _since_asked(self) -> float:
        return time.perf_counter() - self._asked

    def _event(self, carry: engine.Carry, history: Any, running_loss: float) -> Event:
        finished, position = divmod(self.step, self.epoch.steps)
        metrics = {name: reported(np.asarray(v)[finished - 1]) for name, v in history.items()}
        return Event(
            epoch=finished,
            epochs=self.epochs,
            step=self.step,
            steps=self.steps,
            examples=finished * self.epoch.n + position * self.epoch.size,
            seconds=time.perf_counter() - self.began,
            metrics=metrics if finished else {},
            running_loss=running_loss,
            params=evaluation_params(carry.train.opt_state, carry.train.params),
            state=carry.train.state,
        )
