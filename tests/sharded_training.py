"""Training on eight devices against one; run as a program, with eight devices of the CPU."""

import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxnn as nn
from jaxnn._training.sweeps.lanes import on_devices
from tests.collectives import collectives
from tests.compiling import counted_compilations, fast_jit

FSDP = nn.fsdp("data", min_size=1)
KEY = jax.random.key(0)


def data_of(n=60, features=16):
    """Examples of a smooth function."""
    x = np.random.default_rng(0).standard_normal((n, features)).astype(np.float32)
    return x, np.sin(x[:, :8])


def mesh_of(*sizes):
    """A mesh with the axes data and model."""
    return jax.make_mesh(sizes, ("data", "model")[: len(sizes)])


def assert_near(got, expected, tolerance):
    """Assert that two trees of arrays agree, wherever they lie."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for leaf, wanted in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(wanted), 0, tolerance)


def check_rules():
    """Where parameters lie, and what is refused where axes do not divide."""
    params = {
        "out": {"kernel": jnp.arange(192.0).reshape(16, 12), "bias": jnp.zeros(12)},
        "odd": jnp.zeros((5, 3)),
        "scalar": jnp.zeros(()),
    }
    mesh = mesh_of(2, 4)
    placed = nn.sharding(
        mesh, params={"*/kernel": (P(None, "model"), FSDP), "out/*": P("model"), "*": FSDP}
    ).of_params(params)
    specs = jax.tree.map(lambda leaf: leaf.spec, placed)
    assert specs["out"]["kernel"] == P("data", "model"), specs
    assert specs["out"]["bias"] == P("model"), specs
    assert specs["odd"] == P(None, None), specs
    assert specs["scalar"] == P(), specs
    square = {"kernel": jnp.zeros((8, 8))}
    assert nn.sharding(mesh, params=FSDP).of_params(square)["kernel"].spec == P(None, "data")
    assert nn.sharding(mesh, params=nn.fsdp("data", min_size=65)).of_params(square)[
        "kernel"
    ].spec == P(None, None)
    both = nn.sharding(mesh, batch=("data", "model"), params=P(None, ("data", "model")))
    assert both.of_params(square)["kernel"].spec == P(None, ("data", "model"))
    with pytest.raises(ValueError, match=r"axis 1 has 3 elements for 4 devices.* such as 4"):
        nn.sharding(mesh, params={"odd": P(None, "model")}).of_params(params)

    with tempfile.TemporaryDirectory() as directory:
        nn.save(f"{directory}/params.safetensors", params)
        by_eight = nn.sharding(params=FSDP)
        loaded = nn.load(f"{directory}/params.safetensors", params, sharding=by_eight)
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded) == by_eight.of_params(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


ADAM = nn.optimizers.adam(1e-2)


def trained(sharding, x, y, noise=nn.identity, validation=None, optimizer=ADAM, **arguments):
    """A whole run with an uneven last batch, and its program."""
    train = nn.training_run(
        nn.serial(hidden=nn.dense(64), tanh=nn.tanh, noise=noise, out=nn.dense(8)),
        loss=nn.losses.squared_error,
        optimizer=optimizer,
        epochs=4,
        batch_size=16,
        sharding=sharding,
        **arguments,
    )
    program = fast_jit(train).lower(KEY, (x, y), validation=validation).compile()
    return program(KEY, (x, y), validation=validation), program


def check_data_parallel():
    """Each gradient is summed once a step, with the loss; nothing else of any size is sent."""
    data = data_of()
    expected, _ = trained(None, *data)
    got, program = trained(nn.sharding(), *data)
    assert_near(got, expected, 3e-6)
    counted, size = collectives(program), sum(leaf.nbytes for leaf in jax.tree.leaves(got[0]))
    assert set(counted) == {("all-reduce", True)}, counted
    times, sent = counted["all-reduce", True]
    assert times == 4 * 4, counted
    assert times * size <= sent <= times * (size + 64), counted


def check_training_run():
    """Whole runs, fully sharded and tensor parallel, that may stop and skip steps."""
    x, y = data_of()
    explicit = jax.device_put(x, jax.NamedSharding(mesh_of(8), P()))
    tensor = {"hidden/*": (P(), nn.fsdp("model", min_size=1)), "out/kernel": P("model")}
    further = {
        "metrics": {"r2": nn.metrics.r2_score()},
        "early_stopping": nn.early_stopping(),
        "on_nonfinite": "skip",
        "noise": nn.dropout(0.3),
        "validation": (x, y),
    }
    expected, _ = trained(None, x, y, **further)
    for sharding, x_there in (
        (nn.sharding(), x),
        (nn.sharding(mesh_of(8), params=FSDP), explicit),
        (nn.sharding(mesh_of(4, 2), params=tensor), x),
    ):
        got, _ = trained(sharding, x_there, y, **further)
        assert_near(got, expected, 3e-6)
        assert_placed(got[0], sharding)


def check_accumulation():
    """Gradients that are accumulated over uneven batches, with a dynamic loss scale around."""
    data = data_of()
    optimizer = nn.optimizers.dynamic_loss_scale(nn.optimizers.accumulate(ADAM, 3), period=2)
    expected, _ = trained(None, *data, optimizer=optimizer)
    for sharding in (nn.sharding(), nn.sharding(params=FSDP)):
        got, _ = trained(sharding, *data, optimizer=optimizer)
        assert_near(got, expected, 3e-6)
        assert_placed(got[0], sharding)


def assert_placed(params, sharding):
    """Assert that parameters lie as they should."""
    for leaf, placed in zip(
        *map(jax.tree.leaves, (params, sharding.of_params(params))), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(placed, leaf.ndim), (leaf.sharding, placed)


def check_own_loop():
    """`train_state` and `train_step`, with moments that lie as their parameters do."""
    layer, optimizer = nn.dense(8), nn.optimizers.adam(1e-2)
    x, y = data_of(16)
    params, state = layer.init(KEY, x)

    def loss_fn(params, state, batch, key):
        predictions, state = layer.apply(params, state, batch[0], train=True)
        return jnp.mean((predictions - batch[1]) ** 2), (state, {})

    def three_steps(sharding):
        now = nn.train_state(params, state, optimizer, KEY, sharding=sharding)
        step = fast_jit(nn.train_step(loss_fn, optimizer, sharding=sharding), donate_argnums=0)
        for _ in range(3):
            batch = x, y
            if sharding is not None:
                batch = jax.device_put(batch, sharding.of_batch)
            now, metrics = step(now, batch)
        return now, metrics

    sharding = nn.sharding(params=FSDP)
    (expected, expected_metrics), (got, metrics) = map(three_steps, (None, sharding))
    assert_near((got._replace(key=0), metrics), (expected._replace(key=0), expected_metrics), 1e-6)
    assert_placed(got.params, sharding)
    moments = got.opt_state[0].mu["kernel"]
    assert moments.addressable_shards[0].data.size == moments.size // 8
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, KEY)))


def fitted(model, data, **arguments):
    """The params, state and history of `fit`."""
    return nn.fit(
        model,
        data,
        loss=nn.losses.squared_error,
        key=KEY,
        epochs=3,
        progress=False,
        **{"optimizer": nn.optimizers.adam(1e-2), **arguments},
    )


def check_fit():
    """`fit`, `evaluate` and `predict` on data in memory; another rate compiles nothing."""
    model, (x, y) = nn.dense(8), data_of()
    sharding = nn.sharding(params=FSDP)
    further = {"batch_size": 16}
    expected = fitted(model, (x, y), **further)
    further |= {"sharding": sharding, "optimizer": lambda h: nn.optimizers.adam(h["rate"])}
    got = fitted(model, (x, y), hyperparams={"rate": 1e-2}, **further)
    with counted_compilations() as compilations:
        fitted(model, (x, y), hyperparams={"rate": 2e-2}, **further)
    assert not compilations
    assert_near(got[:4], expected[:4], 3e-6)
    assert_placed(got.params, sharding)
    begun = expected.params, expected.state, (x, y)
    measured = [
        nn.evaluate(model, *begun, loss=nn.losses.squared_error, batch_size=16, sharding=s)
        for s in (sharding, None)
    ]
    assert_near(*measured, 1e-6)
    predicted = [
        nn.predict(model, *begun[:2], x, batch_size=16, sharding=s) for s in (sharding, None)
    ]
    assert_near(*predicted, 1e-6)


def check_streamed():
    """Batches of an iterable, the last too small, with validation, and parameters to begin with."""
    model, (x, y) = (
        nn.serial(nn.dense(8, use_bias=False), nn.batch_norm(), nn.dropout(0.2)),
        data_of(20),
    )
    batches = [(x[:8], y[:8]), (x[8:16], y[8:16]), (x[16:], y[16:])]
    params, state = model.init(KEY, x)
    further = {"validation": batches, "params": params, "state": state}
    sharding = nn.sharding()
    assert_near(
        fitted(model, batches, sharding=sharding, **further)[:4],
        fitted(model, batches, **further)[:4],
        3e-6,
    )
    measured = [
        nn.evaluate(model, params, state, batches, loss=nn.losses.squared_error, sharding=s)
        for s in (sharding, None)
    ]
    assert_near(*measured, 1e-6)
    assert_near(
        *[
            nn.predict(model, params, state, (x for x, _ in batches), sharding=s)
            for s in (sharding, None)
        ],
        1e-6,
    )


def check_spread_data():
    """Data that come spread over an Explicit mesh stay so, and give the same numbers."""
    model, data = nn.dense(8), data_of(64)
    mesh = mesh_of(8)
    spread = jax.device_put(data, jax.NamedSharding(mesh, P("data")))
    got = fitted(model, spread, batch_size=16, sharding=nn.sharding(mesh))
    assert_near(got[:4], fitted(model, data, batch_size=16)[:4], 3e-6)


def check_members_and_resume():
    """Members side by side, saved on eight devices and resumed on one and on four."""
    model, data = nn.dense(8), data_of(32)
    further = {"batch_size": 16, "members": 3}
    expected = fitted(model, data, **further)
    sharding = nn.sharding(params=FSDP)
    four = nn.sharding(jax.make_mesh((4,), ("data",), devices=jax.devices()[:4]), params=FSDP)
    for after in (None, four):
        with tempfile.TemporaryDirectory() as directory:
            fitted(
                model, data, checkpoint=directory, sharding=sharding, **further,
                callbacks=[lambda event: event.epoch == 2],
            )  # fmt: skip
            got = fitted(model, data, checkpoint=directory, resume=True, sharding=after, **further)
        assert got.reason == "epochs"
        assert_near(got[:4], expected[:4], 3e-6)


def check_jitted_inside():
    """A function that is jitted within the model keeps nothing of where it was run before."""
    jitted = jax.jit(lambda x: jnp.tanh(x) * 2)
    model, data = nn.serial(nn.dense(8), jitted, nn.dense(8)), data_of(32)
    expected = fitted(nn.serial(nn.dense(8), lambda x: jnp.tanh(x) * 2, nn.dense(8)), data)
    for sharding in (nn.sharding(params=FSDP), None, nn.sharding()):
        got = fitted(model, data, sharding=sharding)
        assert_near(got[:4], expected[:4], 3e-6)
        where = got.params[0]["kernel"].sharding.device_set
        assert len(where) == (1 if sharding is None else 8)


def check_generate():
    """Sampling from a transformer whose heads are on different devices."""
    block = nn.transformer_block(
        nn.attention(4, is_causal=True, cache_length=8), nn.feed_forward(32)
    )
    model = nn.serial(embed=nn.embedding(11, 16), blocks=nn.stack(block, 2), out=nn.dense(11))
    tokens = jnp.arange(8).reshape(4, 2) % 11
    params, _ = model.init(KEY, tokens)
    cell = nn.autoregressive(model)
    tensor = {"*/query/*": (P(), nn.fsdp("model", min_size=1)), "embed/*": P(None, "model")}
    samples = [
        nn.generate(cell, params, tokens, length=5, key=KEY, sharding=s)
        for s in (None, nn.sharding(mesh_of(2, 4), params=tensor))
    ]
    np.testing.assert_array_equal(*samples)


def check_sweep():
    """Three rates with four seeds on eight devices, each with runs of its own."""
    train = nn.training_run(
        nn.dense(8), loss=nn.losses.squared_error, epochs=2, batch_size=16,
        optimizer=lambda h: nn.optimizers.sgd(h["rate"]), early_stopping=nn.early_stopping("loss"),
    )  # fmt: skip
    results = [
        nn.sweep(
            train, KEY, {"rate": [0.1, 0.2, 0.3]}, data_of(40), seeds=4, sharding=s, progress=False
        )
        for s in (nn.sharding(), None)
    ]
    assert_near(*[result[:4] for result in results], 1e-6)
    sharding, (rows, row_length) = nn.sharding(), (2, 4)
    arguments = sharding.put(
        (jax.random.split(KEY, 4), data_of(40), {"rate": jnp.arange(4.0)}, None)
    )
    program = jax.jit(lambda *a: on_devices(train, sharding, (rows, row_length), *a))
    assert not collectives(program.lower(*arguments).compile())


def main(*checks):
    """The checks of these names."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert len(jax.devices()) == 8
    for check in checks:
        globals()[f"check_{check}"]()


if __name__ == "__main__":
    main(*sys.argv[1:])
