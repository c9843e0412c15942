"""What a callback is."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

from jaxnn._core.types import PyTree


class Event(NamedTuple):
    """Where training stands.

    `epoch` counts finished epochs and `step` finished steps, of `epochs` and `steps` in all, which
    is None where the data do not tell their length; `examples` counts the examples seen and
    `seconds` the time in training, of which `seconds_compiling` were spent on tracing and
    compiling since `fit` was called. `metrics` are those of the last finished epoch, `{}` before:
    floats, and arrays for those that have several values; `running_loss` is the mean loss of the
    current epoch so far. `params` and `state` are only valid during the call: their memory is
    reused by the next step; copy what is to be kept. Each of the processes of a run calls the
    callbacks: `process` is its number, 0 if there is but one.
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
    process: int = 0


class Callback(NamedTuple):
    """Functions that `nn.fit` calls with an `Event`; each may be None.

    `on_epoch` is called after each epoch and `on_step_chunk` after each chunk of steps, whose
    length `fit` chooses, so that one ends after as many steps of the run as each number of
    `at_steps` says; training stops if either returns True. `on_end` is called once, at the end,
    also if training was interrupted or ends with an error. A plain function given as a callback is
    an `on_epoch`.

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
    at_steps: Collection[int] = ()


def in_first_process(function: Callable[[Event], None]) -> Callable[[Event], None]:
    """A function that does nothing in other processes than the first, for what is written once."""
    return lambda event: None if event.process else function(event)


CallbackLike: TypeAlias = Callback | Callable[[Event], Any]
"""A `Callback`, or a plain function of an `Event`, called after each epoch."""
