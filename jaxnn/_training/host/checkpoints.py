"""Checkpoints of `fit`: all that a run needs to go on, and the best so far."""

import json
import time
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._files.saving import load, save, saved_metadata
from jaxnn._training.best import EarlyStopping
from jaxnn._training.host.loop import Host

SECONDS_BETWEEN = 60.0


def best_to_keep(has_validation: bool) -> EarlyStopping:
    """What is the best, where nobody said: the lowest loss; nothing stops for it."""
    return EarlyStopping("val_loss" if has_validation else "loss", None, 0.0, "min")


class Checkpoints:
    """The files of one run in a directory: `last.safetensors` and `best.safetensors`.

    Made for a run that has not begun; if there is a checkpoint, the run is moved to where that
    stands.
    """

    def __init__(
        self, directory: str | PathLike[str], host: Host, key: jax.Array, resume: bool
    ) -> None:
        self._host = host
        self._last = Path(directory) / "last.safetensors"
        self._best = Path(directory) / "best.safetensors"
        self._settings = _settings(host, key)
        self._best_epoch = np.asarray(-1)
        if not self._last.exists():
            self._last.parent.mkdir(parents=True, exist_ok=True)
        elif resume:
            self._restore()
        else:
            raise FileExistsError(
                f"fit: checkpoint has a run already, {self._last}; expected resume=True to go on "
                "with it, or another directory"
            )
        self._saved = time.monotonic()

    def save_if_due(self) -> None:
        """Save if the last time is long enough ago."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN:
            self.save()

    def save(self) -> None:
        """Write where the run stands, and the best epoch if it is a new one."""
        host, best = self._host, self._host.run.carry.best
        assert best is not None
        epoch = np.asarray(best.epoch)
        if not np.array_equal(epoch, self._best_epoch) and np.all(epoch >= 0):
            save(self._best, {"params": best.params, "state": best.state})
        told = {
            "settings": self._settings,
            "rows": host.epochs,
            "step": host.step,
            "seconds": host.seconds,
            "seen": host.feed.seen,
            "best_epoch": epoch.tolist(),
            "callbacks": [hook.save() for hook in host.hooks if hook.save is not None],
        }
        save(self._last, host.run, metadata={"fit": json.dumps(told)})
        self._best_epoch = epoch
        self._saved = time.monotonic()

    def _restore(self) -> None:
        host = self._host
        told = json.loads(saved_metadata(self._last).get("fit", "{}"))
        if not told:
            raise ValueError(f"fit: checkpoint {self._last} is not of fit, expected one that is")
        for name, ours in self._settings.items():
            if told["settings"][name] != ours:
                raise ValueError(
                    f"fit: checkpoint {self._last} is of a run with {name} "
                    f"{told['settings'][name]}, expected {ours}, as of this one"
                )
        saved = told["callbacks"]
        hooks = [hook for hook in host.hooks if hook.save is not None]
        if len(saved) != len(hooks):
            raise ValueError(
                f"fit: checkpoint {self._last} is of a run with {len(saved)} callbacks that "
                f"remember something, expected {len(hooks)}, as of this one"
            )
        rows: dict[str, Any] = {
            name: jax.ShapeDtypeStruct((told["rows"], *values.shape[1:]), values.dtype)
            for name, values in host.run.history.items()
        }
        run = load(self._last, host.run._replace(history=rows))
        history = {
            name: _with_rows(run.history[name], values, int(run.epoch))
            for name, values in host.run.history.items()
        }
        host.run = run._replace(history=history)
        host.step, host.seconds_before = told["step"], told["seconds"]
        host.feed.seen = tuple(told["seen"])
        self._best_epoch = np.asarray(told["best_epoch"])
        for hook, value in zip(hooks, saved, strict=True):
            if hook.restore is not None:
                hook.restore(value)


def _settings(host: Host, key: jax.Array) -> dict[str, Any]:
    """What must not differ between a run and its continuation, as JSON gives it back."""
    task = host.task
    return {
        "batch_size": task.batch_size,
        "shuffle": task.shuffle,
        "members": task.members,
        "steps in an epoch": host.feed.steps_per_epoch,
        "the key": np.asarray(jax.random.key_data(key)).tolist(),
    }


def _with_rows(saved: jax.Array, empty: jax.Array, finished: int) -> jax.Array:
    """A history with room for as many rows as `empty`, but no less than are finished."""
    nothing = jnp.full((max(len(empty) - finished, 0), *empty.shape[1:]), jnp.nan, empty.dtype)
    return jnp.concatenate([saved[:finished], nothing])
