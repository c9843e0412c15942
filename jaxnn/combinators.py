"""Layers made of layers. Where a layer is expected, a plain function of arrays is lifted to one."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._arrays import PyTree, check_key, promoted
from jaxnn.layer import Layer, abstract, as_layer, child_key, child_scope, constructor

# A combinator's params hold an entry for each child, its state one for each child that has any:
# the state of a stateless model is `{}`, however it is composed.


def _children(
    combinator: str, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Layer]:
    """The children by name; positional ones are named by their position."""
    if positional and named:
        raise TypeError(
            f"{combinator}: got {len(positional)} positional and {len(named)} named layers "
            f"({', '.join(named)}), expected all of one kind"
        )
    by_name = named or {str(i): layer for i, layer in enumerate(positional)}
    return {name: as_layer(value, f"{combinator}: '{name}'") for name, value in by_name.items()}


def _init_child(
    layer: Layer, name: str, key: jax.Array, x: PyTree, **extra: Any
) -> tuple[PyTree, PyTree]:
    with child_scope(name):
        return layer.init(child_key(key, name), x, **extra)


def _init_side_by_side(
    combinator: str, children: Mapping[str, Layer], key: jax.Array, x: PyTree
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """The params and states of children that all get the input `x`."""
    check_key(combinator, key)
    params: dict[str, PyTree] = {}
    state: dict[str, PyTree] = {}
    for name, layer in children.items():
        params[name], child_state = _init_child(layer, name, key, x)
        state |= _with_state(name, child_state)
    return params, state


def _apply_child(
    layer: Layer,
    name: str,
    params: PyTree,
    state: dict[str, PyTree],
    x: PyTree,
    key: jax.Array | None,
    train: bool,
    **extra: Any,
) -> tuple[PyTree, PyTree]:
    with child_scope(name):
        own_key = None if key is None else child_key(key, name)
        return layer.apply(params, state.get(name, {}), x, key=own_key, train=train, **extra)


def _with_state(name: str, state: PyTree) -> dict[str, PyTree]:
    return {name: state} if jax.tree.leaves(state) else {}


def _child_params(combinator: str, params: PyTree, children: Mapping[str, Layer]) -> dict[str, Any]:
    """Each child's parameters by name, whether `params` is a tuple or a dict."""
    if isinstance(params, Mapping):
        by_name = dict(params)
    else:
        by_name = {str(i): child for i, child in enumerate(params)}
    if by_name.keys() != children.keys():
        raise ValueError(
            f"{combinator}: params has entries for {sorted(by_name)}, expected {sorted(children)}"
        )
    return by_name


@constructor
def serial(*layers: Any, **named: Any) -> Layer:
    """Layers one after the other: `y = layer_n(... layer_1(x))`.

    Args:
        *layers: layers or plain functions of arrays; `params` is then a tuple with an entry each.
        **named: the same by name, in the order given; `params` is then a dict.

    Returns:
        A `Layer`. Its state has an entry, by name or position as a string, for each child with
        state.

    Raises:
        TypeError: an argument is neither a layer nor a function, or some layers are named and
            others not.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(hidden=nn.dense(16), relu=nn.relu, out=nn.dense(3))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> jax.tree.map(jnp.shape, params["out"])
        {'bias': (3,), 'kernel': (16, 3)}
        >>> model.apply(params, state, jnp.ones((8, 4)))[0].shape
        (8, 3)
    """
    children = _children("serial", layers, named)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("serial", key)
        x = abstract(x)
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in children.items():
            params[name], child_state = _init_child(layer, name, key, x)
            state |= _with_state(name, child_state)
            with child_scope(name):
                x, _ = jax.eval_shape(layer.apply, params[name], child_state, x)
        return (params if named else tuple(params.values())), state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        by_name = _child_params("serial", params, children)
        new_state: dict[str, PyTree] = {}
        for name, layer in children.items():
            x, child_state = _apply_child(layer, name, by_name[name], state, x, key, train)
            new_state |= _with_state(name, child_state)
        return x, new_state

    return Layer(init, apply)


@constructor
def parallel(*layers: Any, **named: Any) -> Layer:
    """Layers side by side, each on the same input: `y = (layer_1(x), ..., layer_n(x))`.

    To join the outputs, let a plain function follow:
    `nn.serial(nn.parallel(a, b), lambda ys: jnp.concatenate(ys, axis=-1))`.

    Args:
        *layers: layers or plain functions of arrays; params and output are then tuples.
        **named: the same by name; params and output are then dicts.

    Returns:
        A `Layer`.

    Raises:
        TypeError: an argument is neither a layer nor a function, or some layers are named and
            others not.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> heads = nn.parallel(value=nn.dense(1), policy=nn.dense(4))
        >>> params, state = heads.init(jax.random.key(0), jnp.zeros((1, 8)))
        >>> y, state = heads.apply(params, state, jnp.ones((5, 8)))
        >>> jax.tree.map(jnp.shape, y)
        {'policy': (5, 4), 'value': (5, 1)}
    """
    children = _children("parallel", layers, named)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        params, state = _init_side_by_side("parallel", children, key, x)
        return (params if named else tuple(params.values())), state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        by_name = _child_params("parallel", params, children)
        outputs: dict[str, PyTree] = {}
        new_state: dict[str, PyTree] = {}
        for name, layer in children.items():
            outputs[name], child_state = _apply_child(
                layer, name, by_name[name], state, x, key, train
            )
            new_state |= _with_state(name, child_state)
        return (outputs if named else tuple(outputs.values())), new_state

    return Layer(init, apply)


