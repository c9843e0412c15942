"""Convolutions."""

from functools import partial

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import convolution
from tests.table.rows import FunctionRow, LayerRow


def arguments(kernel, use_bias):
    """x, a kernel of this shape, and a bias or None."""

    def draw(rng, shape):
        bias = rng.standard_normal(kernel[-1]) if use_bias else None
        return rng.standard_normal(shape), rng.standard_normal(kernel), bias

    return draw


# Each: the shapes of x and of the kernel, and the options.
CONV = (
    ((2, 5, 3), (3, 3, 4), {}),
    ((2, 3, 6, 2), (1, 2, 3), {"strides": 4}),
    ((5, 4), (2, 1, 8), {"feature_group_count": 4, "padding": "VALID"}),
    ((2, 7, 2), (3, 2, 2), {"padding": 2, "strides": 3}),
    ((7, 2), (4, 1, 4), {"padding": ((3, 0),), "kernel_dilation": 2, "feature_group_count": 2}),
    ((6, 2), (3, 2, 3), {"padding": "CAUSAL", "kernel_dilation": 2}),
    ((2, 7, 4), (2, 2, 2), {"padding": "CAUSAL", "strides": 2, "feature_group_count": 2}),
    ((2, 5, 2), (4, 2, 3), {"padding": "CIRCULAR"}),
    (
        (2, 7, 2),
        (3, 1, 4),
        {"padding": "CIRCULAR", "strides": 3, "kernel_dilation": 2, "feature_group_count": 2},
    ),
    ((2, 2), (7, 2, 2), {"padding": "CIRCULAR"}),
    ((2, 2), (7, 2, 2), {"padding": "REPLICATE"}),
    ((2, 5, 2), (4, 2, 3), {"padding": "REFLECT"}),
    (
        (2, 7, 2),
        (3, 1, 4),
        {"padding": "REFLECT", "strides": 3, "kernel_dilation": 2, "feature_group_count": 2},
    ),
    ((1, 4, 5, 2), (3, 2, 2, 3), {}),
    ((2, 1, 4, 5, 2), (2, 3, 2, 2), {"padding": "VALID", "strides": 2}),
    (
        (4, 6, 4),
        (3, 2, 2, 6),
        {"strides": (2, 1), "kernel_dilation": (1, 2), "feature_group_count": 2},
    ),
    ((1, 4, 5, 2), (3, 2, 2, 2), {"padding": ((1, 0), 2), "strides": (1, 2)}),
    (
        (1, 4, 5, 2),
        (3, 2, 1, 2),
        {"padding": "CIRCULAR", "strides": (1, 2), "feature_group_count": 2},
    ),
    (
        (1, 4, 5, 2),
        (3, 2, 2, 2),
        {"padding": "REFLECT", "strides": (2, 1), "kernel_dilation": (1, 3)},
    ),
    ((1, 3, 4, 3, 2), (2, 3, 1, 2, 2), {"strides": (1, 2, 1)}),
    (
        (2, 3, 2, 4),
        (2, 2, 2, 2, 2),
        {"feature_group_count": 2, "padding": "CIRCULAR", "kernel_dilation": (1, 2, 1)},
    ),
    ((1, 3, 4, 3, 2), (2, 2, 3, 2, 1), {"padding": "REFLECT", "strides": 2}),
)

CONV_TRANSPOSE = (
    ((2, 5, 3), (3, 3, 4), {}),
    ((2, 3, 3, 2), (1, 2, 3), {"strides": 3}),
    ((4, 4), (2, 1, 8), {"feature_group_count": 4, "padding": "VALID", "strides": 3}),
    ((2, 3, 2), (4, 2, 2), {"padding": 1, "strides": 2, "kernel_dilation": 2}),
    ((2, 3, 2), (3, 2, 2), {"padding": ((2, 1),), "strides": 3, "output_size": 8}),
    ((4, 2), (3, 2, 3), {"padding": "CAUSAL", "kernel_dilation": 2, "strides": 2}),
    ((2, 4, 2), (4, 2, 3), {"padding": "CIRCULAR"}),
    (
        (2, 3, 4),
        (3, 2, 4),
        {"padding": "CIRCULAR", "strides": 2, "kernel_dilation": 2, "feature_group_count": 2},
    ),
    ((2, 3, 4), (4, 2, 2), {"padding": "REFLECT", "strides": 2, "feature_group_count": 2}),
    ((2, 3, 2), (4, 2, 3), {"padding": "REPLICATE", "strides": 2, "kernel_dilation": 2}),
    ((1, 2, 3, 2), (3, 2, 2, 3), {"strides": 2}),
    ((2, 1, 2, 3, 4), (2, 2, 2, 6), {"strides": 2, "feature_group_count": 2, "padding": "VALID"}),
    ((2, 3, 2), (3, 3, 2, 2), {"strides": (2, 3), "output_size": (3, 8)}),
    (
        (1, 2, 3, 2),
        (3, 2, 2, 2),
        {"padding": ((1, 0), 1), "strides": (2, 1), "kernel_dilation": (1, 2)},
    ),
    ((1, 2, 2, 3, 2), (2, 2, 3, 2, 2), {"strides": (1, 2, 1)}),
    (
        (2, 2, 2, 4),
        (2, 2, 2, 2, 2),
        {"feature_group_count": 2, "padding": "CIRCULAR", "strides": (2, 1, 1)},
    ),
)


