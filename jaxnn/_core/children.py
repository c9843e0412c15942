"""What layers made of layers share: their children, and the keywords that they pass on."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

from jaxnn._core.arrays import check_key
from jaxnn._core.keywords import declare_keywords, keywords_of
from jaxnn._core.layer import Layer, as_layer, child_key, child_scope
from jaxnn._core.types import PyTree
from jaxnn._core.watching import watched

# A combinator's params hold an entry for each child, its state one for each child that has any:
# the state of a stateless model is `{}`, however it is composed.


def named_children(
    combinator: str, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Layer]:
    """The children by name; positional ones are named by their position."""
    if positional and named:
        raise TypeError(
            f"{combinator}: got {len(positional)} positional and {len(named)} named layers "
            f"({', '.join(named)}), expected all of one kind"
        )
    for given in positional[:1] if len(positional) == 1 else ():
        if type(given) in (list, tuple, dict):
            stars = "**" if isinstance(given, dict) else "*"
            raise TypeError(
                f"{combinator}: '0' is a {type(given).__name__}, expected layers, each an argument "
                f"of its own: {combinator}({stars}layers)"
            )
    by_name = named or {str(i): layer for i, layer in enumerate(positional)}
    return {name: as_layer(value, f"{combinator}: '{name}'") for name, value in by_name.items()}


def init_child(
    layer: Layer, name: str, key: jax.Array, x: PyTree, **extra: Any
) -> tuple[PyTree, PyTree]:
    """The params and state of the child `name`, from a key of its own."""
    with child_scope(name):
        return layer.init(child_key(key, name), x, **extra)


def init_side_by_side(
    combinator: str,
    children: Mapping[str, Layer],
    key: jax.Array,
    x: PyTree,
    **extra: dict[str, Any],
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """The params and states of children that all get the input `x`, and `extra[name]` beside it."""
    check_key(combinator, key)
    params: dict[str, PyTree] = {}
    state: dict[str, PyTree] = {}
    for name, layer in children.items():
        params[name], child_state = init_child(layer, name, key, x, **extra.get(name, {}))
        state |= with_state(name, child_state)
    return params, state


def apply_child(
    layer: Layer,
    name: str,
    params: PyTree,
    state: dict[str, PyTree],
    x: PyTree,
    key: jax.Array | None,
    train: bool,
    **extra: Any,
) -> tuple[PyTree, PyTree]:
    """The output and new state of the child `name`, with a key of its own."""
    own_state = state.get(name, {})

    def run() -> tuple[PyTree, PyTree]:
        with child_scope(name):
            own_key = None if key is None else child_key(key, name)
            y, new_state = layer.apply(params, own_state, x, key=own_key, train=train, **extra)
        return y, new_state

    return watched(run, name, layer, params, own_state, x, extra)


def with_state(name: str, state: PyTree) -> dict[str, PyTree]:
    """The entry of a child in its parent's state: none if it has no state."""
    return {name: state} if jax.tree.leaves(state) else {}


def child_params(combinator: str, params: PyTree, children: Collection[str]) -> dict[str, Any]:
    """Each child's parameters by name, whether `params` is a tuple or a dict."""
    if isinstance(params, Mapping):
        by_name = dict(params)
    else:
        by_name = {str(i): child for i, child in enumerate(params)}
    if by_name.keys() != set(children):
        raise ValueError(
            f"{combinator}: params has entries for {sorted(by_name)}, expected {sorted(children)}"
        )
    return by_name


class Copies(list[tuple[Any, int]]):
    """Leaves that hold several copies of a parameter, each with its number of axes of copies."""

    def axes(self, leaf: Any) -> int:
        """How many leading axes of a leaf number copies: 0 for one that belongs to one layer."""
        return next((axes for copy, axes in self if copy is leaf), 0)


_copied: ContextVar[Copies | None] = ContextVar("copied", default=None)


@contextmanager
def recorded_copies() -> Iterator[Copies]:
    """The leaves that hold several copies of a parameter, of those made while the block runs."""
    copied = Copies()
    token = _copied.set(copied)
    try:
        yield copied
    finally:
        _copied.reset(token)


def record_copies(params: PyTree, inner: list[int]) -> None:
    """Say that each leaf of `params` holds copies, of parameters with `inner` axes of copies."""
    copied = _copied.get()
    if copied is not None:
        leaves = jax.tree.leaves(params)
        copied += [(leaf, axes + 1) for leaf, axes in zip(leaves, inner, strict=True)]


# Further keywords: a wrapper declares those of its child, so that an unknown name is refused.


def wrap(layer: Layer, apply: Callable[..., Any], init: Callable[..., Any] | None = None) -> Layer:
    """A layer around another: the `**extra` of `apply` and `init` are the keywords of that one.

    Without an `init` it is initialised as the one inside.
    """
    if init is not None:
        init = declare_keywords(keywords_of(layer.init), init)
    return Layer(init or layer.init, declare_keywords(keywords_of(layer.apply), apply))
