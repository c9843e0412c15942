"""What a callback is, and logs."""

import csv
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from jaxnn._core.arguments import checked
from jaxnn._core.types import PyTree


class Event(NamedTuple):
    """Where training stands.

    `epoch` counts finished epochs and `step` finished steps, of `epochs` and `steps` in all, which
    is None where the data do not tell their length; `examples` counts the examples seen and
    `seconds` the time in training, of which `seconds_compiling` were spent on tracing and
    compiling since `fit` was called. `metrics` are those of the last finished epoch, `{}` before:
    floats, and arrays for those that have several values; `running_loss` is the mean loss of the
    current epoch so far. `params` and `state` are only valid during the call: their memory is
    reused by the next step; copy what is to be kept.
    """

    epoch: int
    epochs: int
    step: int
    steps: int | None
    examples: int
    seconds: float
    seconds_compiling: float
    metrics: dict[str, Any]
    running_loss: float
    params: PyTree
    state: PyTree


class Callback(NamedTuple):
    """Functions that `nn.fit` calls with an `Event`; each may be None.

    `on_epoch` is called after each epoch and `on_step_chunk` after each chunk of steps, whose
    length `fit` chooses; training stops if either returns True. `on_end` is called once, at the
    end, also if training was interrupted or ends with an error. A plain function given as a
    callback is an `on_epoch`.

    A callback that remembers something gives it to checkpoints by `save() -> value`, anything that
    JSON can hold, and gets it back by `restore(value)` before a run is resumed: it is known by the
    qualified name of `save`.

    Example:
        >>> import jaxnn as nn
        >>> callback = nn.callbacks.Callback(on_epoch=lambda event: event.metrics["loss"] < 0.01)
    """

    on_epoch: Callable[[Event], Any] | None = None
    on_step_chunk: Callable[[Event], Any] | None = None
    on_end: Callable[[Event], Any] | None = None
    save: Callable[[], Any] | None = None
    restore: Callable[[Any], None] | None = None


CallbackLike: TypeAlias = Callback | Callable[[Event], Any]
"""A `Callback`, or a plain function of an `Event`, called after each epoch."""


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
    size = 0  # of the file, as far as it is of this run

    def on_epoch(event: Event) -> None:
        nonlocal size
        values = {name: value for name, value in event.metrics.items() if isinstance(value, float)}
        seconds = round(event.seconds, 3)
        row = {"epoch": event.epoch, "step": event.step, "seconds": seconds, **values}
        goes_on = size > 0 and Path(path).exists() and Path(path).stat().st_size >= size
        with Path(path).open("r+" if goes_on else "w", newline="") as file:
            names = next(csv.reader(file)) if goes_on else list(row)
            writer = csv.DictWriter(file, names)
            if goes_on:
                file.seek(size)
            else:
                writer.writeheader()
            writer.writerow(row)
            file.truncate()
            size = file.tell()

    def restore(saved: Any) -> None:
        nonlocal size
        size = saved

    return Callback(on_epoch=on_epoch, save=lambda: size, restore=restore)


@checked
def tensorboard_log(directory: str | PathLike[str]) -> Callback:
    """Write the metrics of each epoch, and the loss between, for TensorBoard.

    Needs tensorboardX, which the extra `tensorboard` brings: `pip install tensorboardX`. The
    metrics are drawn over steps. A run that is resumed writes over what came after its checkpoint.

    Args:
        directory: where the event files go, one directory for each run.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        ImportError: the package tensorboardX is not installed.

    Example:
        >>> import jaxnn as nn
        >>> callback = nn.callbacks.tensorboard_log("runs/first")  # doctest: +SKIP
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "tensorboard_log needs tensorboardX (in the extra `tensorboard`): "
            "pip install tensorboardX"
        ) from error
    writer: Any = None
    last_step: int | None = None

    def opened() -> Any:
        nonlocal writer
        if writer is None:
            purge = None if last_step is None else last_step + 1
            writer = SummaryWriter(str(directory), purge_step=purge)
        return writer

    def on_step_chunk(event: Event) -> None:
        nonlocal last_step
        opened().add_scalar("running_loss", event.running_loss, event.step)
        last_step = event.step

    def on_epoch(event: Event) -> None:
        for name, value in event.metrics.items():
            if isinstance(value, float):
                opened().add_scalar(name, value, event.step)

    def on_end(event: Event) -> None:
        opened().close()

    def restore(saved: Any) -> None:
        nonlocal last_step
        last_step = saved

    return Callback(on_epoch, on_step_chunk, on_end, save=lambda: last_step, restore=restore)
