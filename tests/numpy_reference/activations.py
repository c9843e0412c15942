"""Activations, elementwise but for glu and the softmaxes, with the definitions of `jax.nn`.

Exponentials are taken of numbers <= 0 only, so that nothing overflows for large |x|.
"""

import math
from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64

Result = tuple[Array, Callable[[Array], tuple[Array]]]
Axis = int | tuple[int, ...]

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


@in_float64
def identity(x: Array) -> Result:
    """y = x."""
    return x, lambda dy: (dy,)


@in_float64
def relu(x: Array) -> Result:
    """y = max(x, 0); the derivative at 0 is 0."""
    return np.maximum(x, 0.0), lambda dy: (dy * (x > 0),)


@in_float64
def relu6(x: Array) -> Result:
    """y = min(max(x, 0), 6); the derivative at 0 and 6 is 0."""
    return np.clip(x, 0.0, 6.0), lambda dy: (dy * ((x > 0) & (x < 6)),)


@in_float64
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Result:
    """y = x for x >= 0, else negative_slope x; the derivative at 0 is 1."""
    slope = np.where(x >= 0, 1.0, negative_slope)
    return slope * x, lambda dy: (dy * slope,)


@in_float64
def sigmoid(x: Array) -> Result:
    """y = 1 / (1 + e^-x).

    y' = y (1 - y), and 1 - sigmoid(x) = sigmoid(-x) keeps it exact where y rounds to 1.
    """
    y = _sigmoid(x)
    return y, lambda dy: (dy * y * _sigmoid(-x),)


@in_float64
def log_sigmoid(x: Array) -> Result:
    """y = log sigmoid(x) = min(x, 0) - log(1 + e^-|x|); y' = 1 - sigmoid(x) = sigmoid(-x)."""
    y = np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))
    return y, lambda dy: (dy * _sigmoid(-x),)


@in_float64
def softplus(x: Array) -> Result:
    """y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|); y' = sigmoid(x)."""
    y = np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))
    return y, lambda dy: (dy * _sigmoid(x),)


@in_float64
def sparse_plus(x: Array) -> Result:
    """y = 0, (x + 1)^2 / 4, x on x <= -1, between, x >= 1; y' = sparse_sigmoid(x)."""
    ramp = np.clip((x + 1) / 2, 0.0, 1.0)
    return np.where(x >= 1, x, ramp**2), lambda dy: (dy * ramp,)


@in_float64
def sparse_sigmoid(x: Array) -> Result:
    """y = clip((x + 1) / 2, 0, 1); the derivative at -1 and 1 is 0."""
    return np.clip((x + 1) / 2, 0.0, 1.0), lambda dy: (dy * 0.5 * (np.abs(x) < 1),)


@in_float64
def soft_sign(x: Array) -> Result:
    """y = x / (1 + |x|); y' = ((1 + |x|) - x sign(x)) / (1 + |x|)^2 = (1 + |x|)^-2."""
    d = 1.0 + np.abs(x)
    return x / d, lambda dy: (dy / d**2,)


@in_float64
def silu(x: Array) -> Result:
    """y = x s with s = sigmoid(x); y' = s + x s (1 - s)."""
    s = _sigmoid(x)
    return x * s, lambda dy: (dy * s * (1.0 + x * _sigmoid(-x)),)


@in_float64
def mish(x: Array) -> Result:
    """y = x t with t = tanh(softplus(x)); y' = t + x (1 - t^2) sigmoid(x)."""
    t = np.tanh(softplus(x)[0])
    return x * t, lambda dy: (dy * (t + x * (1.0 - t**2) * _sigmoid(x)),)


@in_float64
def squareplus(x: Array, b: float = 4) -> Result:
    """y = (x + r) / 2 with r = sqrt(x^2 + b); y' = (1 + x / r) / 2 = y / r.

    For x < 0, y = b / (2 (r - x)) is the same number without the cancellation.
    """
    r = np.sqrt(x**2 + b)
    twice = np.where(x < 0, b / (r + np.abs(x)), x + r)
    return twice / 2, lambda dy: (dy * twice / (2 * r),)


@in_float64
def tanh(x: Array) -> Result:
    """y = tanh(x); y' = 1 - y^2."""
    y = np.tanh(x)
    return y, lambda dy: (dy * (1.0 - y**2),)


