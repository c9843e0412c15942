"""Losses, unreduced: elementwise for regression, one value per example for classification."""

from collections.abc import Callable

import numpy as np

from .activations import log_softmax, sigmoid, softplus
from .float64 import Array, in_float64

Result = tuple[Array, Callable[[Array], tuple[Array, Array | None]]]


def _same_shape(a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")


def _times(weight: Array, value: Array) -> Array:
    """weight * value with 0 * inf = 0, as lim p log p = 0."""
    return weight * np.where(weight == 0, 0.0, value)


@in_float64
def squared_error(predictions: Array, targets: Array) -> Result:
    """y = e^2 with e = predictions - targets; dy/de = 2e."""
    _same_shape(predictions, targets)
    e = predictions - targets
    return e**2, lambda dy: (2 * e * dy, -2 * e * dy)


@in_float64
def absolute_error(predictions: Array, targets: Array) -> Result:
    """y = |e| with e = predictions - targets; dy/de = sign(e), 0 at 0."""
    _same_shape(predictions, targets)
    e = predictions - targets
    return np.abs(e), lambda dy: (np.sign(e) * dy, -np.sign(e) * dy)


@in_float64
def huber_loss(predictions: Array, targets: Array, delta: float = 1.0) -> Result:
    """y = e^2 / 2 for |e| <= d = delta, else d (|e| - d / 2); dy/de = clip(e, -d, d)."""
    _same_shape(predictions, targets)
    e = predictions - targets
    slope = np.clip(e, -delta, delta)
    y = np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2))
    return y, lambda dy: (slope * dy, -slope * dy)


@in_float64
def softmax_cross_entropy(
    logits: Array, labels: Array, axis: int = -1, label_smoothing: float = 0.0
) -> Result:
    """y = -sum_i q_i log softmax(z)_i with q = (1 - s) p + s / classes, s the label smoothing.

    Labels p are distributions of the shape of the logits, or integers with `axis` missing.
    dz = softmax(z) sum(q) - q and dp = -(1 - s) log softmax(z).
    """
    classes = logits.shape[axis]
    integer = labels.dtype.kind in "iu"
    p = np.moveaxis(np.eye(classes)[labels], -1, axis) if integer else labels
    _same_shape(logits, p)
    q = (1 - label_smoothing) * p + label_smoothing / classes
    log_p, _ = log_softmax(logits, axis)

    def backward(dy: Array) -> tuple[Array, Array | None]:
        dy = np.expand_dims(dy, axis)
        dlogits = dy * (np.exp(log_p) * q.sum(axis, keepdims=True) - q)
        return dlogits, None if integer else _times(-dy * (1 - label_smoothing), log_p)

    return -_times(q, log_p).sum(axis), backward


@in_float64
def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Result:
    """y = -p log s(z) - (1 - p) log s(-z), where -log s(z) = softplus(-z) and s is sigmoid.

    dz = s(z) - p = (1 - p) s(z) - p s(-z), which does not cancel, and
    dp = softplus(-z) - softplus(z) = -z.
    """
    _same_shape(logits, labels)
    p = labels
    y = _times(p, softplus(-logits)[0]) + _times(1.0 - p, softplus(logits)[0])
    slope = (1.0 - p) * sigmoid(logits)[0] - p * sigmoid(-logits)[0]
    return y, lambda dy: (dy * slope, _times(-dy, logits))
