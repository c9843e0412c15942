"""Blocks of transformers."""

from typing import Any

import jax

from jaxnn._activations import identity
from jaxnn._combinators.composition import compose
from jaxnn._core.arrays import floating
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._layers.normalization import layer_norm


@constructor
def transformer_block(
    attention: LayerLike,
    mlp: LayerLike,
    *,
    cross_attention: LayerLike | None = None,
    norm: LayerLike = layer_norm(),  # noqa: B008
    norm_first: bool = True,
    dropout: LayerLike = identity,
) -> Layer:
    """A transformer block: attention and a feed-forward network, each with a residual connection.

    Pre-norm: `x = x + dropout(attention(norm(x)))`, then `x = x + dropout(mlp(norm(x)))`; post-norm
    (the original): `x = norm(x + dropout(attention(x)))` and so on. Between the two,
    `cross_attention` attends to `memory` in the same way. Each norm has parameters of its own.

    * encoder: `transformer_block(nn.attention(num_heads), nn.feed_forward(hidden_features))`
    * decoder (GPT): `transformer_block(nn.attention(num_heads, is_causal=True), ...)`
    * decoder of an encoder-decoder: the same with `cross_attention=nn.attention(num_heads)`
    * LLaMA: `norm=nn.rms_norm()`, `nn.feed_forward(hidden_features, nn.swiglu, use_bias=False)`,
      and attention with `positions=nn.rotary()` and `num_kv_heads=`

    `nn.stack(block, depth)` makes a transformer of it; with pre-norm, one more norm follows.

    Papers: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762; Xiong et
    al., On Layer Normalization in the Transformer Architecture, https://arxiv.org/abs/2002.04745

    Args:
        attention: a layer over `(batch, time, features)`; `mask=` and `bias=` are passed on to it
            where they are given. With `return_weights=True`, its weights are for `nn.capture`.
        mlp: a layer over `(batch, time, features)`, as `nn.feed_forward` or
            `nn.mixture_of_experts`.
        cross_attention: a layer that is called with `memory=`, and with `mask=memory_mask` where
            that is given; None for none.
        norm: a layer, used for each of the two or three norms.
        norm_first: whether the norms come first (pre-norm) or after the sums (post-norm).
        dropout: a layer at the end of each branch, before the sum: `nn.dropout(rate)` or
            `nn.stochastic_depth(rate)`.

    Returns:
        A `Layer` with params `{"attention", "attention_norm", "mlp", "mlp_norm", "dropout"}`, and
        `"cross_attention"` and `"cross_attention_norm"` where there is one. Its `apply` takes
        `mask=None, bias=None`, and `memory, memory_mask=None` where it attends to a memory.

    Raises:
        TypeError: an argument is neither a layer nor a function.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.transformer_block(
        ...     nn.attention(2, is_causal=True), nn.feed_forward(32), dropout=nn.dropout(0.1))
        >>> decoder = nn.serial(nn.stack(block, 4), nn.layer_norm())
        >>> x = jnp.ones((3, 5, 8))
        >>> params, state = decoder.init(jax.random.key(0), x)
        >>> decoder.apply(params, state, x, key=jax.random.key(1), train=True)[0].shape
        (3, 5, 8)
    """
    children = {
        "attention": as_layer(attention, "transformer_block: attention"),
        "attention_norm": as_layer(norm, "transformer_block: norm"),
        "mlp": as_layer(mlp, "transformer_block: mlp"),
        "mlp_norm": norm,
        "dropout": as_layer(dropout, "transformer_block: dropout"),
    }

    def branch(f: Any, name: str, x: jax.Array, **given: Any) -> jax.Array:
        norm = getattr(f, f"{name}_norm")

        def inner(x: jax.Array) -> Any:
            y = getattr(f, name)(x, **given)
            return f.dropout(y[0] if isinstance(y, tuple) else y)

        y: jax.Array = x + inner(norm(x)) if norm_first else norm(x + inner(x))
        return y

    def self_attend(f: Any, x: jax.Array, mask: Any, bias: Any) -> jax.Array:
        return branch(f, "attention", floating(x), **_given(mask=mask, bias=bias))

    def block(f: Any, x: jax.Array, *, mask: Any = None, bias: Any = None) -> jax.Array:
        return branch(f, "mlp", self_attend(f, x, mask, bias))

    def block_with_memory(
        f: Any,
        x: jax.Array,
        *,
        memory: jax.Array,
        mask: Any = None,
        bias: Any = None,
        memory_mask: Any = None,
    ) -> jax.Array:
        x = self_attend(f, x, mask, bias)
        x = branch(f, "cross_attention", x, memory=memory, **_given(mask=memory_mask))
        return branch(f, "mlp", x)

    if cross_attention is None:
        return compose(block, **children)
    cross = as_layer(cross_attention, "transformer_block: cross_attention")
    return compose(block_with_memory, cross_attention=cross, cross_attention_norm=norm, **children)


def _given(**keywords: Any) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}
