"""Wrappers of optimizers in `train_step`, `training_run` and `fit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import optimizer_wrappers as reference
from tests.numpy_reference import optimizers as rules
from tests.parameters import quick_first

O = nn.optimizers  # noqa: E741

EPOCHS = 12
MODEL = nn.dense(1)
_rng = np.random.default_rng(0)
X = _rng.standard_normal((9, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 * _rng.standard_normal((9, 1))
XV, YV = X + 0.1, Y


def value(w, x=X, y=Y):
    return float(np.mean((x @ w["kernel"] + w["bias"] - y) ** 2))


def gradient(w):
    error = 2 * (X @ w["kernel"] + w["bias"] - Y) / len(X)
    return {"kernel": X.T @ error, "bias": error.sum(0)}


ADAM = reference.each(rules.adam(0.1))
PLATEAU = {"factor": 0.5, "patience": 1, "rtol": 0.3}

# Each row: the same optimizer in jaxnn and in NumPy.
ROWS = {
    "accumulate": (O.accumulate(O.adam(0.1), 3), reference.accumulate(ADAM, 3)),
    "sam": (O.sam(O.adam(0.1), rho=0.3), reference.sam(ADAM, 0.3)),
    "lookahead": (O.lookahead(O.adam(0.1), 5, 0.5), reference.lookahead(ADAM, 5, 0.5)),
    "schedule_free": (
        O.chain(O.clip(1e9), O.schedule_free_sgd(0.1)),
        reference.schedule_free_sgd(0.1),
    ),
    "params_ema": (O.params_ema(O.adam(0.1), 0.8), reference.params_ema(ADAM, 0.8)),
    "reduce_on_plateau": (
        O.chain(O.adam(0.1), O.reduce_on_plateau(**PLATEAU)),
        reference.reduce_on_plateau(ADAM, **PLATEAU),
    ),
    "partition": (
        O.partition({"kernel": O.adam(0.1), "*": O.freeze()}),
        reference.partition({"kernel": ADAM, "*": reference.freeze()}),
    ),
    "lbfgs": (O.lbfgs(), reference.lbfgs()),
}


@pytest.fixture(scope="module")
def runs():
    """The results of `training_run` with each optimizer, all in one program."""

    @fast_jit
    def all_runs(data, validation):
        return {
            name: nn.training_run(
                MODEL, loss=nn.losses.squared_error, optimizer=optimizer, epochs=EPOCHS
            )(jax.random.key(0), data, validation=validation)
            for name, (optimizer, _) in ROWS.items()
        }

    with jax.enable_x64(True):
        return all_runs((X, Y), (XV, YV))


@pytest.fixture(scope="module")
def start():
    with jax.enable_x64(True):
        run = nn.training_run(MODEL, loss=nn.losses.squared_error, optimizer=O.sgd(0.0), epochs=1)
        params, _, _ = fast_jit(run)(jax.random.key(0), (X, Y))
        return jax.tree.map(np.asarray, params)


@quick_first(4)
@pytest.mark.parametrize("name", ROWS)
def test_a_training_run_is_that_of_numpy(name, runs, start):
    problem = reference.Problem(value, gradient)
    visited, states = reference.walk(ROWS[name][1], problem, start, EPOCHS)
    params, _, history = runs[name]
    np.testing.assert_allclose(
        history["loss"], [value(w) for w in (start, *visited[:-1])], rtol=1e-9
    )
    better = [s.get("average", s.get("slow", w)) for s, w in zip(states, visited, strict=True)]
    for leaf, w in params.items():
        np.testing.assert_allclose(w, better[-1][leaf], rtol=1e-8, atol=1e-9)
    validated = [value(w, XV, YV) for w in better]
    np.testing.assert_allclose(history["val_loss"], validated, rtol=1e-8)


def test_the_plateau_was_reached(runs):
    walks = reference.walk(ROWS["reduce_on_plateau"][1], *WALK)
    plain = reference.walk(ADAM, *WALK)
    assert not np.allclose(walks[0][-1]["kernel"], plain[0][-1]["kernel"])


WALK = (
    reference.Problem(value, gradient),
    {"kernel": np.zeros((3, 1)), "bias": np.zeros(1)},
    EPOCHS,
)


def test_fit_validates_shows_and_returns_the_average(runs):
    events = []
    result = nn.fit(
        *(MODEL, (np.float32(X), np.float32(Y))),
        loss=nn.losses.squared_error,
        optimizer=ROWS["schedule_free"][0],
        key=jax.random.key(0),
        epochs=EPOCHS,
        validation=(np.float32(XV), np.float32(YV)),
        callbacks=[lambda event: events.append(jax.tree.map(np.array, event.params)) and None],
        progress=False,
    )
    at_the_end = value(jax.tree.map(np.asarray, result.params), XV, YV)
    assert result.history["val_loss"][-1] == pytest.approx(at_the_end, rel=1e-5)
    for name, leaf in result.params.items():
        np.testing.assert_array_equal(leaf, events[-1][name])
    trained = result.opt_state[1].z
    assert not np.allclose(trained["kernel"], result.params["kernel"], atol=1e-4)


def test_sam_updates_the_model_state_once_and_repeats_the_noise_of_the_step():
    model = nn.compose(
        lambda f, x: f.out(f.drop(f.norm(x))),
        norm=nn.batch_norm(),
        drop=nn.dropout(0.5),
        out=nn.dense(1),
    )

    def loss_fn(params, state, batch, key):
        predictions, state = model.apply(params, state, batch[0], key=key, train=True)
        return jnp.mean((predictions - batch[1]) ** 2), (state, {})

    batch = (jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32))
    params, state = model.init(jax.random.key(0), batch[0])

    @fast_jit
    def both():
        def one_step(optimizer):
            now = nn.train_state(params, state, optimizer, jax.random.key(1))
            return nn.train_step(loss_fn, optimizer)(now, batch)[0]

        def gradient(p):
            key = jax.random.fold_in(jax.random.key(1), 0)
            return jax.grad(lambda p: loss_fn(p, state, batch, key)[0])(p)

        there = O.normalize().update(gradient(params), ())[0]
        there = jax.tree.map(lambda p, u: p + 0.2 * u, params, there)
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient(there))
        return one_step(O.sam(O.sgd(0.1), rho=0.2)), one_step(O.sgd(0.1)), moved

    sharp, plain, moved = both()
    for a, b in zip(jax.tree.leaves(sharp.params), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(sharp.state), jax.tree.leaves(plain.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_accumulated_batches_move_as_one_batch():
    def run(optimizer, batch_size):
        train = nn.training_run(
            MODEL,
            loss=nn.losses.squared_error,
            optimizer=optimizer,
            epochs=6,
            batch_size=batch_size,
            shuffle=False,
        )
        return fast_jit(train)(jax.random.key(0), (jnp.float32(X), jnp.float32(Y)))

    whole, _, history = run(O.adam(0.1), None)
    parts, _, history_of_parts = run(O.accumulate(O.adam(0.1), 3), 3)
    for name, leaf in whole.items():
        np.testing.assert_allclose(parts[name], leaf, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history_of_parts["loss"], history["loss"], rtol=1e-4)
