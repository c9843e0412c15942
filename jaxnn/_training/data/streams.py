"""Batches that come from an iterable, or from a function that makes one."""

import copy
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax

from jaxnn._core.layer import abstract
from jaxnn._core.types import PyTree
from jaxnn._training.data.transfer import batch_to_device

_NONE: Any = object()


class Begun(NamedTuple):
    """An iterator of which the first batch may be drawn, and all of its batches."""

    iterator: Iterator[Any]
    batches: Iterator[Any]


class Stream:
    """The epochs of an iterable of batches, or of a function that makes one.

    The first batch is drawn at once, for its shapes: `first`. It is not drawn again for the first
    epoch that is asked for, unless it is of another epoch.

    Args:
        where: what errors begin with.
        data: an iterable, gone through anew in each epoch, or a function that returns one for an
            epoch. A function is given the number of the epoch if its first parameter has no default
            or is named "epoch", and nothing otherwise.
    """

    def __init__(self, where: str, data: Any) -> None:
        self.where, self.data = where, data
        self.is_function = not isinstance(data, Iterable)
        self.takes_epoch = self.is_function and _takes_epoch(where, data)
        iterable = self._iterable(0)
        self.steps = _length(iterable)
        iterator = iter(iterable)
        first = next(iterator, _NONE)
        if first is _NONE:
            raise self._no_batches(0)
        first = self._to_device(first, 0, 0)
        self.first = abstract(first)
        self._begun: Begun | None = Begun(iterator, chain([first], _rest(iterator)))
        # Of an iterator that can tell its state, that after each batch, for whoever takes them.
        self.states: SimpleQueue[Any] | None = SimpleQueue() if _has_state(iterator) else None

    def batches(self, epoch: int, skip: int, state: Any = None) -> Generator[PyTree, None, None]:
        """The batches of an epoch on the device; the first `skip` are drawn and dropped.

        With the state of an iterator, none are drawn again: it goes on from there.
        """
        begun, self._begun = self._begun, None
        if begun is not None and (state is not None or (self.takes_epoch and epoch != 0)):
            _close(begun.iterator)
            begun = None
        if self.states is not None:
            self.states = SimpleQueue()  # what was drawn ahead and not taken is drawn again
        return self._batches(epoch, skip, begun, state)

    def _batches(
        self, epoch: int, skip: int, begun: Begun | None, state: Any
    ) -> Generator[PyTree, None, None]:
        if begun is None:
            iterator: Any = iter(self._iterable(epoch))
            if state is not None:
                iterator.set_state(state)
            begun = Begun(iterator, _rest(iterator))
        drawn, states = 0 if state is None else skip, self.states
        try:
            for batch in begun.batches:
                drawn += 1
                if drawn > skip:
                    if states is not None:
                        state = begun.iterator.get_state()  # type: ignore[attr-defined]
                        states.put(copy.deepcopy(state))  # which it may go on writing to
                    yield self._to_device(batch, epoch, drawn - 1)
        finally:
            _close(begun.iterator)
        if drawn == 0:
            raise self._no_batches(epoch)
        if drawn < skip:
            raise ValueError(
                f"{self.where} has {drawn} batches in epoch {epoch}, expected at least {skip}, "
                "after which training is to go on"
            )

    def _iterable(self, epoch: int) -> Iterable[Any]:
        if not self.is_function:
            return self.data  # type: ignore[no-any-return]
        made = self.data(epoch) if self.takes_epoch else self.data()
        if not isinstance(made, Iterable):
            raise TypeError(
                f"{self.where} is a function that returned a {type(made).__name__}, expected an "
                "iterable of batches"
            )
        return made

    def _to_device(self, batch: Any, epoch: int, number: int) -> PyTree:
        where = f"{self.where}, batch {number} of epoch {epoch},"
        arrays = batch_to_device(where, batch)
        if all(leaf.size == 0 for leaf in jax.tree.leaves(arrays)):
            raise ValueError(f"{where} is empty, expected one example at least")
        return arrays

    def _no_batches(self, epoch: int) -> ValueError:
        if isinstance(self.data, Iterator):
            return ValueError(
                f"{self.where} is a {type(self.data).__name__} that has no batches left for epoch "
                f"{epoch}: give a function that makes one for each epoch"
            )
        return ValueError(f"{self.where} has no batches in epoch {epoch}, expected one at least")


def _takes_epoch(where: str, function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1 or (needed and needed[0] not in positional):
        raise TypeError(
            f"{where} is a function that needs {', '.join(p.name for p in needed)}, expected one "
            "of the number of the epoch, or of nothing"
        )
    return bool(needed) or (bool(positional) and positional[0].name == "epoch")


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except (NotImplementedError, TypeError):
        return None


def _has_state(iterator: Any) -> bool:
    """Whether an iterator can tell where it stands and go on from there, as grain's can."""
    return callable(getattr(iterator, "get_state", None)) and callable(
        getattr(iterator, "set_state", None)
    )


def _rest(iterator: Iterator[Any]) -> Iterator[Any]:
    """What is left: a loop over the iterator itself would first call its `__iter__` again."""
    while (batch := next(iterator, _NONE)) is not _NONE:
        yield batch


def _close(iterator: Iterator[Any]) -> None:
    if isinstance(iterator, Generator):
        iterator.close()
