"""A run that stops when it has waited too long for a better epoch, and stays stopped."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.types import PyTree
from jaxnn._training.best import EarlyStopping, is_better, value_of, worst_value
from jaxnn._training.run import Carry, Row, Run, choose


class Waiting(NamedTuple):
    """The best value so far, and the epochs since."""

    value: jax.Array
    epochs: jax.Array


def stopping_early(run: Run, wanted: EarlyStopping, patience: int) -> Run:
    """The run that stops after `patience` epochs in a row without a better value."""

    def init(*arguments: Any) -> Carry:
        carry = run.init(*arguments)
        waiting = Waiting(worst_value(wanted), jnp.zeros((), jnp.int32))
        return carry._replace(kept=carry.kept | {"stop": waiting})

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        waiting: Waiting = carry.kept["stop"]
        value = value_of(wanted, row)
        better = is_better(wanted, value, waiting.value)
        now = Waiting(
            jnp.where(better, value, waiting.value), jnp.where(better, 0, waiting.epochs + 1)
        )
        over = now.epochs >= patience
        return after._replace(stopped=after.stopped | over, kept=after.kept | {"stop": now}), row

    return run._replace(init=init, finish=finish, may_stop=True)


def staying_stopped(run: Run) -> Run:
    """The run that remembers nothing new once it is stopped; its rows are NaN from then on."""

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        row = {name: jnp.where(carry.stopped, jnp.nan, value) for name, value in row.items()}
        return after._replace(kept=choose(carry.stopped, carry.kept, after.kept)), row

    return run._replace(finish=finish)
