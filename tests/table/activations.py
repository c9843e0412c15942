"""Activations."""

import jaxnn as nn
from tests.numpy_reference import activations
from tests.table.rows import FunctionRow, off_kinks

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
                getattr(nn.activations, name),
                getattr(activations, name),
                off_kinks,
                options=options,
            )


LAYERS = ()
FUNCTIONS = tuple(activation_rows())
