"""What is seen of the children of a layer while it runs, and what is added to their outputs.

A watch is local to one block of `watching`. Where children run inside of a transformation of JAX
(`stack` scans, `ensemble` vmaps), a `Crossing` takes what is seen out as a result, and what is to
be added in as an argument.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.layer import Layer, abstract
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree

Seen = dict[str, PyTree]  # by path


class Call(NamedTuple):
    """A call of a child: its path, and what went in and came out, in tracers or arrays."""

    path: str
    layer: Layer
    params: PyTree
    state: PyTree
    x: PyTree
    extra: dict[str, Any]
    y: PyTree
    times: int  # how often it runs, in a loop that is traced once


class _Watch(NamedTuple):
    look: Callable[[Call], PyTree]
    over_time: Callable[[PyTree, int], PyTree]
    leaves_traces: bool
    order: list[str]  # of the paths, each layer before those inside of it
    path: str
    added: Mapping[str, PyTree]
    seen: Seen
    times: int
    trace: Any


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)


@contextmanager
def _set(watch: _Watch | None) -> Iterator[None]:
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def _current() -> _Watch | None:
    """The watch, None inside of a transformation that nothing was told of."""
    watch = _watch.get()
    hidden = watch is not None and watch.leaves_traces and watch.trace != _trace()
    return None if hidden else watch


def _trace() -> Any:
    from jax.extend.core import get_opaque_trace_state  # brings all of Pallas

    return get_opaque_trace_state()


@contextmanager
def watching(
    look: Callable[[Call], PyTree],
    *,
    added: Mapping[str, PyTree] | None = None,
    over_time: Callable[[PyTree, int], PyTree] = lambda seen, axis: seen,
    leaves_traces: bool = True,
) -> Iterator[tuple[Seen, list[str]]]:
    """What `look(call)` gives for each call of a child while the block runs, by path.

    The second call of a child has "#2" at the end of its path. `added` is added to outputs, by
    path. `over_time(seen, axis)` puts together what was seen in the steps of a sequence, which come
    as axis 0. What does not leave traces, abstract values of them included, is for `look` to keep:
    then it gives None.

    Yields:
        What was seen, and the paths of all calls, each layer before those inside of it.
    """
    order: list[str] = []
    seen: Seen = {}
    watch = _Watch(look, over_time, leaves_traces, order, "", added or {}, seen, 1, _trace())
    with _set(watch):
        yield seen, order


def watched(run: Callable[[], Any], name: str, layer: Layer, *given: Any) -> tuple[PyTree, PyTree]:
    """What `run()` gives: the child `name`, called with the `given` params, state, x and extra."""
    watch = _current()
    if watch is None:
        with _set(None):
            y, new_state = run()
        return y, new_state
    path = _unused(f"{watch.path}{name}", watch.order)
    watch.order.append(path)
    with _set(watch._replace(path=f"{path}/")):
        y, new_state = run()
    if path in watch.added:
        y = _sum(path, y, watch.added[path])
    params, state, x, extra = given
    found = watch.look(Call(path, layer, params, state, x, extra, y, watch.times))
    if found is not None:
        watch.seen[path] = found
    return y, new_state


def see_each(layer: Layer, y: PyTree) -> PyTree:
    """See `y`, the output of one layer in a stack of them, as "each"; something may be added."""
    watch = _current()
    if watch is None or not watch.leaves_traces:
        return y
    return watched(lambda: (y, None), "each", layer, {}, {}, None, {})[0]


def _unused(path: str, order: list[str]) -> str:
    again = re.compile(rf"{re.escape(path)}(#\d+)?")
    calls = 1 + sum(bool(again.fullmatch(known)) for known in order)
    return path if calls == 1 else f"{path}#{calls}"


def path_of_child(path: str) -> str:
    """The path of a call without what says which call of the child it was."""
    return re.sub(r"#\d+(?=/|$)", "", path)


def _sum(path: str, y: PyTree, added: PyTree) -> PyTree:
    if leaf_paths(y) != leaf_paths(added) or _shapes(y) != _shapes(added):
        raise ValueError(
            f"capture: what is added at {path!r} has the shapes {_shapes(added)}, expected "
            f"{_shapes(y)}"
        )
    return jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype), y, added)


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(abstract(tree))]


# Transformations around children


class Crossing:
    """A transformation of JAX around children, made before it traces them.

    `added` is an argument of what is traced, there given to `inside`; what that saw is a result,
    given to `report`. A loop over time says how many steps it takes, and which axis of the outputs
    they become.
    """

    def __init__(self, times: int = 1, time_axis: int | None = None) -> None:
        self._watch = watch = _current()
        self._times, self._time_axis = times, time_axis
        self.added: Seen = {}
        if watch is not None:
            self._before = len(watch.order)
            added = {p: v for p, v in watch.added.items() if p.startswith(watch.path)}
            self.added = added if time_axis is None else moved(added, time_axis, 0)

    @contextmanager
    def inside(self, added: Seen) -> Iterator[Seen]:
        """Collect what is seen in the block."""
        watch = self._watch
        if watch is None:
            with _set(None):
                yield {}
            return
        del watch.order[self._before :]  # JAX may trace a function twice
        trace = _trace() if watch.leaves_traces else None
        times = watch.times * self._times
        inside = watch._replace(added=added, seen={}, times=times, trace=trace)
        with _set(inside):
            yield inside.seen

    def report(self, seen: Seen) -> None:
        """Take over what was seen."""
        if self._watch is not None:
            if self._time_axis is not None:
                together, axis = self._watch.over_time, self._time_axis
                seen = {path: together(value, axis) for path, value in seen.items()}
            self._watch.seen.update(seen)


@contextmanager
def below(name: str) -> Iterator[None]:
    """The children that run in the block are those of the child `name`, which is not seen."""
    watch = _watch.get()
    with _set(watch and watch._replace(path=f"{watch.path}{name}/")):
        yield


@contextmanager
def unwatched() -> Iterator[None]:
    """Nothing is seen in the block, which runs to learn shapes."""
    with _set(None):
        yield


def moved(tree: PyTree, source: int, target: int) -> PyTree:
    """The arrays of a tree with an axis moved, or the last one where they have fewer."""

    def one(leaf: Any) -> jax.Array:
        last = jnp.ndim(leaf) - 1
        return jnp.moveaxis(leaf, min(source, last), min(target, last))

    return jax.tree.map(one, tree)
