"""Activations that `jax.nn` has not."""

from collections.abc import Callable

import numpy as np

from . import activations
from .float64 import Array, in_float64

Result = tuple[Array, Callable[[Array], tuple[Array]]]


def _gated(x: Array, axis: int, gate: Callable[[Array], Result]) -> Result:
    """y = a g(b), where a and b are the halves of x: da = dy g(b), db = dy a g'(b)."""
    a, b = np.split(x, 2, axis)
    g, gate_backward = gate(b)
    return a * g, lambda dy: (np.concatenate([dy * g, gate_backward(dy * a)[0]], axis),)


@in_float64
def swiglu(x: Array, axis: int = -1) -> Result:
    """y = a silu(b)."""
    return _gated(x, axis, activations.silu)


@in_float64
def geglu(x: Array, axis: int = -1, approximate: bool = True) -> Result:
    """y = a gelu(b)."""
    return _gated(x, axis, lambda b: activations.gelu(b, approximate))


@in_float64
def reglu(x: Array, axis: int = -1) -> Result:
    """y = a relu(b)."""
    return _gated(x, axis, activations.relu)


@in_float64
def squared_relu(x: Array) -> Result:
    """y = max(x, 0)^2; y' = 2 max(x, 0)."""
    positive = np.maximum(x, 0.0)
    return positive**2, lambda dy: (dy * 2 * positive,)


@in_float64
def quick_gelu(x: Array) -> Result:
    """y = x s(u) with u = 1.702 x; y' = s(u) + u s(u) s(-u)."""
    u = 1.702 * x
    s, t = activations.sigmoid(u)[0], activations.sigmoid(-u)[0]
    return x * s, lambda dy: (dy * (s + u * s * t),)


@in_float64
def soft_shrink(x: Array, threshold: float = 0.5) -> Result:
    """y = sign(x) max(|x| - threshold, 0); the derivative at the threshold is 0."""
    y = np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0)
    return y, lambda dy: (dy * (np.abs(x) > threshold),)


@in_float64
def hard_shrink(x: Array, threshold: float = 0.5) -> Result:
    """y = x where |x| > threshold, else 0."""
    beyond = np.abs(x) > threshold
    return x * beyond, lambda dy: (dy * beyond,)


@in_float64
def prelu(x: Array, slope: Array) -> tuple[Array, Callable]:
    """y = x for x > 0, else slope x; the derivative at 0 is the slope.

    dslope is the sum of dy x over the places with x <= 0 that share it.
    """
    per_channel = np.ndim(slope) == 1
    y, slopes = np.zeros(x.shape), np.zeros(x.shape)
    for n in np.ndindex(x.shape):
        slopes[n] = 1.0 if x[n] > 0 else slope[n[-1]] if per_channel else slope
        y[n] = slopes[n] * x[n]

    def backward(dy: Array) -> tuple[Array, Array]:
        dslope = dy * np.minimum(x, 0.0)
        shared = tuple(range(x.ndim - 1)) if per_channel else None
        return dy * slopes, np.asarray(dslope.sum(shared))

    return y, backward


@in_float64
def sparsemax(x: Array, axis: int = -1) -> Result:
    """y = max(x - tau, 0), tau being the number for which y sums to 1.

    On a support S, |S| tau = sum_S x - 1: dtau/dx_j = 1 / |S| for j in S, so that
    dx_i = dy_i - mean_S(dy) for i in S, and 0 elsewhere. S is that of the k greatest x for the
    k at which tau falls between the k-th and the next.
    """
    rows = np.moveaxis(x, axis, -1)
    y, support = np.zeros(rows.shape), np.zeros(rows.shape, bool)
    for n in np.ndindex(rows.shape[:-1]):
        descending = [*sorted(rows[n], reverse=True), -np.inf]
        for k in range(1, len(descending)):
            tau = (sum(descending[:k]) - 1) / k
            if descending[k - 1] > tau >= descending[k]:
                support[n] = rows[n] > tau
                y[n] = np.where(support[n], rows[n] - tau, 0.0)

    def backward(dy: Array) -> tuple[Array]:
        drows = np.where(support, np.moveaxis(dy, axis, -1), 0.0)
        mean = drows.sum(-1, keepdims=True) / support.sum(-1, keepdims=True)
        return (np.moveaxis(np.where(support, drows - mean, 0.0), -1, axis),)

    return np.moveaxis(y, -1, axis), backward


@in_float64
def gumbel_softmax(
    noise: Array, logits: Array, temperature: float = 1.0, axis: int = -1
) -> tuple[Array, Callable]:
    """y = softmax((logits + noise) / temperature)."""
    y, softmax_backward = activations.softmax((logits + noise) / temperature, axis)

    def backward(dy: Array) -> tuple[Array, Array]:
        d = softmax_backward(dy)[0] / temperature
        return d, d

    return y, backward
