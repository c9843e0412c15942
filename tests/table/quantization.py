"""Vector quantisation."""

import jaxnn as nn
from tests.numpy_reference import quantization
from tests.table.rows import FunctionRow, LayerRow


def code_of_nearest(x, codes):
    """Look the codes up, so that there is a gradient."""
    return codes[nn.functional.nearest_code(x, codes)]


def vectors_and_codes(rng, shape):
    """Vectors and five codes."""
    return rng.standard_normal(shape), rng.standard_normal((5, shape[-1]))


def vector_quantizer(params, state, x, *, key, train):
    """The gradient passes through, whatever the codes."""
    y, backward = quantization.straight_through(x, state["embedding"])
    return y, lambda dy: ({}, *backward(dy))


LAYERS = (
    LayerRow(
        "vector_quantizer",
        "vector_quantizer(5)",
        lambda: nn.vector_quantizer(5),
        ((4, 3),),
        vector_quantizer,
        has_state=True,
    ),
)

FUNCTIONS = (
    FunctionRow(
        "functional.nearest_code",
        code_of_nearest,
        quantization.code_of_nearest,
        vectors_and_codes,
        ((3,), (2, 3, 4)),
    ),
)
