"""Affine maps and shapes."""

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import dense
from tests.table.rows import FunctionRow, LayerRow, normal


def linear_arguments(use_bias):
    """x, a kernel and a bias or None."""

    def draw(rng, shape):
        kernel = rng.standard_normal((shape[-1], 5))
        return rng.standard_normal(shape), kernel, rng.standard_normal(5) if use_bias else None

    return draw


def function_rows():
    """With and without a bias."""
    f = nn.functional
    for use_bias in (True, False):
        draw = linear_arguments(use_bias)
        variant = "" if use_bias else "without_bias"
        yield FunctionRow("functional.linear", f.linear, dense.linear, draw, variant=variant)
    yield FunctionRow("functional.flatten", f.flatten, composed.flatten, normal)


LAYERS = (
    LayerRow("dense", "dense(5)", lambda: nn.dense(5), ((4, 3), (3,), (2, 4, 3)), composed.linear),
    LayerRow(
        "dense_without_bias",
        "dense(5, use_bias=False)",
        lambda: nn.dense(5, use_bias=False),
        reference=composed.linear,
    ),
    LayerRow(
        "flatten",
        "flatten()",
        nn.flatten,
        ((2, 5, 4), (3,), (4, 6)),
        composed.of_function(composed.flatten),
    ),
)

FUNCTIONS = tuple(function_rows())
