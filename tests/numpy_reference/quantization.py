"""Vector quantisation."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


def nearest_code(x: Array, codes: Array) -> Array:
    """Compare each vector with each code; the first of the nearest wins."""
    indices = np.empty(x.shape[:-1], int)
    for i in np.ndindex(indices.shape):
        indices[i] = np.argmin([((x[i] - code) ** 2).sum() for code in codes])
    return indices


@in_float64
def code_of_nearest(x: Array, codes: Array) -> tuple[Array, Callable]:
    """y = codes[nearest], which is constant in x away from the ties; each code sums its dy."""
    indices = nearest_code(x, codes)

    def backward(dy: Array) -> tuple[Array, Array]:
        dcodes = np.zeros_like(codes)
        for i in np.ndindex(indices.shape):
            dcodes[indices[i]] += dy[i]
        return np.zeros_like(x), dcodes

    return codes[indices], backward


@in_float64
def straight_through(x: Array, codes: Array) -> tuple[Array, Callable]:
    """y = codes[nearest] with dx = dy: by definition not the derivative, which is 0."""
    return codes[nearest_code(x, codes)], lambda dy: (dy,)


def moving_codes(x: Array, codes: Array, count: Array, decay: float) -> tuple[Array, Array]:
    """Make one step of the averages of the paper: of counts n and sums s, of which codes = s / n.

    n <- decay n + (1 - decay) #vectors, s <- decay s + (1 - decay) sum of the vectors.
    """
    sums = codes * count[:, None]
    vectors = x.reshape(-1, x.shape[-1])
    indices = nearest_code(vectors, codes)
    new_count, new_sums = decay * count, decay * sums
    for vector, index in zip(vectors, indices, strict=True):
        new_count[index] += 1 - decay
        new_sums[index] += (1 - decay) * vector
    return new_sums / new_count[:, None], new_count
