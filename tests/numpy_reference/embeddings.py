"""Embeddings, row by row."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


@in_float64
def embed(ids: Array, embedding: Array) -> tuple[Array, Callable]:
    """y[n] = embedding[ids[n]]: a row's gradient is the sum of dy over the places that have its id.

    Without a row for an id, y is NaN and there is nothing that dy could flow to.
    """
    y = np.full((*ids.shape, embedding.shape[1]), np.nan)
    known = [n for n in np.ndindex(ids.shape) if 0 <= ids[n] < len(embedding)]
    for n in known:
        y[n] = embedding[ids[n]]

    def backward(dy: Array) -> tuple[None, Array]:
        d = np.zeros(embedding.shape)
        for n in known:
            d[ids[n]] += dy[n]
        return None, d

    return y, backward


@in_float64
def embed_bag(
    ids: Array,
    embedding: Array,
    weights: Array | None = None,
    mode: str = "mean",
    padding_idx: int | None = None,
) -> tuple[Array, Callable]:
    """y[b] = sum_k s_k row_k without the padding: s = weights, 1/n, or 1 for the first greatest.

    So drow_k = s_k dy, and dweights_k = <row_k, dy>.
    """
    y = np.zeros((*ids.shape[:-1], embedding.shape[1]))
    parts = []
    for b in np.ndindex(ids.shape[:-1]):
        places = [(*b, k) for k in range(ids.shape[-1]) if ids[(*b, k)] != padding_idx]
        rows = np.array([embedding[ids[p]] for p in places])
        if not places:
            continue
        if mode == "max":
            slopes = (np.arange(len(rows))[:, None] == rows.argmax(0)) * 1.0
        elif mode == "mean":
            slopes = np.full(rows.shape, 1 / len(rows))
        else:
            given = [1.0 if weights is None else weights[p] for p in places]
            slopes = np.outer(given, np.ones(rows.shape[1]))
        y[b] = (slopes * rows).sum(0)
        parts += [(b, p, s) for p, s in zip(places, slopes, strict=True)]

    def backward(dy: Array) -> tuple[Array | None, ...]:
        d = np.zeros(embedding.shape)
        dweights = None if weights is None else np.zeros(weights.shape)
        for b, place, slope in parts:
            d[ids[place]] += slope * dy[b]
            if dweights is not None:
                dweights[place] = embedding[ids[place]] @ dy[b]
        return (None, d) if weights is None else (None, d, dweights)

    return y, backward


@in_float64
def attend(x: Array, embedding: Array) -> tuple[Array, Callable]:
    """y[n, v] = <x[n], embedding[v]>; dx = sum_v dy embedding[v], dembedding[v] = sum_n dy x[n]."""
    y = np.zeros((*x.shape[:-1], len(embedding)))
    for n in np.ndindex(y.shape):
        y[n] = np.sum(x[n[:-1]] * embedding[n[-1]])

    def backward(dy: Array) -> tuple[Array, Array]:
        dx, d = np.zeros(x.shape), np.zeros(embedding.shape)
        for n in np.ndindex(y.shape):
            dx[n[:-1]] += dy[n] * embedding[n[-1]]
            d[n[-1]] += dy[n] * x[n[:-1]]
        return dx, d

    return y, backward


@in_float64
def token_log_probs(logits: Array, tokens: Array) -> tuple[Array, Callable]:
    """y[n] = z[n, t_n] - log sum_v exp(z[n, v]); dz[n, v] = dy[n] (1[v = t_n] - p[n, v])."""
    tokens = tokens.astype(int)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    p = powers / powers.sum(-1, keepdims=True)
    y = np.zeros(tokens.shape)
    for n in np.ndindex(tokens.shape):
        y[n] = np.log(p[(*n, tokens[n])])

    def backward(dy: Array) -> tuple[Array, None]:
        d = -p * dy[..., None]
        for n in np.ndindex(tokens.shape):
            d[(*n, tokens[n])] += dy[n]
        return d, None

    return y, backward
