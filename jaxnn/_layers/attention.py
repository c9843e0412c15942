"""Multi-head attention, and decoding with a key/value cache."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn import functional
from jaxnn._core.arrays import (
    check_count,
    check_key,
    check_range,
    check_soft_cap,
    concrete,
    floating,
    widen,
)
from jaxnn._core.children import apply_child, init_child, with_state
from jaxnn._core.construction import constructor, refuse_constructor
from jaxnn._core.decoding import check_capacity, refuse_in_decoding
from jaxnn._core.layer import (
    Layer,
    LayerLike,
    abstract,
    as_layer,
    child_key,
    missing_key,
    param_dtype,
)
from jaxnn._core.meshes import placed_like
from jaxnn._core.types import PyTree, Scalar
from jaxnn._layers.dense import DenseLike, dense
from jaxnn._layers.positions import Positions
from jaxnn.functional._attention import check_has_weights
from jaxnn.functional._attention_forms import Form
from jaxnn.functional._masks import AttentionWindow, check_window


@constructor
def attention(
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    out_features: int | None = None,
    is_causal: bool = False,
    window: AttentionWindow | None = None,
    positions: Positions | None = None,
    qk_norm: LayerLike | None = None,
    dropout_rate: Scalar = 0.0,
    use_bias: bool | Mapping[str, bool] = True,
    scale: float | None = None,
    soft_cap: float | None = None,
    use_sinks: bool = False,
    dense: DenseLike = dense,
    cache_length: int | None = None,
    return_weights: bool = False,
    implementation: Form | None = None,
) -> Layer:
    """Multi-head attention: `y = out(softmax(query @ key.T / sqrt(head_dim)) @ value)`.

    Queries, keys, values and the output are dense layers. `apply` attends from `x` to itself, or to
    `memory=` where that is given (cross-attention; then `init` needs `memory=` too). Its keywords
    `mask=`, booleans with True where to attend, and `bias=`, added to the logits, broadcast to
    `(..., num_heads, queries, keys)` and have all of these axes. A query that may attend to nothing
    gives `out(0)`.

    With `cache_length` the same parameters decode with a key/value cache, which is state: `apply`
    takes the next elements of the sequence, one (decoding) or more (prefill), writes their keys and
    values to the cache and attends to all elements so far. Elements that do not fit into the cache
    give NaN. Masks and biases are then over the `cache_length` keys of the cache.

    Papers: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762; Ainslie et
    al., GQA, https://arxiv.org/abs/2305.13245

    Args:
        num_heads: the number of query heads.
        num_kv_heads: the number of key/value heads, a divisor of `num_heads`, each shared by
            consecutive query heads (grouped-query attention); None for `num_heads`.
        head_dim: the head dimension; None for the features of `x` divided by `num_heads`.
        out_features: the number of output features; None for that of `x`.
        is_causal: whether an element attends only to those up to its own position.
        window: `(left, right)`, how many elements before and after its own position an element
            attends to (sliding-window attention); an integer stands for both.
        positions: `nn.rotary()`, `nn.alibi()` or `nn.Positions`; elements are numbered from 0.
        qk_norm: a layer such as `nn.rms_norm()` over the head dimension of queries and keys, before
            they are rotated; each has its own parameters.
        dropout_rate: the probability of dropping an attention weight in training, in [0, 1].
        use_bias: whether the four dense layers add biases; or which of them do, by name: `{"query":
            True, "key": True, "value": True}`, those that are not named having none.
        scale: factor of the logits; None for `1 / sqrt(head_dim)`.
        soft_cap: a positive number `c` for logits `c tanh(logits / c)`; None for none.
        use_sinks: whether each head has a trained logit, initially 0, of a key without a value, so
            that it may attend to nothing (attention sinks, as in gpt-oss).
        dense: the constructor of the four, called as `nn.dense(features, use_bias=use_bias)`.
        cache_length: the capacity of the key/value cache, with `is_causal=True`; None for no cache.
        return_weights: whether to return `(y, weights)`, with the attention weights of each head,
            shape `(..., num_heads, queries, keys)`, after dropout.
        implementation: "whole", "unrolled" or "nested" as in `functional.dot_product_attention`;
            None chooses by shape.

    Returns:
        A `Layer` on `(..., time, features)` with params `{"query", "key", "value", "out"}`, each
        those of a dense layer (the heads are side by side in the features), `{"query_norm",
        "key_norm"}` with `qk_norm`, and `{"sinks"}`, shape `(num_heads,)`, with `use_sinks`. With
        `cache_length` its state is `{"cache": {"key", "value", "position"}}`: zeros of shape `(...,
        cache_length, num_kv_heads, head_dim)` in the floating dtype of `x` given to `init`, and the
        number of elements so far.

    Raises:
        TypeError: an argument is of another type than above.
        ValueError: a number is out of range; `num_kv_heads` does not divide `num_heads`, or
            `num_heads` the features of `x`; `cache_length` is given without `is_causal`, or with
            `memory`; `return_weights` is given with an `implementation` in blocks; the shapes do
            not fit; training with dropout without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 8))
        >>> layer = nn.attention(2, is_causal=True, positions=nn.rotary())
        >>> params, state = layer.init(jax.random.key(1), x)
        >>> y, state = layer.apply(params, state, x)
        >>> decoder = nn.attention(2, is_causal=True, positions=nn.rotary(), cache_length=6)
        >>> _, cache = decoder.init(jax.random.key(1), x)
        >>> first, cache = decoder.apply(params, cache, x[:, :4])
        >>> fifth, cache = decoder.apply(params, cache, x[:, 4:5])
        >>> bool(jnp.allclose(jnp.concatenate([first, fifth], 1), y[:, :5], atol=1e-6))
        True
    """
    check_count("attention", "num_heads", num_heads)
    num_kv_heads = (
        num_heads
        if num_kv_heads is None
        else check_count("attention", "num_kv_heads", num_kv_heads)
    )
    if num_heads % num_kv_heads:
        raise ValueError(
            f"attention: num_kv_heads is {num_kv_heads}, expected a divisor of num_heads, "
            f"{num_heads}"
        )
    if head_dim is not None:
        check_count("attention", "head_dim", head_dim)
    if out_features is not None:
        check_count("attention", "out_features", out_features)
    if window is not None:
        check_window("attention", window)
    refuse_constructor(positions, "attention: positions")
    if not isinstance(positions, Positions | None):
        raise TypeError(
            f"attention: positions is {positions!r}, expected Positions as nn.rotary() makes"
        )
    scheme = Positions() if positions is None else positions
    norm = None if qk_norm is None else as_layer(qk_norm, "attention: qk_norm")
    check_range("attention", "dropout_rate", dropout_rate, 0, 1)
    has_bias = _biases(use_bias)
    if scale is not None:
        check_range("attention", "scale", scale, 0)
    check_soft_cap("attention", soft_cap)
    if cache_length is not None:
        check_count("attention", "cache_length", cache_length)
        if not is_causal:
            raise ValueError(
                f"attention: cache_length is {cache_length}, expected None without is_causal=True"
            )
    if return_weights:
        check_has_weights("attention", implementation)
    rate = concrete(dropout_rate)
    is_random = rate is None or rate != 0

    def children(x: Any) -> dict[str, Layer]:
        features = head_features("attention", x.shape[-1], num_heads, head_dim)
        out = x.shape[-1] if out_features is None else out_features
        sizes = {"query": num_heads, "key": num_kv_heads, "value": num_kv_heads}
        sizes = {name: n * features for name, n in sizes.items()} | {"out": out}
        layers = {name: dense(size, use_bias=has_bias[name]) for name, size in sizes.items()}
        return layers if norm is None else layers | {"query_norm": norm, "key_norm": norm}

    def init(key: jax.Array, x: PyTree, *, memory: PyTree = None) -> tuple[PyTree, PyTree]:
        check_key("attention", key)
        x = jax.eval_shape(floating, abstract(x))
        source = x if memory is None else jax.eval_shape(floating, abstract(memory))
        _check_sequences(x.shape, source.shape, memory is not None, cache_length)
        features = head_features("attention", x.shape[-1], num_heads, head_dim)

        def like(sequence: Any, *sizes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*sequence.shape[:-1], *sizes), sequence.dtype)

        inputs = {
            "query": x,
            "key": source,
            "value": source,
            "out": like(x, num_heads * features),
            "query_norm": like(x, num_heads, features),
            "key_norm": like(source, num_kv_heads, features),
        }
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        for name, layer in children(x).items():
            params[name], child_state = init_child(layer, name, key, inputs[name])
            state |= with_state(name, child_state)
        if use_sinks:
            params["sinks"] = jnp.zeros(num_heads, param_dtype(x))
        if cache_length is not None:
            state["cache"] = _empty_cache(x, cache_length, num_kv_heads, features)
        return params, state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        memory: PyTree = None,
        mask: ArrayLike | None = None,
        bias: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        drops = train and is_random
        if drops and key is None:
            raise missing_key(f"attention({num_heads}, dropout_rate={dropout_rate})")
        x = floating(x)
        source = x if memory is None else floating(memory)
        _check_sequences(x.shape, source.shape, memory is not None, cache_length)
        if memory is not None and mask is not None:
            source = _visible(source, jnp.asarray(mask))
        if cache_length is not None:
            check_capacity("attention", "cache_length", cache_length)
        elif memory is None:
            expected = "cache_length=, at least the number of elements"
            refuse_in_decoding("attention without a cache", x.shape[-2], expected)
        layers = children(x)
        new_state: dict[str, PyTree] = {}

        def run(name: str, x: jax.Array) -> jax.Array:
            y, child_state = apply_child(layers[name], name, params[name], state, x, key, train)
            new_state.update(with_state(name, child_state))
            return jnp.asarray(y)

        def split(y: jax.Array, num_heads: int) -> jax.Array:
            return y.reshape(*y.shape[:-1], num_heads, y.shape[-1] // num_heads)

        query, keys = split(run("query", x), num_heads), split(run("key", source), num_kv_heads)
        values = split(run("value", source), num_kv_heads)
        if norm is not None:
            query, keys = run("query_norm", query), run("key_norm", keys)

        start = 0 if cache_length is None else _cache_of(state)["position"]
        at = start + jnp.arange(x.shape[-2], dtype=jnp.int32)
        key_at = start + jnp.arange(source.shape[-2], dtype=jnp.int32)
        query, keys = scheme.rotate(query, at), scheme.rotate(keys, key_at)
        if cache_length is not None:
            new_state["cache"] = _extend(state["cache"], keys, values)
            keys, values = new_state["cache"]["key"], new_state["cache"]["value"]
            key_at = jnp.arange(cache_length, dtype=jnp.int32)

        attend: Any = functional.dot_product_attention  # gives one array or two
        attended = attend(
            query,
            keys,
            values,
            bias=_sum_of_biases(bias, scheme.bias(num_heads, at, key_at), query),
            mask=mask,
            is_causal=is_causal,
            window=window,
            query_offset=start,
            scale=scale,
            soft_cap=soft_cap,
            sinks=params["sinks"] if use_sinks else None,
            dropout_rate=dropout_rate if drops else 0.0,
            dropout_key=child_key(key, "dropout") if drops and key is not None else None,
            implementation=implementation,
            return_weights=return_weights,
        )
        y, weights = attended if return_weights else (attended, None)
        y = run("out", y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1]))
        if cache_length is not None:  # what does not fit was written over what was there
            fits = start + x.shape[-2] <= cache_length
            y, weights = jax.tree.map(lambda a: jnp.where(fits, a, jnp.nan), (y, weights))
        return (y, weights) if return_weights else y, new_state

    return Layer(init, apply)


def _biases(use_bias: Any) -> dict[str, bool]:
    """Whether each of the four dense layers has a bias."""
    names = ("query", "key", "value", "out")
    if isinstance(use_bias, Mapping):
        if not (use_bias.keys() <= set(names) and all(type(b) is bool for b in use_bias.values())):
            raise ValueError(
                f"attention: use_bias is {use_bias!r}, expected booleans by the names "
                f"{', '.join(map(repr, names))}"
            )
        return {name: use_bias.get(name, False) for name in names}
    return dict.fromkeys(names, use_bias)


def head_features(layer: str, features: int, num_heads: int, head_dim: int | None) -> int:
    """The features of each head, `head_dim` or those of `x` divided by their number."""
    if head_dim is not None:
        return head_dim
    if features % num_heads:
        raise ValueError(
            f"{layer}: x has {features} features, expected a multiple of num_heads, "
            f"{num_heads}, or a head_dim"
        )
    return features // num_heads


def _check_sequences(
    x: tuple[int, ...], source: tuple[int, ...], has_memory: bool, cache_length: int | None
) -> None:
    if len(x) < 2 or x[-1] == 0:
        raise ValueError(
            f"attention: x has shape {x}, expected shape (..., time, features) with at least one "
            "feature"
        )
    if len(source) != len(x) or source[:-2] != x[:-2]:
        raise ValueError(
            f"attention: memory has shape {source}, expected the batch axes of x, {x[:-2]}, before "
            "time and features"
        )
    if cache_length is not None and has_memory:
        raise ValueError("attention: memory is given, expected none with a cache_length")
    if cache_length is not None and x[-2] > cache_length:
        raise ValueError(
            f"attention: x has {x[-2]} elements in time, expected at most cache_length, "
            f"{cache_length}"
        )


def _visible(memory: jax.Array, mask: jax.Array) -> jax.Array:
    """The memory, 0 where no query may attend: NaN there would reach the kernels' gradients."""
    axes = mask.shape[:-3] + mask.shape[-1:]
    fits = mask.ndim == memory.ndim + 1 and all(map(lambda n, m: n in (1, m), axes, memory.shape))
    if mask.dtype != jnp.bool or not fits:
        return memory  # attention refuses the mask
    return jnp.where(jnp.any(mask, axis=(-3, -2))[..., None], memory, 0)


