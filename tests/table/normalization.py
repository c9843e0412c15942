"""Normalisation."""

from itertools import product

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import normalization
from tests.table.rows import FunctionRow, LayerRow, normal


def norm_arguments(axis, scale, bias, statistics=False):
    """x, mean and var if wanted, and scale and bias of the shape of `axis`, or None."""

    def draw(rng, shape):
        axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
        features = tuple(shape[a] for a in axes)
        given = (rng.standard_normal(features), rng.uniform(0.3, 2.0, features))
        params = (rng.standard_normal(features) if wanted else None for wanted in (scale, bias))
        return rng.standard_normal(shape), *(given if statistics else ()), *params

    return draw


def function_rows():
    """With and without each parameter, over one axis and several."""
    f = nn.functional
    for axis in (-1, 1):
        yield FunctionRow(
            "functional.batch_statistics",
            f.batch_statistics,
            normalization.batch_statistics,
            normal,
            ((4, 6), (2, 3, 4)),
            {"axis": axis},
        )
    for scale, bias in product((True, False), repeat=2):
        params = (
            "_".join(name for name, wanted in (("scale", scale), ("bias", bias)) if wanted)
            or "without_params"
        )
        for axis, shapes in ((-1, ((4, 6), (2, 3, 4))), (1, ((2, 3, 4),))):
            yield FunctionRow(
                "functional.batch_norm",
                f.batch_norm,
                normalization.batch_norm,
                norm_arguments(axis, scale, bias, statistics=True),
                shapes,
                {"axis": axis, "epsilon": 0.01},
                params,
            )
        for axis, shapes in ((-1, ((6,), (4, 6), (2, 3, 4))), ((-1, 0), ((4, 6), (2, 3, 4)))):
            yield FunctionRow(
                "functional.layer_norm",
                f.layer_norm,
                normalization.layer_norm,
                norm_arguments(axis, scale, bias),
                shapes,
                {"axis": axis, "epsilon": 0.01},
                params,
            )


AXIS_1 = ((6, 3), (5, 3, 4))
LAYERS = (
    LayerRow(
        "batch_norm",
        "batch_norm()",
        lambda: nn.batch_norm(),
        reference=composed.batch_norm(-1),
        has_state=True,
    ),
    LayerRow(
        "batch_norm_axis_1",
        "batch_norm(axis=1)",
        lambda: nn.batch_norm(axis=1),
        AXIS_1,
        composed.batch_norm(1),
        has_state=True,
    ),
    LayerRow(
        "batch_norm_without_params",
        "batch_norm(use_scale=False, use_bias=False)",
        lambda: nn.batch_norm(use_scale=False, use_bias=False),
        reference=composed.batch_norm(-1),
        has_state=True,
    ),
    LayerRow("layer_norm", "layer_norm()", nn.layer_norm, reference=composed.layer_norm(-1)),
    LayerRow(
        "layer_norm_axes",
        "layer_norm(axis=(-2, -1))",
        lambda: nn.layer_norm(axis=(-2, -1)),
        ((2, 5, 4), (2, 3, 4, 2)),
        composed.layer_norm((-2, -1)),
    ),
)

FUNCTIONS = tuple(function_rows())
