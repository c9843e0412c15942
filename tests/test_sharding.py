"""Rules of `nn.sharding`, and programs with eight devices that use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxnn as nn
from tests.scripts import on_devices

PARAMS = {"encoder": {"kernel": jnp.zeros((4, 4))}, "head": {"kernel": jnp.zeros((4, 2))}}


def test_on_eight_devices():
    on_devices(8, "sharded_training", "rules", "data_parallel")


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        "fit",
        "own_loop",
        "training_run",
        "streamed",
        "spread_data",
        "members_and_resume",
        "generate",
        "sweep",
        "jitted_inside",
        "accumulation",
    ],
)
def test_more_on_eight_devices(check):
    on_devices(8, "sharded_training", check)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer", "lstm", "mixture", "embedding"])
def test_a_hundred_steps_on_eight_devices(model):
    on_devices(8, "sharded_models", model)


@pytest.mark.slow
def test_one_device_is_bit_for_bit_none():
    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]

    def trained(sharding):
        train = nn.training_run(
            nn.serial(nn.dense(4), nn.dropout(0.5), nn.dense(1)),
            loss=nn.losses.squared_error,
            optimizer=nn.optimizers.adam(0.1),
            epochs=3,
            batch_size=5,
            sharding=sharding,
        )
        return jax.jit(train)(jax.random.key(0), (x, x))

    sharding = nn.sharding(params=nn.fsdp())
    jax.tree.map(np.testing.assert_array_equal, trained(sharding), trained(None))


def test_an_explicit_mesh_is_made_automatic():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    assert nn.sharding(mesh) == nn.sharding()
    assert nn.sharding().mesh.axis_types == (jax.sharding.AxisType.Auto,)


def test_params_without_leaves_need_no_rule():
    assert nn.sharding(params={"*/kernel": nn.fsdp()}).of_params({}) == {}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mesh": 8}, TypeError, ["mesh is 8", "jax.sharding.Mesh"]),
        ({"batch": "model"}, ValueError, ["params['*'] has the axis 'data'", "'model'"]),
        ({"batch": ("a", "b")}, ValueError, ["mesh is None", "('a', 'b')", "one axis"]),
        ({"batch": 3}, TypeError, ["batch is 3"]),
        ({"params": "data"}, TypeError, ["params['*'] is 'data'", "nn.fsdp(axis)"]),
        ({"params": P(P.UNCONSTRAINED)}, TypeError, ["params['*']", "a PartitionSpec of axes"]),
        ({"params": (nn.fsdp(), P())}, TypeError, ["params['*']", "a pair of them"]),
        ({"params": P("data", "data")}, ValueError, ["an axis twice", "('data', 'data')"]),
        ({"params": (P("data"), nn.fsdp())}, ValueError, ["an axis twice"]),
        ({"params": {"*": P("modle")}}, ValueError, ["params['*'] has the axis 'modle'", "'data'"]),
    ],
)
def test_rules_that_are_refused(arguments, error, words):
    with pytest.raises(error) as caught:
        nn.sharding(**{"params": nn.fsdp()} | arguments)
    assert str(caught.value).startswith("sharding: ")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"haed/*": P("data")}, ["'haed/*' match no path", "head/kernel"]),
        ({"*": nn.fsdp(), "head/*": P()}, ["'head/*' matches only what the patterns before"]),
        ({"head/*": P(None, None, "data")}, ["'head/kernel' of shape (4, 2)", "at most 2 entries"]),
    ],
)
def test_rules_that_do_not_fit_the_params(params, words):
    with pytest.raises(ValueError, match="sharding: params") as caught:
        nn.sharding(params=params).of_params(PARAMS)
    assert all(word in str(caught.value) for word in words), caught.value


def test_pinned_is_the_layer_and_equal_for_equal_calls(key):
    layer, there = nn.serial(nn.dense(5), nn.batch_norm(), nn.dropout(0.5)), nn.sharding().of_batch
    pinned = nn.pinned(layer, there)
    assert pinned == nn.pinned(layer, nn.sharding().of_batch) != nn.pinned(layer, P())
    x = jnp.ones((4, 3))
    params, state = pinned.init(key, x)
    got, expected = (
        jax.jit(lambda p, s, x, apply=one.apply: apply(p, s, x, key=key, train=True))(
            params, state, x
        )
        for one in (pinned, layer)
    )
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert got[0].sharding.is_equivalent_to(there, 2)


def test_what_is_no_sharding_is_refused():
    optimizer, key = nn.optimizers.sgd(0.1), jax.random.key(0)
    for call in (
        lambda s: nn.train_state({}, {}, optimizer, key, sharding=s),
        lambda s: nn.train_step(lambda *_: None, optimizer, sharding=s),
        lambda s: nn.evaluate(
            nn.identity, {}, {}, (1, 2), loss=nn.losses.squared_error, sharding=s
        ),
        lambda s: nn.predict(nn.identity, {}, {}, jnp.ones(2), sharding=s),
        lambda s: nn.sweep(lambda *_: None, key, {"rate": [1.0]}, jnp.ones(2), sharding=s),
        lambda s: nn.training_run(
            nn.dense(1), loss=nn.losses.squared_error, optimizer=optimizer, epochs=1, sharding=s
        ),
    ):
        with pytest.raises(TypeError, match=r"sharding is .*, expected nn.sharding\(...\)"):
            call(nn.sharding().whole)


def test_moments_lie_as_their_params_by_path_and_shape():
    params = {"a": {"w": jnp.zeros((2, 2))}, "w": jnp.zeros((2, 2)), "v": jnp.zeros(3)}
    adam, momentum = nn.optimizers.adam(1.0), nn.optimizers.sgd(1.0, momentum=0.9)
    optimizer = nn.optimizers.partition({"a/*": adam, "*": momentum})
    state = jax.eval_shape(optimizer.init, params)
    placed = nn.sharding(params={"a/w": P("data"), "w": P(None, "data")}).of(state, params)
    specs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
    }
    adams, others = (f"inner_states/{glob}/inner_state/0/" for glob in ("a/*", "*"))
    assert specs[f"{adams}mu/a/w"] == specs[f"{adams}nu/a/w"] == P("data", None)
    assert specs[f"{adams}count"] == specs[f"{others}trace/v"] == P()
    assert specs[f"{others}trace/w"] == P(None, "data")
