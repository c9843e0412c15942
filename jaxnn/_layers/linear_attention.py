"""Multi-head linear attention, and decoding with a state of constant size."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn import functional
from jaxnn._core.arrays import check_count, check_key, floating
from jaxnn._core.children import apply_child, init_child, with_state
from jaxnn._core.construction import constructor
from jaxnn._core.decoding import refuse_in_decoding
from jaxnn._core.layer import Layer, abstract
from jaxnn._core.types import PyTree
from jaxnn._layers.attention import head_features
from jaxnn._layers.dense import DenseLike, dense
from jaxnn.functional._linear_attention import FeatureMap


@constructor
def linear_attention(
    num_heads: int,
    *,
    head_dim: int | None = None,
    is_causal: bool = False,
    feature_map: FeatureMap | None = None,
    use_bias: bool = True,
    dense: DenseLike = dense,
    cached: bool = False,
) -> Layer:
    """Multi-head self-attention by `functional.linear_attention`, in time linear in the length.

    Queries, keys, values and the output are dense layers. `apply` takes `mask=`, booleans of shape
    `(..., 1, 1, time)`, False for elements to which none attends.

    With `cached` the same parameters decode: `apply` takes the next elements of the sequence, one
    or more, and the sums over all elements so far are state, whose size does not depend on how many
    they are.

    Paper: Katharopoulos et al., Transformers are RNNs, https://arxiv.org/abs/2006.16236

    Args:
        num_heads: the number of heads.
        head_dim: the head dimension; None for the features of `x` divided by `num_heads`.
        is_causal: whether an element attends only to those up to its own position.
        feature_map: from `(..., head_dim)` to nonnegative features; None for `elu(x) + 1`.
        use_bias: whether the four dense layers add biases.
        dense: the constructor of the four, called as `nn.dense(features, use_bias=use_bias)`.
        cached: whether to decode, with `is_causal=True`.

    Returns:
        A `Layer` on `(..., time, features)` with params `{"query", "key", "value", "out"}`. With
        `cached` its state is `{"sums"}`, shape `(..., num_heads, head_dim, head_dim + 1)` with the
        default feature map, float32 or wider.

    Raises:
        TypeError: an argument is of another type than above.
        ValueError: a number is less than 1; `num_heads` does not divide the features of `x`;
            `cached` is given without `is_causal`; `x` has no axes of time and features.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 8))
        >>> layer = nn.linear_attention(2, is_causal=True)
        >>> params, state = layer.init(jax.random.key(1), x)
        >>> y, _ = layer.apply(params, state, x)
        >>> decoder = nn.linear_attention(2, is_causal=True, cached=True)
        >>> _, sums = decoder.init(jax.random.key(1), x)
        >>> first, sums = decoder.apply(params, sums, x[:, :4])
        >>> fifth, sums = decoder.apply(params, sums, x[:, 4:5])
        >>> bool(jnp.allclose(jnp.concatenate([first, fifth], 1), y[:, :5], atol=1e-6))
        True
    """
    check_count("linear_attention", "num_heads", num_heads)
    if head_dim is not None:
        check_count("linear_attention", "head_dim", head_dim)
    if cached and not is_causal:
        raise ValueError("linear_attention: cached is True, expected False without is_causal=True")

    def children(x: Any) -> dict[str, Layer]:
        if x.ndim < 2 or x.shape[-1] == 0:
            raise ValueError(
                f"linear_attention: x has shape {x.shape}, expected shape (..., time, features) "
                "with at least one feature"
            )
        size = num_heads * head_features("linear_attention", x.shape[-1], num_heads, head_dim)
        sizes = {"query": size, "key": size, "value": size, "out": x.shape[-1]}
        return {name: dense(n, use_bias=use_bias) for name, n in sizes.items()}

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("linear_attention", key)
        x = jax.eval_shape(floating, abstract(x))
        layers = children(x)
        size = head_features("linear_attention", x.shape[-1], num_heads, head_dim)
        joined = jax.ShapeDtypeStruct((*x.shape[:-1], num_heads * size), x.dtype)
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in layers.items():
            given = joined if name == "out" else x
            params[name], child_state = init_child(layer, name, key, given)
            state |= with_state(name, child_state)
        if cached:
            heads = jax.ShapeDtypeStruct((*x.shape[:-1], num_heads, size), x.dtype)
            _, sums = jax.eval_shape(attend, heads, heads, heads)
            state["sums"] = jnp.zeros(sums.shape, sums.dtype)
        return params, state

    def attend(query: Any, key: Any, value: Any, **given: Any) -> tuple[jax.Array, jax.Array]:
        return functional.linear_attention(
            query,
            key,
            value,
            is_causal=is_causal,
            feature_map=feature_map,
            return_sums=True,
            **given,
        )

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        x = floating(x)
        layers = children(x)
        if not cached:
            refuse_in_decoding("linear_attention without cached=True", x.shape[-2], "cached=True")
        elif "sums" not in state:
            raise ValueError(
                f"linear_attention: state has {sorted(state)}, expected 'sums' as made by init"
            )
        new_state: dict[str, PyTree] = {}

        def run(name: str, x: jax.Array) -> jax.Array:
            y, child_state = apply_child(layers[name], name, params[name], state, x, key, train)
            new_state.update(with_state(name, child_state))
            return jnp.asarray(y)

        def heads(name: str) -> jax.Array:
            y = run(name, x)
            return y.reshape(*y.shape[:-1], num_heads, y.shape[-1] // num_heads)

        before = state["sums"] if cached else None
        query, keys, values = map(heads, ("query", "key", "value"))
        y, sums = attend(query, keys, values, mask=mask, sums=before)
        if cached:
            new_state["sums"] = sums.astype(state["sums"].dtype)
        return run("out", y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])), new_state

    return Layer(init, apply)