def function_rows():
    """Every other one without a bias."""
    f = nn.functional
    for name, function, reference, cases in (
        ("functional.conv", f.conv, convolution.conv, CONV),
        ("functional.conv_transpose", f.conv_transpose, convolution.conv_transpose, CONV_TRANSPOSE),
    ):
        for i, (shape, kernel, options) in enumerate(cases):
            use_bias = i % 2 == 0
            kernel_text = "kernel_" + "x".join(map(str, kernel))
            variant = kernel_text if use_bias else kernel_text + "_without_bias"
            draw = arguments(kernel, use_bias)
            yield FunctionRow(name, function, reference, draw, (shape,), options, variant)


def of_conv(reference=convolution.conv, **options):
    """The reference of a layer."""
    return composed.of_function(partial(reference, **options), "kernel", "bias")


def separable(params, state, x, *, key, train):
    """A depthwise convolution, 3 taps wide and with two outputs for each channel, and a 1x1 one."""
    first = of_conv(feature_group_count=x.shape[-1])
    chain = composed.serial(depthwise=first, pointwise=of_conv())
    return chain(params, state, x, key=key, train=train)


LAYERS = (
    LayerRow("conv", "conv(4, (3, 3))", lambda: nn.conv(4, (3, 3)), ((2, 5, 4, 3),), of_conv()),
    LayerRow(
        "conv_options",
        "conv(4, (3,), strides=2, padding='REFLECT', kernel_dilation=2, feature_group_count=2, "
        "use_bias=False)",
        lambda: nn.conv(
            4,
            (3,),
            strides=2,
            padding="REFLECT",
            kernel_dilation=2,
            feature_group_count=2,
            use_bias=False,
        ),
        ((2, 1, 5, 2),),
        of_conv(strides=2, padding="REFLECT", kernel_dilation=2, feature_group_count=2),
    ),
    LayerRow(
        "conv_transpose",
        "conv_transpose(3, (3, 3), strides=2)",
        lambda: nn.conv_transpose(3, (3, 3), strides=2),
        ((2, 2, 3, 2),),
        of_conv(convolution.conv_transpose, strides=2),
    ),
    LayerRow(
        "conv_transpose_options",
        "conv_transpose(4, (3,), strides=3, padding=1, feature_group_count=2, output_size=9, "
        "use_bias=False)",
        lambda: nn.conv_transpose(
            4, (3,), strides=3, padding=1, feature_group_count=2, output_size=9, use_bias=False
        ),
        ((1, 3, 2),),
        of_conv(
            convolution.conv_transpose, strides=3, padding=1, feature_group_count=2, output_size=9
        ),
        has_examples=False,
    ),
    LayerRow(
        "depthwise_conv",
        "depthwise_conv((3, 2), depth_multiplier=2)",
        lambda: nn.depthwise_conv((3, 2), depth_multiplier=2),
        ((2, 4, 3, 2),),
        of_conv(feature_group_count=2),
    ),
    LayerRow(
        "depthwise_conv_options",
        "depthwise_conv((2,), strides=2, padding='CIRCULAR', kernel_dilation=2, use_bias=False)",
        lambda: nn.depthwise_conv(
            (2,), strides=2, padding="CIRCULAR", kernel_dilation=2, use_bias=False
        ),
        ((2, 5, 3),),
        of_conv(feature_group_count=3, strides=2, padding="CIRCULAR", kernel_dilation=2),
    ),
    LayerRow(
        "separable_conv",
        "separable_conv(3, (3, 3), depth_multiplier=2)",
        lambda: nn.separable_conv(3, (3, 3), depth_multiplier=2),
        ((2, 3, 4, 2),),
        separable,
    ),
)

FUNCTIONS = tuple(function_rows())
