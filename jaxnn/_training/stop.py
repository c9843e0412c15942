"""A run that stops when it has waited too long for a better epoch, and stays stopped."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.types import PyTree
from jaxnn._training.best import EarlyStopping, is_better, no_value, value_of
from jaxnn._training.run import Carry, Row, Run, choose


class Waiting(NamedTuple):
    """The best value so far, if there is one, and the epochs since."""

    value: jax.Array
    is_first: jax.Array
    epochs: jax.Array


def stopping_early(run: Run, wanted: EarlyStopping, patience: int) -> Run:
    """The run that stops after `patience` epochs in a row without a better value."""

    def init(*arguments: Any) -> Carry:
        carry = run.init(*arguments)
        waiting = Waiting(no_value(), jnp.ones((), bool), jnp.zeros((), jnp.int32))
        return carry.keep(stop=waiting)

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        waiting: Waiting = carry.kept["stop"]
        value = value_of(wanted, row)
        better = is_better(wanted, value, waiting.value, waiting.is_first)
        now = Waiting(
            jnp.where(better, value, waiting.value),
            waiting.is_first & ~better,
            jnp.where(better, 0, waiting.epochs + 1),
        )
        over = now.epochs >= patience
        return after._replace(stopped=after.stopped | over).keep(stop=now), row

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        carry = run.resume(carry, epoch, fresh)
        waiting: Waiting = carry.kept["stop"]
        return carry._replace(stopped=carry.stopped | (waiting.epochs >= patience))

    return run._replace(init=init, finish=finish, resume=resume, may_stop=True)


def staying_stopped(run: Run) -> Run:
    """The run that remembers nothing new once it is stopped, and counts the epochs before."""

    def init(*arguments: Any) -> Carry:
        carry = run.init(*arguments)
        return carry.keep(epochs=jnp.zeros((), jnp.int32))

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        row = {
            name: jnp.where(carry.stopped, jnp.zeros_like(value), value)
            for name, value in row.items()
        }
        after = after.keep(epochs=carry.kept["epochs"] + 1)
        return after._replace(kept=choose(carry.stopped, carry.kept, after.kept)), row

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        carry = run.resume(carry, epoch, fresh)
        epochs = epoch if "epochs" in fresh else carry.kept["epochs"]
        return carry.keep(epochs=jnp.where(carry.stopped, epochs, epoch))

    return run._replace(init=init, finish=finish, resume=resume)


def rows_that_count(carry: Carry, history: Row) -> Row:
    """The history of a run that may have stopped: its last row again and again, and how many count.

    `history["epochs"]` is the number of epochs that were trained to their end.
    """
    epochs = carry.kept["epochs"]

    def repeated(values: jax.Array) -> jax.Array:
        numbers = jnp.arange(len(values)).reshape(-1, *(1,) * epochs.ndim)
        last = jnp.maximum(epochs - 1, 0)[None]
        rows = jnp.minimum(*jnp.broadcast_arrays(numbers, last))
        rows = rows.reshape(rows.shape + (1,) * (values.ndim - rows.ndim))
        return jnp.take_along_axis(values, rows, axis=0)

    return {name: repeated(values) for name, values in history.items()} | {"epochs": epochs}