@constructor
def residual(layer: Any, shortcut: Any = None) -> Layer:
    """A layer with a shortcut around it: `y = shortcut(x) + layer(x)`.

    Paper: He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385

    Args:
        layer: a layer or a plain function of arrays. Further keywords that its `apply` declares
            (as `mask`) are passed on to it.
        shortcut: a layer or function that gives `x` the shape of `layer(x)`; the identity if None.

    Returns:
        A `Layer` with params `{"layer": ...}`, and `"shortcut"` where there is one.

    Raises:
        ValueError: the two shapes differ.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.residual(nn.serial(nn.layer_norm(), nn.dense(8), nn.relu))
        >>> params, state = block.init(jax.random.key(0), jnp.zeros((1, 8)))
        >>> block.apply(params, state, jnp.ones((2, 8)))[0].shape
        (2, 8)
    """
    layer = as_layer(layer, "residual: layer")
    children = {"layer": layer}
    if shortcut is not None:
        children["shortcut"] = as_layer(shortcut, "residual: shortcut")

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        return _init_side_by_side("residual", children, key, x)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = _child_params("residual", params, children)
        y, layer_state = _apply_child(
            layer, "layer", by_name["layer"], state, x, key, train, **extra
        )
        new_state = _with_state("layer", layer_state)
        if shortcut is not None:
            x, shortcut_state = _apply_child(
                children["shortcut"], "shortcut", by_name["shortcut"], state, x, key, train
            )
            new_state |= _with_state("shortcut", shortcut_state)
        x, y = jnp.asarray(x), jnp.asarray(y)
        if x.shape != y.shape:
            raise ValueError(
                f"residual: the shortcut has shape {x.shape} and the layer's output {y.shape}, "
                "expected equal shapes"
            )
        dtype = promoted(x.dtype, y.dtype)
        return x.astype(dtype) + y.astype(dtype), new_state

    return Layer(init, _declare_keywords_of(layer, apply))


@constructor
def compose(forward: Callable[..., PyTree], /, **children: Any) -> Layer:
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

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        check_key("compose", key)
        inputs: dict[str, tuple[PyTree, dict[str, Any]]] = {}

        def record(name: str, x: PyTree, extra: dict[str, Any]) -> PyTree:
            layer = layers[name]
            for_init = jax.tree.map(_abstract_if_array, _accepted(layer.init, extra))
            first, for_init = inputs.setdefault(name, (abstract(x), for_init))
            with child_scope(name):
                made = jax.eval_shape(lambda: layer.init(jax.random.key(0), first, **for_init))
                y, _ = jax.eval_shape(lambda made, x: layer.apply(*made, x, **extra), made, x)
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), y)

        jax.eval_shape(lambda x, extra: run(record, x, None, False, extra), abstract(x), extra)
        never_called = sorted(layers.keys() - inputs.keys())
        if never_called:
            raise ValueError(
                f"compose: {forward.__name__} never calls {never_called}, expected it to call "
                "every child"
            )
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in layers.items():
            child_x, child_extra = inputs[name]
            params[name], child_state = _init_child(layer, name, key, child_x, **child_extra)
            state |= _with_state(name, child_state)
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
        by_name = _child_params("compose", params, layers)
        new_state = dict(state)
        calls = dict.fromkeys(layers, 0)

        def call(name: str, x: PyTree, extra: dict[str, Any]) -> PyTree:
            count, calls[name] = calls[name], calls[name] + 1
            call_key = key if key is None or count == 0 else child_key(key, f"call {count}")
            y, child_state = _apply_child(
                layers[name], name, by_name[name], new_state, x, call_key, train, **extra
            )
            new_state.update(_with_state(name, child_state))
            return y

        y = run(call, x, key, train, extra)
        return y, new_state

    own = [p for name, p in keywords.items() if name not in ("key", "train")]
    return Layer(init, _declare_keywords(own, apply))


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
        return lambda x, **extra: self._call(name, x, extra)


# Further keywords: a wrapper declares those of its child, so that an unknown name is refused.


def _declare_keywords(
    own: list[inspect.Parameter], apply: Callable[..., Any]
) -> Callable[..., Any]:
    """`apply`, whose `**extra` stands for the keywords `own` and no others."""
    names = {parameter.name for parameter in own}
    signature = inspect.signature(apply)
    standard = [
        p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def declared(*args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        unknown = kwargs.keys() - names - {"key", "train"}
        if unknown:
            raise TypeError(
                f"{declared.__qualname__}() got an unexpected keyword argument '{min(unknown)}'"
            )
        return apply(*args, **kwargs)  # type: ignore[no-any-return]

    declared.__signature__ = signature.replace(parameters=[*standard, *own])  # type: ignore[attr-defined]
    return declared


def _declare_keywords_of(layer: Layer, apply: Callable[..., Any]) -> Callable[..., Any]:
    keywords = [
        p
        for p in inspect.signature(layer.apply).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in ("key", "train")
    ]
    return _declare_keywords(keywords, apply)


def _accepted(function: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Those of `extra` that `function` declares."""
    declared = inspect.signature(function).parameters
    return {name: value for name, value in extra.items() if name in declared}


def _abstract_if_array(leaf: Any) -> Any:
    return abstract(leaf) if hasattr(leaf, "dtype") else leaf
