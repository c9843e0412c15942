"""Pooling."""

from functools import partial

import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import pooling
from tests.table.rows import FunctionRow, LayerRow


def distinct(rng, shape):
    """Numbers of both signs that differ by at least 0.01 from one another and from 0."""
    steps = rng.permutation(int(np.prod(shape))) - int(np.prod(shape)) // 2
    return (((steps + rng.uniform(0.2, 0.8, steps.shape)) / 20).reshape(shape),)


IMAGES = ((2, 5, 6, 2),)
SERIES = ((2, 7, 3),)

VARIANTS = {
    "max_pool": [
        ({"window_shape": (2, 2)}, ((2, 4, 6, 2),)),
        ({"window_shape": (2,)}, ((3, 7, 2),)),
        ({"window_shape": (3, 3), "strides": 2, "padding": "SAME"}, IMAGES),
        ({"window_shape": (3, 2), "strides": (1, 2), "padding": ((1, 1), (0, 1))}, IMAGES),
        (
            {"window_shape": (2,), "strides": 1, "window_dilation": 3, "padding": 2},
            ((2, 2, 5, 2), (5, 2)),
        ),
        ({"window_shape": (2, 1, 2)}, ((1, 4, 3, 4, 2),)),
        ({"window_shape": (4, 9), "strides": (2, 1), "padding": "SAME"}, ((1, 6, 9, 2),)),
        ({"window_shape": (3,), "window_dilation": 2, "ceil_mode": True}, SERIES),
    ],
    "avg_pool": [
        ({"window_shape": (2, 2)}, ((2, 4, 6, 2),)),
        ({"window_shape": (2,)}, ((3, 7, 2),)),
        ({"window_shape": (3, 3), "strides": 2, "padding": "SAME"}, IMAGES),
        ({"window_shape": (3, 2), "padding": ((1, 0), (0, 1)), "count_include_pad": False}, IMAGES),
        ({"window_shape": (2,), "strides": 3, "padding": 3, "count_include_pad": False}, ((7, 3),)),
        ({"window_shape": (4, 9), "strides": 1, "padding": 3}, ((1, 4, 5, 1),)),
        ({"window_shape": (4,), "strides": 3, "padding": 1, "ceil_mode": True}, SERIES),
        (
            {
                "window_shape": (2, 4),
                "strides": (2, 3),
                "padding": ((0, 0), (2, 0)),
                "count_include_pad": False,
                "ceil_mode": True,
            },
            IMAGES,
        ),
    ],
    "lp_pool": [
        ({"window_shape": (2, 2)}, ((2, 4, 6, 2),)),
        ({"window_shape": (3, 3), "strides": 2, "padding": "SAME", "p": 1}, IMAGES),
        ({"window_shape": (3,), "strides": 1, "padding": 1, "p": 3}, SERIES),
        ({"window_shape": (2, 2), "p": 2.5}, IMAGES),
        ({"window_shape": (4,), "strides": 4, "p": 3, "ceil_mode": True}, SERIES),
    ],
    "unfold": [
        ({"window_shape": (2, 3)}, ((2, 4, 3, 2),)),
        (
            {"window_shape": (2,), "strides": 2, "padding": ((1, 2),), "window_dilation": 2},
            ((2, 5, 2), (4, 1)),
        ),
        ({"window_shape": (2, 1, 2), "strides": (2, 1, 1), "padding": "SAME"}, ((1, 3, 2, 3, 2),)),
    ],
    "fold": [
        ({"output_size": (4, 3), "window_shape": (2, 3)}, ((2, 3, 1, 12),)),
        (
            {
                "output_size": (5,),
                "window_shape": (2,),
                "strides": 2,
                "padding": ((1, 2),),
                "window_dilation": 2,
            },
            ((2, 3, 4), (3, 2)),
        ),
    ],
    "adaptive_max_pool": [
        ({"output_size": (3, 3)}, ((2, 6, 4, 2),)),
        ({"output_size": (3,)}, ((2, 7, 3),)),
        ({"output_size": (2, None)}, IMAGES),
        ({"output_size": (7, 3)}, ((3, 4, 2),)),
    ],
    "adaptive_avg_pool": [
        ({"output_size": (3, 3)}, ((2, 6, 4, 2),)),
        ({"output_size": (3,)}, ((2, 7, 3),)),
        ({"output_size": (2, None)}, IMAGES),
        ({"output_size": (7, 3)}, ((3, 4, 2),)),
    ],
    "global_max_pool": [
        ({}, ((2, 3, 4, 2), (2, 3))),
        ({"axis": (0, -1), "keepdims": True}, SERIES),
    ],
    "global_avg_pool": [
        ({}, ((2, 3, 4, 2), (2, 3))),
        ({"axis": (0, -1), "keepdims": True}, SERIES),
    ],
}


