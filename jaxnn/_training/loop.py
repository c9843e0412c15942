"""The loops over a run: as one function, and as programs that the host calls.

Both take epochs of steps and write a row of the history after each epoch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import example_of
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.run import Carry, Row, Run
from jaxnn._training.stop import rows_that_count
from jaxnn.metrics import mean

# XLA on CPU runs a loop with no array beyond 512 bytes at half the cost, which small networks feel,
# so the innermost loop over epochs only sees so many rows of the history.
ROWS_AT_ONCE = 64


# As one function


def scanned(
    run: Run,
    epoch: Epoch,
    epochs: int,
    key: jax.Array,
    data: PyTree,
    validation: PyTree | None,
    carry: Carry,
) -> tuple[Carry, Row]:
    """All epochs of a run from its first carry on, and the history."""

    def train(carry: Carry, order: jax.Array | None) -> tuple[Carry, Row]:
        def one_step(carry: Carry, position: Any, size: int = epoch.size) -> tuple[Carry, None]:
            first = position * epoch.size
            return run.step(carry, epoch.batch(data, order, first, size), first)[0], None

        if epoch.full == 1:
            carry, _ = one_step(carry, 0)
        else:
            carry, _ = lax.scan(one_step, carry, jnp.arange(epoch.full, dtype=jnp.int32))
        if epoch.left:
            carry, _ = one_step(carry, epoch.full, epoch.left)
        return finished(run, carry, validation)

    def train_unless_stopped(carry: Carry, order: jax.Array | None) -> tuple[Carry, Row]:
        key = carry.train.key  # stays outside of the choice, which would count as a use
        key_data, key_impl = jax.random.key_data(key), jax.random.key_impl(key)

        def trained() -> tuple[Carry, Row]:
            own_key = jax.random.wrap_key_data(key_data, impl=key_impl)
            after, row = train(_with_key(carry, own_key), order)
            return _with_key(after, None), row

        _, row = jax.eval_shape(trained)
        nothing = {name: jnp.zeros(v.shape, v.dtype) for name, v in row.items()}
        after, row = lax.cond(
            jnp.all(carry.stopped), lambda: (_with_key(carry, None), nothing), trained
        )
        return _with_key(after, key), row

    def one_epoch(carry: Carry, number: jax.Array) -> tuple[Carry, Row]:
        order = epoch.order(key, number)
        carry = carry._replace(sums=jax.tree.map(jnp.zeros_like, sums))
        after, row = (train_unless_stopped if run.may_stop else train)(carry, order)
        return after._replace(sums={}), row

    def some_epochs(carry: Carry, numbers: jax.Array) -> tuple[Carry, Row]:
        return lax.scan(one_epoch, carry, numbers)

    at_once = max(rows for rows in range(1, ROWS_AT_ONCE + 1) if epochs % rows == 0)
    numbers = jnp.arange(epochs, dtype=jnp.int32)
    sums, carry = carry.sums, carry._replace(sums={})  # which do not outlive an epoch
    carry, history = lax.scan(some_epochs, carry, numbers.reshape(-1, at_once))
    history = {name: lax.collapse(rows, 0, 2) for name, rows in history.items()}
    return carry, rows_that_count(carry, history) if run.may_stop else history


def finished(run: Run, carry: Carry, validation: PyTree | None) -> tuple[Carry, Row]:
    """The end of an epoch, with the validation set in memory, if there is one."""
    return run.finish(carry, {} if validation is None else run.measure(carry, validation))


def _with_key(carry: Carry, key: Any) -> Carry:
    return carry._replace(train=carry.train._replace(key=key))


# As programs for the host


class Position(NamedTuple):
    """Where a run stands: all that is needed to go on.

    `epoch` counts finished epochs and `step` the steps of the current one. `loss` is the mean
    over the current epoch so far, else over the last; None inside of a program.
    """

    carry: Carry
    history: dict[str, jax.Array]
    epoch: jax.Array
    step: jax.Array
    loss: Any


def history_rows(epochs: int) -> int:
    """Room for the history of so many epochs: a power of two, so that others share the program."""
    return max(16, 1 << (epochs - 1).bit_length())


def start(
    run: Run,
    rows: int,
    examples: int | None,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    params: PyTree,
    state: PyTree,
    hyperparams: PyTree,
) -> Position:
    """The run before its first step; of `data` and `validation` only shapes and dtypes matter."""
    # Arrays of our own, since the run gives their memory to its results.
    given = params, state, hyperparams
    params, state, hyperparams = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), given)
    carry = run.init(key, example_of(data), examples, params, state, hyperparams)
    _, row = jax.eval_shape(lambda carry: finished(run, carry, validation), carry)
    history = {name: jnp.zeros((rows, *v.shape), v.dtype) for name, v in row.items()}
    zero = jnp.zeros((), jnp.int32)
    return _with_loss(Position(carry, history, zero, zero, None))


def advance(
    run: Run,
    epoch: Epoch,
    position: Position,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    stop: jax.Array,
) -> Position:
    """The steps up to step `stop` of the whole run, from wherever it stands, unless it is over."""

    def take(carry: Carry, order: Any, step: Any, size: int) -> Carry:
        first = step * epoch.size
        return run.step(carry, epoch.batch(data, order, first, size), first)[0]

    def counted(step: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
        """A step counts, unless the run ended before it."""
        return jnp.where(_over(run, carry), step, step + 1), carry

    def part_of_epoch(position: Position, first_row: Any) -> Position:
        order = epoch.order(key, position.epoch)
        if epoch.steps == 1:  # what does not outlive the step is kept out of the loop
            sums = position.carry.sums
            fresh = position.carry._replace(sums=jax.tree.map(jnp.zeros_like, sums))
            taken = position._replace(carry=take(fresh, order, 0, epoch.n))
            after = finish(run, taken, validation, first_row=first_row)
            return after._replace(carry=after.carry._replace(sums=sums), step=position.step)
        target = jnp.minimum(stop - position.epoch * epoch.steps, epoch.full)

        def unfinished(running: tuple[jax.Array, Carry]) -> jax.Array:
            step, carry = running
            return (step < target) & ~_over(run, carry)

        def next_step(running: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
            step, carry = running
            return counted(step, take(carry, order, step, epoch.size))

        step, carry = lax.while_loop(unfinished, next_step, (position.step, position.carry))
        if epoch.left:
            is_last = step == epoch.full
            is_last &= (stop > position.epoch * epoch.steps + epoch.full) & ~_over(run, carry)
            step, carry = lax.cond(
                is_last,
                lambda carry: counted(step, take(carry, order, epoch.full, epoch.left)),
                lambda carry: (step, carry),
                carry,
            )
        return lax.cond(  # type: ignore[no-any-return]
            step == epoch.steps,
            lambda position: finish(run, position, validation, first_row=first_row),
            lambda position: position,
            position._replace(carry=carry, step=step),
        )

    def is_on(position: Position) -> jax.Array:
        steps = position.epoch * epoch.steps + position.step
        return (steps < stop) & ~_over(run, position.carry)

    def some_epochs(position: Position) -> Position:
        rows = len(position.history["loss"])
        at_once = min(rows, ROWS_AT_ONCE)
        first_row = jnp.minimum(position.epoch, rows - at_once)
        few = {
            name: lax.dynamic_slice_in_dim(values, first_row, at_once)
            for name, values in position.history.items()
        }
        after = lax.while_loop(
            lambda position: is_on(position) & (position.epoch < first_row + at_once),
            lambda position: part_of_epoch(position, first_row),
            position._replace(history=few),
        )
        return after._replace(
            history={
                name: lax.dynamic_update_slice_in_dim(values, after.history[name], first_row, 0)
                for name, values in position.history.items()
            }
        )

    return _with_loss(lax.while_loop(is_on, some_epochs, position._replace(loss=None)))


def finish(
    run: Run, position: Position, validation: PyTree, sums: PyTree = None, first_row: Any = 0
) -> Position:
    """The run after the end of an epoch, whose row goes into a history that begins at `first_row`.

    `sums` are accumulators over the validation set, where that is not in memory. An epoch in
    which the run was stopped has no end.
    """

    def ended() -> Position:
        if sums is None:
            carry, row = finished(run, position.carry, validation)
        else:
            carry, row = run.finish(position.carry, sums)
        index = position.epoch - first_row
        history = {
            name: lax.dynamic_update_index_in_dim(position.history[name], value, index, 0)
            for name, value in row.items()
        }
        return Position(carry, history, position.epoch + 1, jnp.zeros_like(position.step), None)

    if not run.may_stop:
        return ended()
    return lax.cond(_over(run, position.carry), lambda: position, ended)  # type: ignore[no-any-return]


def _over(run: Run, carry: Carry) -> jax.Array:
    """Whether nothing trains any more."""
    return jnp.all(carry.stopped) if run.may_stop else jnp.zeros((), bool)


def _with_loss(position: Position) -> Position:
    current = mean().compute(position.carry.sums["loss"])
    loss = jnp.where(position.step > 0, current, position.history["loss"][position.epoch - 1])
    if loss.ndim:  # that of the members which still train
        trains = ~position.carry.stopped
        count = jnp.maximum(jnp.sum(trains.astype(loss.dtype)), 1)
        loss = jnp.sum(jnp.where(trains, loss, 0)) / count
    return position._replace(loss=loss)


def step(run: Run, position: Position, batch: PyTree, first: Any) -> tuple[Position, jax.Array]:
    """One step on a batch whose examples go from `first` on in the epoch, and a sign of its end."""
    carry, _ = run.step(position.carry, batch, first)
    moved = jnp.where(_over(run, carry), position.step, position.step + 1)
    after = _with_loss(position._replace(carry=carry, step=moved))
    return after, after.loss


def finish_epoch(run: Run, position: Position, validation: PyTree, sums: PyTree = None) -> Position:
    """`finish`, for the host."""
    return _with_loss(finish(run, position._replace(loss=None), validation, sums))
