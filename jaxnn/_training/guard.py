"""A run that leaves out, or ends before, a step whose loss or gradient is infinite or NaN."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._training.run import Carry, Row, Run, choose
from jaxnn._training.step import Step
from jaxnn.optimizers._loss_scaling import loss_scale_states

OnNonfinite = Literal["raise", "skip", "stop"]


class BadSteps(NamedTuple):
    """The first bad step, -1 for none: whether its loss was bad, which leaves of its gradient.

    `skipped` counts the bad steps of the current epoch.
    """

    step: jax.Array
    loss: jax.Array
    leaves: jax.Array
    skipped: jax.Array


def guarded(run: Run, on_nonfinite: OnNonfinite) -> Run:
    """The run without its bad steps: "skip" goes on after one, "stop" and "raise" end before it."""
    stops = on_nonfinite != "skip"

    def init(*arguments: Any) -> Carry:
        carry = run.init(*arguments)
        return carry.keep(guard=_none_yet(carry.train.params))

    def step(carry: Carry, batch: PyTree, first: Any) -> tuple[Carry, Step]:
        after, done = run.step(carry, batch, first)
        bad_loss, bad_leaves = _bad_parts(done)
        bad = (bad_loss | jnp.any(bad_leaves)) & ~carry.stopped
        kept = choose(bad | carry.stopped, carry, after)
        count = carry.train.step
        bad_steps = _with_step(carry.kept["guard"], count, bad_loss, bad_leaves, bad)
        if stops:
            kept = kept._replace(stopped=carry.stopped | bad)
        else:
            count = jnp.where(carry.stopped, count, count + 1)
            kept = kept._replace(train=kept.train._replace(step=count))
        return kept.keep(guard=bad_steps), done

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        bad_steps = carry.kept["guard"]
        if not stops:
            row |= {"skipped": bad_steps.skipped}
        return after.keep(guard=bad_steps._replace(skipped=jnp.zeros_like(bad_steps.skipped))), row

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        carry = run.resume(carry, epoch, fresh)
        if not stops:
            return carry
        return carry.keep(guard=_none_yet(carry.train.params))  # the step is tried again

    return run._replace(
        init=init, step=step, finish=finish, resume=resume, may_stop=run.may_stop or stops
    )


def _none_yet(params: PyTree) -> BadSteps:
    leaves = jnp.zeros(len(jax.tree.leaves(params)), bool)
    return BadSteps(
        jnp.full((), -1, jnp.int32),
        jnp.zeros((), bool),
        leaves,
        jnp.zeros((), jnp.result_type(float)),
    )


def _bad_parts(done: Step) -> tuple[jax.Array, jax.Array]:
    """Whether the loss is bad, and for each leaf whether its gradient is.

    While a dynamic loss scale can still be lowered, gradients that overflow are its business.
    """
    leaves = [~jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(done.grads)]
    bad = jnp.stack(leaves) if leaves else jnp.zeros(0, bool)
    for scale in loss_scale_states(done.train.opt_state):
        bad &= scale.at_minimum
    return ~jnp.isfinite(done.loss), bad


def _with_step(
    bad_steps: BadSteps, step: jax.Array, loss: jax.Array, leaves: jax.Array, bad: jax.Array
) -> BadSteps:
    first = bad & (bad_steps.step < 0)
    return BadSteps(
        jnp.where(first, step, bad_steps.step),
        jnp.where(first, loss, bad_steps.loss),
        jnp.where(first, leaves, bad_steps.leaves),
        bad_steps.skipped + bad.astype(bad_steps.skipped.dtype),
    )


# For the host


def bad_steps_of(carry: Carry) -> BadSteps | None:
    """The bad steps that a guarded run remembers, None of a run without a guard."""
    return carry.kept.get("guard")


def described(bad_steps: BadSteps, params: PyTree) -> str:
    """The first bad step in words: one of several networks trained side by side, if so."""
    found: Any = jax.tree.map(np.asarray, bad_steps)
    where = ""
    if found.step.ndim:
        member = int(np.argmax(found.step >= 0))
        found = jax.tree.map(lambda leaf: leaf[member], found)
        where = f" of member {member}"
    paths = [p for p, is_bad in zip(leaf_paths(params), found.leaves, strict=True) if is_bad]
    shown = ", ".join(map(repr, paths[:8])) + (f" and {len(paths) - 8} more" * (len(paths) > 8))
    parts = ["the loss"] * bool(found.loss) + [f"the gradient of {shown}"] * bool(paths)
    return (
        f"{' and '.join(parts)} is infinite or NaN at step {int(found.step)}, counted from 0{where}"
    )
