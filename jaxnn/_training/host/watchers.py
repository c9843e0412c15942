"""The callbacks of a run: which are called, and when."""

import bisect
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxnn._core.arguments import value_text
from jaxnn._core.processes import Group
from jaxnn.callbacks import Callback, Event


class Watchers:
    """The user's callbacks in each process, and the progress bar of the first behind them."""

    def __init__(self, callbacks: Sequence[Any], progress: Callback | None, group: Group) -> None:
        if isinstance(callbacks, str | Callback) or not isinstance(callbacks, Sequence):
            raise TypeError(
                f"fit: callbacks is {value_text(callbacks)}, expected a sequence, such as "
                f"[{value_text(callbacks)}]"
            )
        self.of_user = [_as_callback(callback) for callback in callbacks]
        self._all = [*self.of_user, _shown_by_first(progress, group)]
        self._has_some = any(any(callback[:3]) for callback in self._all)
        self._at_steps = sorted({step for callback in self._all for step in callback.at_steps})

    @property
    def want_epochs(self) -> bool:
        """Whether a chunk must not go beyond an epoch."""
        return any(callback.on_epoch for callback in self._all)

    def most_steps(self, step: int, chunk: int) -> int:
        """The chunk of steps, or what is left of it until one that a callback wants to see."""
        coming = bisect.bisect_right(self._at_steps, step)
        left = [at - step for at in self._at_steps[coming : coming + 1]]
        return min([chunk, *left])

    def after_chunk(self, event: Callable[[], Event], *, is_new_epoch: bool) -> bool:
        """Call `on_step_chunk` and, after an epoch, `on_epoch`; whether one wants to stop."""
        if not self._has_some:
            return False
        now, wishes = event(), []
        for callback in self._all:
            functions = callback.on_step_chunk, callback.on_epoch if is_new_epoch else None
            wishes += [function(now) for function in functions if function is not None]
        return any(map(_is_true, wishes))

    def at_failure(self, event: Callable[[], Event]) -> None:
        """Call `on_end` where training ended with an error, which is the one that is raised."""
        with contextlib.suppress(Exception):
            self.at_end(event)

    def at_end(self, event: Callable[[], Event]) -> None:
        """Call `on_end`."""
        functions = [c.on_end for c in self._all if c.on_end is not None]
        if functions:
            now = event()
            for function in functions:
                function(now)


def _shown_by_first(progress: Callback | None, group: Group) -> Callback:
    """The progress in the first process; in others what wants to be called at the same times.

    An `Event` is made by all processes together, if by any.
    """
    own = progress or Callback()
    wanted = group.of_first(np.array([function is not None for function in own[:3]]))
    if group.is_first:
        return own
    on_epoch, on_step_chunk, on_end = (_nothing if is_wanted else None for is_wanted in wanted)
    return Callback(on_epoch, on_step_chunk, on_end)


def _nothing(event: Event) -> None:
    pass


def _is_true(result: Any) -> bool:
    """Whether a callback returned True: a bool of Python, NumPy or JAX, and nothing else."""
    kind = getattr(getattr(result, "dtype", None), "kind", None)
    is_bool = isinstance(result, bool) or (kind == "b" and result.shape == ())
    return is_bool and bool(result)


def _as_callback(callback: Any) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if str(getattr(callback, "__module__", "")).startswith("jaxnn.callbacks."):
        name = value_text(callback)
        raise TypeError(f"fit: callbacks has {name}, expected a Callback: call it, {name}(...)")
    if callable(callback) and not isinstance(callback, type):
        return Callback(on_epoch=callback)
    raise TypeError(
        f"fit: callbacks has {callback!r}, expected a Callback or a function of an Event"
    )
