"""What a run minimises, and how it is measured on a validation set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import widen
from jaxnn._core.layer import Layer
from jaxnn._core.types import LossFunction, PyTree
from jaxnn._training.checks import check_reported
from jaxnn._training.data.arrays import batch_length
from jaxnn._training.measuring import (
    Metrics,
    evaluation_sums,
    harmless,
    metric_sums,
    sums_of_batches,
)
from jaxnn.metrics import mean
from jaxnn.metrics._accumulators import summed
from jaxnn.metrics._means import MeanAccumulator

Sums = dict[str, PyTree]  # accumulators by name
BatchLoss = Callable[[PyTree, PyTree, Any, Any], tuple[Any, tuple[PyTree, Sums]]]


class Objective(NamedTuple):
    """Two pure functions: of a training step, and of a validation set.

    `loss_fn(params, state, batch, key) -> (loss, (state, sums))`, with the accumulators of the loss
    and the metrics over the batch; `measure(params, state, validation) -> sums`.
    """

    loss_fn: BatchLoss
    measure: Callable[[PyTree, PyTree, PyTree], Sums]


def of_model(
    model: Layer, loss: Callable[..., Any], metrics: Metrics, batch_size: int | None
) -> Objective:
    """The mean loss of a model on batches `(x, y)` or `(x, y, weights)`."""

    def loss_fn(params: PyTree, state: PyTree, batch: Any, key: jax.Array) -> Any:
        x, y, *weights = harmless(*batch)
        predictions, state = model.apply(params, state, x, key=key, train=True)
        sums = metric_sums(loss, metrics, predictions, y, *weights)
        value = mean().compute(sums["loss"])
        # Of what counts for nothing there is nothing to learn.
        return jnp.where(sums["loss"].weight.total() > 0, value, 0), (state, sums)

    def measure(params: PyTree, state: PyTree, validation: PyTree) -> Sums:
        return evaluation_sums(model, loss, metrics, params, state, validation, batch_size)

    return Objective(loss_fn, measure)


def of_loss_function(function: LossFunction, batch_size: int | None) -> Objective:
    """A whole loss function; what it reports counts by the number of examples."""

    def loss_fn(params: PyTree, state: PyTree, batch: Any, key: Any) -> Any:
        try:
            loss, (state, metrics) = function(params, state, batch, key)
        except Exception as error:
            if key is None:
                error.add_note("in the loss function on the validation set, where its key is None")
            raise
        check_reported(metrics)
        examples = batch_length(batch)
        sums = {}
        for name, value in {"loss": loss, **metrics}.items():
            value = widen(value)
            weight = jnp.full_like(value, examples)
            sums[name] = MeanAccumulator(summed(value * weight), summed(weight))
        return loss, (state, sums)

    def measure(params: PyTree, state: PyTree, validation: PyTree) -> Sums:
        def sums_of(batch: PyTree) -> Sums:
            _, (_, sums) = loss_fn(params, state, batch, None)
            return sums  # type: ignore[no-any-return]

        return sums_of_batches(sums_of, validation, batch_size)

    return Objective(loss_fn, measure)


def regularized(objective: Objective, regularizer: Callable[[PyTree], Any]) -> Objective:
    """The objective plus a penalty on the parameters, which the history has as "penalty"."""

    def loss_fn(params: PyTree, state: PyTree, batch: Any, key: jax.Array) -> Any:
        loss, (state, sums) = objective.loss_fn(params, state, batch, key)
        penalty = regularizer(params).astype(loss.dtype)
        weight = sums["loss"].weight
        sums["penalty"] = MeanAccumulator(summed(penalty * weight.total()), weight)
        return loss + penalty, (state, sums)

    return objective._replace(loss_fn=loss_fn)
