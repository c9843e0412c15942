"""What `nn.sweep` costs over one network alone, and over the same networks one by one."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row
from benchmarks.rows import tiny
from benchmarks.rows.weights import labels, normal


def tiny_data(is_tiny: bool) -> Any:
    """The examples of the row `tiny`."""
    return {
        "hidden": 3,
        "x": tiny.X,
        "y": tiny.Y,
        "epochs": 5 if is_tiny else 1000,
        "batch": None,
        "dropout": 0.0,
        "rates": np.geomspace(1e-3, 1.0, 3 if is_tiny else 64, dtype=np.float32),
    }


def mlp_data(is_tiny: bool) -> Any:
    """64-64-10 with dropout."""
    rng, n = np.random.default_rng(0), 16 if is_tiny else 1280
    return {
        "hidden": 64,
        "x": normal(rng, n, 64),
        "y": labels(rng, 10, n),
        "epochs": 1 if is_tiny else 3,
        "batch": 8 if is_tiny else 64,
        "dropout": 0.2,
        "rates": np.geomspace(1e-3, 1e-2, 2 if is_tiny else 16, dtype=np.float32),
    }


def row(title: str, data: Any) -> Row:
    """The row for one kind of network."""
    return Row(
        title=f"`sweep`: {title}",
        data=data,
        contestants={
            "jaxnn `sweep`": Contestant("with_jaxnn:sweep"),
            "jaxnn, one by one": Contestant("with_jaxnn:sweep_one_by_one"),
            "one network alone": Contestant("with_jaxnn:sweep_of_one"),
        },
    )


ROWS = {
    "sweep_tiny": row("64 networks 3-3-1, SGD, 1,000 epochs of one step", tiny_data),
    "sweep_mlp": row("16 networks 64-64-10, dropout, Adam, 3 epochs of 20 steps", mlp_data),
}
