"""Sums over segments, one element after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .float64 import Array, in_float64


@in_float64
def gather(x: Array, ids: Array) -> tuple[Array, Callable]:
    """y_e = x_(ids e): dx_n is the sum of dy_e over the e with that id."""
    y = np.stack([x[(*b, ids[(*b, e)])] for *b, e in np.ndindex(ids.shape)])
    y = y.reshape(*ids.shape, *x.shape[ids.ndim :])

    def backward(dy: Array) -> tuple[Array, None]:
        dx = np.zeros(x.shape)
        for *b, e in np.ndindex(ids.shape):
            dx[(*b, ids[(*b, e)])] += dy[(*b, e)]
        return dx, None

    return y, backward


def _segments(ids: Array, num_segments: int, where: Array | None) -> Any:
    """For each segment its place in a batch, and the places of its elements."""
    for *b, s in np.ndindex(*ids.shape[:-1], num_segments):
        own = ids[tuple(b)] == s
        counts = own if where is None else own & where[tuple(b)]
        yield (*b, s), (*b, np.flatnonzero(counts))


def _reduced(
    x: Array,
    ids: Array,
    num_segments: int,
    where: Array | None,
    reduce: Callable[[Array], Array],
    spread: Callable[[Array, Array], Array],
) -> tuple[Array, Callable]:
    """`reduce(elements)`, 0 for none; `spread(elements, dy)` is their gradient."""
    segments = [
        (s, of) for s, of in _segments(ids, num_segments, where) if len(of[-1])
    ]  # the others are 0
    y = np.zeros((*ids.shape[:-1], num_segments, *x.shape[ids.ndim :]))
    for s, of in segments:
        y[s] = reduce(x[of])

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dx = np.zeros(x.shape)
        for s, of in segments:
            dx[of] = spread(x[of], dy[s])
        return dx, None, None

    return y, backward


@in_float64
def segment_sum(
    x: Array, ids: Array, where: Array | None = None, num_segments: int = 1
) -> tuple[Array, Callable]:
    """Each element of a segment gets its dy."""
    return _reduced(x, ids, num_segments, where, lambda x: x.sum(0), lambda x, dy: 0 * x + dy)


@in_float64
def segment_mean(
    x: Array, ids: Array, where: Array | None = None, num_segments: int = 1
) -> tuple[Array, Callable]:
    """Each of n elements gets dy / n."""
    return _reduced(
        x, ids, num_segments, where, lambda x: x.mean(0), lambda x, dy: 0 * x + dy / len(x)
    )


@in_float64
def segment_max(
    x: Array, ids: Array, where: Array | None = None, num_segments: int = 1
) -> tuple[Array, Callable]:
    """The first of the greatest elements gets dy."""

    def spread(x: Array, dy: Array) -> Array:
        dx = np.zeros(x.shape)
        np.put_along_axis(dx, x.argmax(0)[None], dy[None], axis=0)
        return dx

    return _reduced(x, ids, num_segments, where, lambda x: x.max(0), spread)


@in_float64
def segment_softmax(
    logits: Array, ids: Array, where: Array | None = None, num_segments: int = 1
) -> tuple[Array, Callable]:
    """p_i = e^(z_i) / sum_j e^(z_j) within a segment, and dz_i = p_i (dy_i - sum_j p_j dy_j)."""
    p = np.zeros(logits.shape)
    segments = list(_segments(ids, num_segments, where))
    for _, of in segments:
        powers = np.exp(logits[of])
        p[of] = powers / powers.sum(0)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        d = np.zeros(logits.shape)
        for _, of in segments:
            d[of] = p[of] * (dy[of] - (p[of] * dy[of]).sum(0))
        return d, None, None

    return p, backward
