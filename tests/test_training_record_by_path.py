"""What the history shows of single parameters and of what layers put out, by globs on paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.layer import child_key
from tests.compiling import fast_jit

O = nn.optimizers  # noqa: E741
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
DATA = (X, X[:, :1] - 2 * X[:, 1:2])
BLOCK = nn.residual(nn.serial(nn.dense(4), nn.relu))
MODEL = nn.serial(hidden=nn.dense(4), act=nn.tanh, deep=nn.stack(BLOCK, 2), out=nn.dense(1))
KEY = jax.random.key(0)
RATE = 0.1

train = functools.partial(
    nn.training_run, MODEL, loss=nn.losses.squared_error, optimizer=O.sgd(RATE), epochs=1
)
EVERYTHING = (
    *(
        "gradient_norm/*",
        "update_norm/out/*",
        "param_norm",
        "param_norm/*",
        "update_ratio/*/kernel",
    ),
    *("activation_mean/*", "activation_std/*", "activation_max/act", "activation_zeros/deep/*"),
    "activation_saturated/*",
)


def history_of(record, **options):
    return fast_jit(train(record=record, **options))(KEY, DATA)[2]


def leaves_by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_norms_of_leaves_and_statistics_of_outputs_are_those_of_numpy():
    history = {name: float(v[0]) for name, v in history_of(EVERYTHING).items()}
    params, state = MODEL.init(child_key(KEY, "init"), X[:1])

    @fast_jit
    def expected(params):
        def loss(params):
            return jnp.mean((MODEL.apply(params, state, X)[0] - DATA[1]) ** 2)

        return jax.grad(loss)(params), nn.capture(MODEL, params, state, X)[2]

    grads, seen = expected(params)
    weights, grads = leaves_by_path(params), leaves_by_path(grads)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    norm = np.linalg.norm
    for path, grad in grads.items():
        close(history[f"gradient_norm/{path}"], norm(grad))
        close(history[f"param_norm/{path}"], norm(weights[path]))
        if path.startswith("out"):
            close(history[f"update_norm/{path}"], RATE * norm(grad))
        if path.endswith("kernel"):
            close(history[f"update_ratio/{path}"], RATE * norm(grad) / norm(weights[path]))
    close(history["param_norm"], np.sqrt(sum(np.sum(w**2) for w in weights.values())))

    outputs = {}
    for path, y in seen.items():
        copies = enumerate(np.asarray(y, np.float64)) if path.startswith("deep/") else [("", y)]
        outputs |= {(path, f"[{i}]" if i != "" else ""): np.asarray(one) for i, one in copies}
    for (path, place), y in outputs.items():
        close(history[f"activation_mean/{path}{place}"], y.mean())
        close(history[f"activation_std/{path}{place}"], y.std())
        if path.startswith("deep/"):
            close(history[f"activation_zeros/{path}{place}"], np.mean(y == 0))
    act = np.asarray(seen["act"])
    close(history["activation_max/act"], abs(act).max())
    close(history["activation_saturated/act"], np.mean(abs(act) > 0.98))
    assert "deep/layer/1[1]" in {name.partition("/")[2] for name in history}
    assert 0 < history["activation_zeros/deep/layer/1[0]"] < 1
    assert "activation_saturated/out" not in history  # which has no range


def test_the_steps_of_a_sequence_are_one_sample():
    cell = nn.stacked_cell(rnn=nn.rnn_cell(3), act=nn.tanh)
    model = nn.serial(nn.recurrent(cell), nn.dense(1))
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32) * 5
    params, state = model.init(KEY, x)

    def loss_fn(params, state, batch, key):
        y, state = model.apply(params, state, batch)
        return jnp.mean(y), (state, {})

    record = ("activation_mean/0/*", "activation_std/0/rnn", "activation_saturated/0/act")
    record += ("activation_max/0/rnn",)
    step = nn.train_step(loss_fn, O.sgd(0.1), record=record)

    @fast_jit
    def both(params):
        now = nn.train_state(params, state, O.sgd(0.1), KEY)
        return step(now, x)[1], nn.capture(model, params, state, x)[2]

    metrics, seen = jax.tree.map(np.asarray, both(params))
    rnn, act = seen["0/rnn"], seen["0/act"]
    expected = {
        "activation_mean/0/rnn": rnn.mean(),
        "activation_mean/0/act": act.mean(),
        "activation_std/0/rnn": rnn.std(),
        "activation_max/0/rnn": abs(rnn).max(),
        "activation_saturated/0/act": np.mean(abs(act) > 0.98),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6)


FEW = ("gradient_norm/out/kernel", "activation_std/act", "activation_mean/deep/*")


def test_members_and_sweeps_have_it_for_each_run():
    shapes = jax.eval_shape(train(record=FEW, members=2), KEY, DATA)[2]
    assert {shapes[name].shape for name in (*FEW[:2], "activation_mean/deep/layer[1]")} == {(1, 2)}
    swept = jax.vmap(train(optimizer=O.sgd, record=FEW), (None, None, 0))
    shapes = jax.eval_shape(swept, KEY, DATA, jnp.array([0.1, 0.2]))[2]
    assert shapes["activation_std/act"].shape == (2, 1)


@pytest.mark.slow
def test_fit_on_many_devices_has_it_as_training_run_on_one():
    options = {"loss": nn.losses.squared_error, "optimizer": O.sgd(RATE), "progress": False}
    result = nn.fit(
        *(MODEL, DATA), key=KEY, epochs=1, record=FEW, sharding=nn.sharding(), **options
    )
    expected = history_of(FEW)
    assert set(result.history) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-4, atol=1e-6)


def test_params_of_zeros_have_no_ratio():
    step = nn.train_step(
        lambda p, s, b, k: (jnp.sum(p["w"]), (s, {})), O.sgd(0.1), record=["update_ratio/*"]
    )
    start = nn.train_state({"w": jnp.zeros(2)}, {}, O.sgd(0.1), KEY)
    assert float(step(start, None)[1]["update_ratio/w"]) == 0


def test_what_is_not_asked_for_costs_nothing():
    def operations(record):
        return str(jax.make_jaxpr(train(record=record))(KEY, DATA)).count("reduce_max")

    assert operations(["activation_max/act"]) > operations([])
    assert operations(["activation_max/act"]) == operations(["activation_max/out"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradient_norm/oot/*", r"record: gradient_norm: 'oot/\*' match.*nearest are .*out/"),
        ("activation_std/hiden", r"record: activation_std: 'hiden' match.*nearest are hidden"),
        ("activation_saturated/out", r"activation_saturated: 'out' match.*nearest are act"),
        ("activation_std", r"expected a sequence of names .* with a glob"),
        ("gradients/*", r"expected a sequence of names .* with a glob"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(train(record=[name]), KEY, DATA)
