"""Linear attention: a feature map in place of the softmax, so that sums stand for all keys."""

from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_shape, floating, is_symbolic, refuse_complex, widen
from jaxnn._core.meshes import automatic, placed_as_after
from jaxnn.functional._masks import check_boolean

FeatureMap = Callable[[jax.Array], jax.Array]

CHUNK = 64  # positions whose products are formed at once


@overload
def linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    is_causal: bool = ...,
    feature_map: FeatureMap | None = ...,
    sums: ArrayLike | None = ...,
    return_sums: Literal[False] = ...,
) -> jax.Array: ...


@overload
def linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    is_causal: bool = ...,
    feature_map: FeatureMap | None = ...,
    sums: ArrayLike | None = ...,
    return_sums: Literal[True],
) -> tuple[jax.Array, jax.Array]: ...


@checked
def linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    is_causal: bool = False,
    feature_map: FeatureMap | None = None,
    sums: ArrayLike | None = None,
    return_sums: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Linear attention: each query weighs a key by the product of their features.

        y_i = (phi(q_i) @ sum_j phi(k_j) v_j.T) / (phi(q_i) @ sum_j phi(k_j))

    over the keys up to the query if `is_causal`, otherwise over all. Time grows with the length,
    not with its square. Causal sums are formed in chunks of 64 positions, so that one for each
    position is never there, in the backward pass neither. A query that sees no key gives zeros.
    Products and sums are in float32 or wider.

    Paper: Katharopoulos et al., Transformers are RNNs, https://arxiv.org/abs/2006.16236

    Args:
        query: shape `(..., query_length, num_heads, head_dim)`, floating.
        key: shape `(..., key_length, num_kv_heads, head_dim)`; `num_kv_heads` divides `num_heads`,
            consecutive query heads share a key.
        value: shape `(..., key_length, num_kv_heads, value_dim)`.
        mask: booleans of shape `(..., 1, 1, key_length)`, as `padding_mask` makes: False for keys
            that do not count, whatever they are.
        is_causal: whether query `i` sees only the keys up to `i`; there are as many of both.
        feature_map: phi, from `(..., head_dim)` to nonnegative features; None for `elu(x) + 1`.
        sums: those over the keys before the first, as `return_sums` gave them; None for zeros.
        return_sums: whether to return those over all keys as well, with which decoding goes on.

    Returns:
        Shape `(..., query_length, num_heads, value_dim)` in the floating dtype of the query; with
        `return_sums` a pair of this and the sums of `phi(k) [v, 1].T`, shape `(..., num_kv_heads,
        features of phi, value_dim + 1)`.

    Raises:
        TypeError: an array is complex, or `mask` is not boolean.
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> query = key = jnp.zeros((1, 3, 1, 2))
        >>> value = jnp.array([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
        >>> y = nn.functional.linear_attention(query, key, value, is_causal=True)
        >>> y.ravel()  # the mean of the values so far
        Array([1. , 1.5, 3. ], dtype=float32)
    """
    query, key, value = floating(query), floating(key), floating(value)
    for name, given in (("query", query), ("key", key), ("value", value)):
        refuse_complex("linear_attention", name, given)
    _check_shapes(query.shape, key.shape, value.shape, is_causal)
    if mask is not None:
        mask = check_boolean("linear_attention", jnp.asarray(mask))
        _check_mask(mask.shape, key.shape)
    phi = _elu_and_one if feature_map is None else feature_map
    wide = widen(query).dtype

    def run(query: jax.Array, key: jax.Array, value: jax.Array, mask: Any, sums: Any) -> Any:
        query, key, value = (jnp.swapaxes(a.astype(wide), -3, -2) for a in (query, key, value))
        if mask is not None:  # what does not count may be NaN, of which 0 times is NaN
            counts = jnp.swapaxes(mask, -2, -1)
            key, value = jnp.where(counts, key, 0), jnp.where(counts, value, 0)
        q, k = phi(query), phi(key)
        if mask is not None:
            k = jnp.where(counts, k, 0)
        *batch, kv_heads, _, features = k.shape
        heads = q.shape[-3]
        v = jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1)
        # Those that share a key side by side.
        q = q.reshape(*batch, kv_heads, heads // kv_heads, *q.shape[-2:])
        if sums is None:
            start = jnp.zeros((*batch, kv_heads, features, v.shape[-1]), wide)
        else:
            check_shape("linear_attention", "sums", sums, (*k.shape[:-2], features, v.shape[-1]))
            start = jnp.asarray(sums).astype(wide)
        if is_causal:
            end, both = _causal(start, q, k, v)
        else:
            end = start + jnp.einsum("...kf,...kv->...fv", k, v)
            both = jnp.einsum("...gqf,...fv->...gqv", q, end)
        total = both[..., -1:]
        y = both[..., :-1] / jnp.where(total == 0, 1, total)
        y = y.reshape(*batch, heads, *y.shape[-2:])
        return jnp.swapaxes(y, -3, -2).astype(query_dtype), end

    query_dtype, batch_axes = query.dtype, query.ndim - 3
    leading = batch_axes + 2, batch_axes
    y, end = automatic(run, query, key, value, mask, sums, leading=leading)
    return (y, end) if return_sums else y


def _elu_and_one(x: jax.Array) -> jax.Array:
    """`elu(x) + 1`, exact where `elu(x)` is nearly -1."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


def _causal(
    start: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sums over all keys, and for each query its product with those up to it.

    Within a chunk the products of queries and keys are formed; what came before is in the sums.
    """
    time = k.shape[-2]
    size = time if is_symbolic(time) else min(CHUNK, max(time, 1))
    rounds = 1 if is_symbolic(time) else -(-time // size)

    def chunks(a: jax.Array) -> jax.Array:
        if rounds * size != time:
            a = jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, rounds * size - time), (0, 0)])
        return jnp.moveaxis(a.reshape(*a.shape[:-2], rounds, size, a.shape[-1]), -3, 0)

    @jax.checkpoint
    def step(sums: jax.Array, chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v = chunk
        products = jnp.einsum("...gqf,...kf->...gqk", q, k)
        past = jnp.arange(size)[:, None] >= jnp.arange(size)[None]
        products = jnp.where(past.reshape((1,) * (q.ndim - 2) + past.shape), products, 0)
        both = jnp.einsum("...gqk,...kv->...gqv", products, v)
        both = both + jnp.einsum("...gqf,...fv->...gqv", q, sums)
        return sums + jnp.einsum("...kf,...kv->...fv", k, v), both

    inputs = tuple(map(chunks, (q, k, v)))
    if time == 0:
        return start, jnp.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    first = tuple(a[0] for a in inputs)
    start = placed_as_after(lambda sums: step(sums, first)[0], start, q, k, v)
    end, both = lax.scan(step, start, inputs)
    both = jnp.moveaxis(both, 0, -3)
    return end, both.reshape(*both.shape[:-3], rounds * size, both.shape[-1])[..., :time, :]


def _check_shapes(
    query: tuple[Any, ...], key: tuple[Any, ...], value: tuple[Any, ...], is_causal: bool
) -> None:
    fits = (
        len(query) == len(key) == len(value) >= 3
        and query[:-3] == key[:-3]
        and query[-1] == key[-1]
        and query[-2] % max(key[-2], 1) == 0
        and value[:-1] == key[:-1]
    )
    if not fits:
        raise ValueError(
            f"linear_attention: query has shape {query}, key {key} and value {value}, expected "
            "(..., query_length, num_heads, head_dim), (..., key_length, num_kv_heads, head_dim) "
            "and (..., key_length, num_kv_heads, value_dim), num_kv_heads dividing num_heads"
        )
    if is_causal and query[-3] != key[-3]:
        raise ValueError(
            f"linear_attention: there are {query[-3]} queries and {key[-3]} keys, expected as many "
            "of both with is_causal=True"
        )


def _check_mask(mask: tuple[Any, ...], key: tuple[Any, ...]) -> None:
    expected = (*key[:-3], 1, 1, key[-3])
    fits = len(mask) == len(expected) and all(
        given in (1, size) for given, size in zip(mask, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"linear_attention: mask has shape {mask}, expected {expected} (batch, 1, 1, keys), or "
            "1 for some of these"
        )
