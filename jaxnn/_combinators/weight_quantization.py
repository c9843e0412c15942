"""Layers whose kernels are small integers."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import jax

from jaxnn._combinators.freezing import has_entries, moved, of_another_kind
from jaxnn._combinators.reparametrization import chosen_kernels
from jaxnn._core.arguments import checked
from jaxnn._core.children import with_state, wrap
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.paths import KERNELS, path_text, same_structure
from jaxnn._core.types import Arrays, Axes, PyTree, Selection
from jaxnn.functional._weight_quantization import (
    IntegerName,
    dequantize,
    quantize,
    straight_through,
)


@constructor
def quantized(
    layer: LayerLike,
    dtype: IntegerName = "int8",
    *,
    axis: Axes = -1,
    where: Selection = KERNELS,
) -> Layer:
    """A layer that keeps its kernels as integers: `kernel = integers * scale`.

    A quarter of the memory of float32 in int8, an eighth in int4. Each output of a kernel has a
    scale of its own, `max |kernel| / 127` (7 in int4), and the integers are the nearest. They are
    state: there is no gradient, moment or weight decay for them. All other parameters, as biases,
    stay params; `nn.frozen` around the layer makes them state too. `nn.lora` around it trains a
    correction on a quantised base.

    `nn.quantize_params` makes integers of pretrained parameters; to train for the rounding, see
    `nn.quantization_aware`. The kernels are computed from the integers in each call, which saves
    memory, not arithmetic. Wrap the layers inside of a `nn.stack`, not the stack, which would have
    one scale for an output of all its layers.

    Paper: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs,
    https://arxiv.org/abs/2305.14314

    Args:
        layer: a layer, which may hold others. Further keywords that its `apply` declares (as
            `mask`) are passed on to it.
        dtype: "int8" or "int4", of which XLA puts two into a byte.
        axis: the axis or axes of a kernel's outputs.
        where: which of the layer's parameters: a glob on the path or several, a predicate
            `(path, leaf) -> bool` or a tree of booleans. The default is every leaf named `kernel`.

    Returns:
        A `Layer` whose params have None in place of the kernels, and whose state is
        `{"integers": ..., "scale": ...}`, and `"state"` where the layer has state of its own.

    Raises:
        TypeError: a kernel is complex.
        ValueError: `where` matches nothing, or a parameter with fewer than two axes; `axis` is out
            of range; `dtype` is another one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.lora(nn.quantized(nn.dense(8)), rank=2), nn.relu, nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> jax.tree.map(jnp.shape, params[0]["layer"])
        {'bias': (8,), 'kernel': None}
        >>> state["0"]["layer"]["integers"]["kernel"].dtype
        dtype('int8')
        >>> model.apply(params, state, jnp.ones((3, 4)))[0].shape
        (3, 2)
    """
    layer = as_layer(layer, "quantized: layer")

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        return _quantized("quantized", *layer.init(key, x, **extra), dtype, axis, where)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        whole, own_state = _dequantized(params, state)
        y, own_state = layer.apply(whole, own_state, x, key=key, train=train, **extra)
        return y, state | with_state("state", own_state)

    return wrap(layer, apply, init)


@constructor
def quantization_aware(
    layer: LayerLike,
    dtype: IntegerName = "int8",
    *,
    axis: Axes = -1,
    where: Selection = KERNELS,
) -> Layer:
    """Quantisation-aware training: the layer computes with rounded kernels, and learns whole ones.

    It computes what `nn.quantized(layer, dtype)` does with the parameters that
    `nn.quantize_params` makes of these. The gradient goes straight through the rounding, as if
    there was none.

    Paper: Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons,
    https://arxiv.org/abs/1308.3432

    Args:
        layer: a layer, which may hold others. Further keywords that its `apply` declares (as
            `mask`) are passed on to it.
        dtype: "int8" or "int4".
        axis: the axis or axes of a kernel's outputs.
        where: which of the layer's parameters, see `quantized` for the arguments.

    Returns:
        A `Layer` with the params, state and keywords of `layer`.

    Raises:
        TypeError: a kernel is complex.
        ValueError: `where` matches nothing, or a parameter with fewer than two axes; `axis` is out
            of range; `dtype` is another one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> dense, x = nn.dense(8), jnp.ones((3, 4))
        >>> learner, served = nn.quantization_aware(dense, "int4"), nn.quantized(dense, "int4")
        >>> params, state = learner.init(jax.random.key(0), x)
        >>> y, _ = learner.apply(params, state, x)
        >>> small = nn.quantize_params(params, state, dtype="int4")
        >>> bool((served.apply(*small, x)[0] == y).all())
        True
    """
    layer = as_layer(layer, "quantization_aware: layer")

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        chosen = chosen_kernels("quantization_aware", params, where)

        def rounded(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return (
                straight_through("quantization_aware", leaf, dtype, axis)
                if path_text(path) in chosen
                else leaf
            )

        rounded_params = jax.tree_util.tree_map_with_path(rounded, params)
        y, state = layer.apply(rounded_params, state, x, key=key, train=train, **extra)
        return y, state

    return wrap(layer, apply)


@checked
def quantize_params(
    params: Arrays,
    state: Arrays = {},  # noqa: B006
    path: str | Sequence[str] = "",
    *,
    dtype: IntegerName = "int8",
    axis: Axes = -1,
    where: Selection = KERNELS,
) -> tuple[PyTree, PyTree]:
    """Turn the kernels of some layers into integers, as `nn.quantized` has them.

    Of params that `nn.import_params` or `nn.load` read, too: quantise one `path` after the other
    where the memory is short.

    Args:
        params: the parameters of a model without `nn.quantized`, trained or imported.
        state: its state.
        path: the path of the layer that is to be quantised, as `"trunk"` or `"encoder/0"` (with
            `nn.lora` around it, `"trunk/layer"`), or several; `""` is the whole model.
        dtype: that of `nn.quantized`.
        axis: that of `nn.quantized`.
        where: that of `nn.quantized`.

    Returns:
        `(params, state)` of the same model with `nn.quantized` around these layers.

    Raises:
        TypeError: a kernel is complex.
        ValueError: there is no such layer; `where` matches nothing in it, or a parameter with
            fewer than two axes; `axis` is out of range; `dtype` is another one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(trunk=nn.dense(8), head=nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params, state = nn.quantize_params(params, state, "trunk")
        >>> jax.tree.map(jnp.shape, state["trunk"]["scale"])
        {'bias': None, 'kernel': (1, 8)}
        >>> model = nn.serial(trunk=nn.quantized(nn.dense(8)), head=nn.dense(2))
        >>> model.apply(params, state, jnp.ones((1, 3)))[0].shape
        (1, 2)
    """

    def move(path: str, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        return _quantized("quantize_params", params, state, dtype, axis, where)

    return moved("quantize_params", params, state, path, move)


@checked
def dequantize_params(
    params: Arrays, state: Arrays, path: str | Sequence[str] = ""
) -> tuple[PyTree, PyTree]:
    """Turn the integers of layers in `nn.quantized` back into kernels, as to `nn.merge_lora` them.

    The inverse of `nn.quantize_params`, but for the rounding.

    Args:
        params: the parameters of a model with `nn.quantized`.
        state: its state.
        path: the path of the quantised layer, or several; `""` is the whole model.

    Returns:
        `(params, state)` of the same model without `nn.quantized` around these layers.

    Raises:
        ValueError: there is no such layer, or it is not quantised.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(trunk=nn.quantized(nn.dense(8)), head=nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params, state = nn.dequantize_params(params, state, "trunk")
        >>> jax.tree.map(jnp.shape, params["trunk"]), state
        ({'bias': (8,), 'kernel': (3, 8)}, {})
    """

    def move(path: str, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        if not has_entries(state, "integers", "scale"):
            raise of_another_kind("dequantize_params", path, params, state, "a quantised one")
        parts = {"params": params, "state": state["scale"]}
        same_structure(
            "dequantize_params",
            **{
                name: jax.tree.map(lambda _: 0, part, is_leaf=_is_none)
                for name, part in parts.items()
            },
        )
        return _dequantized(params, state)

    return moved("dequantize_params", params, state, path, move)


def _is_none(node: Any) -> TypeGuard[None]:
    return node is None


def _quantized(
    function: str,
    params: PyTree,
    state: PyTree,
    dtype: IntegerName,
    axis: Axes,
    where: Selection,
) -> tuple[PyTree, PyTree]:
    """Params without kernels, and a state with their integers and scales."""
    pairs = {
        path: quantize(function, kernel, dtype, axis)
        for path, kernel in chosen_kernels(function, params, where).items()
    }

    def parted(part: int) -> PyTree:
        def one(path: tuple[Any, ...], leaf: Any) -> jax.Array | None:
            pair = pairs.get(path_text(path))
            return None if pair is None else pair[part]

        return jax.tree_util.tree_map_with_path(one, params)

    rest = jax.tree_util.tree_map_with_path(
        lambda path, leaf: None if path_text(path) in pairs else leaf, params
    )
    return rest, {"integers": parted(0), "scale": parted(1)} | with_state("state", state)


def _dequantized(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """The params with their kernels, and the state of the layer itself."""
    kernels = jax.tree.map(dequantize, state["integers"], state["scale"])
    whole = jax.tree.map(
        lambda leaf, kernel: kernel if leaf is None else leaf, params, kernels, is_leaf=_is_none
    )
    return whole, state.get("state", {})
