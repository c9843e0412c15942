"""A multilayer perceptron of the size of MNIST."""

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row, torches
from benchmarks.rows.weights import dense, labels, normal

SIZES, BATCH = (784, 512, 512, 10), 128
# The backward pass is two products for each of the forward pass, but for that to the input.
GFLOP = 2e-9 * BATCH * (3 * (784 * 512 + 512 * 512 + 512 * 10) - 784 * 512)


def data(tiny: bool) -> Any:
    """Weights, and a batch."""
    rng = np.random.default_rng(0)
    sizes, batch = ((12, 8, 8, 3), 4) if tiny else (SIZES, BATCH)
    return {
        "weights": [dense(rng, i, o) for i, o in pairwise(sizes)],
        "x": normal(rng, batch, sizes[0]),
        "y": labels(rng, sizes[-1], batch),
        "learning_rate": 1e-3,
    }


ROWS = {
    "mlp": Row(
        title="MLP 784-512-512-10, ReLU, Adam, batch 128, a step",
        data=data,
        contestants={
            "jaxnn": Contestant("with_jaxnn:mlp"),
            "stax": Contestant("with_stax:mlp", 1.4),
            "flax linen + optax": Contestant("with_linen:mlp", 1.4),
            "flax nnx + optax": Contestant("with_nnx:mlp", 1.4),
            "equinox + optax": Contestant("with_equinox:mlp", 1.4),
            **torches("mlp", 2.5),
            "XLA, the matrix products alone": Contestant("products:mlp"),
        },
        work=GFLOP,
        unit="GFLOP/s",
        roof="roof_product",
    )
}
