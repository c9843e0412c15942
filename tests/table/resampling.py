"""Upsampling and pixel shuffling."""

from functools import partial

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import resampling
from tests.table.rows import FunctionRow, LayerRow, normal

VARIANTS = {
    "upsample": [
        ({"scale": (2, 2)}, ((2, 2, 3, 2),)),
        ({"scale": (3, 1)}, ((2, 3, 2),)),
        ({"scale": (2, 2, 2), "method": "linear"}, ((1, 2, 3, 1, 2),)),
        ({"scale": (3, 4), "method": "bilinear"}, ((2, 1, 2, 3, 2),)),
        ({"scale": (5,), "method": "linear"}, ((3, 4, 1),)),
    ],
    "resize": [
        ({"output_size": (3, 5), "method": "nearest"}, ((1, 4, 3, 2),)),
        ({"output_size": (7, None)}, ((2, 3, 2, 1),)),
        ({"output_size": (3,), "method": "linear", "antialias": True}, ((2, 7, 2),)),
        ({"output_size": (5, 2), "method": "bicubic"}, ((3, 5, 2),)),
        ({"output_size": (9, 2), "method": "cubic", "antialias": True}, ((4, 5, 1),)),
        ({"output_size": (3, 5), "method": "area"}, ((2, 4, 2),)),
    ],
    "pixel_shuffle": [
        ({"factor": (2, 2)}, ((1, 2, 3, 8),)),
        ({"factor": (3, 2)}, ((2, 1, 12),)),
        ({"factor": (2, 1, 2)}, ((1, 2, 1, 2, 4),)),
    ],
    "pixel_unshuffle": [
        ({"factor": (2, 2)}, ((1, 2, 4, 2),)),
        ({"factor": (3, 2)}, ((3, 4, 2),)),
        ({"factor": (2, 1, 2)}, ((1, 2, 1, 2, 3),)),
    ],
}

FUNCTIONS = tuple(
    FunctionRow(
        f"functional.{name}",
        getattr(nn.functional, name),
        getattr(resampling, name),
        normal,
        shapes,
        options,
    )
    for name, variants in VARIANTS.items()
    for options, shapes in variants
)


def row(call, make, shapes, reference, **options):
    """A layer without parameters."""
    name = call.translate(str.maketrans(" ,=", "__-", "()'"))
    layer = composed.of_function(partial(reference, **options))
    return LayerRow(name, call, make, shapes, layer)


LAYERS = (
    row(
        "upsample((2, 2))",
        lambda: nn.upsample((2, 2)),
        ((2, 3, 2, 2),),
        resampling.upsample,
        scale=(2, 2),
    ),
    row(
        "upsample((3, 2), method='linear')",
        lambda: nn.upsample((3, 2), method="linear"),
        ((1, 3, 2, 2),),
        resampling.upsample,
        scale=(3, 2),
        method="linear",
    ),
    row(
        "resize((3, 4), method='cubic', antialias=True)",
        lambda: nn.resize((3, 4), method="cubic", antialias=True),
        ((1, 5, 2, 2),),
        resampling.resize,
        output_size=(3, 4),
        method="cubic",
        antialias=True,
    ),
    row(
        "pixel_shuffle((2, 2))",
        lambda: nn.pixel_shuffle((2, 2)),
        ((2, 3, 2, 8),),
        resampling.pixel_shuffle,
        factor=(2, 2),
    ),
    row(
        "pixel_unshuffle((2, 2))",
        lambda: nn.pixel_unshuffle((2, 2)),
        ((2, 4, 2, 2),),
        resampling.pixel_unshuffle,
        factor=(2, 2),
    ),
)
