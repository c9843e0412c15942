"""Weight normalisation and spectral normalisation."""

import math
from typing import Any

import jax

from jaxnn import functional
from jaxnn._core.arrays import canonical_axes, check_count, check_range
from jaxnn._core.children import (
    Copies,
    apply_child,
    child_params,
    init_side_by_side,
    recorded_copies,
    with_state,
    wrap,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer, child_key
from jaxnn._core.paths import KERNELS, path_text, select
from jaxnn._core.types import Axes, PyTree, Selection
from jaxnn.functional._reparametrization import kernel_length


@constructor
def weight_norm(layer: LayerLike, *, axis: Axes = -1, where: Selection = KERNELS) -> Layer:
    """Weight normalisation, separate length and direction: `w = scale * kernel / ‖kernel‖`.

    The length is that of each output's kernel, over all axes but `axis`. Initially it is the length
    of the kernel, so that the layer computes what it did without the wrapper. An output whose
    kernel is zero stays zero; its gradient is zero too.

    Paper: Salimans and Kingma, Weight Normalization, https://arxiv.org/abs/1602.07868

    Args:
        layer: a layer, which may hold others. Further keywords that its `apply` declares (as
            `mask`) are passed on to it.
        axis: the axis or axes of a kernel's outputs (torch's `dim`, where they come first and
            those of a transposed convolution second; `()` is its `dim=None`).
        where: which of the layer's parameters: a glob on the path or several, a predicate
            `(path, leaf) -> bool` or a tree of booleans. The default is every leaf named `kernel`.

    Returns:
        A `Layer` with params `{"layer": ..., "scale": {path: lengths}}`, the directions being in
        `layer` in place of the kernels.

    Raises:
        ValueError: `where` matches nothing, a parameter with fewer than two axes, or one of all
            copies in a `stack` or `ensemble`; `axis` is out of range; the params have other
            entries.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> dense = nn.dense(2)
        >>> layer = nn.weight_norm(dense)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> jax.tree.map(jnp.shape, params)
        {'layer': {'bias': (2,), 'kernel': (3, 2)}, 'scale': {'kernel': (2,)}}
        >>> x = jnp.ones((1, 3))
        >>> y, _ = layer.apply(params, state, x)
        >>> bool(jnp.allclose(y, dense.apply(params["layer"], {}, x)[0]))
        True
    """
    layer = as_layer(layer, "weight_norm: layer")

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        params, state, kernels = init_with_kernels("weight_norm", layer, where, key, x, extra)
        scale = {path: kernel_length(kernel, axis) for path, kernel in kernels.items()}
        return {**params, "scale": scale}, state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("weight_norm", params, ("layer", "scale"))
        directions = leaves_by_path(by_name["layer"])
        kernels = {
            path: functional.weight_norm(directions[path], scale, axis=axis)
            for path, scale in by_name["scale"].items()
        }
        whole = with_leaves(by_name["layer"], kernels)
        y, layer_state = apply_child(layer, "layer", whole, state, x, key, train, **extra)
        return y, with_state("layer", layer_state)

    return wrap(layer, apply, init)


@constructor
def spectral_norm(
    layer: LayerLike,
    *,
    n_steps: int = 1,
    axis: Axes = -1,
    epsilon: float = 1e-12,
    where: Selection = KERNELS,
) -> Layer:
    """Spectral normalisation by the largest singular value: `w = kernel / σ`, `σ = uᵀ W v`.

    `W` is the kernel as a matrix `(inputs, outputs)`. Its singular vectors `u` and `v` are state:
    training refines them by `n_steps` of `power_iteration` before it uses them, evaluation uses
    them as they are; the gradient takes them as constants.

    Paper: Miyato et al., Spectral Normalization for Generative Adversarial Networks,
    https://arxiv.org/abs/1802.05957

    Args:
        layer: a layer, which may hold others. Further keywords that its `apply` declares (as
            `mask`) are passed on to it.
        n_steps: the number of power iterations in each call in training.
        axis: the axis or axes of a kernel's outputs.
        epsilon: `σ` and products of the iteration that are not longer change nothing, so that a
            kernel of zeros stays one.
        where: which of the layer's parameters: a glob on the path or several, a predicate
            `(path, leaf) -> bool` or a tree of booleans. The default is every leaf named `kernel`.

    Returns:
        A `Layer` with params `{"layer": ...}` and state `{"u": {path: vector}, "v": {path:
        vector}}`, and `"layer"` where the layer has state of its own. The vectors begin with 15
        steps from random ones. (torch's `u` and `v` are our `v` and `u`, for its kernels are
        transposed.)

    Raises:
        TypeError: `n_steps` is not an integer.
        ValueError: `n_steps` is less than 1; `where` matches nothing, a parameter with fewer than
            two axes, or one of all copies in a `stack` or `ensemble`; `axis` is out of range;
            `epsilon` is negative; params or state have other entries.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.spectral_norm(nn.dense(3, use_bias=False), n_steps=100)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> w, state = layer.apply(params, state, jnp.eye(3), train=True)
        >>> jnp.linalg.norm(w, 2).round(3)
        Array(1., dtype=float32)
    """
    layer = as_layer(layer, "spectral_norm: layer")
    check_range("spectral_norm", "epsilon", epsilon, 0)
    n_steps = check_count("spectral_norm", "n_steps", n_steps)

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        params, state, kernels = init_with_kernels("spectral_norm", layer, where, key, x, extra)
        vectors = {
            path: _first_vectors(child_key(key, f"vectors/{path}"), kernel, axis, epsilon)
            for path, kernel in kernels.items()
        }
        return params, state | _vectors_by_side(vectors)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        raw = child_params("spectral_norm", params, ("layer",))["layer"]
        if not {"u", "v"} <= state.keys():
            raise ValueError(
                f"spectral_norm: state has {sorted(state)}, expected 'u' and 'v' as made by init"
            )
        leaves = leaves_by_path(raw)
        vectors = {path: (u, state["v"][path]) for path, u in state["u"].items()}
        if train:
            vectors = {
                path: functional.power_iteration(
                    jax.lax.stop_gradient(leaves[path]),
                    u,
                    v,
                    n_steps=n_steps,
                    axis=axis,
                    epsilon=epsilon,
                )
                for path, (u, v) in vectors.items()
            }
        kernels = {
            path: functional.spectral_norm(leaves[path], u, v, axis=axis, epsilon=epsilon)
            for path, (u, v) in vectors.items()
        }
        whole = with_leaves(raw, kernels)
        y, layer_state = apply_child(layer, "layer", whole, state, x, key, train, **extra)
        return y, with_state("layer", layer_state) | _vectors_by_side(vectors)

    return wrap(layer, apply, init)


Vectors = tuple[jax.Array, jax.Array]


def _first_vectors(key: jax.Array, kernel: jax.Array, axis: Axes, epsilon: float) -> Vectors:
    """Random unit vectors, 15 steps nearer to the singular ones."""
    outputs = canonical_axes(axis, kernel.ndim, "spectral_norm")
    columns = math.prod(kernel.shape[a] for a in outputs)
    u_key, v_key = jax.random.split(key)
    u = functional.unit_norm(jax.random.normal(u_key, (kernel.size // columns,), kernel.dtype))
    v = functional.unit_norm(jax.random.normal(v_key, (columns,), kernel.dtype))
    return functional.power_iteration(kernel, u, v, n_steps=15, axis=axis, epsilon=epsilon)


def _vectors_by_side(vectors: dict[str, Vectors]) -> dict[str, dict[str, jax.Array]]:
    return {
        "u": {path: u for path, (u, _) in vectors.items()},
        "v": {path: v for path, (_, v) in vectors.items()},
    }


def leaves_by_path(tree: PyTree) -> dict[str, jax.Array]:
    return {path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(tree: PyTree, leaves: dict[str, jax.Array]) -> PyTree:
    """`tree` with other leaves at the paths that `leaves` names."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaves.get(path_text(path), leaf), tree
    )


def init_with_kernels(
    wrapper: str, layer: Layer, where: Selection, key: jax.Array, x: PyTree, extra: dict[str, Any]
) -> tuple[dict[str, PyTree], dict[str, PyTree], dict[str, jax.Array]]:
    """The params and state of the layer inside, and its kernels that `where` chooses, by path."""
    params, state, kernels, copied = init_recorded(wrapper, layer, where, key, x, extra)
    for path, leaf in kernels.items():
        if copied.axes(leaf):
            raise ValueError(
                f"{wrapper}: where chooses '{path}' of shape {leaf.shape}, which has a kernel of "
                f"each copy of a layer, expected {wrapper} inside of nn.stack or nn.ensemble"
            )
    return params, state, kernels


def init_recorded(
    wrapper: str, layer: Layer, where: Selection, key: jax.Array, x: PyTree, extra: dict[str, Any]
) -> tuple[dict[str, PyTree], dict[str, PyTree], dict[str, jax.Array], Copies]:
    """The same, of a layer that may have copies, and which leaves hold several."""
    with recorded_copies() as copied:
        params, state = init_side_by_side(wrapper, {"layer": layer}, key, x, layer=extra)
    return params, state, chosen_kernels(wrapper, params["layer"], where), copied


def chosen_kernels(wrapper: str, params: PyTree, where: Selection) -> dict[str, jax.Array]:
    """The kernels that `where` chooses, by path."""
    leaves = leaves_by_path(params)
    if not leaves:
        place = f"goes around nn.{wrapper}"
        if wrapper == "lora":  # which would then be frozen too
            place = "goes around single layers; an optimizer can nn.optimizers.freeze() 'layer/*'"
        raise ValueError(
            f"{wrapper}: layer has no parameters, expected some; nn.frozen, which has them in its "
            f"state, {place}"
        )
    flags = jax.tree.leaves(select(params, where, f"{wrapper}: where"))
    chosen = {path: leaf for (path, leaf), flag in zip(leaves.items(), flags, strict=True) if flag}
    if not chosen:
        raise ValueError(
            f"{wrapper}: where chooses no parameter, expected at least one of {sorted(leaves)}"
        )
    for path, leaf in chosen.items():
        if leaf.ndim < 2:
            raise ValueError(
                f"{wrapper}: where chooses '{path}' of shape {leaf.shape}, expected kernels of two "
                "axes or more"
            )
        lora, _, last = path.rpartition("up/kernel")
        if not last and {f"{lora}down/kernel", f"{lora}layer/kernel"} <= leaves.keys():
            raise ValueError(
                f"{wrapper}: where chooses '{path}' of nn.lora, which begins at zero and would "
                f"stay there, expected nn.lora around nn.{wrapper}"
            )
    return chosen
