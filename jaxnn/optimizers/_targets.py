"""Copies of parameters that follow them: target networks, teachers."""

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, hyperparameter, widen
from jaxnn._core.paths import same_structure
from jaxnn._core.types import Arrays, PyTree, Scalar
from jaxnn.optimizers import _checks as check


@checked
def incremental_update(new_tensors: Arrays, old_tensors: Arrays, step_size: Scalar) -> PyTree:
    """Move a copy towards the parameters: `step_size new + (1 - step_size) old`.

    A target network, or the teacher of a student. `params_ema` does it beside any optimizer.

    Paper: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging,
    https://doi.org/10.1137/0330046

    Args:
        new_tensors: a tree of arrays, as the parameters.
        old_tensors: the copy, of the same structure.
        step_size: how far to go, in [0, 1]; may be traced.

    Returns:
        A tree with the structure, shapes and dtypes of `old_tensors`.

    Raises:
        ValueError: `step_size` is outside [0, 1]; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.incremental_update({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, 0.25)
        {'w': Array([0.25], dtype=float32)}
    """
    check_range("incremental_update", "step_size", step_size, 0, 1)
    same_structure("incremental_update", new_tensors=new_tensors, old_tensors=old_tensors)

    def move(new: jax.Array, old: jax.Array) -> jax.Array:
        wide = widen(old)
        share = hyperparameter(step_size, wide.real.dtype).astype(wide.dtype)
        moved = (1 - share) * wide + share * widen(new).astype(wide.dtype)
        return moved.astype(jnp.result_type(old))

    return jax.tree.map(move, new_tensors, old_tensors)


@checked
def periodic_update(
    new_tensors: Arrays, old_tensors: Arrays, steps: Scalar, update_period: Scalar
) -> PyTree:
    """Renew a copy of the parameters now and then: `new` if `update_period` divides `steps`.

    Paper: Mnih et al., Playing Atari with Deep Reinforcement Learning,
    https://arxiv.org/abs/1312.5602

    Args:
        new_tensors: a tree of arrays, as the parameters.
        old_tensors: the copy, of the same structure.
        steps: the number of steps so far, an integer; may be traced.
        update_period: after how many steps the copy is renewed, at least 1; may be traced.

    Returns:
        A tree with the structure, shapes and dtypes of `old_tensors`.

    Raises:
        ValueError: `steps` is less than 0, or `update_period` less than 1; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> [int(nn.optimizers.periodic_update(jnp.ones(()), jnp.zeros(()), step, 3))
        ...  for step in (1, 2, 3, 4)]
        [0, 0, 1, 0]
    """
    check.whole("periodic_update", 0, steps=steps)
    check.whole("periodic_update", 1, update_period=update_period)
    same_structure("periodic_update", new_tensors=new_tensors, old_tensors=old_tensors)
    steps = jnp.asarray(steps)
    is_time = steps % hyperparameter(update_period, steps.dtype) == 0

    def renew(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(is_time, jnp.asarray(new).astype(jnp.result_type(old)), old)

    return jax.tree.map(renew, new_tensors, old_tensors)
