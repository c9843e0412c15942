"""Where a user's own program may have a layer: on a mesh of either kind, or inside `shard_map`.

Run as a program with several devices, it compares every layer there with one device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.compiling import fast_jit
from tests.table import LAYERS, draw_layer

PLACES = ("auto", "explicit", "shard_map")
SPLIT, COPIED = PartitionSpec("data"), PartitionSpec()


def mesh_of(kind):
    """All devices along one axis."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))


def arguments_of(row):
    """A layer, and its parameters, state and an input of which every device has as much."""
    layer, params, state, x = draw_layer(row)
    return layer, params, state, np.concatenate([x] * jax.device_count())


def gradients_of(row, layer, train):
    """The function of parameters, state and x that gives `(loss, (y, state))` and gradients."""

    def loss_of(params, x, state):
        y, new_state = layer.apply(params, state, x, key=jax.random.key(1), train=train)
        leaves = [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves), (y, new_state)

    argnums = (0, 1) if row.vocabulary is None else 0
    gradient = jax.value_and_grad(loss_of, argnums=argnums, has_aux=True)
    return lambda params, state, x: gradient(params, x, state)


def placed(row, layer, train, place):
    """The same function in a place, and how its arguments lie there."""
    function = gradients_of(row, layer, train)
    if place != "shard_map":
        mesh = mesh_of(AxisType.Auto if place == "auto" else AxisType.Explicit)
        specs = (COPIED, COPIED, SPLIT)
        return function, lambda arguments: jax.device_put(
            arguments, tuple(NamedSharding(mesh, spec) for spec in specs)
        )

    def local(params, state, x):
        (loss, _), gradients = function(params, state, x)
        return (jax.lax.psum(loss, "data"), ()), gradients

    of_gradients = COPIED if row.vocabulary is not None else (COPIED, SPLIT)
    mapped = jax.shard_map(
        local,
        mesh=mesh_of(AxisType.Auto),
        in_specs=(COPIED, COPIED, SPLIT),
        out_specs=((COPIED, ()), of_gradients),
    )
    return mapped, lambda arguments: arguments


def main():
    """Compare each layer in each mode and place with the same layer on one device."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for row in LAYERS:
        if not row.has_examples:
            continue
        layer, *arguments, x = arguments_of(row)
        for train in (False, True) if row.differs_in_training else (False,):
            (loss, result), gradients = fast_jit(gradients_of(row, layer, train))(*arguments, x)
            for place in PLACES:
                function, lay = placed(row, layer, train, place)
                (got, rest), got_gradients = fast_jit(function)(*lay((*arguments, x)))
                if place == "shard_map":  # each device has its own noise and its own batch
                    if (train and row.is_random) or train in row.couples_examples:
                        continue
                    expected = loss, (), gradients
                else:
                    expected = loss, result, gradients
                for a, b in zip(
                    jax.tree.leaves((got, rest, got_gradients)),
                    jax.tree.leaves(expected),
                    strict=True,
                ):
                    np.testing.assert_allclose(
                        a, b, rtol=1e-3, atol=1e-3, err_msg=f"{row.name} {train} {place}"
                    )
        jax.clear_caches()


if __name__ == "__main__":
    main()
