"""Data that do not lie in memory: mapped files, and batches made by the caller."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxnn._core.construction import refuse_constructor
from jaxnn._core.paths import path_text, same_structure
from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import check_weights, count_examples, effective_batch_size
from jaxnn._training.data.memmaps import MOST_SHUFFLED, memmap_batches
from jaxnn._training.data.prefetch import Prefetched, prefetched
from jaxnn._training.data.streams import Stream
from jaxnn._training.data.transfer import as_numpy, device_dtype, is_iterator

MOST_SHAPES = 16  # of batches, before a warning that each compiles a step


def is_streamed(data: Any) -> bool:
    """Whether `data` is read in batches: it has an `np.memmap`, or is no pytree of arrays.

    Arrays, and tuples, dicts and other pytrees, also of tuples, are data in memory, and so is a
    list of arrays. A list of tuples or dicts is one of batches, as any other iterable is, and any
    other callable a function that makes one.
    """
    return _has_memmap(data) or makes_batches(data)


def makes_batches(data: Any) -> bool:
    """Whether `data` is no pytree of arrays: a list of batches, or an iterable or function."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, (tuple, list, dict)) for batch in data)
    is_array = hasattr(data, "__array__")
    is_container = not jax.tree_util.all_leaves([data])
    return not is_array and not is_container and (isinstance(data, Iterable) or callable(data))


Draw = Callable[..., Generator[PyTree, None, None]]  # batches of an epoch after the first


class Source:
    """Where batches come from, epoch by epoch; made by `as_source`.

    Attributes:
        steps: the number of batches in an epoch, where known. That of an iterable is its `len`,
            which may be wrong.
        examples: the number of examples in an epoch, where known.
        batch_size: how many are in a batch but the last, where known.
        example: the shapes and dtypes of one example, as a batch of size 1.
    """

    def __init__(
        self,
        where: str,
        draw: Draw,
        first: PyTree,
        *,
        steps: int | None,
        examples: int | None,
        batch_size: int | None,
        prefetch: int,
        stream: Stream | None = None,
    ) -> None:
        self._stream = stream
        self.steps, self.examples, self.batch_size = steps, examples, batch_size
        self.example = jax.tree.map(_of_one, first)
        self._draw, self._prefetch = draw, prefetch
        self._where, self._first = where, first
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._drawn: Any = None

    @contextmanager
    def batches(self, epoch: int, skip: int = 0, state: Any = None) -> Iterator[Iterator[PyTree]]:
        """The batches of an epoch on the device, drawn ahead in a thread.

        The thread ends before the context does. Batches that differ in structure or dtypes raise.

        Args:
            epoch: the number of the epoch.
            skip: how many batches to leave out: those of mapped files are not read, others are
                drawn and dropped.
            state: the state that an iterator told after those batches; it goes on from there.

        Returns:
            A context manager that gives an iterator.
        """
        drawing = self._draw(epoch, skip) if state is None else self._draw(epoch, skip, state)
        with prefetched(drawing, self._prefetch) as self._drawn:
            yield self._checked(self._drawn)

    def interrupt(self) -> None:
        """Raise `InterruptionError` where a batch is waited for that a thread draws."""
        if isinstance(self._drawn, Prefetched):
            self._drawn.interrupt()

    def state(self) -> Any:
        """The state of the iterator after the batch that was taken, once for each; None without."""
        states = None if self._stream is None else self._stream.states
        return None if states is None else states.get()

    def _checked(self, batches: Iterator[PyTree]) -> Iterator[PyTree]:
        for batch in batches:
            self._check_like_the_first(batch)
            if len(self._shapes) <= MOST_SHAPES:
                shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
                self._shapes.add(shapes)
                if len(self._shapes) > MOST_SHAPES:  # said once
                    warnings.warn(
                        f"{self._where} has batches of more than {MOST_SHAPES} different shapes, "
                        f"{', '.join(map(str, shapes))} last: each new one compiles the step "
                        "again; nn.pad_to pads batches to few shapes",
                        stacklevel=2,
                    )
            yield batch

    def _check_like_the_first(self, batch: PyTree) -> None:
        same_structure(self._where, **{"the first batch": self._first, "a later one": batch})
        leaves = jax.tree_util.tree_leaves_with_path(batch)
        for first, (path, leaf) in zip(jax.tree.leaves(self._first), leaves, strict=True):
            if leaf.dtype != first.dtype:
                place = f" at {path_text(path)!r}" if path else ""
                raise ValueError(
                    f"{self._where} has a batch of dtype {leaf.dtype}{place}, expected "
                    f"{first.dtype}, as in the first batch"
                )


