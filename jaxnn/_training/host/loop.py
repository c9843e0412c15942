"""The host's side of `fit`: how long a chunk of steps is, and who is told of it."""

import time

import numpy as np

from jaxnn._training.evaluation import reported
from jaxnn._training.host.feeds import Feed
from jaxnn._training.program import Run, last_params
from jaxnn._training.task import Task
from jaxnn.callbacks import Callback, Event

SECONDS_PER_CHUNK = 0.2


class Host:
    """Chunks of steps one after the other, and the calls of the callbacks between them."""

    def __init__(
        self,
        task: Task,
        feed: Feed,
        run: Run,
        epochs: int,
        hooks: list[Callback],
        progress: Callback | None,
    ) -> None:
        self.task, self.feed, self.run, self.epochs = task, feed, run, epochs
        self.hooks = hooks  # the user's
        self.callbacks = [*hooks, *([] if progress is None else [progress])]
        self.step = 0
        self.seconds_before = 0.0  # in the runs that this one continues
        self.stopped_by_callback = False
        self.whole_epochs = any(callback.on_epoch for callback in hooks)
        self._began = time.perf_counter()
        self._seconds_per_step = float("inf")

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return int(self.run.epoch)

    @property
    def stopped_by_itself(self) -> bool:
        """Whether nothing in the run trains any more."""
        return bool(np.all(np.asarray(self.run.carry.stopped)))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do."""
        return self.stopped_by_callback or self.stopped_by_itself or self.epoch >= self.epochs

    @property
    def reason(self) -> str:
        """Why training ended."""
        trouble = self.run.carry.trouble
        if self.stopped_by_itself:
            is_bad = trouble is not None and bool(np.all(np.asarray(trouble.step) >= 0))
            return "nonfinite" if is_bad else "early_stopping"
        if self.epoch >= self.epochs:
            return "epochs"
        return "callback" if self.stopped_by_callback else "interrupted"

    @property
    def seconds(self) -> float:
        """The time in training, compilation included."""
        return self.seconds_before + time.perf_counter() - self._began

    def advance(self) -> None:
        """Train for a chunk of steps, then call the callbacks.

        The first chunk is a single step, and so is the second if the first had to compile; then
        each has as many as fill the time of a chunk.
        """
        length = max(1, int(SECONDS_PER_CHUNK / self._seconds_per_step))
        epoch, asked = self.epoch, time.perf_counter()
        self.run, taken = self.feed.advance(self.run, length, self.whole_epochs)
        self.run.loss.block_until_ready()
        self.step += taken
        self._seconds_per_step = max(time.perf_counter() - asked, 1e-9) / max(taken, 1)
        if not self.callbacks:
            return
        event = self._event()
        for callback in self.callbacks:
            for function, due in (
                (callback.on_step_chunk, True),
                (callback.on_epoch, self.epoch > epoch),
            ):
                if function is not None and due and function(event):
                    self.stopped_by_callback = True

    def end(self) -> None:
        """Call the callbacks for the last time."""
        for callback in self.callbacks:
            if callback.on_end is not None:
                callback.on_end(self._event())

    def history(self) -> dict[str, np.ndarray]:
        """The rows of the finished epochs."""
        return {n: np.array(values)[: self.epoch] for n, values in self.run.history.items()}

    def _event(self) -> Event:
        finished, per_epoch = self.epoch, self.feed.steps_per_epoch
        metrics = {n: reported(np.asarray(v)[finished - 1]) for n, v in self.run.history.items()}
        params, state = last_params(self.task, self.run.carry)
        return Event(
            epoch=finished,
            epochs=self.epochs,
            step=self.step,
            steps=None if per_epoch is None else per_epoch * self.epochs,
            examples=self.feed.seen[0],
            seconds=self.seconds,
            metrics=metrics if finished else {},
            running_loss=float(self.run.loss),
            params=params,
            state=state,
        )
