"""A rule applied to every leaf."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxnn._core.paths import same_structure
from jaxnn._core.types import PyTree
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer


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
    check.gradients(transformation, updates)
    for tree in accumulators:
        same_structure(transformation, state=tree, updates=updates)
    for tree in given:
        same_structure(transformation, params=tree, updates=updates)
    replaced = [jax.tree.leaves(tree) for tree in (updates, *accumulators)]
    read = [jax.tree.leaves(tree) for tree in given]
    arrays = zip(*replaced, *read, strict=True)
    others = zip(*known, strict=True) if known else [()] * len(replaced[0])
    results = [
        rule(*precision.in_one_precision(*leaves), *other)
        for leaves, other in zip(arrays, others, strict=True)
    ]
    structure = jax.tree.structure(updates)
    return tuple(
        jax.tree.unflatten(
            structure,
            [precision.cast_like(r[i], old) for r, old in zip(results, leaves, strict=True)],
        )
        for i, leaves in enumerate(replaced)
    )


def leafwise_transformation(
    transformation: str,
    init: Callable[[PyTree], PyTree],
    rule: Callable[..., tuple[jax.Array, ...]],
) -> Optimizer:
    """The transformation that applies `rule(count, g, *accumulators)` to each leaf, see `leafwise`.

    `init` makes the state, a named tuple of the step count and the accumulators. At the first
    update, the rule gets a count of 1.
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        count, *accumulators = state
        count = moments.next_count(count)
        updates, *accumulators = leafwise(
            transformation, functools.partial(rule, count), updates, *accumulators
        )
        return updates, type(state)(count, *accumulators)

    return Optimizer(init, update)
