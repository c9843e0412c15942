"""Attention: softmax in float32 or wider, and zeros where there is nothing to attend to."""

import functools
import math
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    check_key,
    check_shape,
    check_soft_cap,
    concrete,
    floating,
    hyperparameter,
    refuse_complex,
    widen,
)
from jaxnn._core.decoding import refuse_in_decoding
from jaxnn._core.meshes import automatic, is_explicit
from jaxnn._core.types import Scalar
from jaxnn.functional._attention_forms import Arrays, Form, Rule, attend, attend_with_weights
from jaxnn.functional._masks import (
    AttentionWindow,
    causal_mask,
    check_boolean,
    check_offset,
    check_window,
    combine_masks,
    local_mask,
)


@overload
def dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    bias: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    is_causal: bool = ...,
    window: AttentionWindow | None = ...,
    query_offset: ArrayLike | None = ...,
    scale: Scalar | None = ...,
    soft_cap: Scalar | None = ...,
    sinks: ArrayLike | None = ...,
    dropout_rate: Scalar = ...,
    dropout_key: jax.Array | None = ...,
    implementation: Form | None = ...,
    return_weights: Literal[False] = ...,
) -> jax.Array: ...


@overload
def dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    bias: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    is_causal: bool = ...,
    window: AttentionWindow | None = ...,
    query_offset: ArrayLike | None = ...,
    scale: Scalar | None = ...,
    soft_cap: Scalar | None = ...,
    sinks: ArrayLike | None = ...,
    dropout_rate: Scalar = ...,
    dropout_key: jax.Array | None = ...,
    implementation: Form | None = ...,
    return_weights: Literal[True],
) -> tuple[jax.Array, jax.Array]: ...


