"""The run of one network: gradient, update and running sums of the metrics."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.layer import Layer, child_key
from jaxnn._core.types import PyTree
from jaxnn._training.measuring import Metrics, metric_values
from jaxnn._training.objective import Objective
from jaxnn._training.outputs import observed
from jaxnn._training.record import Record, recorded
from jaxnn._training.run import Carry, Row, Run
from jaxnn._training.step import Step, TrainState, take_step, train_state
from jaxnn.metrics._accumulators import blank, keeps_examples, merge_into, summed
from jaxnn.metrics._means import MeanAccumulator
from jaxnn.optimizers._averaging import evaluation_params


def network(
    model: Layer | None, objective: Objective, optimizer: Any, metrics: Metrics, record: Record
) -> Run:
    """The run that every other is made of; without a model the parameters must be given."""

    def init(
        key: jax.Array,
        example: PyTree,
        rows: int | None,
        params: Any,
        state: Any,
        hyperparams: PyTree,
    ) -> Carry:
        if params is None:
            assert model is not None
            params, state = model.init(child_key(key, "init"), example[0])
        train = train_state(params, state, optimizer, child_key(key, "steps"))
        sums = zero_sums(train, example, rows)
        return Carry(train, sums, jnp.zeros((), bool), {}, hyperparams)

    def zero_sums(train: TrainState, example: PyTree, rows: int | None) -> dict[str, PyTree]:
        def sums(train: TrainState, batch: PyTree) -> dict[str, PyTree]:
            params, opt_state = train.params, train.opt_state
            (_, (_, sums)), of_outputs = observed(
                record, lambda: objective.loss_fn(params, train.state, batch, train.key)
            )
            like_grads = params, params, params
            of_update = recorded(record, optimizer, *like_grads, opt_state, opt_state)
            return sums | _means(of_outputs | of_update)

        shapes = jax.eval_shape(sums, train, example)
        if rows is None and keeps_examples(shapes):
            raise ValueError(
                "fit: metrics has one that needs all examples at once, expected others: how many "
                "there are in an epoch is not known"
            )
        return blank(shapes, rows or 0)  # type: ignore[no-any-return]

    def step(carry: Carry, batch: PyTree, first: Any) -> tuple[Carry, Step]:
        done = take_step(
            objective.loss_fn,
            optimizer,
            record,
            carry.train,
            batch,
            lambda batch, sums: sums["loss"].weight.total(),
        )
        sums = merge_into(carry.sums, done.metrics | _means(done.recorded), first)
        return carry._replace(train=done.train, sums=sums), done

    def measure(carry: Carry, validation: PyTree) -> dict[str, PyTree]:
        return objective.measure(*last(carry), validation)

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        row = metric_values(metrics, carry.sums)
        row |= {f"val_{name}": value for name, value in metric_values(metrics, sums).items()}
        return carry._replace(sums=jax.tree.map(jnp.zeros_like, carry.sums)), row

    def last(carry: Carry) -> tuple[PyTree, PyTree]:
        train = carry.train
        return evaluation_params(train.opt_state, train.params), train.state

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        return carry._replace(stopped=jnp.zeros((), bool))

    return Run(init, step, measure, finish, last, last, resume)


def _means(of_step: dict[str, jax.Array]) -> dict[str, PyTree]:
    """Accumulators for the mean over the steps of an epoch."""
    return {
        name: MeanAccumulator(summed(value), summed(jnp.ones_like(value)))
        for name, value in of_step.items()
    }
