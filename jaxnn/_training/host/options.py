"""When checkpoints are written, and which are kept."""

import os
from os import PathLike
from typing import Any, Literal, NamedTuple

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count
from jaxnn._training.best import EarlyStopping

SECONDS_BETWEEN = 60.0


class CheckpointOptions(NamedTuple):
    """What `checkpoints` returns."""

    directory: str | PathLike[str] | bytes
    every_steps: int | None
    every_epochs: int | None
    every_seconds: float | None
    keep: int
    keep_every: int | None
    best: EarlyStopping | None
    time_limit: float | None


@checked
def checkpoints(
    directory: str | PathLike[str] | bytes,
    *,
    every_steps: int | None = None,
    every_epochs: int | None = None,
    every_seconds: float | None = None,
    keep: int = 2,
    keep_every: int | None = None,
    best: str | None = None,
    mode: Literal["min", "max"] | None = None,
    time_limit: float | None = None,
) -> CheckpointOptions:
    """When `fit` writes checkpoints, and which of them it keeps, for its argument `checkpoint`.

    The newest is `last.safetensors`, older ones are `checkpoint-NUMBER.safetensors`, and the best
    epoch is `best.safetensors`. Besides the times below, one is written at the end of training,
    after Ctrl-C, SIGTERM and SIGHUP, and before an error is raised.

    Args:
        directory: where the files are; made if there is none. One run has it at a time.
        every_steps: the steps between two checkpoints.
        every_epochs: the epochs between two.
        every_seconds: the seconds between two, at least; a minute if no other number is given.
        keep: how many of the last to keep, at least 1.
        keep_every: every so many checkpoints, one is kept for good.
        best: the name in the history of the value that the best epoch is told by; None for that of
            early stopping, else the loss on the validation set, if there is one, else the loss.
        mode: "min" if less of it is better, "max" if more is; None asks the metric.
        time_limit: the seconds that training waits for a checkpoint to be written, before the next
            one and at its end, and then goes on without; None for no limit.

    Returns:
        The options.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a number is out of range.

    Example:
        >>> import pathlib, tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = nn.fit(nn.dense(1), (x, x), loss=nn.losses.squared_error, epochs=6,
        ...                optimizer=nn.optimizers.adam(0.1), key=jax.random.key(0),
        ...                checkpoint=nn.checkpoints(directory, every_epochs=2, keep=3))
        ...     sorted(file.stem for file in pathlib.Path(directory).glob("*.safetensors"))
        ['best', 'checkpoint-1', 'checkpoint-2', 'last']
    """
    if not os.fspath(directory):
        raise ValueError(f"checkpoints: directory is {directory!r}, expected its name")
    for name, value in (("every_steps", every_steps), ("every_epochs", every_epochs)):
        if value is not None:
            check_count("checkpoints", name, value)
    for name, seconds in (("every_seconds", every_seconds), ("time_limit", time_limit)):
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"checkpoints: {name} is {seconds}, expected at least 0")
    check_count("checkpoints", "keep", keep)
    if keep_every is not None:
        check_count("checkpoints", "keep_every", keep_every)
    if not isinstance(best, str | None):
        raise TypeError(f"checkpoints: best is {best!r}, expected the name of a metric")
    if mode not in ("min", "max", None):
        raise ValueError(f"checkpoints: mode is {mode!r}, expected 'min', 'max' or None")
    watched = None if best is None else EarlyStopping(best, None, 0.0, mode)
    return CheckpointOptions(
        directory, every_steps, every_epochs, every_seconds, keep, keep_every, watched, time_limit
    )


def as_options(checkpoint: Any) -> CheckpointOptions:
    """The options that the argument `checkpoint` of `fit` stands for."""
    if isinstance(checkpoint, CheckpointOptions):
        return checkpoint
    if not isinstance(checkpoint, str | bytes | PathLike):
        raise TypeError(
            f"fit: checkpoint is {checkpoint!r}, expected a directory or nn.checkpoints(...)"
        )
    if not os.fspath(checkpoint):
        raise ValueError(f"fit: checkpoint is {checkpoint!r}, expected the name of a directory")
    return checkpoints(checkpoint)


def best_to_keep(options: CheckpointOptions, early: EarlyStopping | None, validated: bool) -> Any:
    """What the best epoch is told by: nothing stops for it unless somebody asked for that."""
    if early is not None:
        if options.best is not None and options.best.metric != early.metric:
            raise ValueError(
                f"fit: checkpoint has best={options.best.metric!r} and early_stopping looks at "
                f"{early.metric!r}, expected the same"
            )
        return early
    return options.best or EarlyStopping("val_loss" if validated else "loss", None, 0.0, None)