@in_float64
def hard_tanh(x: Array) -> Result:
    """y = clip(x, -1, 1); the derivative at -1 and 1 is 1."""
    return np.clip(x, -1.0, 1.0), lambda dy: (dy * (np.abs(x) <= 1),)


@in_float64
def hard_sigmoid(x: Array) -> Result:
    """y = relu6(x + 3) / 6; the derivative at -3 and 3 is 0."""
    return np.clip((x + 3) / 6, 0.0, 1.0), lambda dy: (dy * (np.abs(x) < 3) / 6,)


@in_float64
def hard_silu(x: Array) -> Result:
    """y = x h with h = hard_sigmoid(x); y' = h + x h', with h' = 0 at -3 and 3."""
    h = np.clip((x + 3) / 6, 0.0, 1.0)
    return x * h, lambda dy: (dy * (h + x * (np.abs(x) < 3) / 6),)


@in_float64
def elu(x: Array, alpha: float = 1.0) -> Result:
    """y = x for x > 0, else alpha (e^x - 1); the derivative at 0 is alpha."""
    negative = np.minimum(x, 0.0)
    y = np.where(x > 0, x, alpha * np.expm1(negative))
    return y, lambda dy: (dy * np.where(x > 0, 1.0, alpha * np.exp(negative)),)


@in_float64
def celu(x: Array, alpha: float = 1.0) -> Result:
    """y = x for x > 0, else alpha (e^(x / alpha) - 1); y' = 1, else e^(x / alpha)."""
    scaled = np.minimum(x, 0.0) / alpha
    return np.maximum(x, 0.0) + alpha * np.expm1(scaled), lambda dy: (dy * np.exp(scaled),)


@in_float64
def selu(x: Array) -> Result:
    """y = lambda elu(x, alpha), with the two constants that keep mean 0 and variance 1."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    y, backward = elu(x, alpha)
    return scale * y, lambda dy: backward(scale * dy)


@in_float64
def gelu(x: Array, approximate: bool = True) -> Result:
    """y = x P(x): P is the normal distribution function, or s(2u), u = c (x + 0.044715 x^3).

    Exact: P' = e^(-x^2 / 2) / sqrt(2 pi).  Approximate, with c = sqrt(2 / pi): as
    (1 + tanh u) / 2 = sigmoid(2u), P' = P (1 - P) 2u'.  In both y' = P + x P'.
    """
    z = np.clip(x, -50.0, 50.0)  # P is 0 or 1 to rounding from there on, and P' is 0
    if approximate:
        c = math.sqrt(2 / math.pi)
        u = c * (z + 0.044715 * z**3)
        p = _sigmoid(2 * u)
        dp = p * _sigmoid(-2 * u) * 2 * c * (1 + 3 * 0.044715 * z**2)
    else:
        p = _erfc(-z / math.sqrt(2)) / 2
        dp = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return x * p, lambda dy: (dy * (p + x * dp),)


@in_float64
def glu(x: Array, axis: int = -1) -> Result:
    """y = a s(b), where a and b are the halves of x along axis and s is sigmoid.

    da = dy s(b) and db = dy a s(b) (1 - s(b)).
    """
    a, b = np.split(x, 2, axis)
    s = _sigmoid(b)
    return a * s, lambda dy: (np.concatenate([dy * s, dy * a * s * _sigmoid(-b)], axis),)


@in_float64
def log_softmax(x: Array, axis: Axis = -1) -> Result:
    """y = x - log sum e^x.

    dy_i/dx_j = [i = j] - softmax_j, so dx = dy - softmax sum(dy).
    """
    shifted = x - x.max(axis, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return y, lambda dy: (dy - np.exp(y) * dy.sum(axis, keepdims=True),)


@in_float64
def softmax(x: Array, axis: Axis = -1) -> Result:
    """y = e^x / sum e^x.

    dy_i/dx_j = y_i ([i = j] - y_j), so dx = y (dy - sum(dy y)).
    """
    e = np.exp(x - x.max(axis, keepdims=True))
    y = e / e.sum(axis, keepdims=True)
    return y, lambda dy: (y * (dy - (dy * y).sum(axis, keepdims=True)),)
