"""Activations."""

import jax
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import activations, further_activations
from tests.table.rows import FunctionRow, LayerRow, normal, off_kinks

ACTIVATIONS = {
    "celu": ({}, {"alpha": 1.7}),
    "elu": ({}, {"alpha": 0.6}),
    "gelu": ({}, {"approximate": False}),
    "glu": ({}, {"axis": 0}),
    "hard_sigmoid": ({},),
    "hard_silu": ({},),
    "hard_tanh": ({},),
    "identity": ({},),
    "leaky_relu": ({}, {"negative_slope": 0.3}),
    "log_sigmoid": ({},),
    "log_softmax": ({}, {"axis": 0}),
    "mish": ({},),
    "relu": ({},),
    "relu6": ({},),
    "selu": ({},),
    "sigmoid": ({},),
    "silu": ({},),
    "soft_sign": ({},),
    "softmax": ({}, {"axis": 0}),
    "softplus": ({},),
    "sparse_plus": ({},),
    "sparse_sigmoid": ({},),
    "squareplus": ({}, {"b": 0.7}),
    "tanh": ({},),
}


def activation_rows():
    """A row for each activation and choice of options."""
    for name, variants in ACTIVATIONS.items():
        for options in variants:
            yield FunctionRow(
                f"activations.{name}",
                getattr(nn, name),
                getattr(activations, name),
                off_kinks,
                options=options,
            )


FURTHER = {
    "geglu": ({}, {"axis": 0, "approximate": False}),
    "hard_shrink": ({}, {"threshold": 2.0}),
    "quick_gelu": ({},),
    "reglu": ({}, {"axis": 0}),
    "soft_shrink": ({}, {"threshold": 2.0}),
    "sparsemax": ({}, {"axis": 0}),
    "squared_relu": ({},),
    "swiglu": ({}, {"axis": 0}),
}


def further_rows():
    """The same for the activations that `jax.nn` has not."""
    for name, variants in FURTHER.items():
        for options in variants:
            yield FunctionRow(
                f"activations.{name}",
                getattr(nn, name),
                getattr(further_activations, name),
                normal if name == "sparsemax" else off_halves,
                ((4, 6),) if options else ((6,), (2, 3, 4)),
                options,
            )
    for axis in (-1, 0):
        yield FunctionRow(
            "activations.gumbel_softmax",
            draw_class,
            draw_class_reference,
            normal,
            ((4, 6),),
            {"temperature": 0.6, "axis": axis},
        )
    for per_channel in (False, True):
        yield FunctionRow(
            "functional.prelu",
            nn.functional.prelu,
            further_activations.prelu,
            with_slope(per_channel),
            ((4, 6),) if per_channel else ((6,), (2, 3, 4)),
            variant="per_channel" if per_channel else "shared",
        )


def off_halves(rng, shape):
    """Numbers in (-4, 4), at least 0.1 from integers and halves, with kinks; sizes are even."""
    return ((rng.integers(-8, 8, shape) + rng.uniform(0.2, 0.8, shape)) / 2,)


def draw_class(logits, **options):
    """Gumbel-softmax with a key of its own."""
    return nn.gumbel_softmax(jax.random.key(7), logits, **options)


def draw_class_reference(logits, temperature, axis):
    """The same with the library's noise: that of logits of 0, up to a sum that softmax ignores."""
    y = np.asarray(draw_class(np.zeros_like(logits), axis=axis), np.float64)
    y, backward = further_activations.gumbel_softmax(np.log(y), logits, temperature, axis)
    return y, lambda dy: backward(dy)[1:]


def with_slope(per_channel):
    """Numbers off the kink, and a slope for all or for each channel."""

    def draw(rng, shape):
        slope = rng.standard_normal(shape[-1:] if per_channel else ())
        return *off_kinks(rng, shape), np.asarray(slope)

    return draw


PRELU = composed.of_function(further_activations.prelu, "scale")

LAYERS = (
    LayerRow("prelu", "prelu()", nn.prelu, reference=PRELU),
    LayerRow(
        "prelu_per_channel",
        "prelu(per_channel=True)",
        lambda: nn.prelu(per_channel=True),
        reference=PRELU,
    ),
)

FUNCTIONS = (*activation_rows(), *further_rows())
