"""What is trained, and how."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._combinators.copies import members_of
from jaxnn._core.arrays import PyTree, check_count, widen
from jaxnn._core.layer import Layer, as_layer
from jaxnn._training.best import EarlyStopping
from jaxnn._training.checks import Metrics, check_metrics, check_reported
from jaxnn._training.evaluation import metric_sums
from jaxnn._training.monitor import Monitor, check_monitor
from jaxnn._training.nonfinite import check_on_nonfinite
from jaxnn._training.step import LossFunction
from jaxnn.metrics import Metric, mean
from jaxnn.metrics._accumulators import summed
from jaxnn.metrics._means import MeanAccumulator
from jaxnn.optimizers._base import check_optimizer


class Task(NamedTuple):
    """What is trained and how: all that a compiled run depends on besides arrays.

    Without a `model`, `loss` is a whole loss function, as `train_step` takes it. With `members`,
    as many copies of the model are trained side by side, each as it would be alone.
    """

    model: Layer | None
    loss: Callable[..., Any]
    optimizer: Any
    regularizer: Callable[[PyTree], Any] | None
    metrics: Metrics
    batch_size: int | None
    shuffle: bool
    monitor: Monitor
    best: EarlyStopping | None
    on_nonfinite: str | None
    members: int | None = None

    def beside(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
        """`function` of one member, or of all side by side along the axes."""
        return function if self.members is None else jax.vmap(function, in_axes)


def checked_task(
    function: str,
    model: Any,
    loss: Callable[..., Any] | None,
    optimizer: Any,
    *,
    metrics: Mapping[str, Metric] | None,
    regularizer: Callable[[PyTree], Any] | None,
    batch_size: int | None,
    shuffle: bool,
    monitor: Sequence[str],
    early_stopping: EarlyStopping | None,
    on_nonfinite: str | None,
    outcomes: tuple[str, ...],
) -> Task:
    """The task that the arguments of `function` describe; `outcomes` are those of on_nonfinite."""
    check_optimizer(optimizer, f"{function}: optimizer")
    if batch_size is not None:
        check_count(function, "batch_size", batch_size)
    pairs = check_metrics(function, metrics)
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            f"{function}: early_stopping is {early_stopping!r}, expected nn.early_stopping(...)"
        )
    members: int | None = None
    layer: Layer | None = None
    if loss is None:
        if isinstance(model, Layer) or not callable(model) or pairs:
            raise TypeError(
                f"{function}: loss is None, expected a function of (predictions, y); without one, "
                "the first argument is a function (params, state, batch, key) -> "
                "(loss, (state, metrics)), and there are no other metrics"
            )
        loss = model
    elif not callable(loss):
        raise TypeError(f"{function}: loss is {loss!r}, expected a function of (predictions, y)")
    else:
        layer, members = members_of(as_layer(model, f"{function}: model"))
    return Task(
        layer,
        loss,
        optimizer,
        regularizer,
        pairs,
        batch_size,
        shuffle,
        check_monitor(function, monitor),
        early_stopping,
        check_on_nonfinite(function, on_nonfinite, outcomes),
        members,
    )


def check_initial(function: str, task: Task, params: PyTree) -> None:
    """Raise unless params are given where there is no model to make them."""
    if task.model is None and params is None:
        raise ValueError(
            f"{function}: params is None, expected the initial params: a loss function has no init"
        )


def loss_and_sums(task: Task) -> LossFunction:
    """The objective on a batch; with the state come the accumulators for the history."""
    sums_of = supervised if task.model is not None else reported_by_loss

    def loss_fn(
        params: PyTree, state: PyTree, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, PyTree]]:
        objective, state, sums = sums_of(task, params, state, batch, key)
        if task.regularizer is not None:
            penalty = task.regularizer(params).astype(objective.dtype)
            weight = sums["loss"].weight
            sums["penalty"] = MeanAccumulator(summed(penalty * weight.total()), weight)
            objective = objective + penalty
        return objective, (state, sums)

    return loss_fn


def supervised(
    task: Task, params: PyTree, state: PyTree, batch: Any, key: jax.Array
) -> tuple[jax.Array, PyTree, dict[str, PyTree]]:
    """The mean loss of the model on a batch `(x, y)` or `(x, y, weights)`."""
    assert task.model is not None
    x, y, *weights = batch
    predictions, state = task.model.apply(params, state, x, key=key, train=True)
    sums = metric_sums(task.loss, task.metrics, predictions, y, *weights)
    objective = mean().compute(sums["loss"])
    if weights:  # of examples that count for nothing there is nothing to learn
        objective = jnp.where(sums["loss"].weight.total() > 0, objective, 0)
    return objective, state, sums


def reported_by_loss(
    task: Task, params: PyTree, state: PyTree, batch: Any, key: jax.Array | None
) -> tuple[jax.Array, PyTree, dict[str, PyTree]]:
    """The loss and metrics of a whole loss function, each with as much weight as examples."""
    try:
        loss, (state, metrics) = task.loss(params, state, batch, key)
    except Exception as error:
        if key is None:
            error.add_note("in the loss function on the validation set, where its key is None")
        raise
    check_reported(metrics)
    examples = len(next(leaf for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf)))
    sums = {}
    for name, value in ({"loss": loss} | metrics).items():
        value = widen(value)
        weight = jnp.full_like(value, examples)
        sums[name] = MeanAccumulator(summed(value * weight), summed(weight))
    return loss, state, sums
