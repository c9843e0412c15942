"""Which label or id made a loss NaN: what a compiled program cannot say, after the fact."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.bounds import OutOfBoundsError, looking_for_integers_outside
from jaxnn._core.layer import Layer
from jaxnn._core.paths import path_text
from jaxnn._core.types import Loss, PyTree


def finder(model: Layer, loss: Loss) -> Callable[[str, PyTree, PyTree, PyTree], None]:
    """`find(where, params, state, batch)`, which raises if a label or id of a batch is outside.

    The model runs without being compiled, and only if its input has integers; of the labels, the
    loss of any predictions tells.
    """

    def find(where: str, params: PyTree, state: PyTree, batch: PyTree) -> None:
        x, y, *_ = batch
        with looking_for_integers_outside():
            try:
                if _has_integers(x):
                    model.apply(params, state, x)
                if _has_integers(y):
                    predictions = jax.eval_shape(lambda x: model.apply(params, state, x)[0], x)
                    loss(jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), predictions), y)
            except OutOfBoundsError as error:
                raise ValueError(_message(where, (x, y), error)) from error
            except Exception:  # it may need to be compiled, or a key: then nothing is known
                return

    return find


def _message(where: str, batch: PyTree, error: OutOfBoundsError) -> str:
    leaf = next(
        (
            f" at {path_text(path)!r}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
            if _has(leaf, error)
        ),
        "",
    )
    return (
        f"{where}{leaf} has the integer {error.value} at {error.place}, expected 0 to "
        f"{error.size - 1}, as {error.user} takes them: it made the loss NaN"
    )


def _has(leaf: Any, error: OutOfBoundsError) -> bool:
    if leaf.ndim != len(error.place) or not jnp.issubdtype(leaf.dtype, jnp.integer):
        return False
    is_inside = all(i < n for i, n in zip(error.place, leaf.shape, strict=True))
    return is_inside and int(np.asarray(leaf)[error.place]) == error.value


def _has_integers(tree: PyTree) -> bool:
    return any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(tree))
