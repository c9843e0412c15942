"""Normalisation."""

from functools import partial
from itertools import product

import numpy as np

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


def x_and_scale(axis, use_scale):
    """x and a scale of the shape of `axis`, or None."""
    draw = norm_arguments(axis, use_scale, False)
    return lambda rng, shape: draw(rng, shape)[:2]


def params_text(scale, bias):
    """Which of the two there are."""
    wanted = [name for name, given in (("scale", scale), ("bias", bias)) if given]
    return "_".join(wanted) or "without_params"


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
        params = params_text(scale, bias)
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


def grouped(function):
    """Group norm with the groups as an option, so that each argument has a gradient."""

    def call(x, scale, bias, *, num_groups, **options):
        return function(x, num_groups, scale, bias, **options)

    return call


def example_rows():
    """Norms that know each example alone."""
    f = nn.functional
    for axis, use_scale, shape in (
        (-1, True, (6,)),
        (-1, False, (4, 5)),
        (0, True, (3, 2)),
        ((-1, 0), True, (2, 3, 4)),
    ):
        yield FunctionRow(
            "functional.rms_norm",
            f.rms_norm,
            normalization.rms_norm,
            x_and_scale(axis, use_scale),
            (shape,),
            {"axis": axis, "epsilon": 0.01},
            params_text(use_scale, False),
        )
    for axis, epsilon, shape in (
        (-1, 1e-6, (6,)),
        (-1, 9.0, (3, 4)),
        (0, 1.5, (3, 4)),
        ((-1, 0), 1e-6, (2, 3, 4)),
    ):
        yield FunctionRow(
            "functional.unit_norm",
            f.unit_norm,
            normalization.unit_norm,
            normal,
            (shape,),
            {"axis": axis, "epsilon": epsilon},
        )
    for num_groups, scale, bias, axis, shape in (
        (1, True, True, -1, (3, 4)),
        (2, True, True, -1, (2, 3, 4)),
        (2, True, False, 1, (2, 4, 3, 2)),
        (3, False, True, -2, (2, 6, 3)),
        (4, False, False, -1, (2, 3, 4)),
    ):
        yield FunctionRow(
            "functional.group_norm",
            grouped(f.group_norm),
            grouped(normalization.group_norm),
            norm_arguments(axis, scale, bias),
            (shape,),
            {"num_groups": num_groups, "axis": axis, "epsilon": 0.01},
            params_text(scale, bias),
        )
    for scale, bias, axis, shape in (
        (True, True, -1, (2, 3, 4)),
        (True, False, 1, (2, 4, 3)),
        (False, True, -1, (2, 3, 2, 2)),
        (False, False, -2, (2, 4, 3)),
    ):
        yield FunctionRow(
            "functional.instance_norm",
            f.instance_norm,
            normalization.instance_norm,
            norm_arguments(axis, scale, bias),
            (shape,),
            {"axis": axis, "epsilon": 0.01},
            params_text(scale, bias),
        )
    for size, axis, shape in ((5, -1, (3, 7)), (3, 1, (2, 5, 2)), (4, -1, (6,)), (1, 0, (4, 2))):
        yield FunctionRow(
            "functional.local_response_norm",
            f.local_response_norm,
            normalization.local_response_norm,
            normal,
            (shape,),
            {"size": size, "axis": axis, "alpha": 0.7, "beta": 0.6, "k": 0.9},
        )


def masked(function):
    """The function with a mask in which a third of the elements, and one example, do not count."""

    def call(x, *arguments, **options):
        places = np.indices(x.shape)
        return function(x, *arguments, mask=(places.sum(0) % 3 > 0) & (places[0] > 0), **options)

    return call


def masked_rows():
    """Norms under a mask."""
    shape, options = (3, 4, 2), {"epsilon": 0.01}
    both = norm_arguments(-1, scale=True, bias=True)
    for name, wrap, draw, further in (
        ("layer_norm", masked, norm_arguments((1, 2), scale=True, bias=True), {"axis": (1, 2)}),
        ("rms_norm", masked, x_and_scale(-2, use_scale=True), {"axis": -2}),
        ("group_norm", lambda g: masked(grouped(g)), both, {"num_groups": 1}),
        ("instance_norm", masked, both, {}),
        ("batch_norm", masked, norm_arguments(-1, True, True, statistics=True), {}),
    ):
        function, reference = getattr(nn.functional, name), getattr(normalization, name)
        yield FunctionRow(
            f"functional.{name}",
            wrap(function),
            wrap(reference),
            draw,
            (shape,),
            {**options, **further},
            "masked",
        )
    yield FunctionRow(
        "functional.batch_statistics",
        masked(nn.functional.batch_statistics),
        masked(normalization.batch_statistics),
        normal,
        (shape,),
        variant="masked",
    )


