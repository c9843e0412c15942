"""The parts that `training_run` and `fit` are both made of.

A run is epochs of batches. Its carry is a `TrainState` and the sums of the current epoch's
metrics; at the end of an epoch the sums become a row of the history.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._arrays import PyTree
from jaxnn.layer import Layer, child_key
from jaxnn.metrics import MeanAccumulator, mean
from jaxnn.metrics.accumulators import blank, merge_into, summed
from jaxnn.optimizers.averaging import evaluation_params
from jaxnn.optimizers.base import Optimizer
from jaxnn.training.checks import Metrics
from jaxnn.training.data import example_of, take_batch
from jaxnn.training.evaluation import Loss, evaluation_sums, metric_sums, metric_values
from jaxnn.training.monitor import Monitor, measured
from jaxnn.training.shuffle import epoch_seeds
from jaxnn.training.step import LossFunction, TrainState, train_state, train_step


class Task(NamedTuple):
    """What is trained and how: all that a compiled run depends on besides arrays."""

    model: Layer
    loss: Loss
    optimizer: Optimizer
    regularizer: Callable[[PyTree], Any] | None
    metrics: Metrics
    batch_size: int | None
    shuffle: bool
    monitor: Monitor = ()


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
    """What a run carries from step to step."""

    train: TrainState
    sums: dict[str, PyTree]


def supervised_loss(task: Task) -> LossFunction:
    """The mean loss of a batch plus the penalty; the metrics are the sums over the batch."""

    def loss_fn(
        params: PyTree, state: PyTree, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, PyTree]]:
        x, y = batch
        predictions, state = task.model.apply(params, state, x, key=key, train=True)
        sums = metric_sums(task.loss, task.metrics, predictions, y)
        objective = mean().compute(sums["loss"])
        if task.regularizer is not None:
            penalty = task.regularizer(params).astype(objective.dtype)
            weight = sums["loss"].weight
            sums["penalty"] = MeanAccumulator(summed(penalty * weight.total()), weight)
            objective = objective + penalty
        return objective, (state, {"sums": sums})

    return loss_fn


def start(
    task: Task, key: jax.Array, data: PyTree, params: PyTree = None, state: PyTree = None
) -> Carry:
    """The carry before the first step; parameters and state are made if they are not given."""
    if params is None:
        params, state = task.model.init(child_key(key, "init"), example_of(data[0]))
    train = train_state(params, state, task.optimizer, child_key(key, "steps"))
    return Carry(train, zero_sums(task, train, data))


def zero_sums(task: Task, train: TrainState, data: PyTree) -> dict[str, PyTree]:
    """The accumulators of an epoch before its first batch."""

    def sums(train: TrainState, batch: Any) -> dict[str, PyTree]:
        _, (_, metrics) = supervised_loss(task)(train.params, train.state, batch, train.key)
        params, opt_state = train.params, train.opt_state
        seen = measured(task.monitor, task.optimizer, params, params, opt_state, opt_state)
        return metrics["sums"] | _one_step(seen)  # type: ignore[no-any-return]

    shapes = jax.eval_shape(sums, train, example_of(data))
    return blank(shapes, len(jax.tree.leaves(data)[0]))  # type: ignore[no-any-return]


def _one_step(seen: dict[str, jax.Array]) -> dict[str, PyTree]:
    """What is watched of a step, for the mean over the steps of an epoch."""
    return {
        name: MeanAccumulator(summed(value), summed(jnp.ones_like(value)))
        for name, value in seen.items()
    }


def step(
    task: Task,
    epoch: Epoch,
    carry: Carry,
    data: PyTree,
    seeds: jax.Array | None,
    position: Any,
    size: int,
) -> Carry:
    """The step on the batch of `size` at `position` of the epoch."""
    batch = take_batch(data, epoch.n, position * epoch.size, size, seeds)
    one_step = train_step(supervised_loss(task), task.optimizer, monitor=task.monitor)
    train, metrics = one_step(carry.train, batch)
    sums = metrics.pop("sums")
    seen = {name: value for name, value in metrics.items() if name != "loss"}
    first = position * epoch.size
    return Carry(train, merge_into(carry.sums, sums | _one_step(seen), first))


def order(task: Task, epoch: Epoch, key: jax.Array, number: Any) -> jax.Array | None:
    """What fixes the order of the examples in epoch `number`; None for the order they are in."""
    if not task.shuffle or epoch.size == epoch.n:
        return None
    return epoch_seeds(child_key(key, "shuffle"), number)


def finish(task: Task, carry: Carry, validation: PyTree | None) -> tuple[Carry, dict[str, Any]]:
    """The row of the history, and the carry with its sums at zero."""
    row = metric_values(task.metrics, carry.sums)
    if validation is not None:
        row |= validate(task, carry.train, validation)
    return Carry(carry.train, jax.tree.map(jnp.zeros_like, carry.sums)), row


def validate(task: Task, train: TrainState, validation: PyTree) -> dict[str, Any]:
    """The loss and metrics on the validation set, with names that begin with "val_"."""
    sums = evaluation_sums(
        task.model,
        task.loss,
        task.metrics,
        evaluation_params(train.opt_state, train.params),
        train.state,
        validation,
        task.batch_size,
    )
    return {f"val_{name}": value for name, value in metric_values(task.metrics, sums).items()}
