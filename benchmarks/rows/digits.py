"""Handwritten digits, cold: initialise, compile, train for 100 epochs, test, in a fresh process."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row


def data(tiny: bool) -> Any:
    """1,280 images of 8 by 8 to train on, 20 batches of 64, and 517 to test with."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int32)
    return {
        "training": (x[:1280], y[:1280]),
        "test": (x[1280:], y[1280:]),
        "epochs": 20 if tiny else 100,
        "batch": 64,
        "hidden": 128,
        "learning_rate": 1e-3,
    }


ROWS = {
    "digits": Row(
        title="Digits, 64-128-10, Adam, 100 epochs of 20 steps, all but imports",
        data=data,
        contestants={
            "jaxnn `fit`": Contestant("with_jaxnn:digits"),
            "optax, a jitted step": Contestant("with_optax:digits"),
            "torch": Contestant("with_torch:digits", 1),
        },
        tolerance=0.03,
        cold=True,
    )
}
