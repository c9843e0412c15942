"""The time of the host: a network so narrow that a step is mostly what Python does for it."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row
from benchmarks.rows.weights import dense, labels, normal

DEPTH, WIDTH, BATCH = 100, 8, 4


def data(tiny: bool) -> Any:
    """Weights, and a batch."""
    rng = np.random.default_rng(0)
    weights = [dense(rng, WIDTH, WIDTH) for _ in range(3 if tiny else DEPTH)]
    for layer in weights:
        layer["kernel"] *= np.float32(2**0.5)  # ReLU halves what is passed on
    return {
        "weights": weights,
        "x": normal(rng, BATCH, WIDTH),
        "y": labels(rng, WIDTH, BATCH),
        "learning_rate": 1e-4,
    }


ROWS = {
    "layers": Row(
        title=f"{DEPTH} dense layers of {WIDTH}, ReLU, Adam, batch {BATCH}, a step",
        data=data,
        contestants={
            "jaxnn": Contestant("with_jaxnn:mlp"),
            "equinox, `filter_jit`": Contestant("with_equinox:mlp_filtered", 1),
            "equinox, split once": Contestant("with_equinox:mlp", 1),
            "flax nnx, `nnx.jit`": Contestant("with_nnx:mlp_in_place", 1),
            "flax nnx, split once": Contestant("with_nnx:mlp", 1),
        },
    )
}
