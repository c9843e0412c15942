"""The tutorial's second network, 3-3-1 on three examples, for 1,000 epochs; and 64 of them."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row, torches
from benchmarks.rows.weights import dense

X = np.array([[1.2, 0.003, 0.008], [0.85, 0.002, 0.005], [1.5, 0.004, 0.009]], np.float32)
Y = np.array([[1.0], [0.0], [1.0]], np.float32)


def data(tiny: bool) -> Any:
    """One network."""
    rng = np.random.default_rng(0)
    weights = [dense(rng, 3, 3), dense(rng, 3, 1)]
    return {"weights": weights, "x": X, "y": Y, "epochs": 20 if tiny else 1000}


def data_64(tiny: bool) -> Any:
    """Several networks, which differ in their weights: an axis before the others."""
    rng, networks = np.random.default_rng(0), 3 if tiny else 64
    depth = (networks,)
    weights = [dense(rng, 3, 3, depth=depth), dense(rng, 3, 1, depth=depth)]
    return {"weights": weights, "x": X, "y": Y, "epochs": 20 if tiny else 1000}


ROWS = {
    "tiny": Row(
        title="Network 3-3-1, 3 examples, SGD, 1,000 epochs",
        data=data,
        contestants={
            "jaxnn `training_run`": Contestant("with_jaxnn:tiny"),
            "jaxnn `fit`": Contestant("with_jaxnn:tiny_fit"),
            "by hand, one `lax.scan`": Contestant("by_hand:tiny", 1 / 1.2),
            "optax, a jitted step": Contestant("with_optax:tiny", 500),
            "equinox + optax, a jitted step": Contestant("with_equinox:tiny", 500),
            **torches("tiny", 1000),
        },
    ),
    "tiny64": Row(
        title="64 networks 3-3-1, 3 examples, SGD, 1,000 epochs",
        data=data_64,
        contestants={
            "jaxnn `vmap(training_run)`": Contestant("with_jaxnn:tiny64"),
            "by hand, `vmap` of one `lax.scan`": Contestant("by_hand:tiny64", 1 / 1.2),
            "torch, one by one (8 timed)": Contestant("with_torch:tiny_8", 1000, share=8),
            "torch, batched by hand": Contestant("with_torch:tiny64", 20),
        },
    ),
}
