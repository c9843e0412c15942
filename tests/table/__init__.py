"""Every layer and function with a gradient, once: what the tests run over.

`LAYERS` has a row for each constructor and its variants, `FUNCTIONS` for each activation, loss and
regularizer and each function of `jaxnn.functional`. There is a file for each family; what is in
none is refused by `test_completeness.py`.
"""

from tests.table import (
    activations,
    attention,
    augmentation,
    combinators,
    convolution,
    dense,
    dropout,
    embeddings,
    losses,
    mixture,
    normalization,
    pooling,
    positions,
    quantization,
    recurrent,
    regularizers,
    reparametrization,
    resampling,
    segments,
    transformer,
)
from tests.table.rows import cases, draw_layer, in_turns, rng_for

FAMILIES = (
    dense,
    embeddings,
    normalization,
    convolution,
    pooling,
    resampling,
    dropout,
    augmentation,
    attention,
    positions,
    combinators,
    activations,
    losses,
    mixture,
    recurrent,
    regularizers,
    reparametrization,
    transformer,
    quantization,
    segments,
)
LAYERS = tuple(row for family in FAMILIES for row in family.LAYERS)
FUNCTIONS = tuple(row for family in FAMILIES for row in family.FUNCTIONS)

__all__ = ["FUNCTIONS", "LAYERS", "cases", "draw_layer", "in_turns", "rng_for"]
