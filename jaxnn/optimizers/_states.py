"""Reading and changing a part of an optimizer's state by its name."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.paths import path_text, same_structure
from jaxnn._core.types import Arrays, PyTree

# What loses something as any other kind of number.
_LOSSY = jnp.inexact, jnp.complexfloating


@checked
def get_state(state: PyTree, name: str) -> PyTree:
    """The part of an optimizer's state that has a name.

    Args:
        state: the state of any optimizer, optax's too.
        name: the name of a field or a key, as "mu" or "learning_rate"; or the end of a path, as
            "1/count" for that of the second of a chain.

    Returns:
        What is there, an array or a tree.

    Raises:
        ValueError: there is nothing of that name, or there are several, whose paths are told.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adam(0.1)
        >>> nn.optimizers.get_state(optimizer.init({"w": jnp.ones(2)}), "mu")
        {'w': Array([0., 0.], dtype=float32)}
    """
    ((_, part),) = _named("get_state", state, name)
    return part


@checked
def set_state(state: PyTree, name: str, value: Arrays) -> PyTree:
    """An optimizer's state with another value in the place of the part that has a name.

    As a learning rate that a person changes in the middle of a run.

    Args:
        state: the state of any optimizer, optax's too.
        name: as in `get_state`.
        value: arrays or numbers in the structure and shapes of what is there; they get its dtypes.

    Returns:
        A state of the same structure, shapes and dtypes.

    Raises:
        TypeError: `value` is no tree of arrays; or has floats where there are integers, or complex
            numbers where there are real ones.
        ValueError: there is nothing of that name, or there are several; the structure or a shape
            differs.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.inject_hyperparams(nn.optimizers.sgd)(learning_rate=0.5)
        >>> state = optimizer.init(jnp.ones(1))
        >>> state = nn.optimizers.set_state(state, "learning_rate", 0.25)
        >>> optimizer.update(jnp.ones(1), state)[0]
        Array([-0.25], dtype=float32)
    """
    ((path, part),) = _named("set_state", state, name)
    same_structure("set_state", **{name: part, "value": value})

    def fitting(old: Any, new: Any) -> jax.Array:
        if jnp.shape(new) != jnp.shape(old):
            raise ValueError(
                f"set_state: value has shape {jnp.shape(new)}, expected the shape "
                f"{jnp.shape(old)} of {name!r}"
            )
        dtype, given = jnp.result_type(old), jnp.result_type(new)
        if any(jnp.issubdtype(given, k) > jnp.issubdtype(dtype, k) for k in _LOSSY):
            raise TypeError(
                f"set_state: value has dtype {given}, expected what fits into the {dtype} of "
                f"{name!r}"
            )
        return jnp.asarray(new).astype(dtype)

    return _replaced(state, path, jax.tree.map(fitting, part, value))


def _children(node: PyTree) -> list[tuple[tuple[Any, ...], PyTree]]:
    """The keys and the values of what a node directly holds."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)[0]


def _nodes(node: PyTree, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], PyTree]]:
    """All nodes below one, with their paths."""
    found = []
    for key, child in _children(node):
        if key:
            found += [((*path, *key), child), *_nodes(child, (*path, *key))]
    return found


def _named(function: str, state: PyTree, name: str) -> list[tuple[tuple[Any, ...], PyTree]]:
    """The one node whose path ends with the name."""
    found = [
        (path, node)
        for path, node in _nodes(state)
        if f"/{path_text(path)}".endswith(f"/{name}") and name
    ]
    if len(found) != 1:
        paths = ", ".join(repr(path_text(path)) for path, _ in found) or "nothing"
        raise ValueError(
            f"{function}: name is {name!r}, of which state has {paths}, expected the name of one "
            "part, or the end of its path"
        )
    return found


def _replaced(node: PyTree, path: tuple[Any, ...], value: PyTree) -> PyTree:
    if not path:
        return value
    structure = jax.tree.structure(node, is_leaf=lambda other: other is not node)
    children = [
        _replaced(child, path[len(key) :], value) if path[: len(key)] == key else child
        for key, child in _children(node)
    ]
    return jax.tree.unflatten(structure, children)
