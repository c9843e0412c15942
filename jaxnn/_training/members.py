"""A run of several copies of a network side by side, each trained as it would be alone."""

from typing import Any, NamedTuple

import jax

from jaxnn._combinators.copies import check_copies, copy_keys
from jaxnn._core.types import PyTree
from jaxnn._training.run import Carry, Row, Run, choose
from jaxnn._training.step import Step


class BatchOfEach(NamedTuple):
    """A batch for each member, along a leading axis."""

    batches: PyTree


def side_by_side(run: Run, members: int) -> Run:
    """The run of `members` networks; number `i` has the key `jax.random.fold_in(key, i)`.

    The leaves of the carry, of parameters and of rows have a leading axis for the members. Without
    a `BatchOfEach` all get the same batch.
    """

    def init(
        key: jax.Array,
        example: PyTree,
        rows: int | None,
        params: Any,
        state: Any,
        hyperparams: PyTree,
    ) -> Carry:
        check_copies("fit", members, params)
        check_copies("fit", members, state, "state")

        def one(key: jax.Array, params: Any, state: Any) -> Carry:
            return run.init(key, example, rows, params, state, hyperparams)

        return jax.vmap(one)(copy_keys("fit", key, members), params, state)

    def step(carry: Carry, batch: PyTree, first: Any) -> tuple[Carry, Step]:
        def one(carry: Carry, batch: PyTree) -> tuple[Carry, Step]:
            after, done = run.step(carry, batch, first)
            # The others may still train.
            return (choose(carry.stopped, carry, after) if run.may_stop else after), done

        if isinstance(batch, BatchOfEach):
            return jax.vmap(one)(carry, batch.batches)
        return jax.vmap(one, (0, None))(carry, batch)

    def measure(carry: Carry, validation: PyTree) -> dict[str, PyTree]:
        return jax.vmap(run.measure, (0, None))(carry, validation)

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        return jax.vmap(run.finish)(carry, sums)

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        return jax.vmap(lambda carry: run.resume(carry, epoch, fresh))(carry)

    return run._replace(
        init=init,
        step=step,
        measure=measure,
        finish=finish,
        last=jax.vmap(run.last),
        result=jax.vmap(run.result),
        resume=resume,
    )