def _sum_of_biases(
    given: ArrayLike | None, positional: jax.Array | None, query: jax.Array
) -> jax.Array | None:
    """The bias given at run time and that of the positions, which knows no batch axes."""
    dtype = widen(query).dtype
    biases = [] if given is None else [jnp.asarray(given).astype(dtype)]
    if positional is not None:
        batch = (1,) * (query.ndim - 3)
        biases.append(positional.astype(dtype).reshape(batch + positional.shape))
    return functools.reduce(jnp.add, biases) if biases else None


# The key/value cache


def _empty_cache(x: Any, length: int, num_kv_heads: int, features: int) -> dict[str, jax.Array]:
    shape = (*x.shape[:-2], length, num_kv_heads, features)
    return {
        "key": jnp.zeros(shape, x.dtype),
        "value": jnp.zeros(shape, x.dtype),
        "position": jnp.zeros((), jnp.int32),
    }


def _cache_of(state: PyTree) -> dict[str, jax.Array]:
    if "cache" not in state:
        raise ValueError(f"attention: state has {sorted(state)}, expected 'cache' as made by init")
    return state["cache"]  # type: ignore[no-any-return]


def _extend(
    cache: dict[str, jax.Array], keys: jax.Array, values: jax.Array
) -> dict[str, jax.Array]:
    """The cache with new keys and values after those that it has."""
    position, time = cache["position"], keys.ndim - 3

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        old = placed_like(old, new)
        return lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), position, time)

    return {
        "key": write(cache["key"], keys),
        "value": write(cache["value"], values),
        "position": position + keys.shape[time],
    }
