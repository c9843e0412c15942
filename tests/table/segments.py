"""What graph networks are built from."""

from functools import partial

import numpy as np

import jaxnn as nn
from tests.numpy_reference import segments
from tests.table.rows import FunctionRow

SEGMENTS = 4


def nodes_and_ids(rng, shape):
    """Features, shape (*batch, nodes, features), and more edges than nodes."""
    *batch, nodes, _ = shape
    return rng.standard_normal(shape), np.asarray(rng.integers(0, nodes, (*batch, nodes + 3)))


def elements(is_padded, axes=1):
    """Elements, segments of which the last has none, and a mask or None; `axes` of features."""

    def draw(rng, shape):
        of_elements = shape[: len(shape) - axes]
        ids = rng.integers(0, SEGMENTS - 1, of_elements)
        where = rng.random(of_elements) < 0.7
        return rng.standard_normal(shape), ids, where if is_padded else None

    return draw


def function_rows():
    """One graph and a batch of them, with and without a mask."""
    f = nn.functional
    yield FunctionRow(
        "functional.gather", f.gather, segments.gather, nodes_and_ids, ((3, 2), (2, 3, 2))
    )
    for name in ("segment_sum", "segment_mean", "segment_max", "segment_softmax"):
        function = getattr(f, name)

        def by_position(x, ids, where, function=function):
            return function(x, ids, SEGMENTS, where=where)

        reference = partial(getattr(segments, name), num_segments=SEGMENTS)
        row = partial(FunctionRow, f"functional.{name}", by_position, reference)
        yield row(elements(True), ((2, 6, 3),))
        yield row(elements(False, axes=0), ((7,),), variant="one graph")


LAYERS = ()
FUNCTIONS = tuple(function_rows())
