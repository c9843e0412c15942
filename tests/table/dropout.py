"""Noise that regularises."""

import jax
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import dropout
from tests.table.rows import FunctionRow, LayerRow, normal


def drop_half(x):
    """Dropout with a key of its own."""
    return nn.functional.dropout(jax.random.key(7), x, 0.5)


def drop_half_reference(x):
    """The same with the mask that the library draws, seen through an input of ones."""
    y, backward = dropout.dropout(x, np.asarray(drop_half(np.ones_like(x))) != 0, 0.5)
    return y, lambda dy: backward(dy)[:1]


LAYERS = (
    LayerRow(
        "dropout",
        "dropout(0.4)",
        lambda: nn.dropout(0.4),
        reference=composed.dropout_layer(0.4),
        is_random=True,
    ),
)

FUNCTIONS = (FunctionRow("functional.dropout", drop_half, drop_half_reference, normal),)
