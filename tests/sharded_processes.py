"""What several processes do together; a program of a check, a port, a number, a count, a directory.

Each process has two devices of the CPU.
"""

import json
import pathlib
import shutil
import signal
import sys
import threading

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


def allow_files_of(size):
    """Make the disk seem full for files beyond a size; -1 for any size."""
    import resource  # which Windows has not

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def check_full_disk(directory):
    """Where one cannot write, all raise, and what was there stays."""
    path = directory / "tree.safetensors"
    nn.save(path, spread_over_all())
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    number = jax.process_index()
    allow_files_of(100 if number == 1 else -1)
    kind, words = (OSError, "too large") if number == 1 else (RuntimeError, "process 1 failed")
    with pytest.raises(kind, match=words):
        nn.save(path, spread_over_all())
    # Whoever raised first may be done before the others have removed what they wrote.
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("removed")
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


RNG = np.random.default_rng(0)
X = RNG.standard_normal((22, 3)).astype(np.float32)
Y = np.sin(X[:, :2])
MODEL = nn.serial(nn.dense(8), nn.dropout(0.2), nn.tanh, nn.dense(2))


def fitted(data=(X, Y), sharding=None, epochs=4, **arguments):
    """A run with an uneven last batch."""
    return nn.fit(
        MODEL,
        data,
        loss=nn.losses.squared_error,
        optimizer=nn.optimizers.adam(1e-2),
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=None if callable(data) else 8,
        sharding=sharding,
        **{"validation": (X[:7], Y[:7])} | arguments,
    )


def alone():
    """What one device gives, to which whatever many do is compared."""
    return nn.sharding(jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("data",)))


def whole(tree):
    """A tree of arrays of all processes, whole in each."""
    copy = jax.jit(lambda tree: tree, out_shardings=nn.sharding().whole)
    return jax.tree.map(np.asarray, copy(tree))


def assert_near(result, expected):
    """Assert that two runs agree to rounding."""
    for name, rows in expected.history.items():
        np.testing.assert_allclose(result.history[name], rows, 0, 1e-5)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (whole(result.params), expected.params)), strict=True
    ):
        np.testing.assert_allclose(ours, np.asarray(theirs), 0, 1e-5)
    assert result.reason == expected.reason


def check_fit(directory):
    """In memory, by data parallel and FSDP, against one device."""
    expected = fitted(sharding=alone())
    seen = []
    for params in (None, FSDP):
        spread = nn.sharding(params=params)
        assert_near(fitted(sharding=spread, callbacks=[lambda e: seen.append(e.process)]), expected)
    assert set(seen) == {jax.process_index()}


def check_streamed(directory):
    """Each process yields its part of a batch, and reads its rows of a mapped file."""
    number, count = jax.process_index(), jax.process_count()

    def batches(part, parts):
        def draw(epoch):
            order = np.random.default_rng(epoch).permutation(20)
            for first in range(0, 20, 8):
                batch = np.split(order[first : first + 8], parts)[part]
                yield X[batch], Y[batch]

        return draw

    part = nn.sharding(params=FSDP)
    expected = fitted(batches(0, 1), alone(), validation=batches(0, 1))
    own = batches(number, count)
    assert_near(fitted(own, part, validation=own), expected)

    if number == 0:
        np.save(directory / "x.npy", X)
    nn.save(directory / "wait.safetensors", spread_over_all())
    mapped = np.load(directory / "x.npy", mmap_mode="r"), Y
    result = fitted(mapped, part)
    assert_near(result, fitted(mapped, alone()))
    scores = [
        nn.evaluate(
            MODEL, params, result.state, data, loss=nn.losses.squared_error, batch_size=8, **where
        )["loss"]
        for params, data, where in [
            (result.params, (X, Y), {"sharding": part}),
            (result.params, mapped, {"sharding": part}),
            (whole(result.params), (X, Y), {}),
        ]
    ]
    np.testing.assert_allclose(scores, scores[-1], 1e-5)
    with pytest.raises(ValueError, match=r"predict: x comes in batches and sharding is over"):
        nn.predict(MODEL, result.params, result.state, mapped[0], sharding=part)
    uneven = [(X[:2], Y[:2])] * (1 + number)
    with pytest.raises(ValueError, match=r"fit: data has, from example 4.*, batches of 0, 2"):
        fitted(lambda: iter(uneven), part)
    with pytest.raises(ValueError, match=r"fit: data of process 1 differs from that of process 0"):
        fitted((X + number, Y), part)

    def broken(epoch):
        yield X[:2], Y[:2]
        if number == 1:
            raise OSError("gone")

    with pytest.raises(OSError if number == 1 else RuntimeError, match=r"gone|process 1 failed"):
        fitted(broken, part)


