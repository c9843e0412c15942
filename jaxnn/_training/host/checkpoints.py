"""Checkpoints of `fit`: all that a run needs to go on, and the best so far."""

import json
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._files.saving import load, save, saved_metadata
from jaxnn._training.best import Best, EarlyStopping
from jaxnn._training.host.clock import Clock
from jaxnn._training.host.feeds import Feed
from jaxnn._training.loop import Position
from jaxnn.callbacks import Callback

SECONDS_BETWEEN = 60.0


def best_to_keep(has_validation: bool) -> EarlyStopping:
    """What is the best, where nobody said: the lowest loss; nothing stops for it."""
    return EarlyStopping("val_loss" if has_validation else "loss", None, 0.0, "min")


class Checkpoints:
    """The files of one run in a directory: `last.safetensors` and `best.safetensors`.

    `settings` are what must not differ between a run and its continuation, as JSON gives it back;
    of the callbacks, those with a `save` are remembered.
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        settings: dict[str, Any],
        callbacks: Sequence[Callback],
        resume: bool,
    ) -> None:
        self._last = Path(directory) / "last.safetensors"
        self._best = Path(directory) / "best.safetensors"
        self._settings = settings
        self._callbacks = [callback for callback in callbacks if callback.save is not None]
        self._best_epoch = np.asarray(-1)
        self.has_run = self._last.exists()
        if self.has_run and not resume:
            raise FileExistsError(
                f"fit: checkpoint has a run already, {self._last}; expected resume=True to go on "
                "with it, or another directory"
            )
        self._last.parent.mkdir(parents=True, exist_ok=True)
        self._saved = time.monotonic()

    def save_if_due(self, position: Position, clock: Clock, feed: Feed) -> None:
        """Save if the last time is long enough ago."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN:
            self.save(position, clock, feed)

    def save(self, position: Position, clock: Clock, feed: Feed) -> None:
        """Write where the run stands, and the best epoch if it is a new one."""
        best: Best = position.carry.kept["best"]
        epoch = np.asarray(best.epoch)
        if not np.array_equal(epoch, self._best_epoch) and np.all(epoch >= 0):
            save(self._best, {"params": best.params, "state": best.state})
        on_host = {
            "settings": self._settings,
            "rows": len(position.history["loss"]),
            "step": clock.step,
            "seconds": clock.seconds,
            "seen": feed.seen,
            "best_epoch": epoch.tolist(),
            "callbacks": [callback.save() for callback in self._callbacks if callback.save],
        }
        save(self._last, position, metadata={"fit": json.dumps(on_host)})
        self._best_epoch = epoch
        self._saved = time.monotonic()

    def restore(self, beginning: Position, clock: Clock, feed: Feed) -> Position:
        """Where the saved run stands; clock, feed and callbacks are set to where they were."""
        on_host = json.loads(saved_metadata(self._last).get("fit", "{}"))
        if not on_host:
            raise ValueError(f"fit: checkpoint {self._last} is not of fit, expected one that is")
        for name, ours in self._settings.items():
            if on_host["settings"][name] != ours:
                raise ValueError(
                    f"fit: checkpoint {self._last} is of a run with {name} "
                    f"{on_host['settings'][name]}, expected {ours}, as of this one"
                )
        saved = on_host["callbacks"]
        if len(saved) != len(self._callbacks):
            raise ValueError(
                f"fit: checkpoint {self._last} is of a run with {len(saved)} callbacks that "
                f"remember something, expected {len(self._callbacks)}, as of this one"
            )
        rows: dict[str, Any] = {
            name: jax.ShapeDtypeStruct((on_host["rows"], *values.shape[1:]), values.dtype)
            for name, values in beginning.history.items()
        }
        position = load(self._last, beginning._replace(history=rows))
        clock.step, clock.seconds_before = on_host["step"], on_host["seconds"]
        feed.seen = tuple(on_host["seen"])
        self._best_epoch = np.asarray(on_host["best_epoch"])
        for callback, value in zip(self._callbacks, saved, strict=True):
            if callback.restore is not None:
                callback.restore(value)
        history = {
            name: _with_rows(position.history[name], values, int(position.epoch))
            for name, values in beginning.history.items()
        }
        return position._replace(history=history)  # type: ignore[no-any-return]


def _with_rows(saved: jax.Array, empty: jax.Array, finished: int) -> jax.Array:
    """A history with room for as many rows as `empty`, but no less than are finished."""
    nothing = jnp.zeros((max(len(empty) - finished, 0), *empty.shape[1:]), empty.dtype)
    return jnp.concatenate([saved[:finished], nothing])
