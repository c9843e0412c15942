"""Which label or id made a result NaN: what a compiled program cannot say, after the fact."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.bounds import OutOfBoundsError, looking_for_integers_outside
from jaxnn._core.layer import Layer
from jaxnn._core.types import Loss, PyTree
from jaxnn._training.data.transfer import place_of

Find = Callable[[str, PyTree, PyTree, PyTree], None]


def finder(model: Layer, loss: Loss | None, members: int | None = None) -> Find:
    """`find(where, params, state, batch)`, which raises if a label or id of a batch is outside.

    The model runs without being compiled, and only if its input has integers; of the labels, the
    loss of any predictions tells. Without a loss, a batch is an input. Of several members the first
    is asked.
    """

    def find(where: str, params: PyTree, state: PyTree, batch: PyTree) -> None:
        x, y, *_ = (batch, None) if loss is None else batch
        if members is not None:
            params, state = jax.tree.map(lambda leaf: leaf[0], (params, state))
        with looking_for_integers_outside():
            try:
                if has_integers(x):
                    model.apply(params, state, x)
                if loss is not None and has_integers(y):
                    predictions = jax.eval_shape(lambda x: model.apply(params, state, x)[0], x)
                    loss(jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), predictions), y)
            except OutOfBoundsError as error:
                looked_at = x if loss is None else (x, y)
                raise ValueError(_message(where, looked_at, error)) from error
            except Exception:  # it may need to be compiled, or a key: then nothing is known
                return

    return find


def look_through(
    find: Find, where: str, params: PyTree, state: PyTree, data: PyTree, batch_size: int | None
) -> None:
    """Look for what is outside in a data set in memory, batch by batch."""
    n = len(jax.tree.leaves(data)[0])
    size = batch_size or n
    for first in range(0, n, size):
        batch = jax.tree.map(lambda leaf, first=first: leaf[first : first + size], data)
        find(f"{where}, from example {first} on,", params, state, batch)


def sums_of_each(
    sums_of: Callable[[PyTree], dict[str, PyTree]],
    batches: Iterator[PyTree],
    look: Callable[[PyTree], None] | None,
) -> Iterator[dict[str, PyTree]]:
    """The accumulators of each batch; `look` is called with the first one whose loss is NaN.

    One batch is computed while the one before is looked at.
    """
    previous: Any = None
    for batch in batches:
        current = batch, sums_of(batch)
        if previous is not None and look is not None and has_nan(previous[1]["loss"]):
            look(previous[0])
            look = None
        previous = current
        yield current[1]
    if previous is not None and look is not None and has_nan(previous[1]["loss"]):
        look(previous[0])


def has_nan(tree: PyTree) -> bool:
    """Whether an array of floats has a NaN; of traced ones nothing is known."""
    known = (x for x in jax.tree.leaves(tree) if not isinstance(x, jax.core.Tracer))
    return any(jnp.issubdtype(x.dtype, jnp.inexact) and bool(jnp.isnan(x).any()) for x in known)


def _message(where: str, batch: PyTree, error: OutOfBoundsError) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    path = next((path for path, leaf in leaves if _has(leaf, error)), ())
    return (
        f"{place_of(where, path)} has the integer {error.value} at {error.place}, expected 0 to "
        f"{error.size - 1}, as {error.user} takes them: it made the result NaN"
    )


def _has(leaf: Any, error: OutOfBoundsError) -> bool:
    if leaf.ndim != len(error.place) or not jnp.issubdtype(leaf.dtype, jnp.integer):
        return False
    is_inside = all(i < n for i, n in zip(error.place, leaf.shape, strict=True))
    return is_inside and int(np.asarray(leaf)[error.place]) == error.value


def has_integers(tree: PyTree) -> bool:
    return any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(tree))
