"""Adam on ten million parameters, in few large leaves and in many small ones."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row
from benchmarks.rows.weights import normal

PARAMETERS = 10_000_000


def data(tiny: bool, leaves: int) -> Any:
    """Parameters and gradients; `eps` is large so that the size of a gradient matters."""
    rng = np.random.default_rng(0)
    size = 8 if tiny else PARAMETERS // leaves
    leaves = min(leaves, 10) if tiny else leaves
    return {
        "params": [normal(rng, size) for _ in range(leaves)],
        "grads": [normal(rng, size) for _ in range(leaves)],
        "learning_rate": 0.1,
        "eps": 0.1,
    }


def row(leaves: int, torch_goal: float | None) -> Row:
    """The row for so many leaves."""
    return Row(
        title=f"Adam, 10M parameters in {leaves} leaves, a step",
        data=lambda tiny: data(tiny, leaves),
        contestants={
            "jaxnn": Contestant("with_jaxnn:adam"),
            "optax": Contestant("with_optax:adam", 1),
            "torch, fused": Contestant("with_torch:adam_fused", torch_goal),
            "torch, foreach": Contestant("with_torch:adam_foreach"),
        },
        work=28e-9 * PARAMETERS,
        unit="GB/s",
        roof="roof_stream",
    )


ROWS = {"adam10": row(10, None), "adam400": row(400, 1)}
