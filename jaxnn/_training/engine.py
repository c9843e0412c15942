"""The parts that `training_run` and `fit` are both made of.

A run is epochs of batches. Its carry is a `TrainState` and the sums of the current epoch's
metrics; at the end of an epoch the sums become a row of the history.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import PyTree
from jaxnn._core.layer import child_key
from jaxnn._training.best import Best, better_of, nothing_yet
from jaxnn._training.data.shuffle import epoch_seeds
from jaxnn._training.evaluation import evaluation_sums, metric_values, sums_of_batches
from jaxnn._training.monitor import measured
from jaxnn._training.nonfinite import Trouble, bad_parts, no_trouble, noted
from jaxnn._training.step import TrainState, take_step, train_state
from jaxnn._training.task import Task, loss_and_sums, reported_by_loss
from jaxnn.metrics._accumulators import blank, keeps_examples, merge_into, summed
from jaxnn.metrics._means import MeanAccumulator
from jaxnn.optimizers._averaging import evaluation_params

Row = dict[str, Any]

# XLA on CPU runs a loop with no array beyond 512 bytes at half the cost, which small networks feel,
# so the innermost loop has only so many rows of the history at hand.
ROWS_AT_HAND = 64


class Epoch(NamedTuple):
    """How n examples make an epoch: `full` batches of `size`, then one of `rest`, if not 0."""

    n: int
    size: int

    @property
    def full(self) -> int:
        """The number of full batches."""
        return self.n // self.size

    @property
    def rest(self) -> int:
        """The size of the last, smaller batch."""
        return self.n % self.size

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.full + (self.rest > 0)


class Carry(NamedTuple):
    """What a run carries from step to step.

    `best` and `trouble` are None where nobody asked for them; no step changes anything once
    `stopped` is true.
    """

    train: TrainState
    sums: dict[str, PyTree]
    stopped: jax.Array
    best: Best | None
    trouble: Trouble | None


def start(
    task: Task, key: jax.Array, example: PyTree, rows: int | None, params: PyTree, state: PyTree
) -> Carry:
    """The carry before the first step, of one member; parameters are made if they are None.

    `example` has the shapes of a batch of size 1; metrics that keep examples get room for `rows`,
    which is None where the number of examples is not known.
    """
    if params is None:
        assert task.model is not None
        params, state = task.model.init(child_key(key, "init"), example[0])
    train = train_state(params, state, task.optimizer, child_key(key, "steps"))
    return Carry(
        train,
        zero_sums(task, train, example, rows),
        jnp.zeros((), bool),
        None if task.best is None else nothing_yet(task.best, params, state),
        None if task.on_nonfinite is None else no_trouble(params),
    )


def zero_sums(
    task: Task, train: TrainState, example: PyTree, rows: int | None
) -> dict[str, PyTree]:
    """The accumulators of an epoch before its first batch."""

    def sums(train: TrainState, batch: Any) -> dict[str, PyTree]:
        _, (_, sums) = loss_and_sums(task)(train.params, train.state, batch, train.key)
        params, opt_state = train.params, train.opt_state
        seen = measured(task.monitor, task.optimizer, params, params, opt_state, opt_state)
        return sums | _one_step(seen)  # type: ignore[no-any-return]

    shapes = jax.eval_shape(sums, train, example)
    if rows is None and keeps_examples(shapes):
        raise ValueError(
            "fit: metrics has one that needs all examples at once, expected others: how many "
            "there are in an epoch is not known"
        )
    return blank(shapes, rows or 0)  # type: ignore[no-any-return]


def _one_step(seen: dict[str, jax.Array]) -> dict[str, PyTree]:
    """What is watched of a step, for the mean over the steps of an epoch."""
    return {
        name: MeanAccumulator(summed(value), summed(jnp.ones_like(value)))
        for name, value in seen.items()
    }


def step(task: Task, carry: Carry, batch: PyTree, first: Any) -> Carry:
    """The step of one member on a batch whose examples go from `first` on in the epoch."""
    done = take_step(loss_and_sums(task), task.optimizer, task.monitor, carry.train, batch)
    sums = merge_into(carry.sums, done.metrics | _one_step(done.seen), first)
    after = carry._replace(train=done.train, sums=sums)
    if task.on_nonfinite is not None:
        return _guarded(task, carry, after, *bad_parts(done.loss, done.grads, done.train.opt_state))
    if task.members is not None and task.best is not None:  # others may still train
        return _where(carry.stopped, carry, after)
    return after


def with_key(carry: Carry, key: Any) -> Carry:
    """The carry with another key: None where a choice between two must not touch it."""
    return carry._replace(train=carry.train._replace(key=key))


def _guarded(
    task: Task, before: Carry, after: Carry, bad_loss: jax.Array, bad_leaves: jax.Array
) -> Carry:
    """`after`, unless the step was bad: then nothing but its number and what is noted of it."""
    assert before.trouble is not None
    step = before.train.step
    bad = (bad_loss | jnp.any(bad_leaves)) & ~before.stopped
    held = _where(bad | before.stopped, before, after)
    trouble = noted(before.trouble, step, bad_loss, bad_leaves, bad)
    if task.on_nonfinite != "skip":
        return held._replace(trouble=trouble, stopped=before.stopped | bad)
    moved = jnp.where(before.stopped, step, step + 1)
    return held._replace(trouble=trouble, train=held.train._replace(step=moved))


def _where(condition: jax.Array, ours: Carry, theirs: Carry) -> Carry:
    return jax.tree.map(  # type: ignore[no-any-return]
        lambda a, b: a if a is b else jnp.where(condition, a, b), ours, theirs
    )


def order(task: Task, epoch: Epoch, key: jax.Array, number: Any) -> jax.Array | None:
    """What fixes the order of the examples in epoch `number`; None for the order they are in."""
    if not task.shuffle or epoch.size == epoch.n:
        return None
    return epoch_seeds(child_key(key, "shuffle"), number)


def finish(task: Task, carry: Carry, validation: PyTree | None) -> tuple[Carry, Row]:
    """The carry of one member after an epoch, its sums at zero, and the row of the history."""
    measured = {} if validation is None else validate(task, carry.train, validation)
    return finish_with(task, carry, measured)


def finish_with(task: Task, carry: Carry, measured: dict[str, PyTree]) -> tuple[Carry, Row]:
    """`finish`, with the accumulators over the validation set."""
    row = metric_values(task.metrics, carry.sums)
    of_validation = metric_values(task.metrics, measured)
    row |= {f"val_{name}": value for name, value in of_validation.items()}
    was_stopped, best, stopped, trouble = carry.stopped, carry.best, carry.stopped, carry.trouble
    if trouble is not None:
        if task.on_nonfinite == "skip":
            row["skipped"] = trouble.skipped
        trouble = trouble._replace(skipped=jnp.zeros_like(trouble.skipped))
    if task.best is not None:
        assert best is not None
        train = carry.train
        params = evaluation_params(train.opt_state, train.params)
        now, over = better_of(task.best, best, row, params, train.state)
        best = jax.tree.map(lambda old, new: jnp.where(was_stopped, old, new), best, now)
        stopped = stopped | over
    if can_stop(task):
        row = {name: jnp.where(was_stopped, jnp.nan, value) for name, value in row.items()}
    sums = jax.tree.map(jnp.zeros_like, carry.sums)
    return Carry(carry.train, sums, stopped, best, trouble), row


def can_stop(task: Task) -> bool:
    """Whether anything in the program may stop a run before its end."""
    waits = task.best is not None and task.best.patience is not None
    return waits or task.on_nonfinite in ("raise", "stop")


def validate(task: Task, train: TrainState, data: PyTree) -> dict[str, PyTree]:
    """The accumulators of the loss and the metrics over the validation set, of one member."""
    params = evaluation_params(train.opt_state, train.params)
    if task.model is None:
        return sums_of_batches(
            lambda batch: reported_by_loss(task, params, train.state, batch, None)[2],
            data,
            task.batch_size,
        )
    return evaluation_sums(
        task.model, task.loss, task.metrics, params, train.state, data, task.batch_size
    )


def last(carry: Carry) -> tuple[PyTree, PyTree]:
    """The params and state of one member where it stands, as they are validated."""
    train = carry.train
    return evaluation_params(train.opt_state, train.params), train.state


def result(task: Task, carry: Carry) -> tuple[PyTree, PyTree]:
    """The params and state that a run of one member ends with: the best, if it stops early."""
    if task.best is None or task.best.patience is None:
        return last(carry)
    best = carry.best
    assert best is not None
    return jax.tree.map(  # type: ignore[no-any-return]
        lambda b, now: jnp.where(best.epoch >= 0, b, now), (best.params, best.state), last(carry)
    )
