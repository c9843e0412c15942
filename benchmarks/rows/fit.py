"""What `nn.fit` costs over a `lax.scan` written by hand: full-batch steps, one to an epoch."""

from typing import Any

from benchmarks.row import Contestant, Row
from benchmarks.rows import mlp, tiny


def tiny_data(is_tiny: bool, epochs: int) -> Any:
    """The network of the row `tiny`."""
    return {**tiny.data(is_tiny), "epochs": 20 if is_tiny else epochs}


def mlp_data(is_tiny: bool) -> Any:
    """The network of the row `mlp`."""
    return {**mlp.data(is_tiny), "epochs": 5 if is_tiny else 300}


def row(title: str, data: Any, network: str) -> Row:
    """The row for one network and one number of steps."""
    return Row(
        title=f"`fit`: {title}",
        data=data,
        contestants={
            "jaxnn `fit`": Contestant(f"with_jaxnn:{network}_fit"),
            "jaxnn `training_run`": Contestant(f"with_jaxnn:{network}_run"),
            "by hand, one `lax.scan`": Contestant(f"by_hand:{network}", 1 / 1.2),
        },
    )


ROWS = {
    "fit_tiny": row("3-3-1, SGD, 1,000 steps", lambda t: tiny_data(t, 1000), "tiny"),
    "fit_long": row("3-3-1, SGD, 100,000 steps", lambda t: tiny_data(t, 100_000), "tiny"),
    "fit_mlp": row("784-512-512-10, Adam, 300 steps of 128 examples", mlp_data, "mlp"),
}
