"""Logs in files: a table, and lines of JSON."""

import csv
import io
import json
import math
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn._core.arguments import checked
from jaxnn.callbacks._callbacks import Callback, Event, in_first_process


class _Log:
    """A file with a line for each epoch of a run.

    Attributes:
        size: the bytes of it that are of this run: what was written after the checkpoint that a
            run goes on from is written over.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path, self.size = Path(path), 0

    def add(self, text: Callable[[str], str]) -> None:
        """Write what `text` makes, for the first line that is there, "" if none is."""
        goes_on = self.size > 0 and self.path.exists() and self.path.stat().st_size >= self.size
        mode = "r+" if goes_on else "w"
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            first = file.readline() if goes_on else ""
            file.seek(self.size if goes_on else 0)
            file.write(text(first))
            file.truncate()
            self.size = file.tell()

    def restore(self, size: Any) -> None:
        """Go on as it was when it had so many bytes."""
        self.size = size


def _row(event: Event) -> dict[str, Any]:
    return {"epoch": event.epoch, "step": event.step, "seconds": round(event.seconds, 3)}


@checked
def csv_log(path: str | PathLike[str]) -> Callback:
    """Write a table with a row for each epoch: its number, steps, seconds and metrics.

    Metrics with several values are left out. A run that is resumed continues the table of its
    checkpoint, if that is there; one that begins replaces an older file.

    Args:
        path: the file; its directory must exist.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        OSError: in training, the file cannot be written.

    Example:
        >>> import tempfile, pathlib, jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 8)[:, None]
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = pathlib.Path(directory, "log.csv")
        ...     _ = nn.fit(nn.dense(1), (x, x), loss=nn.losses.squared_error, epochs=3,
        ...                optimizer=nn.optimizers.sgd(0.1), key=jax.random.key(0),
        ...                callbacks=[nn.callbacks.csv_log(file)])
        ...     lines = file.read_text().splitlines()
        >>> lines[0], len(lines)
        ('epoch,step,seconds,loss', 4)
    """
    log = _Log(path)

    def on_epoch(event: Event) -> None:
        values = {name: value for name, value in event.metrics.items() if isinstance(value, float)}
        row = _row(event) | values

        def text(header: str) -> str:
            lines = io.StringIO()
            writer = csv.DictWriter(lines, next(csv.reader([header])) if header else list(row))
            if not header:
                writer.writeheader()
            writer.writerow(row)
            return lines.getvalue()

        log.add(text)

    return Callback(on_epoch=in_first_process(on_epoch), save=lambda: log.size, restore=log.restore)


@checked
def json_log(path: str | PathLike[str]) -> Callback:
    """Write a line of JSON for each epoch: its number, steps, seconds and all metrics.

    Metrics with several values are lists, and numbers that are not finite null. A run that is
    resumed continues the file of its checkpoint, if that is there; one that begins replaces an
    older file. `pandas.read_json(path, lines=True)` reads it.

    Args:
        path: the file; its directory must exist.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        OSError: in training, the file cannot be written.

    Example:
        >>> import json, pathlib, tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 8)[:, None]
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = pathlib.Path(directory, "log.jsonl")
        ...     _ = nn.fit(nn.dense(1), (x, x), loss=nn.losses.squared_error, epochs=3,
        ...                optimizer=nn.optimizers.sgd(0.1), key=jax.random.key(0),
        ...                callbacks=[nn.callbacks.json_log(file)])
        ...     rows = [json.loads(line) for line in file.read_text().splitlines()]
        >>> [row["epoch"] for row in rows], sorted(rows[0])
        ([1, 2, 3], ['epoch', 'loss', 'seconds', 'step'])
    """
    log = _Log(path)

    def on_epoch(event: Event) -> None:
        metrics = {
            name: _plain(np.asarray(value).tolist()) for name, value in event.metrics.items()
        }
        line = json.dumps(_row(event) | metrics, allow_nan=False) + "\n"
        log.add(lambda first: line)

    return Callback(on_epoch=in_first_process(on_epoch), save=lambda: log.size, restore=log.restore)


def _plain(value: Any) -> Any:
    """Numbers in lists, with None where JSON has no number."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
