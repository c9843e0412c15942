"""What it costs to call a compiled step: SGD on leaves of 8 numbers each."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row
from benchmarks.rows.weights import normal


def data(tiny: bool, leaves: int) -> Any:
    """Parameters and gradients."""
    rng, leaves = np.random.default_rng(0), 3 if tiny else leaves
    return {
        "params": [normal(rng, 8) for _ in range(leaves)],
        "grads": [normal(rng, 8) for _ in range(leaves)],
        "learning_rate": 0.1,
    }


def row(leaves: int) -> Row:
    """The row for so many leaves."""
    return Row(
        title=f"Call of a compiled step of SGD on {leaves} leaves of 8 numbers",
        data=lambda tiny: data(tiny, leaves),
        contestants={
            "jaxnn": Contestant("with_jaxnn:sgd"),
            "by hand, `jax.jit`": Contestant("by_hand:sgd", 1 / 1.2),
            "optax": Contestant("with_optax:sgd", 1),
            "equinox, `filter_jit`": Contestant("with_equinox:sgd", 1),
            "flax nnx, `nnx.jit`": Contestant("with_nnx:sgd", 1),
            "torch, foreach": Contestant("with_torch:sgd", 1),
        },
    )


ROWS = {f"call{leaves}": row(leaves) for leaves in (10, 100, 1000)}
