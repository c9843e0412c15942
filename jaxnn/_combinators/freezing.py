"""Layers that are not trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import lax

from jaxnn._core.arguments import checked
from jaxnn._core.children import with_state, wrap
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import Arrays, PyTree


@constructor
def frozen(layer: LayerLike) -> Layer:
    """A layer that is not trained: `y` is what it computes in evaluation, in training too.

    Its parameters are state, so that for them there is no gradient, moment or weight decay; dropout
    drops nothing, and batch statistics stay. The gradient with respect to `x` flows through it.

    `nn.freeze_params` moves pretrained parameters to where this layer has them, and
    `nn.unfreeze_params` takes them out again, to train the model without `frozen`.

    Args:
        layer: a layer or a plain function of arrays. Further keywords that its `apply` declares
            (as `mask`) are passed on to it.

    Returns:
        A `Layer` with params `{}` and state `{"params": ..., "state": ...}`, the params and the
        state of `layer`, each where there are any.

    Raises:
        ValueError: it is given params; the state is missing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> trunk = nn.serial(nn.dense(8), nn.batch_norm(), nn.relu)
        >>> x = jnp.ones((4, 3))
        >>> pretrained = trunk.init(jax.random.key(0), x)  # params and state, or nn.load(...)
        >>> model = nn.serial(trunk=nn.frozen(trunk), head=nn.dense(2))
        >>> params, state = model.init(jax.random.key(1), x)
        >>> _, state["trunk"] = nn.freeze_params(*pretrained)
        >>> jax.tree.map(jnp.shape, params)
        {'head': {'bias': (2,), 'kernel': (8, 2)}, 'trunk': {}}
        >>> y, new_state = model.apply(params, state, x, train=True)
        >>> bool((new_state["trunk"]["state"]["1"]["mean"] == 0).all())
        True
    """
    layer = as_layer(layer, "frozen: layer")

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        return _frozen(*layer.init(key, x, **extra))

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        if jax.tree.leaves(params):
            raise ValueError(
                f"frozen: params has {', '.join(map(repr, leaf_paths(params)[:3]))}, expected "
                "none: nn.freeze_params moves them to the state"
            )
        own = state.get("params")
        if own is None:  # there are none, or they are missing
            own, _ = jax.eval_shape(lambda x: layer.init(jax.random.key(0), x), abstract(x))
            if jax.tree.leaves(own):
                raise KeyError("params")
        y, _ = layer.apply(
            lax.stop_gradient(own), state.get("state", {}), x, key=key, train=False, **extra
        )
        return y, state

    return wrap(layer, apply, init)


@checked
def freeze_params(
    params: Arrays, state: Arrays, path: str | Sequence[str] = ""
) -> tuple[PyTree, PyTree]:
    """Move the parameters of some layers to the state, as `nn.frozen` has them.

    Args:
        params: the parameters of a model without `nn.frozen`.
        state: its state.
        path: the path of the layer that is to be frozen, as `"trunk"` or `"encoder/0"`, or
            several; `""` is the whole model.

    Returns:
        `(params, state)` of the same model with `nn.frozen` around these layers.

    Raises:
        ValueError: there is no such layer.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(trunk=nn.dense(8), head=nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params, state = nn.freeze_params(params, state, "trunk")
        >>> params["trunk"], jax.tree.map(jnp.shape, state)
        ({}, {'trunk': {'params': {'bias': (8,), 'kernel': (3, 8)}}})
        >>> model = nn.serial(trunk=nn.frozen(nn.dense(8)), head=nn.dense(2))
        >>> model.apply(params, state, jnp.ones((1, 3)))[0].shape
        (1, 2)
    """
    return moved("freeze_params", params, state, path, lambda path, *own: _frozen(*own))


@checked
def unfreeze_params(
    params: Arrays, state: Arrays, path: str | Sequence[str] = ""
) -> tuple[PyTree, PyTree]:
    """Move the parameters of layers in `nn.frozen` back, to train the model without it.

    The inverse of `nn.freeze_params`.

    Args:
        params: the parameters of a model with `nn.frozen`.
        state: its state.
        path: the path of the frozen layer, or several; `""` is the whole model.

    Returns:
        `(params, state)` of the same model without `nn.frozen` around these layers.

    Raises:
        ValueError: there is no such layer, or it is not frozen.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(trunk=nn.frozen(nn.dense(8)), head=nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params, state = nn.unfreeze_params(params, state, "trunk")
        >>> jax.tree.map(jnp.shape, params["trunk"]), state
        ({'bias': (8,), 'kernel': (3, 8)}, {})
    """

    def thaw(path: str, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        is_frozen = has_entries(state, "params") and not jax.tree.leaves(params)
        if not is_frozen:
            raise of_another_kind("unfreeze_params", path, params, state, "a frozen one")
        return state["params"], state.get("state", {})

    return moved("unfreeze_params", params, state, path, thaw)


def _frozen(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    return {}, with_state("params", params) | with_state("state", state)


def has_entries(state: PyTree, *names: str) -> bool:
    """Whether a wrapper that keeps these in its state, and that of its layer, has made it."""
    return isinstance(state, Mapping) and {*names} <= state.keys() <= {*names, "state"}


def of_another_kind(
    function: str, path: str, params: PyTree, state: PyTree, expected: str
) -> ValueError:
    """The error for a layer that the wrapper in question has not made."""
    entries = sorted(state) if isinstance(state, Mapping) else []
    return ValueError(
        f"{function}: path is {path!r}, whose layer has params {leaf_paths(params)[:3]} and state "
        f"{entries}, expected {expected}"
    )


Move = Callable[[str, PyTree, PyTree], tuple[PyTree, PyTree]]


def moved(
    function: str, params: PyTree, state: PyTree, path: str | Sequence[str], move: Move
) -> tuple[PyTree, PyTree]:
    """Params and state with those of the layers at these paths as `move` makes them."""
    for one in [path] if isinstance(path, str) else path:
        params, state = _at(function, params, state, one, one.split("/") if one else [], move)
    return params, state


def _at(
    function: str, params: PyTree, state: PyTree, path: str, names: list[str], move: Move
) -> tuple[PyTree, PyTree]:
    if not names:
        return move(path, params, state)
    if not isinstance(state, Mapping):
        raise TypeError(f"{function}: state is {state!r}, expected a dict of that of children")
    name, *rest = names
    is_mapping = isinstance(params, Mapping)
    children = dict(params) if is_mapping else {}
    if isinstance(params, (tuple, list)):
        children = {str(i): child for i, child in enumerate(params)}
    if name not in children:
        raise ValueError(
            f"{function}: path is {path!r}, expected {name!r} to be one of {sorted(children)}"
        )
    children[name], own_state = _at(function, children[name], state.get(name, {}), path, rest, move)
    others = {other: value for other, value in state.items() if other != name}
    new = children if is_mapping else type(params)(children.values())
    return new, others | with_state(name, own_state)
