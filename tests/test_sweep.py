"""Sweeps give what the runs give one by one."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn import sweeps
from jaxnn.training import memory
from tests.training_cases import DATA, KEY, LINEAR, VALIDATION, assert_close, assert_equal

EPOCHS = 3


def train(key, data, hyperparams, validation=None):
    """Hyperparameters of a model, a loss, a penalty, an optimizer and its schedule, all traced."""
    given = {"rate": 0.1, "dropout": 0.0, "smoothing": 0.0, "strength": 0.0, "decay": 0.0} | (
        hyperparams
    )
    run = nn.training_run(
        nn.serial(nn.dropout(given["dropout"]), nn.dense(3)),
        loss=functools.partial(nn.losses.softmax_cross_entropy, label_smoothing=given["smoothing"]),
        optimizer=nn.optimizers.adamw(
            nn.schedules.cosine_decay_schedule(given["rate"], 9),
            eps=1e-2,
            weight_decay=given["decay"],
        ),
        regularizer=nn.regularizers.l2(given["strength"]),
        epochs=EPOCHS,
        batch_size=8,
    )
    return run(key, data, validation=validation)


quick = nn.training_run(
    LINEAR,
    loss=nn.losses.softmax_cross_entropy,
    optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
    epochs=EPOCHS,
)
GRID = {
    "rate": [0.01, 0.1],
    "dropout": [0.0, 0.5],
    "smoothing": [0.2],
    "strength": [0.3],
    "decay": [0.1],
}


@pytest.fixture(scope="module")
def grid():
    return nn.sweep(train, KEY, GRID, DATA, validation=VALIDATION, seeds=2)


def test_each_run_is_what_it_is_alone(grid):
    alone = jax.jit(train)
    for row in (0, 3, 6):
        hyperparams = {name: jnp.asarray(grid.table[name][row]) for name in GRID}
        assert_close(grid.run(row), alone(grid.keys[row], DATA, hyperparams, VALIDATION), rtol=1e-4)


def test_the_table(grid):
    assert list(grid.table) == [*GRID, "seed", "loss", "penalty", "val_loss"]
    np.testing.assert_allclose(grid.table["rate"], np.repeat([0.01, 0.1], 4), rtol=1e-6)
    np.testing.assert_allclose(grid.table["dropout"], np.tile([0, 0, 0.5, 0.5], 2))
    assert grid.table["seed"].tolist() == [0, 1] * 4
    assert_equal(grid.table["val_loss"], grid.history["val_loss"][:, -1])
    lines = str(grid).splitlines()
    assert lines[0].split() == list(grid.table)
    assert len(lines) == 9
    assert len(set(map(len, lines))) == 1


def test_combinations_with_one_seed_start_alike(grid):
    data = jax.random.key_data(grid.keys)
    assert_equal(data[::2], np.broadcast_to(data[0], (4, 2)))
    assert (data[0] != data[1]).any()


@pytest.mark.parametrize("lanes", [1, 3, 7, 100])
def test_how_many_go_side_by_side_changes_nothing(lanes):
    rates = {"rate": np.geomspace(1e-3, 1, 7)}
    together = nn.sweep(quick, KEY, rates, DATA)
    in_groups = nn.sweep(quick, KEY, rates, DATA, lanes=lanes)
    assert_equal(in_groups.table["rate"], together.table["rate"])
    assert_close((in_groups.params, in_groups.history), (together.params, together.history))


def test_memory_decides_how_many_go_side_by_side(monkeypatch):
    compiled = []
    usual = memory.needed_bytes

    def needed(program):
        compiled.append(usual(program))
        return compiled[-1]

    monkeypatch.setattr(sweeps, "needed_bytes", needed)
    rates = {"rate": np.geomspace(1e-3, 1, 8)}
    plenty = nn.sweep(quick, KEY, rates, DATA)
    assert len(compiled) == 1
    monkeypatch.setattr(sweeps, "available_bytes", lambda: compiled[0])  # half of it is too little
    scarce = nn.sweep(quick, KEY, rates, DATA)
    assert compiled[-1] <= compiled[0] / 2
    assert_close(scarce.history, plenty.history)
    monkeypatch.setattr(sweeps, "available_bytes", lambda: 1)  # one at a time, if need be
    assert_close(nn.sweep(quick, KEY, rates, DATA).history, plenty.history)


def test_memory_is_known_here():
    assert 2**20 < memory.available_bytes() < 2**50


def test_random_search():
    draws = {
        "rate": nn.log_uniform(1e-3, 1e-1),
        "dropout": functools.partial(jax.random.uniform, maxval=0.5),
        "smoothing": [0.0, 0.1],
    }
    result = nn.sweep(train, KEY, draws, DATA, samples=6)
    again = nn.sweep(train, KEY, draws, DATA, samples=6)
    assert_equal(result.table, again.table)
    assert result.history["loss"].shape == (6, EPOCHS)
    assert len(set(result.table["rate"])) == len(set(result.table["dropout"])) == 6
    assert ((result.table["rate"] >= 1e-3) & (result.table["rate"] <= 1e-1)).all()
    assert (result.table["dropout"] < 0.5).all()
    assert set(result.table["smoothing"]) <= {np.float32(0), np.float32(0.1)}
    other = nn.sweep(train, jax.random.key(9), draws, DATA, samples=6)
    assert (other.table["rate"] != result.table["rate"]).all()


def test_integers_stay_integers():
    def count(key, data, hyperparams, validation):
        return {"n": hyperparams["n"]}, {}, {"loss": hyperparams["n"] * jnp.ones(2)[None].sum(0)}

    with jax.numpy_dtype_promotion("standard"):
        result = nn.sweep(count, KEY, {"n": [3, 4]}, DATA)
    assert result.params["n"].tolist() == [3, 4]
    assert result.params["n"].dtype == np.int32


def constant(key, data, hyperparams, validation):
    """A run whose history is the hyperparameter, stopped after the first of three epochs."""
    value = hyperparams["value"]
    return {}, {}, {"loss": jnp.stack([value, jnp.full_like(value, jnp.nan)])}


def test_the_best_is_never_nan():
    result = nn.sweep(constant, KEY, {"value": [3.0, jnp.nan, 1.0, 2.0]}, DATA)
    np.testing.assert_array_equal(result.table["loss"], [3, np.nan, 1, 2])
    assert (result.best(), result.best("loss", "max")) == (2, 0)
    with pytest.raises(ValueError, match=r"metric is 'val_loss', expected one of \['value'"):
        result.best("val_loss")
    with pytest.raises(ValueError, match="mode is 'least'"):
        result.best(mode="least")
    nothing = nn.sweep(constant, KEY, {"value": [jnp.nan]}, DATA)
    with pytest.raises(ValueError, match="all values of 'loss' are NaN"):
        nothing.best()


def test_ensembles_can_be_swept():
    run = nn.training_run(
        nn.ensemble(LINEAR, 2),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
        epochs=EPOCHS,
    )
    result = nn.sweep(run, KEY, {"rate": [0.1, 0.2]}, DATA)
    assert result.history["loss"].shape == (2, EPOCHS, 2)
    assert list(result.table) == ["rate", "seed"]


def test_progress_is_shown_and_ctrl_c_keeps_what_is_finished(capsys, monkeypatch):
    usual = sweeps.counter

    def interrupting(*arguments):
        tell = usual(*arguments)

        def telling(done):
            tell(done)
            if done == 4:
                os.kill(os.getpid(), signal.SIGINT)

        return telling

    rates = {"rate": np.geomspace(1e-3, 1, 7)}
    nn.sweep(quick, KEY, rates, DATA, lanes=2, progress="lines")
    assert capsys.readouterr().err.splitlines()[-1] == "sweep: 7 of 7 runs"
    monkeypatch.setattr(sweeps, "counter", interrupting)
    result = nn.sweep(quick, KEY, rates, DATA, lanes=2)
    assert len(result.keys) == len(result.table["rate"]) == len(result.history["loss"]) == 4


BAD = {
    "no grid": ({"grid": [1]}, TypeError, "grid is \\[1\\], expected a dict"),
    "empty grid": ({"grid": {}}, ValueError, "grid is empty"),
    "empty": ({"grid": {"rate": []}}, ValueError, r"grid\['rate'\] has shape \(0,\)"),
    "one number": ({"grid": {"rate": 0.1}}, ValueError, r"grid\['rate'\] has shape \(\)"),
    "text": ({"grid": {"rate": ["a"]}}, TypeError, r"grid\['rate'\] is \['a'\], expected numbers"),
    "function": (
        {"grid": {"rate": nn.log_uniform(1, 2)}},
        ValueError,
        r"grid\['rate'\] is a function, which",
    ),
    "name": ({"grid": {"rate": [0.1], "loss": [1]}}, ValueError, "grid has the name 'loss', which"),
    "lanes": ({"lanes": 0}, ValueError, "lanes is 0, expected at least 1"),
    "seeds": ({"seeds": 1.5}, TypeError, "seeds is 1.5, expected an integer"),
    "samples": ({"samples": -1}, ValueError, "samples is -1"),
    "key": ({"key": 3}, TypeError, "key is int, expected a typed PRNG key"),
    "progress": ({"progress": "dots"}, ValueError, "progress is 'dots', expected True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, error, message = BAD[case]
    arguments = {"key": KEY, "grid": {"rate": [0.1]}} | changes
    with pytest.raises(error, match=f"sweep: {message}"):
        nn.sweep(quick, arguments.pop("key"), arguments.pop("grid"), DATA, **arguments)


def test_bad_input_of_log_uniform():
    with pytest.raises(ValueError, match="low is 0 and high 1, expected 0 < low < high"):
        nn.log_uniform(0, 1)