def function_rows():
    """A row for each function and choice of options."""
    for name, variants in VARIANTS.items():
        function, reference = getattr(nn.functional, name), getattr(pooling, name)
        for options, shapes in variants:
            yield FunctionRow(f"functional.{name}", function, reference, distinct, shapes, options)


LAYERS = (
    LayerRow(
        "max_pool",
        "max_pool((2, 2))",
        lambda: nn.max_pool((2, 2)),
        ((2, 4, 5, 3),),
        composed.of_function(partial(pooling.max_pool, window_shape=(2, 2))),
    ),
    LayerRow(
        "max_pool_options",
        "max_pool((3,), strides=1, padding='SAME', window_dilation=2)",
        lambda: nn.max_pool((3,), strides=1, padding="SAME", window_dilation=2),
        ((1, 7, 3),),
        composed.of_function(
            partial(
                pooling.max_pool, window_shape=(3,), strides=1, padding="SAME", window_dilation=2
            )
        ),
        has_examples=False,
    ),
    LayerRow(
        "avg_pool",
        "avg_pool((3, 3), strides=2, padding='SAME', count_include_pad=False)",
        lambda: nn.avg_pool((3, 3), strides=2, padding="SAME", count_include_pad=False),
        ((2, 4, 5, 3),),
        composed.of_function(
            partial(
                pooling.avg_pool,
                window_shape=(3, 3),
                strides=2,
                padding="SAME",
                count_include_pad=False,
            )
        ),
    ),
    LayerRow(
        "lp_pool",
        "lp_pool((2, 2), p=3.0, strides=1, padding=1)",
        lambda: nn.lp_pool((2, 2), 3.0, strides=1, padding=1),
        ((2, 4, 5, 3),),
        composed.of_function(
            partial(pooling.lp_pool, window_shape=(2, 2), p=3.0, strides=1, padding=1)
        ),
    ),
    LayerRow(
        "unfold",
        "unfold((2, 2), strides=2, padding=1)",
        lambda: nn.unfold((2, 2), strides=2, padding=1),
        ((2, 4, 3, 2),),
        composed.of_function(partial(pooling.unfold, window_shape=(2, 2), strides=2, padding=1)),
    ),
    LayerRow(
        "fold",
        "fold((3, 4), (2, 2))",
        lambda: nn.fold((3, 4), (2, 2)),
        ((2, 2, 3, 8),),
        composed.of_function(partial(pooling.fold, output_size=(3, 4), window_shape=(2, 2))),
    ),
    LayerRow(
        "adaptive_max_pool",
        "adaptive_max_pool((2, None))",
        lambda: nn.adaptive_max_pool((2, None)),
        ((2, 5, 3, 2),),
        composed.of_function(partial(pooling.adaptive_max_pool, output_size=(2, None))),
    ),
    LayerRow(
        "adaptive_avg_pool",
        "adaptive_avg_pool((3, 3))",
        lambda: nn.adaptive_avg_pool((3, 3)),
        ((2, 5, 6, 2),),
        composed.of_function(partial(pooling.adaptive_avg_pool, output_size=(3, 3))),
    ),
    LayerRow(
        "global_max_pool",
        "global_max_pool()",
        nn.global_max_pool,
        ((2, 3, 4, 2), (2, 3)),
        composed.of_function(pooling.global_max_pool),
    ),
    LayerRow(
        "global_avg_pool",
        "global_avg_pool(axis=0, keepdims=True)",
        lambda: nn.global_avg_pool(axis=0, keepdims=True),
        ((4, 3),),
        composed.of_function(partial(pooling.global_avg_pool, axis=0, keepdims=True)),
        has_examples=False,
    ),
)

FUNCTIONS = tuple(function_rows())
