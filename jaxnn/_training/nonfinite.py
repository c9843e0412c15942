"""Losses and gradients that are infinite or NaN: which step, which leaf, and what to do."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arrays import PyTree
from jaxnn._core.paths import leaf_paths
from jaxnn.optimizers._loss_scaling import loss_scale_states

CHOICES = ("raise", "skip", "stop")


class Trouble(NamedTuple):
    """The first bad step, -1 for none: whether its loss was bad, which leaves of its gradient.

    `skipped` counts the bad steps of the current epoch.
    """

    step: jax.Array
    loss: jax.Array
    leaves: jax.Array
    skipped: jax.Array


def check_on_nonfinite(function: str, choice: str | None, allowed: tuple[str, ...]) -> str | None:
    """The argument `on_nonfinite`."""
    if choice is not None and choice not in allowed:
        names = ", ".join(map(repr, allowed))
        raise ValueError(f"{function}: on_nonfinite is {choice!r}, expected None or {names}")
    return choice


def no_trouble(params: PyTree) -> Trouble:
    """What there is before the first step."""
    leaves = jnp.zeros(len(jax.tree.leaves(params)), bool)
    return Trouble(
        jnp.full((), -1, jnp.int32),
        jnp.zeros((), bool),
        leaves,
        jnp.zeros((), jnp.result_type(float)),
    )


def bad_parts(loss: jax.Array, grads: PyTree, opt_state: PyTree) -> tuple[jax.Array, jax.Array]:
    """Whether the loss is bad, and for each leaf whether its gradient is.

    While a dynamic loss scale can still be lowered, gradients that overflow are its business.
    """
    leaves = [~jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(grads)]
    bad = jnp.stack(leaves) if leaves else jnp.zeros(0, bool)
    for scale in loss_scale_states(opt_state):
        bad &= scale.at_minimum
    return ~jnp.isfinite(loss), bad


def noted(
    trouble: Trouble, step: jax.Array, loss: jax.Array, leaves: jax.Array, bad: jax.Array
) -> Trouble:
    """`trouble` with one more step."""
    first = bad & (trouble.step < 0)
    return Trouble(
        jnp.where(first, step, trouble.step),
        jnp.where(first, loss, trouble.loss),
        jnp.where(first, leaves, trouble.leaves),
        trouble.skipped + bad.astype(trouble.skipped.dtype),
    )


def described(trouble: Trouble, params: PyTree) -> str:
    """The first bad step in words: one of several networks trained side by side, if so."""
    found: Any = jax.tree.map(np.asarray, trouble)
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
