"""Regularizers."""

from functools import partial

import jax.numpy as jnp

import jaxnn as nn
from tests.numpy_reference import regularizers
from tests.table.rows import FunctionRow, normal


def regularizer_rows():
    """A row for each regularizer, as a function of one kernel."""

    def of_kernel(penalty):
        return lambda w: penalty({"kernel": w, "bias": jnp.ones(2)})

    strengths = {
        "l1": {"strength": 0.3},
        "l2": {"strength": 0.3},
        "elastic_net": {"l1": 0.3, "l2": 0.7},
    }
    for name, keywords in strengths.items():
        yield FunctionRow(
            f"regularizers.{name}",
            of_kernel(getattr(nn.regularizers, name)(*keywords.values())),
            partial(getattr(regularizers, name), **keywords),
            normal,
        )


LAYERS = ()
FUNCTIONS = tuple(regularizer_rows())
