"""What several processes do together; a program of a check, a port, a number, a count, a directory.

Each process has two devices of the CPU.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxnn as nn

FSDP = nn.fsdp("data", min_size=1)
TREE = {
    "kernel": np.arange(96, dtype=np.float32).reshape(12, 8),
    "narrow": np.arange(24, dtype=np.float16).reshape(8, 3).astype(jnp.int4),
    "bias": np.arange(8.0, dtype=np.float32),
    "odd": np.arange(3, dtype=np.int32),
}


def spread_over_all():
    """A tree of which each device has some."""
    sharding = nn.sharding(params=FSDP)
    return jax.tree.map(
        lambda leaf, place: jax.make_array_from_callback(leaf.shape, place, lambda i: leaf[i]),
        TREE,
        sharding.of_params(TREE),
    )


def check_saving(directory):
    """What all have saved, each alone and all together load."""
    path = directory / "tree.safetensors"
    tree = spread_over_all() | {"key": jax.random.key(3)}
    nn.save(path, tree, metadata={"epoch": "7"})
    assert nn.saved_metadata(path) == {"epoch": "7"}
    for like in (TREE, {**TREE, "kernel": jax.ShapeDtypeStruct((12, 8), np.float32)}):
        loaded = nn.load(path, {**like, "key": jax.random.key(0)})
        jax.tree.map(np.testing.assert_array_equal, {n: loaded[n] for n in TREE}, TREE)
        assert loaded["key"] == tree["key"]
    mesh = jax.make_mesh((2, jax.device_count() // 2), ("data", "model"))
    other = nn.sharding(mesh, params={"kernel": P("data", "model"), "*": FSDP})
    again = nn.load(path, tree, sharding=other)
    for name in TREE:
        for shard in again[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, TREE[name][shard.index])
    assert again["kernel"].sharding.spec == P("data", "model")
    parts = {file.name for file in directory.glob("part-*")}
    nn.save(path, again)  # in place of the first
    left = {file.name for file in directory.glob("part-*")}
    assert len(left) == len(parts) == jax.process_count() - 1
    assert not left & parts


def check_full_disk(directory):
    """Where one cannot write, all raise, and what was there stays."""
    path = directory / "tree.safetensors"
    nn.save(path, spread_over_all())
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    number = jax.process_index()
    if number == 1:
        import resource  # which Windows has not

        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    kind, words = (OSError, "too large") if number == 1 else (RuntimeError, "process 1 failed")
    with pytest.raises(kind, match=words):
        nn.save(path, spread_over_all())
    # Whoever raised first may be done before the others have removed what they wrote.
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("removed")
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def check_fit(directory):
    """`fit` refuses devices of other processes, and trains on its own."""
    x = np.ones((4, 2), np.float32)

    def fitted(sharding):
        return nn.fit(
            nn.dense(2),
            (x, x),
            loss=nn.losses.squared_error,
            optimizer=nn.optimizers.sgd(0.1),
            key=jax.random.key(0),
            epochs=1,
            sharding=sharding,
        )

    with pytest.raises(ValueError, match="fit: sharding is over the devices of 2 processes"):
        fitted(nn.sharding())
    own = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
    assert fitted(nn.sharding(own)).reason == "epochs"


if __name__ == "__main__":
    check, port, number, count, where = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", int(count), int(number), heartbeat_timeout_seconds=10
    )
    globals()[f"check_{check}"](pathlib.Path(where))
