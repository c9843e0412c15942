"""Metrics over a whole set at once: what accumulating over batches must come to."""

import numpy as np

from .float64 import Array, as_float64


def mean(values: Array, weights: Array | None = None) -> float:
    """sum(weights values) / sum(weights), with weights of the shape of the values, or all 1."""
    values = as_float64(values)
    weights = np.ones(values.shape) if weights is None else as_float64(weights)
    if weights.shape != values.shape:
        raise ValueError(f"shapes differ: {values.shape} and {weights.shape}")
    return float((weights * values).sum() / weights.sum())


def accuracy(logits: Array, labels: Array, weights: Array | None = None) -> float:
    """The share of examples whose largest logit is that of the label."""
    return mean(np.asarray(logits).argmax(-1) == np.asarray(labels), weights)
