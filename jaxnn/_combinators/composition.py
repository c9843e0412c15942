"""A layer whose computation is ordinary Python."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_key
from jaxnn._core.children import apply_child, child_params, init_child, with_state
from jaxnn._core.construction import constructor
from jaxnn._core.keywords import accepted, declare_keywords, split_static
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer, child_key, child_scope
from jaxnn._core.types import PyTree


@constructor
def compose(forward: Callable[..., PyTree], /, **children: LayerLike) -> Layer:
    """A layer whose computation is ordinary Python: skips, branches, sharing.

    Args:
        forward: a function `forward(f, x)`, in which each child is called as `f.name(x)`. A child
            called twice shares its parameters, threads its state from one call to the next, and
            gets a new key each time. Further keyword-only arguments of `forward` become keywords
            of the layer's `apply`; among them `key` and `train` are given to it if it names them.
        **children: layers or plain functions of arrays, by name.

    Returns:
        A `Layer` with params `{name: ...}` for each child. Initialisation runs `forward` once
        abstractly to see the input of each child's first call.

    Raises:
        AttributeError: `forward` calls a child that is not there.
        ValueError: a child is never called.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def forward(f, x):
        ...     h = nn.relu(f.encode(x))
        ...     return f.decode(jnp.concatenate([h, x], axis=-1))
        >>> model = nn.compose(forward, encode=nn.dense(4), decode=nn.dense(3))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> params["decode"]["kernel"].shape
        (7, 3)
        >>> model.apply(params, state, jnp.ones((2, 3)))[0].shape
        (2, 3)
    """
    layers = {name: as_layer(value, f"compose: '{name}'") for name, value in children.items()}
    keywords = {
        name: parameter
        for name, parameter in inspect.signature(forward).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }

    def run(call: _Call, x: PyTree, key: Any, train: bool, extra: dict[str, Any]) -> PyTree:
        given = {"key": key, "train": train}
        wanted = {name: value for name, value in given.items() if name in keywords}
        return forward(_Children(layers, call), x, **wanted, **extra)

    # Kept for each shape: otherwise a leaf at depth n would be looked at 2^n times.
    @functools.cache
    def inputs_of(example: _Hashable) -> dict[str, tuple[PyTree, dict[str, Any]]]:
        """The input and keywords that each child gets at its first call."""
        x, arrays, static = example.tree()
        inputs: dict[str, tuple[PyTree, dict[str, Any]]] = {}

        def record(name: str, x: PyTree, extra: dict[str, Any]) -> PyTree:
            layer = layers[name]
            arrays, static = split_static(accepted(layer.init, extra))
            first, for_init = inputs.setdefault(name, (abstract(x), abstract(arrays) | static))
            with child_scope(name):
                made = jax.eval_shape(lambda: layer.init(jax.random.key(0), first, **for_init))
                y, _ = jax.eval_shape(
                    lambda made, x: layer.apply(made[0], made[1], x, **extra), made, x
                )
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), y)

        jax.eval_shape(lambda x, arrays: run(record, x, None, False, arrays | static), x, arrays)
        never_called = sorted(layers.keys() - inputs.keys())
        if never_called:
            raise ValueError(
                f"compose: {forward.__name__} never calls {never_called}, expected it to call "
                "every child"
            )
        return inputs

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        check_key("compose", key)
        arrays, static = split_static(extra)
        inputs = inputs_of(_Hashable.of((abstract(x), abstract(arrays), static)))
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in layers.items():
            child_x, child_extra = inputs[name]
            params[name], child_state = init_child(layer, name, key, child_x, **child_extra)
            state |= with_state(name, child_state)
        return params, state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("compose", params, layers)
        new_state = dict(state)
        calls = dict.fromkeys(layers, 0)

        def call(name: str, x: PyTree, extra: dict[str, Any]) -> PyTree:
            count, calls[name] = calls[name], calls[name] + 1
            call_key = key if key is None or count == 0 else child_key(key, f"call {count}")
            y, child_state = apply_child(
                layers[name], name, by_name[name], new_state, x, call_key, train, **extra
            )
            new_state.update(with_state(name, child_state))
            return y

        y = run(call, x, key, train, extra)
        return y, new_state

    own = [p for name, p in keywords.items() if name not in ("key", "train")]
    return Layer(declare_keywords(own, init), declare_keywords(own, apply))


class _Hashable(NamedTuple):
    """A tree of shapes and Python values, and whether floats are double, as the key of a cache."""

    structure: Any
    leaves: tuple[Any, ...]
    default_float: jnp.dtype

    @classmethod
    def of(cls, tree: PyTree) -> "_Hashable":
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(leaves), jnp.result_type(float))

    def tree(self) -> PyTree:
        return jax.tree.unflatten(self.structure, self.leaves)


_Call = Callable[[str, PyTree, dict[str, Any]], PyTree]


class _Children:
    """The `f` of `forward(f, x)`: `f.name(x)` runs the child `name`."""

    def __init__(self, layers: Mapping[str, Layer], call: _Call) -> None:
        self._layers = layers
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., PyTree]:
        if name not in self._layers:
            raise AttributeError(
                f"compose: forward calls '{name}', expected one of {sorted(self._layers)}"
            )
        return lambda x=None, **extra: self._call(name, x, extra)