@checked
def dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    is_causal: bool = False,
    window: AttentionWindow | None = None,
    query_offset: ArrayLike | None = None,
    scale: Scalar | None = None,
    soft_cap: Scalar | None = None,
    sinks: ArrayLike | None = None,
    dropout_rate: Scalar = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: Form | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Scaled dot-product attention: `softmax(scale * query @ key.T + bias) @ value` for each head.

    With fewer key/value heads than query heads, consecutive query heads share one (grouped-query
    attention; multi-query attention if there is a single one). A query that may attend to no key
    gives zeros with zero gradients (`jax.nn.dot_product_attention`: the mean of
    all values; torch: NaN or zeros). What a query may not attend to has no effect on it or on its
    gradient, not even NaN. Logits and softmax are in float32 or wider.

    Papers: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762; Ainslie et
    al., GQA, https://arxiv.org/abs/2305.13245; Rabe and Staats, Self-attention Does Not Need O(n²)
    Memory, https://arxiv.org/abs/2112.05682

    Args:
        query: shape `(..., query_length, num_heads, head_dim)`, floating.
        key: shape `(..., key_length, num_kv_heads, head_dim)`; `num_kv_heads` divides `num_heads`.
        value: shape `(..., key_length, num_kv_heads, value_dim)`. Keys and values are cast to the
            dtype of the query.
        bias: added to the logits, floating, of the rank of the query and broadcastable to `(...,
            num_heads, query_length, key_length)`. Where it is -inf, there is no attention.
        mask: booleans that broadcast in the same way; True where to attend.
        is_causal: whether a query sees only the keys up to its own position. Query `i` is at
            position `query_offset + i`, key `j` at `j`.
        window: `(left, right)`, how many keys before and after its own position a query sees; an
            integer stands for both.
        query_offset: the position of the first query among the keys, an integer scalar, possibly
            traced: `key_length - query_length` where the queries are the last ones, 0 where they
            are the first, as torch and `jax.nn` have it. None for 0, if there are as many queries
            as keys; otherwise `is_causal` and `window` need it.
        scale: factor of the logits; `1 / sqrt(head_dim)` if None.
        soft_cap: a positive number `c` for logits `c tanh(logits / c)`, before the bias; None for
            none.
        sinks: shape `(num_heads,)`, a logit for each head of a key without a value, which takes its
            part of the softmax; None for none.
        dropout_rate: the probability of dropping an attention weight, in [0, 1].
        dropout_key: a typed PRNG key for the dropout. Which weights are dropped depends on the
            implementation.
        implementation: "whole" for all logits at once; "unrolled" for blocks of queries, each
            against the keys that it may see; "nested" for an online softmax over blocks of keys, in
            memory that does not grow with queries times keys. All have every derivative. None
            chooses by shape: "nested" above 2,048 keys, below it "unrolled" where `is_causal` or
            `window` leaves something out.
        return_weights: whether to return the attention weights as well, by which the values are
            multiplied: after dropout, 0 for what is hidden. Only "whole" has them.

    Returns:
        Shape `(..., query_length, num_heads, value_dim)` in the floating dtype of the query; with
        `return_weights` a pair of this and the weights, shape `(..., num_heads, query_length,
        key_length)`, in the same dtype.

    Raises:
        TypeError: an array is complex, `mask` is not boolean, `window` or `query_offset` is not of
            integers, or `dropout_key` is not a typed key.
        ValueError: the shapes do not fit; `query_offset` is missing; `scale` is not finite, or
            `soft_cap` not positive; `dropout_rate` is outside [0, 1], or not 0 without a key;
            `return_weights` is given with an `implementation` in blocks.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> query, key = jnp.zeros((1, 3, 2, 4)), jnp.zeros((1, 3, 1, 4))
        >>> value = jnp.array([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
        >>> y = nn.functional.dot_product_attention(query, key, value, is_causal=True)
        >>> y.shape, y[0, :, 0, 0]  # the mean of the values so far
        ((1, 3, 2, 1), Array([1. , 1.5, 3. ], dtype=float32))
        >>> _, weights = nn.functional.dot_product_attention(query, key, value, return_weights=True)
        >>> weights.shape  # of each head, query and key
        (1, 2, 3, 3)
    """
    _refuse_one_causal_element(jnp.shape(query), jnp.shape(key), is_causal, query_offset)
    query, key, value = floating(query), jnp.asarray(key), jnp.asarray(value)
    for name, given in (("query", query), ("key", key), ("value", value), ("bias", bias)):
        refuse_complex("dot_product_attention", name, given)
    if is_explicit(query, key, value):
        options = {"bias": bias, "mask": mask, "query_offset": query_offset, "scale": scale}
        options |= {"dropout_rate": dropout_rate, "dropout_key": dropout_key}
        options |= {"soft_cap": soft_cap, "sinks": sinks}
        static: Any = {"is_causal": is_causal, "window": window, "implementation": implementation}
        static |= {"return_weights": return_weights}
        batch_axes = query.ndim - 3
        again: Any = functools.partial(dot_product_attention, **static)
        return automatic(  # type: ignore[no-any-return]
            lambda query, key, value, options: again(query, key, value, **options),
            query,
            key,
            value,
            options,
            leading=(batch_axes + 2, batch_axes) if return_weights else batch_axes + 2,
        )
    key, value = key.astype(query.dtype), value.astype(query.dtype)
    _check_shapes(query.shape, key.shape, value.shape)
    *batch, query_length, num_heads, head_dim = query.shape
    key_length = key.shape[-3]
    shape = (*batch, num_heads, query_length, key_length)
    check_soft_cap("dot_product_attention", soft_cap)
    if sinks is not None:
        check_shape("dot_product_attention", "sinks", sinks, (num_heads,))
    if dropout_key is not None:
        check_key("dot_product_attention", dropout_key, "dropout_key")
    elif (rate := concrete(dropout_rate)) is None or rate != 0:
        raise ValueError(
            f"dot_product_attention: dropout_rate is {dropout_rate}, expected a dropout_key with it"
        )
    if return_weights:
        check_has_weights("dot_product_attention", implementation)

    if 0 in shape:  # there is nothing to attend from, or to
        for name, given in (("mask", mask), ("bias", bias)):
            if given is not None:
                _check_broadcasts(name, jnp.shape(given), shape)
        y = jnp.zeros((*query.shape[:-1], value.shape[-1]), query.dtype)
        return (y, jnp.zeros(shape, query.dtype)) if return_weights else y

    seen = _seen(shape, is_causal, window, query_offset, mask, bias)
    if seen is not None:
        sees = jnp.any(seen, axis=-1, keepdims=True)
        query, key, value, sees_bad = _without_hidden(query, key, value, seen)
    wide = widen(query).dtype
    rule = Rule(
        is_causal,
        None if window is None else check_window("dot_product_attention", window),
        _offset(query_offset),
        hyperparameter(1 / math.sqrt(max(head_dim, 1)) if scale is None else scale, wide),
        None if soft_cap is None else hyperparameter(soft_cap, wide),
        None if sinks is None else hyperparameter(sinks, wide),
        dropout_rate,
        dropout_key,
    )
    heads_first = (jnp.swapaxes(a, -3, -2) for a in (query, key, value))
    of_logits = (None if a is None else jnp.asarray(a) for a in (bias, mask))
    arrays = Arrays(*heads_first, *of_logits)

    def told(of_queries: jax.Array) -> jax.Array:
        if seen is None:
            return of_queries
        return jnp.where(sees, jnp.where(sees_bad, jnp.nan, of_queries), 0)

    if return_weights:
        y, weights = attend_with_weights(rule, arrays)
        return jnp.swapaxes(told(y), -3, -2), told(weights)
    return jnp.swapaxes(told(attend(rule, arrays, implementation)), -3, -2)


def check_has_weights(function: str, implementation: Form | None) -> None:
    """Raise for an implementation that never has all weights at once."""
    if implementation not in (None, "whole"):
        raise ValueError(
            f"{function}: implementation is {implementation!r}, expected 'whole' or None with "
            "return_weights=True"
        )


def _offset(query_offset: ArrayLike | None) -> Any:
    """The position of the first query: an integer of the host if it is known."""
    known = concrete(0 if query_offset is None else query_offset)
    return jnp.asarray(query_offset).astype(jnp.int32) if known is None else int(known)


def _seen(
    shape: tuple[int, ...],
    is_causal: bool,
    window: AttentionWindow | None,
    query_offset: ArrayLike | None,
    mask: ArrayLike | None,
    bias: ArrayLike | None,
) -> jax.Array | None:
    """Which keys each query may attend to; None if to all."""
    masks = _positional_masks(shape, is_causal, window, query_offset)
    if mask is not None:
        masks.append(check_boolean("dot_product_attention", jnp.asarray(mask)))
        _check_broadcasts("mask", masks[-1].shape, shape)
    if bias is not None:
        bias = jnp.asarray(bias)
        _check_broadcasts("bias", bias.shape, shape)
        masks.append(bias != -jnp.inf)
    return combine_masks(*masks)


def _without_hidden(
    query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Query, key and value without what is not finite, and which queries see some of that.

    0 times NaN is NaN: a weight of 0 alone keeps nothing out, of the sum or of its gradient.
    Queries that see nothing are 0.
    """
    bad = ~jnp.all(jnp.isfinite(key), axis=(-2, -1)) | ~jnp.all(jnp.isfinite(value), axis=(-2, -1))
    hidden = bad[..., None, None]
    key, value = jnp.where(hidden, 0, key), jnp.where(hidden, 0, value)
    sees_bad = jnp.any(seen & bad[..., None, None, :], axis=-1, keepdims=True)
    # Axes (..., heads, queries, 1) of what is seen are (..., queries, heads, 1) of a query.
    sees = jnp.swapaxes(jnp.any(seen, axis=-1, keepdims=True), -3, -2)
    return jnp.where(sees, query, 0), key, value, sees_bad


def _refuse_one_causal_element(
    query: tuple[int, ...], key: tuple[int, ...], is_causal: bool, query_offset: ArrayLike | None
) -> None:
    """Raise where causal attention decodes by element without the elements before."""
    is_first = query_offset is None or concrete(query_offset) == 0
    is_alone = is_causal and query[-3:-2] == key[-3:-2] and is_first
    if is_alone:
        what = "dot_product_attention: with is_causal=True a query"
        refuse_in_decoding(what, query[-3], "the keys and values of all elements so far")


def _positional_masks(
    shape: tuple[int, ...],
    is_causal: bool,
    window: AttentionWindow | None,
    query_offset: ArrayLike | None,
) -> list[jax.Array]:
    """The masks of `is_causal` and `window`, of the rank of the logits."""
    query_length, key_length = shape[-2:]
    if query_offset is None and not (is_causal or window is not None):
        return []
    offset = check_offset("dot_product_attention", query_offset, query_length, key_length)
    masks = []
    if is_causal:
        masks.append(causal_mask(query_length, key_length, query_offset=offset))
    if window is not None:
        sides = check_window("dot_product_attention", window)
        masks.append(local_mask(query_length, sides, key_length, query_offset=offset))
    return [mask.reshape((1,) * (len(shape) - 2) + (query_length, key_length)) for mask in masks]


def _check_shapes(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> None:
    for name, shape in (("query", query), ("key", key), ("value", value)):
        if len(shape) < 3 or len(shape) != len(query):
            raise ValueError(
                f"dot_product_attention: {name} has shape {shape}, expected shape (..., sequence, "
                f"heads, features) of one rank for query, key and value"
            )
    if key[:-3] != query[:-3] or key[-1] != query[-1] or query[-2] % max(key[-2], 1):
        raise ValueError(
            f"dot_product_attention: query has shape {query} and key {key}, expected equal batch "
            "axes and features, and a number of query heads that is a multiple of the key's"
        )
    if value[:-1] != key[:-1]:
        raise ValueError(
            f"dot_product_attention: value has shape {value}, expected {key[:-1]} before its "
            "features, as in key"
        )


def _check_broadcasts(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    # The full rank is asked for: a mask (batch, keys) would pass for one (queries, keys).
    fits = len(shape) == len(expected) and all(
        given in (1, size) for given, size in zip(shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"dot_product_attention: {name} has shape {shape}, expected {expected} (batch, heads, "
            "queries, keys), or 1 for some of these"
        )
