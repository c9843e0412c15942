"""Every layer and function with a gradient, once: what the tests run over.

`LAYERS` has a row for each constructor and its variants, `FUNCTIONS` for each activation, loss and
regularizer and each function of `jaxnn.functional`. There is a file for each family; what is in
none is refused by `test_completeness.py`.
"""

from tests.table import (
    activations,
    combinators,
    dense,
    dropout,
    losses,
    normalization,
    regularizers,
)
from tests.table.rows import draw_layer, rng_for

FAMILIES = (
    dense,
    normalization,
    dropout,
    combinators,
    activations,
    losses,
    regularizers,
)
LAYERS = tuple(row for family in FAMILIES for row in family.LAYERS)
FUNCTIONS = tuple(row for family in FAMILIES for row in family.FUNCTIONS)

__all__ = ["FUNCTIONS", "LAYERS", "draw_layer", "rng_for"]
