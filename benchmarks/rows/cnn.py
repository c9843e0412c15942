"""A small convolutional network on images of 28 by 28."""

from typing import Any

import numpy as np

from benchmarks.row import TWO_DEVICES, Contestant, Row, on_huge_pages, torches
from benchmarks.rows.weights import dense, labels, normal

BATCH = 128


def data(tiny: bool) -> Any:
    """Weights, and a batch of images."""
    rng = np.random.default_rng(0)
    side, batch, (first, second) = (8, 2, (3, 4)) if tiny else (28, BATCH, (32, 64))
    return {
        "weights": [
            dense(rng, 3, 3, 1, first),
            dense(rng, 3, 3, first, second),
            dense(rng, (side // 4) ** 2 * second, 10),
        ],
        "x": normal(rng, batch, side, side, 1),
        "y": labels(rng, 10, batch),
        "learning_rate": 0.05,
    }


ROWS = {
    "cnn": Row(
        title="CNN 28x28, twice conv 3x3 (32, 64) + ReLU + max pool 2x2, dense 10, SGD, "
        "batch 128, a step",
        data=data,
        contestants={
            "jaxnn": Contestant("with_jaxnn:cnn"),
            "jaxnn, two CPU devices": Contestant("with_jaxnn:cnn_sharded", None, TWO_DEVICES),
            "stax": Contestant("with_stax:cnn", 3),
            "flax linen + optax": Contestant("with_linen:cnn", 3),
            "equinox + optax": Contestant("with_equinox:cnn", 3),
            **torches("cnn", 1),
            **on_huge_pages("cnn"),
        },
        work=BATCH,
        unit="images/s",
    )
}
