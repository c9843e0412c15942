"""Batch norm under `shard_map` on two devices against the whole batch on one; run as a program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests.compiling import fast_jit

SPLIT, COPIED = jax.sharding.PartitionSpec("devices"), jax.sharding.PartitionSpec()


def loss_of(layer, state, params, x, weights):
    """A loss that weighs each output, and the new state."""
    y, new_state = layer.apply(params, state, x, train=True)
    return jnp.sum(weights * jnp.sin(y.astype(jnp.float32))), new_state


def main():
    """Compare loss, running statistics and gradients, taken outside and inside of the map."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert len(jax.devices()) == 2
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((8, 3)) + 5 * (np.arange(8) > 3)[:, None]).astype(np.float32)
    weights = rng.standard_normal((8, 3)).astype(np.float32)
    params = {name: rng.standard_normal(3).astype(np.float32) for name in ("scale", "bias")}
    whole, spread = nn.batch_norm(), nn.batch_norm(axis_name="devices")
    _, state = whole.init(jax.random.key(0), x)
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    shard_map = functools.partial(jax.shard_map, mesh=mesh)
    gradient = functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)

    def one_device(params, x):
        return gradient(functools.partial(loss_of, whole, state))(params, x, weights)

    def total(params, x, weights):
        loss, new_state = loss_of(spread, state, params, x, weights)
        return jax.lax.psum(loss, "devices"), new_state

    def outside(params, x):
        in_specs, out_specs = (COPIED, SPLIT, SPLIT), (COPIED, COPIED)
        mapped = shard_map(total, in_specs=in_specs, out_specs=out_specs)
        return gradient(mapped)(params, x, weights)

    def inside(params, x):
        in_specs, out_specs = (COPIED, SPLIT, SPLIT), ((COPIED, COPIED), (COPIED, SPLIT))
        return shard_map(gradient(total), in_specs=in_specs, out_specs=out_specs)(
            params, x, weights
        )

    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.02)):
        expected, *got = fast_jit(lambda x: [f(params, x) for f in (one_device, outside, inside)])(
            jnp.asarray(x, dtype)
        )
        for result in got:
            assert jax.tree.structure(result) == jax.tree.structure(expected)
            for leaf, wanted in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
                assert leaf.dtype == wanted.dtype
                np.testing.assert_allclose(
                    leaf.astype(jnp.float32), wanted.astype(jnp.float32), tolerance, tolerance
                )


if __name__ == "__main__":
    main()
