"""What of an update can be watched: the learning rate, the norms of gradient and update."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnn._core.arrays import PyTree
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._rates import learning_rates

MONITORS = ("learning_rate", "gradient_norm", "update_norm")

Monitor = tuple[str, ...]


def check_monitor(function: str, monitor: Sequence[str]) -> Monitor:
    """The names as a tuple, which can be hashed."""
    if isinstance(monitor, str) or any(name not in MONITORS for name in monitor):
        raise ValueError(
            f"{function}: monitor is {monitor!r}, expected a sequence of names among {MONITORS}"
        )
    return tuple(monitor)


def measured(
    monitor: Monitor,
    optimizer: Any,
    grads: PyTree,
    updates: PyTree,
    before: PyTree,
    after: PyTree,
) -> dict[str, jax.Array]:
    """What is watched of the update that took the optimizer's state from `before` to `after`."""
    values = {}
    if "learning_rate" in monitor:
        rates = learning_rates(optimizer, before, after)
        if not rates:
            raise ValueError(
                "monitor: the optimizer has no learning rate that could be told; "
                "inject_hyperparams tells it of any"
            )
        for group, rate in rates.items():
            values[f"learning_rate/{group}" if group else "learning_rate"] = rate
    if "gradient_norm" in monitor:
        values["gradient_norm"] = global_norm(grads)
    if "update_norm" in monitor:
        values["update_norm"] = global_norm(updates)
    return values
