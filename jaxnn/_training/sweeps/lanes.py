"""Runs side by side: the program, and how many of them it takes at once and on which devices."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxnn._core.sharding import Sharding
from jaxnn._core.types import PyTree
from jaxnn._training.sweeps.memory import available_bytes, needed_bytes

MOST_OF_MEMORY = 0.5  # of what is free: the program's own estimate is no bound


class Block(NamedTuple):
    """What goes side by side: so many combinations of hyperparameters, each with so many seeds."""

    combinations: int
    seeds: int

    @property
    def lanes(self) -> int:
        """The number of runs."""
        return self.combinations * self.seeds


def block_of(combinations: int, seeds: int, lanes: int) -> Block:
    """A block of `lanes` runs at most: with all seeds, or with one combination."""
    return Block(_even_part(combinations, max(lanes // seeds, 1)), _even_part(seeds, lanes))


def _even_part(n: int, most: int) -> int:
    """The size of the parts if `n` is cut in as few as can be, none larger than `most`."""
    return math.ceil(n / math.ceil(n / most))


def side_by_side(
    train: Callable[..., Any],
    keys: jax.Array,
    data: PyTree,
    hyperparams: dict[str, jax.Array],
    validation: PyTree,
) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
    """What a block of runs returns: axis 0 is for the combinations, axis 1 for the seeds.

    Keys are the same for all combinations, so that what only depends on them, the batches above
    all, is there once and not once for each.
    """

    def of_one_combination(hyperparams: dict[str, jax.Array]) -> Any:
        def one(key: jax.Array) -> Any:
            result = train(key, data, hyperparams, validation)
            _check_result(result, hyperparams)
            return jax.tree.map(jnp.asarray, result)

        if len(keys) == 1:
            return jax.tree.map(lambda leaf: leaf[None], one(keys[0]))
        if jax.random.key_impl(keys) == "threefry2x32":
            return jax.vmap(one)(keys)
        return jax.lax.map(one, keys)  # other keys draw something else when they are vmapped

    return jax.vmap(of_one_combination)(hyperparams)  # type: ignore[no-any-return]


def grid_of(sharding: Sharding | None, combinations: int, seeds: int) -> tuple[int, int]:
    """How many devices share the combinations, and how many of these each the seeds."""
    devices = 1 if sharding is None else sharding.mesh.size
    grids = [(c, devices // c) for c in range(1, devices + 1) if devices % c == 0]
    return min(grids, key=lambda g: math.ceil(combinations / g[0]) * math.ceil(seeds / g[1]))


def on_devices(
    train: Callable[..., Any],
    sharding: Sharding,
    grid: tuple[int, int],
    *arguments: Any,
) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
    """`side_by_side`, each device with runs of its own, of which no other knows."""
    axes = "combinations", "seeds"
    devices = sharding.mesh.devices.reshape(grid)
    whole, of_combination, of_seed = (PartitionSpec(*names) for names in ((), axes[:1], axes[1:]))
    run = jax.shard_map(
        partial(side_by_side, train),
        mesh=Mesh(devices, axes, axis_types=(AxisType.Auto,) * 2),
        in_specs=(of_seed, whole, of_combination, whole),
        out_specs=PartitionSpec(*axes),
        check_vma=False,  # `train` is anybody's
    )
    return run(*arguments)


def _check_result(result: Any, hyperparams: Mapping[str, Any]) -> None:
    is_triple = isinstance(result, tuple) and len(result) == 3
    if not is_triple or not isinstance(result[2], Mapping):
        kinds = [type(part).__name__ for part in (result if isinstance(result, tuple) else ())]
        got = f"({', '.join(kinds)})" if kinds else type(result).__name__
        raise TypeError(
            f"sweep: train returned {got}, expected (params, state, history), history being a dict"
        )
    for name in ("seed", *result[2]):
        if name in hyperparams:
            raise ValueError(f"sweep: grid has the name {name!r}, which the table needs itself")


def largest_block(
    compiled: Callable[[Block], Any], combinations: int, seeds: int, lanes: int | None
) -> tuple[Block, Any]:
    """A block of `lanes`, or the largest that memory allows, and what `compiled` makes of it."""
    limit = available_bytes() if lanes is None else None
    most = combinations * seeds if lanes is None else lanes
    while True:
        block = block_of(combinations, seeds, most)
        try:
            program = compiled(block)
        except jax.errors.JaxRuntimeError as error:
            if lanes is not None or block.lanes == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            most = block.lanes // 2
            continue
        needed = needed_bytes(program)
        if limit is None or block.lanes == 1 or needed <= MOST_OF_MEMORY * limit:
            return block, program
        allowed = int(block.lanes * MOST_OF_MEMORY * limit / needed)
        most = max(min(allowed, block.lanes - 1), 1)
