"""How an array lies on the devices of a mesh, where its type says so.

It does on a mesh with Explicit axes, where `jax.typeof(x)` says which axis of the array is split
over which axis of the mesh, and inside of `jax.shard_map`, where it says over which axes of the
mesh the array varies. JAX derives that from the operands, and where it can't, it asks. Elsewhere
the functions here do nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, reshard

from jaxnn._core.types import PyTree


def automatic(function: Callable[..., Any], *arguments: PyTree, leading: Any) -> Any:
    """`function(*arguments)`, for which the compiler chooses how the arrays inside of it lie.

    Of each result as many axes as `leading` says, a number or a tree of them, lie as those of the
    first array; the others are whole on each device.
    """
    leaves, structure = jax.tree.flatten(arguments)
    arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}
    mesh = next(filter(_explicit_axes, map(_mesh, arrays.values())), None)
    if mesh is None:
        return function(*arguments)

    def of_arrays(arrays: dict[int, jax.Array]) -> Any:  # so that numbers stay known
        given = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        return function(*jax.tree.unflatten(structure, given))

    spec = jax.typeof(leaves[0]).sharding.spec

    def placed(axes: int) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*spec[:axes]))

    out_sharding = jax.tree.map(placed, leading)
    return auto_axes(of_arrays, axes=_explicit_axes(mesh), out_sharding=out_sharding)(arrays)


def placed_like(array: jax.Array, other: Any) -> jax.Array:
    """`array`, which lies as `other`, an array of as many axes or its shape, does."""
    wanted = jax.typeof(other) if not isinstance(other, jax.ShapeDtypeStruct) else other
    array = _varying(array, wanted.manual_axis_type)
    sharding = wanted.sharding
    if isinstance(sharding, NamedSharding) and _explicit_axes(sharding.mesh):
        array = reshard(array, sharding)
    return array


def placed_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays that vary over what any of them does: operands of a function with its own gradient."""
    for other in arrays:
        arrays = tuple(_varying(array, jax.typeof(other).manual_axis_type) for array in arrays)
    return arrays


def placed_as_after(step: Callable[[PyTree], PyTree], carry: PyTree, *inputs: PyTree) -> PyTree:
    """A carry of `lax.scan` inside of `jax.shard_map` that lies as it does after a step.

    One of zeros varies over no axis; after inputs that do, it varies as they.
    """
    if not any(jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(inputs)):
        return carry
    return jax.tree.map(placed_like, carry, jax.eval_shape(step, carry))


def shape_like(shape: tuple[int, ...], other: jax.Array) -> jax.ShapeDtypeStruct:
    """An abstract array of the dtype of `other`, which varies over what that does."""
    like: jax.ShapeDtypeStruct = jax.eval_shape(
        lambda x: jnp.broadcast_to(jnp.sum(x), shape), other
    )
    return like


def is_explicit(*arguments: PyTree) -> bool:
    """Whether an array lies on a mesh with Explicit axes."""
    return any(map(_explicit_axes, map(_mesh, jax.tree.leaves(arguments))))


def _mesh(leaf: Any) -> Any:
    return jax.typeof(leaf).sharding.mesh


def _explicit_axes(mesh: Any) -> tuple[str, ...]:
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in types if kind == AxisType.Explicit)


def _varying(array: jax.Array, wanted: Any) -> jax.Array:
    missing = frozenset() if wanted is None else wanted.varying
    missing -= jax.typeof(array).manual_axis_type.varying
    return lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array
