"""A run on many devices: each array of the carry where it belongs."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnn._core.sharding import Sharding
from jaxnn._core.types import PyTree
from jaxnn._training.run import Carry, Row, Run
from jaxnn._training.step import Step


def on_devices(run: Run, sharding: Sharding, members: int | None) -> Run:
    """The run whose carry lies as `sharding` says, from its beginning on."""

    def held(carry: Carry) -> Carry:
        return sharding.hold(carry, carry.train.params, members)  # type: ignore[no-any-return]

    def init(*arguments: Any) -> Carry:
        return held(run.init(*arguments))

    def step(carry: Carry, batch: PyTree, first: Any) -> tuple[Carry, Step]:
        after, done = run.step(carry, batch, first)
        return held(after), done

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        return held(after), sharding.copied(row)

    def placed(function: Callable[[Carry], PyTree]) -> Callable[[Carry], Any]:
        return lambda carry: sharding.hold(function(carry), carry.train.params, members)

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        return held(run.resume(carry, epoch, fresh))

    return run._replace(
        init=init,
        step=step,
        finish=finish,
        last=placed(run.last),
        result=placed(run.result),
        resume=resume,
    )