def check_agreement(directory):
    """A run goes on where another was, bit for bit; what one wants, all do."""
    spread, number = nn.sharding(params=FSDP), jax.process_index()
    expected = fitted(sharding=spread, epochs=6)

    def stop(event):
        return number == 1 and event.epoch == 2

    path = directory / "run"
    first = fitted(sharding=spread, epochs=6, checkpoint=path, callbacks=[stop])
    assert (first.reason, len(first.history["loss"])) == ("callback", 2)
    with pytest.raises(FileExistsError, match="has a run already"):
        fitted(sharding=spread, epochs=6, checkpoint=path)

    def terminate(event):
        if number == 1 and event.epoch == 4:
            signal.raise_signal(signal.SIGTERM)

    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    again = {"sharding": spread, "epochs": 6, "checkpoint": path, "resume": True}
    second = fitted(**again, callbacks=[terminate])
    assert (second.reason, len(second.history["loss"])) == ("interrupted", 4)
    assert heard == [1] * (number == 1)
    if number == 0:
        shutil.copytree(path, directory / "copy")
    third = fitted(**again)
    jax.tree.map(np.testing.assert_array_equal, third.history, expected.history)
    jax.tree.map(np.testing.assert_array_equal, whole(third.params), whole(expected.params))
    best = nn.load(path / "best.safetensors")
    assert {name: leaf.shape for name, leaf in best.items()}["params/0/kernel"] == (3, 8)
    if number == 0:  # the other process is not needed any more
        other = fitted(**again | {"sharding": alone(), "checkpoint": directory / "copy"})
        for name, rows in expected.history.items():
            np.testing.assert_allclose(other.history[name], rows, 0, 1e-5)


def check_full_disk_in_training(directory):
    """Where one cannot write, none does; all train on, and go on from what was written before."""
    arguments = {"sharding": nn.sharding(params=FSDP), "epochs": 6}
    expected = fitted(**arguments)

    def fill(event):
        if event.process == 1 and event.epoch == 2:
            allow_files_of(100)

    options = nn.checkpoints(directory / "run", every_epochs=1)
    with pytest.warns(RuntimeWarning, match=r"fit: checkpoint .* was not written"):
        result = fitted(**arguments, checkpoint=options, callbacks=[fill])
    assert result.reason == "epochs"
    told = json.loads(nn.saved_metadata(directory / "run" / "last.safetensors")["fit"])
    assert told["step"] == 3  # those of an epoch
    allow_files_of(-1)
    again = fitted(**arguments, checkpoint=options, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.history, expected.history)


def long(**arguments):
    """A run that is long enough to be killed in."""
    return fitted(sharding=nn.sharding(params=FSDP), epochs=12, **arguments)


def check_killed(directory):
    """A run that saves after each step, until the process that waits for it is killed."""
    victim = int((directory / "victim").read_text())

    def wait(event):
        if event.process == victim and event.step == 6:
            (directory / "waits").touch()
            threading.Event().wait()

    options = nn.checkpoints(directory / "run", every_steps=1)
    long(checkpoint=options, callbacks=[nn.callbacks.Callback(on_step_chunk=wait)])


def check_goes_on(directory):
    """The rest of a run that was killed is as if nothing had happened."""
    expected = long()
    told = json.loads(nn.saved_metadata(directory / "run" / "last.safetensors")["fit"])
    assert 0 < told["step"] < 36
    result = long(checkpoint=directory / "run", resume=True)
    jax.tree.map(np.testing.assert_array_equal, result.history, expected.history)
    jax.tree.map(np.testing.assert_array_equal, whole(result.params), whole(expected.params))


if __name__ == "__main__":
    check, port, number, count, where = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        int(count),
        int(number),
        heartbeat_timeout_seconds=10,
        initialization_timeout=5 if check == "alone" else 300,
    )
    globals()[f"check_{check}"](pathlib.Path(where))
