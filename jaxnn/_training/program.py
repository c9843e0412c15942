"""The compiled programs of `fit`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import PyTree
from jaxnn._training import engine
from jaxnn._training.data.arrays import example_of, take_batch
from jaxnn._training.evaluation import metric_values
from jaxnn._training.task import Task


class Run(NamedTuple):
    """Where a run stands: all that is needed to go on.

    `epoch` counts finished epochs and `position` the steps of the current one; `loss` is None
    inside of a program. With members side by side, `carry` has a leading axis for them,
    and each row of the history too.
    """

    carry: engine.Carry
    history: dict[str, jax.Array]
    epoch: jax.Array
    position: jax.Array
    loss: Any


# This program runs once: optimising it would take three times longer than it saves.
@functools.partial(
    jax.jit, static_argnums=(0, 1, 2), compiler_options={"xla_backend_optimization_level": 1}
)
def start(
    task: Task,
    epochs: int,
    rows: int | None,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    params: PyTree,
    state: PyTree,
) -> Run:
    """The run before the first step: `key` and what is given of params and state by member.

    Of `data` and `validation` only shapes and dtypes matter. `rows` is the number of examples in
    an epoch, None if that is not known.
    """
    example = example_of(data)
    # Arrays of our own, since the run gives their memory to its results.
    params, state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, state))
    own = task.beside(
        lambda key, params, state: engine.start(task, key, example, rows, params, state), 0, 0, 0
    )
    carry = own(key, params, state)
    of_epoch = task.beside(lambda carry: engine.finish(task, carry, validation), 0)
    _, row = jax.eval_shape(of_epoch, carry)
    history = {name: jnp.full((epochs, *v.shape), jnp.nan, v.dtype) for name, v in row.items()}
    zero = jnp.zeros((), jnp.int32)
    return with_loss(task, Run(carry, history, zero, zero, None))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def run_until(
    task: Task,
    epoch: engine.Epoch,
    run: Run,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    stop: jax.Array,
) -> Run:
    """The steps up to step `stop` of the whole run, from wherever it stands, unless it is over."""
    one_order = task.beside(lambda key, number: engine.order(task, epoch, key, number), 0, None)

    def take(carry: engine.Carry, seeds: Any, position: Any, size: int) -> engine.Carry:
        first = position * epoch.size

        def one(carry: engine.Carry, seeds: Any) -> engine.Carry:
            batch = take_batch(data, epoch.n, first, size, seeds)
            return engine.step(task, carry, batch, first)

        after: engine.Carry = task.beside(one, 0, None if seeds is None else 0)(carry, seeds)
        return after

    def part_of_epoch(run: Run, first_row: Any) -> Run:
        seeds = one_order(key, run.epoch)
        if epoch.steps == 1:  # what does not outlive the step is kept out of the loop
            fresh = run.carry._replace(sums=jax.tree.map(jnp.zeros_like, run.carry.sums))
            taken = run._replace(carry=take(fresh, seeds, 0, epoch.n))
            done = finish(task, taken, validation, first_row=first_row)
            without_sums = done.carry._replace(sums=run.carry.sums)
            return done._replace(carry=without_sums, position=run.position)
        target = jnp.minimum(stop - run.epoch * epoch.steps, epoch.full)

        def unfinished(running: tuple[jax.Array, engine.Carry]) -> jax.Array:
            position, carry = running
            return (position < target) & ~_over(task, carry)

        def next_step(running: tuple[jax.Array, engine.Carry]) -> tuple[jax.Array, engine.Carry]:
            position, carry = running
            return position + 1, take(carry, seeds, position, epoch.size)

        position, carry = lax.while_loop(unfinished, next_step, (run.position, run.carry))
        if epoch.rest:
            is_last = position == epoch.full
            is_last &= (stop > run.epoch * epoch.steps + epoch.full) & ~_over(task, carry)
            position, carry = lax.cond(
                is_last,
                lambda carry: (position + 1, take(carry, seeds, epoch.full, epoch.rest)),
                lambda carry: (position, carry),
                carry,
            )
        run = Run(carry, run.history, run.epoch, position, None)
        after: Run = lax.cond(
            position == epoch.steps,
            lambda run: finish(task, run, validation, first_row=first_row),
            lambda run: run,
            run,
        )
        return after

    def is_on(run: Run) -> jax.Array:
        return (run.epoch * epoch.steps + run.position < stop) & ~_over(task, run.carry)

    def some_epochs(run: Run) -> Run:
        """As many as have a row at hand."""
        rows = len(run.history["loss"])
        at_hand = min(rows, engine.ROWS_AT_HAND)
        first_row = jnp.minimum(run.epoch, rows - at_hand)
        history = {
            name: lax.dynamic_slice_in_dim(values, first_row, at_hand)
            for name, values in run.history.items()
        }
        after = lax.while_loop(
            lambda run: is_on(run) & (run.epoch < first_row + at_hand),
            lambda run: part_of_epoch(run, first_row),
            run._replace(history=history),
        )
        return after._replace(
            history={
                name: lax.dynamic_update_slice_in_dim(values, after.history[name], first_row, 0)
                for name, values in run.history.items()
            }
        )

    return with_loss(task, lax.while_loop(is_on, some_epochs, run._replace(loss=None)))


def finish(
    task: Task, run: Run, validation: PyTree, measured: PyTree = None, first_row: Any = 0
) -> Run:
    """The run after the end of an epoch, with its row in the history, which has `first_row` first.

    `measured` are accumulators over the validation set, where that is not at hand. An epoch in
    which the run was stopped has no end.
    """

    def one(carry: engine.Carry, measured: Any) -> tuple[engine.Carry, engine.Row]:
        if measured is not None:
            return engine.finish_with(task, carry, measured)
        return engine.finish(task, carry, validation)

    carry, row = task.beside(one, 0, None if measured is None else 0)(run.carry, measured)
    history = {
        name: lax.dynamic_update_index_in_dim(run.history[name], value, run.epoch - first_row, 0)
        for name, value in row.items()
    }
    after = Run(carry, history, run.epoch + 1, jnp.zeros_like(run.position), None)
    if task.on_nonfinite not in ("raise", "stop"):
        return after
    return lax.cond(  # type: ignore[no-any-return]
        _over(task, run.carry), lambda: run, lambda: after
    )


def _over(task: Task, carry: engine.Carry) -> jax.Array:
    """Whether no member trains any more."""
    return jnp.all(carry.stopped) if engine.can_stop(task) else jnp.zeros((), bool)


def with_loss(task: Task, run: Run) -> Run:
    """The run with its loss: over the current epoch so far, else over the last; NaN before."""
    sums = {"loss": run.carry.sums["loss"]}
    current = task.beside(lambda sums: metric_values((), sums)["loss"], 0)(sums)
    loss = jnp.where(run.position > 0, current, run.history["loss"][run.epoch - 1])
    return run._replace(loss=jnp.nanmean(loss) if task.members else loss)


# Data that come batch by batch


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def step(task: Task, run: Run, batch: PyTree, first: Any) -> tuple[Run, jax.Array]:
    """One step on a batch whose examples go from `first` on in the epoch, and a sign of its end."""
    one = task.beside(lambda carry: engine.step(task, carry, batch, first), 0)
    carry = one(run.carry)
    moved = jnp.where(_over(task, run.carry), run.position, run.position + 1)
    run = with_loss(task, Run(carry, run.history, run.epoch, moved, None))
    return run, run.loss


@functools.partial(jax.jit, static_argnums=0)
def measure(task: Task, train: Any, batch: PyTree) -> dict[str, PyTree]:
    """The accumulators of the loss and the metrics over one batch of the validation set."""
    whole = task._replace(batch_size=None)
    return task.beside(lambda train: engine.validate(whole, train, batch), 0)(train)  # type: ignore[no-any-return]


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def finish_epoch(task: Task, run: Run, validation: PyTree, measured: PyTree = None) -> Run:
    """`finish`, for the host."""
    return with_loss(task, finish(task, run._replace(loss=None), validation, measured))


def last_params(task: Task, carry: engine.Carry) -> tuple[PyTree, PyTree]:
    """The params and state where the run stands."""
    return task.beside(engine.last, 0)(carry)  # type: ignore[no-any-return]


def results(task: Task, carry: engine.Carry) -> tuple[PyTree, PyTree]:
    """The params and state to return."""
    return task.beside(lambda carry: engine.result(task, carry), 0)(carry)  # type: ignore[no-any-return]
