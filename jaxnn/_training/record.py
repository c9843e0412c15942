"""What the history can have besides losses and metrics: the learning rate, norms of a step."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnn._core.types import PyTree
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._rates import learning_rates

RECORDS = ("learning_rate", "gradient_norm", "update_norm")

Record = tuple[str, ...]


def check_record(function: str, record: Sequence[str]) -> Record:
    """The names as a tuple, which can be compared."""
    if any(name not in RECORDS for name in record):
        raise ValueError(
            f"{function}: record is {record!r}, expected a sequence of names among {RECORDS}"
        )
    return tuple(record)


def recorded(
    record: Record,
    optimizer: Any,
    grads: PyTree,
    updates: PyTree,
    before: PyTree,
    after: PyTree,
) -> dict[str, jax.Array]:
    """What is recorded of the update that took the optimizer's state from `before` to `after`."""
    values = {}
    if "learning_rate" in record:
        rates = learning_rates(optimizer, before, after)
        if not rates:
            raise ValueError(
                "record: the learning rate of this optimizer is not known; wrap it in "
                "nn.optimizers.inject_hyperparams, which makes any known"
            )
        for group, rate in rates.items():
            values[f"learning_rate/{group}" if group else "learning_rate"] = rate
    if "gradient_norm" in record:
        values["gradient_norm"] = global_norm(grads)
    if "update_norm" in record:
        values["update_norm"] = global_norm(updates)
    return values