def as_source(
    function: str,
    name: str,
    data: Any,
    *,
    batch_size: int | None,
    shuffle_key: jax.Array | None,
    prefetch: int = 2,
    weighted: bool = False,
    own_rows: Callable[[int], np.ndarray] | None = None,
) -> Source:
    """The source of batches that `data` are.

    Arrays, mapped or not, give the batches of a run in memory, in the same order. Of an iterable,
    or a function that makes one, the first batch is drawn here, in the thread of the caller, and
    the others in a thread of their own; its batches and their order are its own.

    Args:
        function: the function that errors name.
        name: the argument of it that they name.
        data: a pytree of arrays, mapped or in memory, or what makes batches.
        batch_size: the examples in a batch of mapped files; None for all of them.
        shuffle_key: what fixes the order of the examples of mapped files, with the epoch; None
            for the order they are in.
        prefetch: how many batches to draw ahead; 0 to draw all in the thread of the caller.
        own_rows: which rows of a batch of mapped files this process is to read; None for all.
        weighted: whether a third part of a batch holds weights, which must not be negative.

    Returns:
        A `Source`.

    Raises:
        TypeError: a leaf is no array; a function takes other arguments, or makes no iterable.
        ValueError: there are no batches, or no examples in one; lengths differ.

    Example:
        >>> import numpy as np
        >>> from jaxnn._training.data.sources import as_source
        >>> def batches(epoch):
        ...     for i in range(3):
        ...         yield {"x": np.full((2, 4), epoch + i)}
        >>> source = as_source("fit", "data", batches, batch_size=None, shuffle_key=None)
        >>> source.example
        {'x': ShapeDtypeStruct(shape=(1, 4), dtype=int32)}
        >>> with source.batches(epoch=5, skip=1) as drawn:
        ...     [int(batch["x"][0, 0]) for batch in drawn]
        [6, 7]
    """
    where = f"{function}: {name}"
    refuse_constructor(data, where, "data")
    if not makes_batches(data):
        arrays = jax.tree_util.tree_map_with_path(partial(as_numpy, where), data)
        n = count_examples(function, name, arrays)
        size = effective_batch_size(function, batch_size, n)
        if shuffle_key is not None and n > MOST_SHUFFLED:
            raise ValueError(
                f"{where} has {n} examples, expected at most {MOST_SHUFFLED} to shuffle"
            )
        draw: Draw = partial(memmap_batches, where, arrays, n, size, shuffle_key, own_rows)
        first = jax.tree.map(lambda leaf: _spec((size, *leaf.shape[1:]), leaf.dtype), arrays)
        steps: int | None = -(-n // size)
        batch_size = size
        examples: int | None = n
        stream = None
    else:
        stream = Stream(where, data)
        draw, first, steps, examples = stream.batches, stream.first, stream.steps, None
        batch_size = None
    if weighted:
        draw = partial(_with_sound_weights, where, draw)
    return Source(
        where,
        draw,
        first,
        steps=steps,
        examples=examples,
        batch_size=batch_size,
        prefetch=prefetch,
        stream=stream,
    )


def _with_sound_weights(
    where: str, draw: Draw, epoch: int, skip: int, *state: Any
) -> Generator[PyTree, None, None]:
    """The batches, unless a weight is negative or not finite."""
    for number, batch in enumerate(draw(epoch, skip, *state), start=skip):
        check_weights(f"{where}, batch {number} of epoch {epoch},", batch)
        yield batch


def _has_memmap(data: Any) -> bool:
    return any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(data, is_leaf=is_iterator))


def _spec(shape: tuple[int, ...], dtype: np.dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, device_dtype(dtype))


def _of_one(batch: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """One example of a batch; what has no axes belongs to no example."""
    shape = (1, *batch.shape[1:]) if batch.shape else ()
    return jax.ShapeDtypeStruct(shape, batch.dtype)
