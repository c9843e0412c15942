"""Callbacks: what `nn.fit` calls on the host while it trains."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnn._arrays import PyTree

__all__ = ["Callback", "Event", "early_stopping"]


class Event(NamedTuple):
    """Where training stands.

    `epoch` counts finished epochs and `step` finished steps, of `epochs` and `steps` in all;
    `examples` counts the examples seen and `seconds` the time since training began, compilation
    included. `metrics` are those of the last finished epoch, `{}` before: floats, and arrays for
    those that have several values; `running_loss` is the mean loss of the current epoch so far.
    `params` and `state` are only valid during the call: their memory is reused by the next step;
    copy what is to be kept.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    examples: int
    seconds: float
    metrics: dict[str, Any]
    running_loss: float
    params: PyTree
    state: PyTree


class Callback(NamedTuple):
    """Functions that `nn.fit` calls with an `Event`; each may be None.

    `on_epoch` is called after each epoch and `on_step_chunk` after each chunk of steps, whose
    length `fit` chooses; training stops if either returns something true. `on_end` is called once,
    at the end. A plain function given as a callback is an `on_epoch`.

    Example:
        >>> import jaxnn as nn
        >>> callback = nn.callbacks.Callback(on_epoch=lambda event: event.metrics["loss"] < 0.01)
    """

    on_epoch: Callable[[Event], Any] | None = None
    on_step_chunk: Callable[[Event], Any] | None = None
    on_end: Callable[[Event], Any] | None = None


def early_stopping(
    monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, mode: str = "min"
) -> Callback:
    """Stop when a metric has not improved for `patience` epochs.

    Args:
        monitor: the metric's name in the history.
        patience: the number of epochs without improvement that are borne, at least 1.
        min_delta: what counts as an improvement, at least 0.
        mode: "min" if smaller is better, "max" if larger is.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        ValueError: an argument is out of range; in training, the history has no such metric.

    Example:
        >>> import jaxnn as nn
        >>> callback = nn.callbacks.early_stopping("val_accuracy", mode="max", patience=3)
    """
    if patience < 1:
        raise ValueError(f"early_stopping: patience is {patience}, expected at least 1")
    if min_delta < 0:
        raise ValueError(f"early_stopping: min_delta is {min_delta}, expected at least 0")
    if mode not in ("min", "max"):
        raise ValueError(f"early_stopping: mode is {mode!r}, expected 'min' or 'max'")
    sign = 1 if mode == "min" else -1
    best, waited = math.inf, 0

    def on_epoch(event: Event) -> bool:
        nonlocal best, waited
        if monitor not in event.metrics:
            raise ValueError(
                f"early_stopping: monitor is {monitor!r}, expected one of {sorted(event.metrics)}"
            )
        value = sign * event.metrics[monitor]
        if value < best - min_delta:
            best, waited = value, 0
        else:
            waited += 1
        return waited >= patience

    return Callback(on_epoch=on_epoch)
