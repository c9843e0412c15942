"""Losses: unreduced, elementwise for regression, one value per example for classification.

The names and semantics are optax's. The reduction belongs to the caller, who can so weight
examples and average over devices exactly. Values are computed and returned in float32 or wider.
"""

from jaxnn.losses.classification import sigmoid_binary_cross_entropy, softmax_cross_entropy
from jaxnn.losses.regression import absolute_error, huber_loss, squared_error

__all__ = [
    "absolute_error",
    "huber_loss",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]
