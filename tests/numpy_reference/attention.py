"""Attention, one query at a time, and its masks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .float64 import Array, in_float64


def _expand(array: Array | None, shape: tuple[int, ...], fill: Any) -> Array:
    return np.broadcast_to(fill if array is None else array, shape)


def _shrink(gradient: Array, like: Array) -> Array:
    """The gradient of a broadcast: the sum over the axes along which the array was repeated."""
    axes = tuple(a for a, n in enumerate(like.shape) if n == 1)
    return gradient.sum(axes, keepdims=True)


@in_float64
def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    is_causal: bool = False,
    window: int | tuple[int, int] | None = None,
    query_offset: int = 0,
    scale: float | None = None,
    keep: Array | None = None,
    dropout_rate: float = 0.0,
    soft_cap: float | None = None,
    sinks: Array | None = None,
    return_weights: bool = False,
) -> tuple[Any, Callable]:
    """y = sum_j w_j v_j over the keys j that a query q may see, with w = m p, p = softmax(s).

    A sink t of a head is one key more, without a value: p_j = exp(s_j) / (exp(t) + sum_i exp(s_i)),
    and dt = -p_t sum_i p_i dp_i. With a soft cap c, scale q k_j becomes c tanh(scale q k_j / c), of
    slope 1 - tanh^2.

    s_j = scale q k_j + bias_j, and m is keep / (1 - dropout_rate). Backwards, dw_j = dy v_j,
    dp = m dw, and as dp_j/ds_i = p_j (delta_ij - p_i), ds_j = p_j (dp_j - sum_i p_i dp_i). Then
    dq = scale sum_j ds_j k_j, dk_j = scale ds_j q, dbias_j = ds_j and dv_j = w_j dy, the gradients
    of a key or value being added up over all queries and all the heads that share it. A query that
    sees no key gives 0 and no gradient. The gradient of weights that are returned is added to dw.
    """
    *batch, queries, heads, features = query.shape
    keys, kv_heads = key.shape[-3:-1]
    shape = (*batch, heads, queries, keys)
    factor = features**-0.5 if scale is None else scale
    left, right = window if isinstance(window, tuple) else (window, window)
    biases, allowed = _expand(bias, shape, 0.0), _expand(mask, shape, True)
    kept = _expand(keep, shape, True) / (1 - dropout_rate)

    def places() -> Any:
        """For each query: where it is, where its keys are, and which of them it sees."""
        for *b, h, t in np.ndindex(shape[:-1]):
            at, group = query_offset + t, h // (heads // kv_heads)
            seen = [
                j
                for j in range(keys)
                if allowed[(*b, h, t, j)]
                and not (is_causal and j > at)
                and not (window is not None and not at - left <= j <= at + right)
            ]
            yield (*b, t, h), (*b, slice(None), group), (*b, h, t), seen

    def softmax(logits: Array, head: int) -> Array:
        powers = np.exp(logits - logits.max())
        of_sink = 0.0 if sinks is None else np.exp(sinks[head] - logits.max())
        return powers / (powers.sum() + of_sink)

    def bent(dots: Array) -> tuple[Array, Array]:
        if soft_cap is None:
            return dots, np.ones_like(dots)
        return soft_cap * np.tanh(dots / soft_cap), 1 - np.tanh(dots / soft_cap) ** 2

    y = np.zeros((*batch, queries, heads, value.shape[-1]))
    probabilities, slopes = np.zeros(shape), np.zeros(shape)
    for q, kv, row, seen in places():
        if seen:
            dots, slopes[row][seen] = bent(factor * key[kv][seen] @ query[q])
            probabilities[row][seen] = softmax(dots + biases[row][seen], row[-2])
            y[q] = (kept[row] * probabilities[row]) @ value[kv]

    def backward(dy: Any) -> tuple[Array | None, ...]:
        dy, dweights = dy if return_weights else (dy, np.zeros(shape))
        dquery, dkey, dvalue = (np.zeros(a.shape) for a in (query, key, value))
        dbias, dsinks = np.zeros(shape), np.zeros(heads)
        for q, kv, row, seen in places():
            p = probabilities[row]
            dp = kept[row] * (value[kv] @ dy[q] + dweights[row])
            ds = np.zeros(keys)
            ds[seen] = (p * (dp - p @ dp))[seen]
            dbias[row] = ds
            dsinks[row[-2]] -= (1 - p.sum()) * (p @ dp) if seen else 0.0
            ds = ds * slopes[row]
            dquery[q] = factor * ds @ key[kv]
            dkey[kv] += factor * np.outer(ds, query[q])
            dvalue[kv] += np.outer(kept[row] * p, dy[q])
        gradients = dquery, dkey, dvalue, None if bias is None else _shrink(dbias, bias), None
        return gradients if sinks is None else (*gradients, dsinks)

    return (y, kept * probabilities) if return_weights else y, backward


@in_float64
def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    sums: Array | None = None,
    mask: Array | None = None,
    is_causal: bool = False,
) -> tuple[tuple[Array, Array], Callable]:
    """y_i = n_i / d_i with [n_i, d_i] = f(q_i) S_i and S_i = S + sum_j f(k_j) [v_j, 1]^T.

    f(x) = x + 1 above 0, e^x below, of slope 1 or e^x. With o = [n, d], do = [dy, -y dy] / d;
    df(q_i) = S_i do_i and dS_i = f(q_i) do_i^T. With D_j the sum of dS_i over the queries i that
    see key j, and of the gradient of the last sums: df(k_j) = D_j [v_j, 1] and
    d[v_j, 1] = D_j^T f(k_j).
    Returns `(y, S_last)`; the gradients are of query, key, value and the first sums.
    """
    heads, keys, kv_heads = query.shape[-2], *key.shape[-3:-1]

    def phi(x: Array) -> tuple[Array, Array]:
        below = np.exp(np.minimum(x, 0))
        return np.where(x > 0, x + 1, below), np.where(x > 0, 1, below)

    (fq, slope_q), (fk, slope_k) = phi(query), phi(key)
    v = np.concatenate([value, np.ones((*value.shape[:-1], 1))], -1)
    shape = (*key.shape[:-3], kv_heads, key.shape[-1], v.shape[-1])
    start = np.zeros(shape) if sums is None else sums
    counts = np.broadcast_to(True if mask is None else mask, (*key.shape[:-3], 1, 1, keys))
    y, last = np.zeros((*query.shape[:-1], value.shape[-1])), start.copy()

    def seen(b: tuple[int, ...], i: int) -> list[int]:
        return [j for j in range(keys) if counts[(*b, 0, 0, j)] and not (is_causal and j > i)]

    def sums_of(b: tuple[int, ...], i: int, g: int) -> Array:
        return start[(*b, g)] + sum(np.outer(fk[(*b, j, g)], v[(*b, j, g)]) for j in seen(b, i))

    def places() -> Any:
        for *b, i, h in np.ndindex(query.shape[:-1]):
            yield (*b,), i, h, h // (heads // kv_heads)

    for b, i, h, g in places():
        o = fq[(*b, i, h)] @ sums_of(b, i, g)
        y[(*b, i, h)] = o[:-1] / (o[-1] or 1)
    for *b, g in np.ndindex(shape[:-2]):
        last[(*b, g)] = sums_of((*b,), keys, g)

    def backward(dy: tuple[Array, Array]) -> tuple[Array | None, ...]:
        dy, dlast = dy
        dfq, dfk, dv = np.zeros(fq.shape), np.zeros(fk.shape), np.zeros(v.shape)
        dstart = dlast.copy()

        def into_keys(b: tuple[int, ...], i: int, g: int, ds: Array) -> None:
            for j in seen(b, i):
                dfk[(*b, j, g)] += ds @ v[(*b, j, g)]
                dv[(*b, j, g)] += fk[(*b, j, g)] @ ds

        for *b, g in np.ndindex(shape[:-2]):
            into_keys((*b,), keys, g, dlast[(*b, g)])
        for b, i, h, g in places():
            at, s = (*b, i, h), sums_of(b, i, g)
            total = (fq[at] @ s)[-1]
            if total == 0:
                continue
            do = np.append(dy[at], -y[at] @ dy[at]) / total
            dfq[at] = s @ do
            ds = np.outer(fq[at], do)
            dstart[(*b, g)] += ds
            into_keys(b, i, g, ds)
        gradients = slope_q * dfq, slope_k * dfk, dv[..., :-1]
        return *gradients, None if sums is None else dstart, None

    return (y, last), backward


# Masks, which have no gradient: they are seen where they leave numbers standing.


def _chosen(scores: Array, sees: Callable[..., bool]) -> tuple[Array, Callable]:
    """The scores of the keys that a query sees, and 0 for the others."""
    mask = np.zeros(scores.shape)
    for b, h, q, k in np.ndindex(scores.shape):
        mask[b, h, q, k] = sees(b, q, k)
    return scores * mask, lambda dy: (dy * mask,)


@in_float64
def causal_mask(scores: Array, query_offset: int = 0) -> tuple[Array, Callable]:
    """Keys up to the query."""
    return _chosen(scores, lambda b, q, k: k <= q + query_offset)


@in_float64
def local_mask(
    scores: Array, window: int | tuple[int, int], query_offset: int = 0
) -> tuple[Array, Callable]:
    """Keys around the query."""
    left, right = window if isinstance(window, tuple) else (window, window)
    return _chosen(
        scores, lambda b, q, k: k in range(q + query_offset - left, q + query_offset + right + 1)
    )


@in_float64
def padding_mask(scores: Array, lengths: Array) -> tuple[Array, Callable]:
    """Keys within the length."""
    y, backward = _chosen(scores, lambda b, q, k: k < lengths[b])
    return y, lambda dy: (*backward(dy), None)


@in_float64
def segment_mask(
    scores: Array, query_segments: Array, key_segments: Array
) -> tuple[Array, Callable]:
    """Keys of the query's segment."""
    y, backward = _chosen(scores, lambda b, q, k: query_segments[b, q] == key_segments[b, k])
    return y, lambda dy: (*backward(dy), None, None)


@in_float64
def combine_masks(scores: Array, one: Array, other: Array) -> tuple[Array, Callable]:
    """Keys that two masks of the shape of the scores let through."""
    y, backward = _chosen(scores * one, lambda b, q, k: other[b, 0, q, k])
    return y, lambda dy: (backward(dy)[0] * one, None, None)
