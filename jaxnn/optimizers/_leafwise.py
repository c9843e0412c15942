"""What adaptive optimizers share: a rule applied to every leaf, and means of the gradients."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import PyTree, check_range, hyperparameter, promoted, widen
from jaxnn._core.paths import same_structure
from jaxnn.optimizers._base import bias_factor, cast_like, next_count, real_dtype, safe_sqrt


def leafwise(
    transformation: str,
    rule: Callable[..., tuple[Any, ...]],
    updates: PyTree,
    *accumulators: PyTree,
    given: Sequence[PyTree] = (),
    known: Sequence[Sequence[Any]] = (),
) -> tuple[PyTree, ...]:
    """Apply `rule(g, *accumulators, *given, *known) -> (u, *accumulators)` to each leaf.

    The rule computes in one precision, float32 or wider; what it returns is cast back to the
    dtypes of the update and of the accumulators. `given` are trees of arrays that it only reads,
    `known` lists of whatever else, in the order of the leaves.
    """
    for tree in accumulators:
        same_structure(transformation, state=tree, updates=updates)
    for tree in given:
        same_structure(transformation, params=tree, updates=updates)
    replaced = [jax.tree.leaves(tree) for tree in (updates, *accumulators)]
    read = [jax.tree.leaves(tree) for tree in given]
    arrays = zip(*replaced, *read, strict=True)
    others = zip(*known, strict=True) if known else [()] * len(replaced[0])
    results = [
        rule(*in_one_precision(*leaves), *rest) for leaves, rest in zip(arrays, others, strict=True)
    ]
    structure = jax.tree.structure(updates)
    return tuple(
        jax.tree.unflatten(
            structure, [cast_like(r[i], old) for r, old in zip(results, leaves, strict=True)]
        )
        for i, leaves in enumerate(replaced)
    )


def in_one_precision(*arrays: Any) -> list[jax.Array]:
    """Arrays, real and complex, in the widest of their precisions, float32 at least."""
    wide = [widen(a) for a in arrays]
    precision = functools.reduce(promoted, (real_dtype(a.dtype) for a in wide))
    return [a.astype(promoted(a.dtype, precision)) for a in wide]


def corrected(moment: jax.Array, decay: Any, count: jax.Array) -> jax.Array:
    """A moving average that began at zero, freed from that beginning: `m / (1 - decay^t)`."""
    return moment / bias_factor(decay, count, moment)


def corrected_mean(
    mu: jax.Array, g: jax.Array, b1: Any, count: jax.Array, *, nesterov: bool
) -> jax.Array:
    """The mean gradient `μ / (1 - b1^t)`; with `nesterov` as it will be a step ahead."""
    if not nesterov:
        return corrected(mu, b1, count)
    weight = hyperparameter(b1, mu.dtype)
    ahead = corrected(mu, b1, next_count(count))
    return weight * ahead + (1 - weight) * corrected(g, b1, count)


def over_root(mean: jax.Array, square: jax.Array, eps: Any, eps_root: Any = 0.0) -> jax.Array:
    """`mean / (√(square + eps_root) + eps)`."""
    root = safe_sqrt(square + hyperparameter(eps_root, square.dtype))
    return mean / (root + hyperparameter(eps, square.dtype)).astype(mean.dtype)


def widest_real_dtype(tree: PyTree) -> jnp.dtype:
    """The real dtype, float32 at least, that is precise enough for all leaves."""
    dtypes = (real_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree))
    return functools.reduce(promoted, dtypes, jnp.dtype(jnp.float32))


def check_decays(function: str, **decays: Any) -> None:
    """Raise unless each hyperparameter, a weight of the old, is in [0, 1]; tracers pass."""
    for name, value in decays.items():
        check_range(function, name, value, 0, 1)


def check_nonnegative(function: str, **values: Any) -> None:
    """Raise unless each hyperparameter is at least 0; tracers pass."""
    for name, value in values.items():
        check_range(function, name, value, 0)


def value_at(value: Any, count: jax.Array) -> Any:
    """The value of a hyperparameter that may be a schedule."""
    return value(count) if callable(value) else value


def check_params(function: str, params: PyTree) -> None:
    """Raise unless `update` was given the params."""
    if params is None:
        raise ValueError(f"{function}: params is None, expected update(..., params)")
