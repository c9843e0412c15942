"""Gradient checkpointing and mixed precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.children import wrap
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Crossing, Seen


@constructor
def remat(layer: LayerLike, *, policy: Callable[..., Any] | None = None) -> Layer:
    """Gradient checkpointing: recompute activations in the backward pass instead of storing them.

    The same numbers with less memory: `jax.checkpoint` around `apply`. `nn.stack(nn.remat(block),
    depth)` keeps one activation per block.

    Paper: Chen et al., Training Deep Nets with Sublinear Memory Cost,
    https://arxiv.org/abs/1604.06174

    Args:
        layer: a layer or a plain function of arrays.
        policy: what is stored all the same, a member of `jax.checkpoint_policies`; nothing if None.

    Returns:
        A `Layer` with the params, state and keywords of `layer`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.serial(nn.dense(8), nn.tanh)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> def gradient(layer):
        ...     return jax.grad(lambda p: layer.apply(p, state, jnp.ones((2, 4)))[0].sum())(params)
        >>> same = jax.tree.map(jnp.allclose, gradient(nn.remat(layer)), gradient(layer))
        >>> all(jax.tree.leaves(same))
        True
    """
    layer = as_layer(layer, "remat: layer")

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        crossing = Crossing()

        # Keywords are closed over: as arguments jax.checkpoint would trace `train`.
        def run(params: PyTree, state: PyTree, x: PyTree, added: Seen) -> PyTree:
            with crossing.inside(added) as seen:
                y, state = layer.apply(params, state, x, key=key, train=train, **extra)
            return y, state, seen

        y, state, seen = jax.checkpoint(run, policy=policy)(params, state, x, crossing.added)
        crossing.report(seen)
        return y, state

    return wrap(layer, apply)


@constructor
def mixed_precision(
    layer: LayerLike,
    compute_dtype: DTypeLike = jnp.bfloat16,
    *,
    output_dtype: DTypeLike | None = None,
) -> Layer:
    """Mixed precision: compute in a narrower dtype than that of the parameters.

    Floating inputs, keywords included, and parameters are cast to `compute_dtype` on the way in;
    statistics and softmax are float32 inside. The parameters themselves, their gradients and the
    state keep their dtypes.

    Paper: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740

    Args:
        layer: a layer or a plain function of arrays.
        compute_dtype: the floating dtype of the computation; bfloat16 needs no loss scaling,
            float16 does.
        output_dtype: the dtype of the output; None for that of the input (the default float for
            integers).

    Returns:
        A `Layer` with the params, state and keywords of `layer`.

    Raises:
        TypeError: `compute_dtype` or `output_dtype` is not a floating dtype.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.mixed_precision(nn.serial(nn.dense(8), nn.relu, nn.dense(2)))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> params[0]["kernel"].dtype, model.apply(params, state, jnp.ones((3, 4)))[0].dtype
        (dtype('float32'), dtype('float32'))
    """
    layer = as_layer(layer, "mixed_precision: layer")
    for name, dtype in (("compute_dtype", compute_dtype), ("output_dtype", output_dtype)):
        if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"mixed_precision: {name} is {dtype!r}, expected a floating dtype")

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        wanted = _floating_dtype(x) if output_dtype is None else output_dtype
        narrow, x, extra = _cast((params, x, extra), compute_dtype)
        y, state = layer.apply(narrow, state, x, key=key, train=train, **extra)
        return _cast(y, wanted), state

    return wrap(layer, apply)


def _floating_dtype(x: PyTree) -> jnp.dtype:
    """The dtype of the first floating leaf; the default float if there is none."""
    dtypes = (jnp.result_type(leaf) for leaf in jax.tree.leaves(x))
    default = jnp.result_type(float)
    return next((dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)), default)


def _cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The floating arrays of a tree in `dtype`, everything else as it is."""

    def one(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(one, tree)
