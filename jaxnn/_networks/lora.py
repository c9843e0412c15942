"""Low-rank adaptation."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._combinators.reparametrization import init_recorded, leaves_by_path, with_leaves
from jaxnn._core.arguments import checked
from jaxnn._core.arrays import accumulator_dtype, canonical_axes, check_count, hyperparameter
from jaxnn._core.children import (
    apply_child,
    child_params,
    init_child,
    recorded_copies,
    with_state,
    wrap,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer, child_key, param_dtype
from jaxnn._core.paths import is_selection, leaf_paths
from jaxnn._core.types import Arrays, Axes, PyTree, Scalar, Selection
from jaxnn._layers.params import draw


@constructor
def lora(
    layer: LayerLike,
    rank: int,
    *,
    scale: Scalar = 1.0,
    kernel_init: Initializer = initializers.he_uniform(),  # noqa: B008
    where: Selection | None = None,
    axis: Axes = -1,
) -> Layer:
    """Low-rank adaptation of a dense layer: `y = layer(x) + scale * x @ down @ up`.

    With `where`, of the chosen kernels of a whole model: `kernel + scale * down @ up`. Layers in a
    `stack` or an `ensemble` have a correction each. Around single dense layers, as by
    `nn.attention(dense=...)`, training takes less memory: `where` makes each corrected kernel, and
    the gradient of it.

    `up` is initially zero, so that the layer computes what it did without the correction. To train
    the correction alone, take `nn.lora(nn.frozen(layer), rank)`, or `nn.quantized` for `nn.frozen`;
    with `where`, `partition({"layer/*": freeze(), "*": optimizer})` of `nn.optimizers`.
    `nn.merge_lora` adds the correction to the kernel, for which `nn.unfreeze_params` or
    `nn.dequantize_params` brings it back to the params.

    Paper: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models,
    https://arxiv.org/abs/2106.09685

    Args:
        layer: a layer with a `"kernel"` of shape `(in, out)`, as `nn.dense`, also within wrappers.
        rank: the rank of the correction.
        scale: factor of the correction (the paper's `alpha / rank`).
        kernel_init: initializer of `down`, shape `(in, rank)`; `up`, shape `(rank, out)`, is zeros.
        where: which of the layer's parameters, of two axes or more: a glob on the path or several
            (`"*/attention/*/kernel"`), a predicate `(path, leaf) -> bool` or a tree of booleans.
        axis: with `where`, the axis or axes of a kernel's outputs: `(-2, -1)` for queries, keys and
            values of attention. All others are its inputs.

    Returns:
        A `Layer` with params `{"layer": ..., "down": {"kernel"}, "up": {"kernel"}}`; with `where`,
        `down` and `up` have an entry for the path of each chosen kernel.

    Raises:
        TypeError: `rank` is not an integer, or `where` no selection.
        ValueError: `rank` is less than 1, or `layer` has no kernel of two axes; `where` matches
            nothing, or a parameter with fewer than two axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> dense = nn.dense(8)
        >>> pretrained, _ = dense.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> adapted = nn.lora(dense, rank=2)
        >>> params, state = adapted.init(jax.random.key(1), jnp.zeros((1, 4)))
        >>> params = params | {"layer": pretrained}
        >>> x = jnp.ones((3, 4))
        >>> bool((adapted.apply(params, state, x)[0] == dense.apply(pretrained, {}, x)[0]).all())
        True
        >>> jax.tree.map(jnp.shape, nn.merge_lora(params))
        {'bias': (8,), 'kernel': (4, 8)}
    """
    layer = as_layer(layer, "lora: layer")
    check_count("lora", "rank", rank)
    if where is not None:
        if not is_selection(where):
            raise TypeError(
                f"lora: where is {where!r}, expected globs, a predicate or a tree of booleans"
            )
        return _lora_by_path(layer, rank, scale, kernel_init, where, axis)

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        with recorded_copies() as copied:
            params, state = init_child(layer, "layer", key, x, **extra)
        kernel = _kernel(params, state)
        if kernel is not None and copied.axes(kernel):
            raise ValueError(
                f"lora: {layer!r} has a kernel for each of its copies, expected nn.lora inside of "
                "nn.stack or nn.ensemble"
            )
        if kernel is None or kernel.ndim != 2:
            shape = "no kernel" if kernel is None else f"a kernel of shape {kernel.shape}"
            raise ValueError(
                f"lora: {layer!r} has {shape}, expected one of shape (in, out), or where= for the "
                "kernels of a whole model"
            )
        dtype, (inputs, outputs) = param_dtype(x), kernel.shape
        down = draw(kernel_init, child_key(key, "down"), (inputs, rank), dtype)
        up = jnp.zeros((rank, outputs), dtype)
        correction = {"down": {"kernel": down}, "up": {"kernel": up}}
        return {"layer": params} | correction, with_state("layer", state)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("lora", params, ("layer", "down", "up"))
        y, new_state = apply_child(layer, "layer", by_name["layer"], state, x, key, train, **extra)
        low = functional.linear(x, by_name["down"]["kernel"])
        correction = functional.linear(low, by_name["up"]["kernel"])
        y = y + (correction * hyperparameter(scale, correction.dtype)).astype(y.dtype)
        return y, with_state("layer", new_state)

    return wrap(layer, apply, init)


def _lora_by_path(
    layer: Layer,
    rank: int,
    scale: Scalar,
    kernel_init: Initializer,
    where: Selection,
    axis: Axes,
) -> Layer:
    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        params, state, kernels, copied = init_recorded("lora", layer, where, key, x, extra)
        down: dict[str, jax.Array] = {}
        up: dict[str, jax.Array] = {}
        for path, kernel in kernels.items():
            copies, own = _split(kernel.shape, copied.axes(kernel))
            if len(own) < 2:
                raise ValueError(
                    f"lora: where chooses '{path}', which has shape {own} in each copy, expected "
                    "kernels of two axes or more"
                )
            outputs = math.prod(own[a] for a in canonical_axes(axis, len(own), "lora", path))
            make = functools.partial(
                draw, kernel_init, shape=(math.prod(own) // outputs, rank), dtype=kernel.dtype
            )
            keys = child_key(key, f"down/{path}")
            if copies:
                keys = jax.random.split(keys, copies)
            for _ in copies:
                make = jax.vmap(make)
            down[path] = make(keys)
            up[path] = jnp.zeros((*copies, rank, outputs), kernel.dtype)
        return {**params, "down": down, "up": up}, state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("lora", params, ("layer", "down", "up"))
        whole = _corrected(by_name["layer"], by_name["down"], by_name["up"], scale, axis)
        y, layer_state = apply_child(layer, "layer", whole, state, x, key, train, **extra)
        return y, with_state("layer", layer_state)

    return wrap(layer, apply, init)


def _corrected(
    params: PyTree, down: Mapping[str, Any], up: Mapping[str, Any], scale: Scalar, axis: Axes
) -> PyTree:
    """The params with each correction added to the kernel at its path."""
    leaves = leaves_by_path(params)
    if not down.keys() <= leaves.keys():
        raise ValueError(
            f"merge_lora: params has corrections of {sorted(down)[:3]} to a layer with "
            f"{leaf_paths(params)[:3]}, expected 'kernel': nn.unfreeze_params(params, state, path) "
            "brings that of a frozen layer, nn.dequantize_params that of a quantised one; other "
            "wrappers belong around nn.lora"
        )

    def corrected(path: str) -> jax.Array:
        kernel = leaves[path]
        copies, own = _split(kernel.shape, down[path].ndim - 2)
        outputs = canonical_axes(axis, len(own), "lora", path)
        order = (*(a for a in range(len(own)) if a not in outputs), *outputs)
        wide = accumulator_dtype(kernel.dtype)
        correction = jnp.matmul(down[path].astype(wide), up[path].astype(wide))
        correction = correction.reshape(*copies, *(own[a] for a in order))
        back = [len(copies) + order.index(a) for a in range(len(own))]
        correction = correction.transpose(*range(len(copies)), *back)
        merged = kernel.astype(wide) + correction * hyperparameter(scale, wide)
        return merged.astype(kernel.dtype)

    return with_leaves(params, {path: corrected(path) for path in down})


def _split(shape: tuple[int, ...], copies: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The leading axes, which number copies of a layer, and those of one copy."""
    return shape[:copies], shape[copies:]


def _kernel(params: PyTree, state: PyTree) -> jax.Array | None:
    """The kernel of a layer, which may be in wrappers as `nn.frozen` and `nn.weight_norm`."""
    for tree in (params, state.get("params"), state.get("integers")):
        while isinstance(tree, Mapping):
            if tree.get("kernel") is not None:
                return tree["kernel"]  # type: ignore[no-any-return]
            tree = tree.get("layer")
    inner = state.get("state")  # of a layer in a wrapper whose own state is beside it
    return _kernel({}, inner) if isinstance(inner, Mapping) else None


@checked
def merge_lora(params: Arrays, *, scale: Scalar = 1.0, axis: Axes = -1) -> PyTree:
    """Add every low-rank correction to its kernel: `kernel + scale * down @ up`.

    Args:
        params: the parameters of a model, with or without `nn.lora` in it, at any depth and also
            in a `stack` or an `ensemble`.
        scale: the `scale` that those layers were made with.
        axis: the `axis` that those layers were made with.

    Returns:
        The parameters of the same model without `nn.lora`, which computes the same to rounding.

    Raises:
        ValueError: a layer with a correction has no kernel in its params, as one that is frozen or
            quantised.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> params = ({"layer": {"kernel": jnp.eye(2)},
        ...            "down": {"kernel": jnp.ones((2, 1))}, "up": {"kernel": jnp.ones((1, 2))}},)
        >>> nn.merge_lora(params)[0]["kernel"]
        Array([[2., 1.],
               [1., 2.]], dtype=float32)
    """
    if isinstance(params, Mapping):
        merged = {name: merge_lora(child, scale=scale, axis=axis) for name, child in params.items()}
        if params.keys() != {"layer", "down", "up"}:
            return merged
        return _corrected(merged["layer"], params["down"], params["up"], scale, axis)
    if isinstance(params, tuple) and hasattr(params, "_fields"):
        return type(params)(*(merge_lora(child, scale=scale, axis=axis) for child in params))
    if isinstance(params, (tuple, list)):
        return type(params)(merge_lora(child, scale=scale, axis=axis) for child in params)
    return params
