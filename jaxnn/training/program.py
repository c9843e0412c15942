"""The compiled program of `fit`: told by a number how many steps to take."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._arrays import PyTree
from jaxnn.training import engine
from jaxnn.training.evaluation import metric_values


# This program runs once: optimising it would take three times longer than it saves.
@functools.partial(
    jax.jit, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 1}
)
def start(
    task: engine.Task,
    epochs: int,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    params: PyTree,
    state: PyTree,
) -> tuple[engine.Carry, dict[str, jax.Array]]:
    """The carry before the first step, and the empty history."""
    carry = engine.start(task, key, data, params, state)
    _, row = jax.eval_shape(lambda: engine.finish(task, carry, validation))
    rows = {name: jnp.full((epochs, *v.shape), jnp.nan, v.dtype) for name, v in row.items()}
    return carry, rows


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def run_until(
    task: engine.Task,
    epoch: engine.Epoch,
    carry: engine.Carry,
    history: dict[str, jax.Array],
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    stop: jax.Array,
) -> tuple[engine.Carry, dict[str, jax.Array], jax.Array]:
    """The steps until step `stop`, from wherever the carry stands, also inside of an epoch."""
    Running = tuple[engine.Carry, dict[str, jax.Array], jax.Array]

    def finish(running: Running, number: jax.Array) -> Running:
        carry, history, _ = running
        carry, row = engine.finish(task, carry, validation)
        written = {name: history[name].at[number].set(value) for name, value in row.items()}
        return carry, written, row["loss"]

    def one_epoch(running: Running) -> Running:
        carry, history, loss = running
        number = carry.train.step // epoch.steps
        first = number * epoch.steps
        seeds = engine.order(task, epoch, key, number)

        def one_step(position: jax.Array, carry: engine.Carry) -> engine.Carry:
            return engine.step(task, epoch, carry, data, seeds, position, epoch.size)

        def last_step(carry: engine.Carry) -> engine.Carry:
            return engine.step(task, epoch, carry, data, seeds, epoch.full, epoch.rest)

        if epoch.steps == 1:  # the sums do not outlive the step: keep them out of the loop
            fresh = engine.Carry(carry.train, jax.tree.map(jnp.zeros_like, carry.sums))
            done, history, loss = finish(
                (one_step(jnp.zeros((), jnp.int32), fresh), history, loss), number
            )
            return engine.Carry(done.train, carry.sums), history, loss
        carry = lax.fori_loop(
            carry.train.step - first, jnp.minimum(stop - first, epoch.full), one_step, carry
        )
        if epoch.rest:
            is_last = (carry.train.step == first + epoch.full) & (carry.train.step < stop)
            carry = lax.cond(is_last, last_step, lambda carry: carry, carry)
        loss = metric_values((), {"loss": carry.sums["loss"]})["loss"]
        return lax.cond(  # type: ignore[no-any-return]
            carry.train.step == first + epoch.steps,
            lambda running: finish(running, number),
            lambda running: running,
            (carry, history, loss),
        )

    before = (carry, history, jnp.zeros((), history["loss"].dtype))
    return lax.while_loop(lambda running: running[0].train.step < stop, one_epoch, before)
