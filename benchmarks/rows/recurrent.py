"""LSTM and GRU over 128 elements, forward and backward, with a step of SGD."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row, on_huge_pages, torches
from benchmarks.rows.weights import dense, normal

BATCH, TIME, IN, OUT = 32, 128, 128, 256


def data(tiny: bool, gates: int) -> Any:
    """Weights, gates side by side in torch's order, sequences, and what they should become."""
    rng = np.random.default_rng(0)
    batch, time, inputs, outputs = (2, 5, 3, 4) if tiny else (BATCH, TIME, IN, OUT)
    weights = {
        "input": {
            "kernel": normal(rng, inputs, gates * outputs, scale=inputs**-0.5),
            "bias": normal(rng, gates * outputs, scale=0.1),
        },
        "recurrent": {"kernel": normal(rng, outputs, gates * outputs, scale=outputs**-0.5)},
    }
    if gates == 3:
        weights["recurrent"]["bias"] = normal(rng, outputs, scale=0.1)
    target = dense(rng, inputs, outputs)["kernel"]
    x = normal(rng, batch, time, inputs)
    return {"weights": weights, "x": x, "y": np.tanh(x @ target), "learning_rate": 10.0}


ROWS = {
    "lstm": Row(
        title="LSTM 128 to 256, 128 elements, batch 32, a step of SGD",
        data=lambda tiny: data(tiny, 4),
        contestants={
            "jaxnn": Contestant("with_jaxnn:lstm"),
            "flax linen + optax": Contestant("with_linen:lstm", 1.1),
            "equinox + optax": Contestant("with_equinox:lstm", 1.1),
            **torches("lstm", 0.75),
            **on_huge_pages("lstm"),
        },
    ),
    "gru": Row(
        title="GRU 128 to 256, 128 elements, batch 32, a step of SGD",
        data=lambda tiny: data(tiny, 3),
        contestants={
            "jaxnn": Contestant("with_jaxnn:gru"),
            "flax linen + optax": Contestant("with_linen:gru", 1),
            "equinox + optax": Contestant("with_equinox:gru", 1),
            **torches("gru", 1.2),
            **on_huge_pages("gru"),
        },
    ),
}