def group_norm_layer(num_groups, axis=-1):
    """Group norm over the channels on `axis`."""

    def reference(x, scale, bias):
        return normalization.group_norm(x, num_groups, scale, bias, axis)

    return composed.of_function(reference, "scale", "bias")


AXIS_1 = ((6, 3), (5, 3, 4))
IMAGES = ((2, 3, 3, 4),)
LAYERS = (
    LayerRow(
        "batch_norm",
        "batch_norm()",
        lambda: nn.batch_norm(),
        reference=composed.batch_norm(-1),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "batch_norm_axis_1",
        "batch_norm(axis=1)",
        lambda: nn.batch_norm(axis=1),
        AXIS_1,
        composed.batch_norm(1),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "batch_norm_mean_of_all_batches",
        "batch_norm(decay=None)",
        lambda: nn.batch_norm(decay=None),
        reference=composed.batch_norm(-1),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "batch_norm_without_params",
        "batch_norm(use_scale=False, use_bias=False)",
        lambda: nn.batch_norm(use_scale=False, use_bias=False),
        reference=composed.batch_norm(-1),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow("layer_norm", "layer_norm()", nn.layer_norm, reference=composed.layer_norm(-1)),
    LayerRow(
        "layer_norm_axes",
        "layer_norm(axis=(-2, -1))",
        lambda: nn.layer_norm(axis=(-2, -1)),
        ((2, 5, 4), (2, 3, 4, 2)),
        composed.layer_norm((-2, -1)),
    ),
    LayerRow(
        "rms_norm",
        "rms_norm()",
        nn.rms_norm,
        ((3, 4),),
        composed.of_function(normalization.rms_norm, "scale"),
    ),
    LayerRow(
        "rms_norm_offset",
        "rms_norm(scale_offset=1.0)",
        lambda: nn.rms_norm(scale_offset=1.0),
        reference=composed.of_function(partial(normalization.rms_norm, scale_offset=1.0), "scale"),
    ),
    LayerRow(
        "rms_norm_axes",
        "rms_norm(axis=(-2, -1), use_scale=False)",
        lambda: nn.rms_norm(axis=(-2, -1), use_scale=False),
        ((2, 3, 4),),
        composed.of_function(partial(normalization.rms_norm, axis=(-2, -1)), "scale"),
    ),
    LayerRow(
        "group_norm",
        "group_norm(num_groups=2)",
        lambda: nn.group_norm(2),
        IMAGES,
        group_norm_layer(2),
    ),
    LayerRow(
        "group_norm_axis_1",
        "group_norm(num_groups=3, axis=1, use_bias=False)",
        lambda: nn.group_norm(3, axis=1, use_bias=False),
        ((2, 6),),
        group_norm_layer(3, axis=1),
    ),
    LayerRow(
        "instance_norm",
        "instance_norm()",
        nn.instance_norm,
        IMAGES,
        composed.of_function(normalization.instance_norm, "scale", "bias"),
    ),
    LayerRow(
        "instance_norm_running",
        "instance_norm(use_running_statistics=True)",
        lambda: nn.instance_norm(use_running_statistics=True),
        IMAGES,
        composed.batch_norm(-1, training=normalization.instance_norm),
        has_state=True,
    ),
    LayerRow(
        "instance_norm_axis_1",
        "instance_norm(axis=1, use_scale=False)",
        lambda: nn.instance_norm(axis=1, use_scale=False),
        ((2, 3, 4),),
        composed.of_function(partial(normalization.instance_norm, axis=1), "scale", "bias"),
    ),
    LayerRow(
        "unit_norm",
        "unit_norm()",
        nn.unit_norm,
        ((3, 4),),
        composed.of_function(normalization.unit_norm),
    ),
    LayerRow(
        "local_response_norm",
        "local_response_norm(size=3, alpha=0.5)",
        lambda: nn.local_response_norm(3, alpha=0.5),
        ((3, 4),),
        composed.of_function(partial(normalization.local_response_norm, size=3, alpha=0.5)),
    ),
)

FUNCTIONS = (*function_rows(), *example_rows(), *masked_rows())
