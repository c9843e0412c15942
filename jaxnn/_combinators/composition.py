"""A layer whose computation is ordinary Python."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_key
from jaxnn._core.children import apply_child, child_params, init_child, with_state
from jaxnn._core.construction import constructor
from jaxnn._core.keywords import accepted, declare_keywords, split_static
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer, child_key, child_scope
from jaxnn._core.types import PyTree


@constructor
def compose(
    forward: Callable[..., PyTree],
    /,
    **children: LayerLike | Sequence[Any] | Mapping[str, Any],
) -> Layer:
    """A layer whose computation is ordinary Python: skips, branches, sharing.

    Args:
        forward: a function `forward(f, x)`, in which each child is called as `f.name(x)`. A child
            called twice shares its parameters, threads its state from one call to the next, and
            gets a new key each time. Further keyword-only arguments of `forward` become keywords
            of the layer's `apply`; among them `key` and `train` are given to it if it names them.
        **children: layers or plain functions of arrays, by name; or lists and dicts of these, whose
            members are called as `f.blocks[0](x)`, `f.heads["left"](x)`, or one after the other
            in `for block in f.blocks`, or `f.blocks[1:]`. An array that is trained is a child too:
            `nn.parameter`.

    Returns:
        A `Layer` with params `{name: ...}` for each child, where a list has a tuple and a dict a
        dict. Initialisation runs `forward` once abstractly to see the input of each child's first
        call.

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
    children = {name: _as_child(child, name) for name, child in children.items()}
    layers = dict(_leaves(children))
    keywords = {
        name: parameter
        for name, parameter in inspect.signature(forward).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }

    def run(call: _Call, x: PyTree, key: Any, train: bool, extra: dict[str, Any]) -> PyTree:
        given = {"key": key, "train": train}
        wanted = {name: value for name, value in given.items() if name in keywords}
        return forward(_Children(children, call), x, **wanted, **extra)

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
        states: dict[str, PyTree] = {}
        for name, layer in layers.items():
            child_x, child_extra = inputs[name]
            params[name], child_state = init_child(layer, name, key, child_x, **child_extra)
            states |= with_state(name, child_state)
        return _gathered(children, params), _nested({}, states)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = _scattered(children, params)
        states = {name: _at(state, name) for name in layers}
        calls = dict.fromkeys(layers, 0)

        def call(name: str, x: PyTree, extra: dict[str, Any]) -> PyTree:
            count, calls[name] = calls[name], calls[name] + 1
            call_key = key if key is None or count == 0 else child_key(key, f"call {count}")
            y, child_state = apply_child(
                layers[name], name, by_name[name], states, x, call_key, train, **extra
            )
            states[name] = child_state
            return y

        y = run(call, x, key, train, extra)
        with_any = {name: s for name, s in states.items() if jax.tree.leaves(s)}
        return y, _nested(state, with_any)

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
_Group: TypeAlias = Mapping[str, Any] | tuple[Any, ...]
_Child: TypeAlias = Layer | _Group


class _Children:
    """The `f` of `forward(f, x)`: `f.name(x)` runs the child `name`, `f.name[0](x)` its first."""

    def __init__(self, children: _Group, call: _Call, path: str = "") -> None:
        self._children = children
        self._call = call
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return self._child(name, AttributeError)

    def __getitem__(self, place: str | int | slice) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        if isinstance(place, int) and -len(self) <= place < 0:
            place += len(self)
        return self._child(place, KeyError if isinstance(place, str) else IndexError)

    def __call__(self, *_: Any, **__: Any) -> PyTree:
        path = self._path.rstrip("/")
        raise TypeError(
            f"compose: forward calls '{path}', which holds {list(_members(self._children))}, "
            "expected a call of one of them"
        )

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._children, Mapping):
            return iter(self._children)
        return (self[place] for place in range(len(self)))

    def _child(self, place: str | int, error: type[Exception]) -> Any:
        members = _members(self._children)
        is_place = isinstance(place, str) == isinstance(self._children, Mapping)
        path = f"{self._path}{place}"
        if not is_place or str(place) not in members:
            raise error(
                f"compose: forward calls '{path}', expected one of "
                f"{sorted(self._path + name for name in members)}"
            )
        child = members[str(place)]
        if not isinstance(child, Layer):
            return _Children(child, self._call, f"{path}/")
        return lambda x=None, **extra: self._call(path, x, extra)


# Children of children: lists and dicts of layers, of which each has a path


def _as_child(value: Any, path: str) -> _Child:
    if isinstance(value, Mapping):
        return {name: _as_child(child, f"{path}/{name}") for name, child in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple(_as_child(child, f"{path}/{i}") for i, child in enumerate(value))
    return as_layer(value, f"compose: '{path}'")


def _members(group: _Group) -> dict[str, _Child]:
    """What a list or a dict of children holds, by name or place."""
    if isinstance(group, Mapping):
        return dict(group)
    return {str(place): child for place, child in enumerate(group)}


def _leaves(group: _Group, path: str = "") -> Iterator[tuple[str, Layer]]:
    for name, child in _members(group).items():
        if isinstance(child, Layer):
            yield path + name, child
        else:
            yield from _leaves(child, f"{path}{name}/")


def _gathered(group: _Group, by_path: dict[str, PyTree], path: str = "") -> PyTree:
    """What there is for each path, in the structure of the children."""
    gathered = {
        name: by_path[path + name]
        if isinstance(child, Layer)
        else _gathered(child, by_path, f"{path}{name}/")
        for name, child in _members(group).items()
    }
    return gathered if isinstance(group, Mapping) else tuple(gathered.values())


def _scattered(group: _Group, params: PyTree, path: str = "") -> dict[str, PyTree]:
    """The inverse: by path, what is in the structure of the children."""
    members = _members(group)
    by_path: dict[str, PyTree] = {}
    own = child_params(f"compose: '{path[:-1]}'" if path else "compose", params, members)
    for name, child in members.items():
        if isinstance(child, Layer):
            by_path[path + name] = own[name]
        else:
            by_path |= _scattered(child, own[name], f"{path}{name}/")
    return by_path


def _at(state: PyTree, path: str) -> PyTree:
    """The state of a child, `{}` if it has none."""
    for name in path.split("/"):
        state = state.get(name, {})
    return state


def _nested(state: PyTree, by_path: dict[str, PyTree]) -> dict[str, PyTree]:
    """`state`, a dict of dicts, with others at some paths."""
    groups: dict[str, dict[str, PyTree]] = {}
    new = dict(state)
    for path, value in by_path.items():
        name, _, rest = path.partition("/")
        if rest:
            groups.setdefault(name, {})[rest] = value
        else:
            new[name] = value
    return new | {name: _nested(new.get(name, {}), group) for name, group in groups.items()}
