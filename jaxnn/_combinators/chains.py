"""Layers in sequence, in parallel, and with a residual connection."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_key, promoted
from jaxnn._core.children import (
    apply_child,
    child_params,
    init_child,
    init_side_by_side,
    named_children,
    with_state,
    wrap,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer, child_scope
from jaxnn._core.types import PyTree


@constructor
def serial(*layers: LayerLike, **named: LayerLike) -> Layer:
    """Layers in sequence: `y = layer_n(...(layer_1(x)))`.

    Each gets nothing but `x`: where one needs more, as a mask, `compose` hands it on.

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
    children = named_children("serial", layers, named)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("serial", key)
        x = abstract(x)
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in children.items():
            params[name], child_state = init_child(layer, name, key, x)
            state |= with_state(name, child_state)
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
        by_name = child_params("serial", params, children)
        new_state: dict[str, PyTree] = {}
        for name, layer in children.items():
            x, child_state = apply_child(layer, name, by_name[name], state, x, key, train)
            new_state |= with_state(name, child_state)
        return x, new_state

    return Layer(init, apply)


@constructor
def parallel(*layers: LayerLike, **named: LayerLike) -> Layer:
    """Layers in parallel, all on the same input: `y = (layer_1(x), ..., layer_n(x))`.

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
    children = named_children("parallel", layers, named)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        params, state = init_side_by_side("parallel", children, key, x)
        return (params if named else tuple(params.values())), state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("parallel", params, children)
        outputs: dict[str, PyTree] = {}
        new_state: dict[str, PyTree] = {}
        for name, layer in children.items():
            outputs[name], child_state = apply_child(
                layer, name, by_name[name], state, x, key, train
            )
            new_state |= with_state(name, child_state)
        return (outputs if named else tuple(outputs.values())), new_state

    return Layer(init, apply)


@constructor
def residual(layer: LayerLike, shortcut: LayerLike | None = None) -> Layer:
    """A residual connection: `y = shortcut(x) + layer(x)`.

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

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        return init_side_by_side("residual", children, key, x, layer=extra)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("residual", params, children)
        y, layer_state = apply_child(
            layer, "layer", by_name["layer"], state, x, key, train, **extra
        )
        new_state = with_state("layer", layer_state)
        if shortcut is not None:
            x, shortcut_state = apply_child(
                children["shortcut"], "shortcut", by_name["shortcut"], state, x, key, train
            )
            new_state |= with_state("shortcut", shortcut_state)
        x, y = jnp.asarray(x), jnp.asarray(y)
        if x.shape != y.shape:
            raise ValueError(
                f"residual: the shortcut has shape {x.shape} and the layer's output {y.shape}, "
                "expected equal shapes"
            )
        dtype = promoted(x.dtype, y.dtype)
        return x.astype(dtype) + y.astype(dtype), new_state

    return wrap(layer, apply, init)
