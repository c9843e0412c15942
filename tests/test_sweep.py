"""Sweeps give what the runs give one by one."""

import functools
import logging
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.sweeps import lanes as lanes_module
from jaxnn._training.sweeps import memory
from jaxnn._training.sweeps import sweep as sweeps
from tests.parameters import each_value_once
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
        batch_size=11,
    )
    return run(key, data, validation=validation)


quick = nn.training_run(
    LINEAR,
    loss=nn.losses.softmax_cross_entropy,
    optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
    epochs=EPOCHS,
)
noisy = nn.training_run(
    nn.serial(nn.dropout(0.3), nn.dense(3)),
    loss=nn.losses.softmax_cross_entropy,
    optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
    epochs=EPOCHS,
    batch_size=11,
)


def drawn(key, data, hyperparams, validation):
    """A run that is quickly compiled."""
    values = hyperparams["rate"] * jax.random.normal(key, (1000,))
    return {"w": values}, {}, {"loss": jnp.cumsum(values[:EPOCHS])}


RATES = {"rate": np.geomspace(1e-3, 1, 7)}
REGRESSION = (DATA[0], DATA[0] @ np.ones((3, 1), np.float32))
diverging = nn.training_run(
    nn.dense(1),
    loss=nn.losses.squared_error,
    optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
    epochs=60,
)
GRID = {
    "rate": [0.01, 0.1],
    "dropout": [0.0, 0.5],
    "smoothing": [0.0, 0.2],
    "strength": [0.0, 0.3],
    "decay": [0.0, 0.1],
}


@pytest.fixture(scope="module")
def grid():
    return nn.sweep(train, KEY, GRID, DATA, validation=VALIDATION, seeds=2)


@pytest.mark.parametrize("row", [62, pytest.param(1, marks=pytest.mark.slow)])
def test_each_run_is_what_it_is_alone(grid, row):
    """With numbers that are known when it is compiled: in the sweep all are traced."""
    hyperparams = {name: float(grid.table[name][row]) for name in GRID}
    alone = jax.jit(lambda key: train(key, DATA, hyperparams, VALIDATION))(grid.keys[row])
    assert_close(grid.run(row), alone, rtol=1e-4)


def test_every_hyperparameter_has_an_effect(grid):
    """Else the runs would be right with any of them ignored."""
    kernels = grid.params[1]["kernel"].reshape(2, 2, 2, 2, 2, 2, 3, 3)
    for axis in range(len(GRID)):
        first, second = np.moveaxis(kernels, axis, 0)
        assert (np.abs(first - second).max(axis=(-1, -2)) > 1e-4).all()


def test_the_table(grid):
    assert list(grid.table) == [*GRID, "seed", "loss", "penalty", "val_loss"]
    np.testing.assert_allclose(grid.table["rate"], np.repeat([0.01, 0.1], 32), rtol=1e-6)
    np.testing.assert_allclose(grid.table["decay"], np.tile([0, 0, 0.1, 0.1], 16))
    assert grid.table["seed"].tolist() == [0, 1] * 32
    assert_equal(grid.table["val_loss"], grid.history["val_loss"][:, -1])


def test_the_table_as_text(grid):
    lines = str(grid).splitlines()
    assert lines[0].split() == ["run", *grid.table]
    assert len(lines) == 65
    assert len(set(map(len, lines))) == 1
    shown = [int(line.split()[0]) for line in lines[1:]]
    assert sorted(shown) == list(range(64))
    assert (np.diff(grid.table["val_loss"][shown]) >= 0).all()
    assert lines[1].split()[-1] == f"{grid.table['val_loss'].min():.4g}"
    worst = grid.summary("penalty", "max", rows=2).splitlines()
    assert len(worst) == 3
    assert int(worst[1].split()[0]) == np.argmax(grid.table["penalty"])
    with pytest.raises(ValueError, match=r"summary: metric is 'accuracy', expected one of"):
        grid.summary("accuracy")


def test_combinations_with_one_seed_start_alike(grid):
    data = jax.random.key_data(grid.keys)
    assert_equal(data[::2], np.broadcast_to(data[0], (32, 2)))
    assert (data[0] != data[1]).any()


@pytest.fixture(scope="module")
def together():
    return nn.sweep(noisy, KEY, RATES, DATA, seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9))])
def test_how_many_go_side_by_side_changes_nothing(lanes, together):
    in_groups = nn.sweep(noisy, KEY, RATES, DATA, seeds=2, lanes=lanes)
    assert_close(in_groups[:4], together[:4])
    assert_equal(jax.random.key_data(in_groups.keys), jax.random.key_data(together.keys))


@each_value_once
@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 6, 7, 10, 100])
@pytest.mark.parametrize("seeds", [1, 4])
def test_no_run_is_lost_or_done_twice(seeds, lanes):
    result = nn.sweep(drawn, KEY, RATES, DATA, seeds=seeds, lanes=lanes)
    assert result.table["rate"].tolist() == np.repeat(np.float32(RATES["rate"]), seeds).tolist()
    assert result.table["seed"].tolist() == [*range(seeds)] * 7
    assert result.params["w"].shape == (7 * seeds, 1000)
    for row in range(7 * seeds):
        values = result.table["rate"][row] * jax.random.normal(result.keys[row], (1000,))
        np.testing.assert_allclose(result.params["w"][row], values, rtol=1e-6)


@pytest.mark.parametrize(
    ("combinations", "seeds", "lanes", "block"),
    [
        (7, 1, 3, (3, 1)),
        (7, 1, 6, (4, 1)),  # twice four leaves less over than six and one
        (7, 1, 100, (7, 1)),
        (7, 2, 5, (2, 2)),
        (7, 5, 4, (1, 3)),
        (1, 100, 30, (1, 25)),
        (7, 3, 1, (1, 1)),
    ],
)
def test_blocks_are_even_and_no_larger_than_allowed(combinations, seeds, lanes, block):
    assert lanes_module.block_of(combinations, seeds, lanes) == block


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_key_means_the_same_whatever_its_kind(kind):
    """Keys of some kinds draw other numbers under vmap."""
    key = jax.random.key(0, impl=kind)
    result = nn.sweep(drawn, key, {"rate": [0.1, 0.2]}, DATA, seeds=3)
    for row in (1, 5):
        rate = jnp.float32(result.table["rate"][row])
        alone = drawn(result.keys[row], DATA, {"rate": rate}, None)
        assert_close(result.run(row), alone)


@pytest.fixture
def compilations():
    """The names of the programs that are compiled; those of jax.numpy's functions too."""
    names = []

    class Handler(logging.Handler):
        def emit(self, record):
            names.extend(re.findall(r"Finished XLA compilation of (\S+) in", record.getMessage()))

    logger, handler = logging.getLogger("jax._src.dispatch"), Handler()
    logger.addHandler(handler)
    with jax.log_compiles():
        yield names
    logger.removeHandler(handler)


def test_a_sweep_is_one_program_and_a_second_one_compiles_nothing(compilations):
    traced, another_key = [], jax.random.key(7)

    def counted(*arguments):
        traced.append(arguments)
        return quick(*arguments)

    nn.sweep(counted, KEY, {"rate": [0.1, 0.2, 0.3]}, DATA, seeds=2, lanes=2)
    assert compilations.count("jit(side_by_side)") == 1
    assert len(traced) == 1
    compilations.clear()
    nn.sweep(counted, another_key, {"rate": [0.4, 0.5, 0.6]}, DATA, seeds=2, lanes=2)
    assert compilations == []


def test_memory_decides_how_many_go_side_by_side(monkeypatch):
    needed = []

    def noted(program):
        needed.append(memory.needed_bytes(program))
        return needed[-1]

    monkeypatch.setattr(lanes_module, "needed_bytes", noted)
    plenty = nn.sweep(drawn, KEY, RATES, DATA)
    assert len(needed) == 1
    # half of what is free is less than seven runs need
    monkeypatch.setattr(lanes_module, "available_bytes", lambda: needed[0])
    scarce = nn.sweep(drawn, KEY, RATES, DATA)
    assert needed[-1] <= needed[0] / 2
    assert_close(scarce[:4], plenty[:4])
    monkeypatch.setattr(lanes_module, "available_bytes", lambda: 1)  # one at a time, if need be
    assert_close(nn.sweep(drawn, KEY, RATES, DATA)[:4], plenty[:4])
    assert needed[-1] == min(needed)


def test_a_block_that_fits_is_found_in_two_attempts(monkeypatch):
    tried = []
    monkeypatch.setattr(lanes_module, "available_bytes", lambda: 20_000)
    monkeypatch.setattr(lanes_module, "needed_bytes", lambda program: 1_000 * tried[-1])

    block, _ = lanes_module.largest_block(lambda b: tried.append(b.lanes), 200, 1, None)
    assert tried == [200, 10]
    assert block.lanes == 10


def test_a_program_too_large_to_compile_is_made_smaller():
    tried = []

    def compiled(block):
        tried.append(block.lanes)
        if block.lanes > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return jax.jit(lambda: 1).lower().compile()

    block, _ = lanes_module.largest_block(compiled, 16, 1, None)
    assert (tried, block.lanes) == ([16, 8, 4, 2], 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        lanes_module.largest_block(compiled, 16, 1, 16)  # as many as were asked for


def test_memory_is_known_here():
    assert 2**20 < memory.available_bytes() < 2**50


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("3000000\n")
    used.write_text("1000000\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", ((limit, used),))
    assert memory.available_bytes() == 2_000_000
    limit.write_text("max\n")
    assert memory.available_bytes() > 2_000_000


def test_random_search():
    draws = {
        "rate": nn.log_uniform(1e-3, 1e-1),
        "dropout": functools.partial(jax.random.uniform, maxval=0.5),
        "smoothing": [0.0, 0.1],
    }
    result = nn.sweep(drawn, KEY, draws, DATA, samples=6, seeds=2)
    again = nn.sweep(drawn, KEY, draws, DATA, samples=6, seeds=2)
    assert_equal(result.table, again.table)
    assert result.history["loss"].shape == (12, EPOCHS)
    assert len(set(result.table["rate"])) == len(set(result.table["dropout"])) == 6
    assert ((result.table["rate"] >= 1e-3) & (result.table["rate"] <= 1e-1)).all()
    assert (result.table["dropout"] < 0.5).all()
    assert set(result.table["smoothing"]) <= {np.float32(0), np.float32(0.1)}
    other = nn.sweep(drawn, jax.random.key(9), draws, DATA, samples=6, seeds=2)
    assert (other.table["rate"] != result.table["rate"]).all()


def test_integers_stay_integers():
    def count(key, data, hyperparams, validation):
        return {"n": hyperparams["n"]}, {}, {"loss": hyperparams["x"], "matrix": jnp.ones((1, 1))}

    result = nn.sweep(count, KEY, {"n": [3, 4], "x": [0.5]}, None)
    assert result.params["n"].tolist() == [3, 4]
    assert result.params["n"].dtype == result.table["n"].dtype == np.int32
    assert result.table["loss"].tolist() == [0.5, 0.5]  # no epochs: the value itself
    assert str(result).splitlines()[1].split() == ["0", "3", "0.5", "0", "0.5"]


def constant(key, data, hyperparams, validation):
    """A run whose history is the hyperparameter, NaN for 0, stopped after one of two epochs."""
    value = jnp.where(hyperparams["value"] == 0, jnp.nan, hyperparams["value"])
    return {}, {}, {"loss": jnp.stack([value, jnp.full_like(value, jnp.nan)])}


def test_the_best_is_never_nan():
    result = nn.sweep(constant, KEY, {"value": [3.0, 0.0, 1.0, 2.0]}, DATA)
    np.testing.assert_array_equal(result.table["loss"], [3, np.nan, 1, 2])
    assert (result.best(), result.best("loss", "max")) == (2, 0)
    with pytest.raises(ValueError, match=r"metric is 'val_loss', expected one of \['value'"):
        result.best("val_loss")
    with pytest.raises(ValueError, match="mode is 'least'"):
        result.best(mode="least")
    nothing = nn.sweep(constant, KEY, {"value": [0.0]}, DATA)
    with pytest.raises(ValueError, match="all values of 'loss' are NaN"):
        nothing.best()


def test_a_run_that_is_lost_has_its_nan_and_one_that_is_stopped_its_last_epoch():
    def made(key, data, hyperparams, validation):
        lost = hyperparams["lost"] > 0
        loss = jnp.array([1.0, 0.1, jnp.nan, jnp.nan])
        accuracy = jnp.where(lost, 0.5, jnp.array([0.6, jnp.nan, jnp.nan, jnp.nan]))
        return {"kernel": jnp.where(lost, jnp.nan, 1.0)}, {}, {"loss": loss, "accuracy": accuracy}

    result = nn.sweep(made, KEY, {"lost": [0, 1]}, None)
    np.testing.assert_array_equal(result.table["loss"], np.float32([0.1, np.nan]))
    np.testing.assert_array_equal(result.table["accuracy"], np.float32([np.nan, 0.5]))


def test_a_rate_too_large_never_wins():
    result = nn.sweep(diverging, KEY, {"rate": [1e-3, 1e3]}, REGRESSION)
    assert np.isfinite(result.history["loss"][1, 0])
    assert not np.isfinite(result.params["kernel"][1]).any()
    assert (result.best(), result.best(mode="max")) == (0, 0)


def test_early_stopping_has_its_best_in_an_earlier_epoch():
    run = nn.training_run(
        LINEAR,
        loss=nn.losses.softmax_cross_entropy,
        # Three steps down, then up again: far for the first, little for the second.
        optimizer=lambda h: nn.optimizers.sgd(
            lambda count: jnp.where(count < 3, h["rate"], -3 * h["rate"])
        ),
        epochs=8,
        early_stopping=nn.early_stopping("val_loss", patience=2),
    )
    result = nn.sweep(run, KEY, {"rate": [1.0, 0.1]}, DATA, validation=VALIDATION)
    rows = result.history["val_loss"]
    assert result.table["epochs"].tolist() == [5, 5]
    assert (rows[:, 5:] == rows[:, 4:5]).all()
    assert_equal(result.table["val_loss"], rows[:, 4])
    assert (result.best(), result.best(epoch="best")) == (1, 0)
    params, state, _ = result.run(0)
    loss = nn.evaluate(LINEAR, params, state, VALIDATION, loss=nn.losses.softmax_cross_entropy)
    np.testing.assert_allclose(loss["loss"], rows[0, 2], rtol=1e-5)
    with pytest.raises(ValueError, match="best: epoch is 3, expected 'last' or 'best'"):
        result.best(epoch=3)


def test_members_can_be_swept():
    run = nn.training_run(
        LINEAR,
        members=2,
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

        def telling(done, note):
            tell(done, note)
            if done == 4:
                os.kill(os.getpid(), signal.SIGINT)

        return telling

    whole = nn.sweep(drawn, KEY, RATES, DATA, lanes=2, progress="lines")
    *_, third, last = capsys.readouterr().err.splitlines()
    assert third == f"sweep: 6 of 7 runs  best loss {whole.table['loss'][:6].min():.4g}"
    assert last == f"sweep: 7 of 7 runs  best loss {whole.table['loss'].min():.4g}"
    monkeypatch.setattr(sweeps, "counter", interrupting)
    result = nn.sweep(drawn, KEY, RATES, DATA, lanes=2)
    assert len(result.keys) == 4
    done = result.table, result.params, result.history
    every = whole.table, whole.params, whole.history
    assert_equal(done, jax.tree.map(lambda leaf: leaf[:4], every))
    in_columns = nn.sweep(drawn, KEY, {"rate": [0.1, 0.2]}, DATA, seeds=4, lanes=2)
    assert in_columns.table["seed"].tolist() == [0, 1, 2, 3]  # the first combination's


def test_a_bar_is_closed_whatever_happens(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    told = []
    usual = sweeps.counter

    def noting(*arguments):
        tell = usual(*arguments)
        return lambda done, note: (told.append(done), tell(done, note))

    monkeypatch.setattr(sweeps, "counter", noting)
    result = nn.sweep(drawn, KEY, RATES, DATA, progress="bar")
    assert f"best loss {result.table['loss'].min():.4g}" in capsys.readouterr().err

    def broken(params, history):
        raise RuntimeError("in between")

    monkeypatch.setattr(sweeps, "_last_values", broken)
    with pytest.raises(RuntimeError, match="in between"):
        nn.sweep(drawn, KEY, RATES, DATA, progress="bar")
    assert told == [7, None, None]


@pytest.mark.slow
def test_double_precision(x64):
    data = (np.asarray(DATA[0], np.float64), DATA[1])
    result = nn.sweep(quick, KEY, {"rate": [0.1, 0.2]}, data)
    leaves = jax.tree.leaves((result.params, result.history, result.table["rate"]))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float64")}


@pytest.mark.slow
def test_optimizers_of_optax_can_be_swept():
    optax = pytest.importorskip("optax")
    run = nn.training_run(
        LINEAR,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=lambda h: optax.adam(h["rate"]),
        epochs=EPOCHS,
    )
    with jax.numpy_dtype_promotion("standard"):
        theirs = nn.sweep(run, KEY, {"rate": [0.01, 0.1]}, DATA)
    run = nn.training_run(
        LINEAR,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=lambda h: nn.optimizers.adam(h["rate"]),
        epochs=EPOCHS,
    )
    ours = nn.sweep(run, KEY, {"rate": [0.01, 0.1]}, DATA)
    assert_close(ours.params, theirs.params, rtol=1e-4)


BAD = {
    "no grid": ({"grid": [1]}, TypeError, "grid is \\[1\\], expected a dict"),
    "nan in a grid": ({"grid": {"rate": [np.nan]}}, ValueError, r"grid\['rate'\] is \[nan\]"),
    "empty grid": ({"grid": {}}, ValueError, "grid is empty"),
    "empty": ({"grid": {"rate": []}}, ValueError, r"grid\['rate'\] has shape \(0,\)"),
    "one number": ({"grid": {"rate": 0.1}}, ValueError, r"grid\['rate'\] has shape \(\)"),
    "text": ({"grid": {"rate": ["a"]}}, TypeError, r"grid\['rate'\] is \['a'\], expected real"),
    "ragged": (
        {"grid": {"rate": [[1, 2], [3]]}},
        ValueError,
        r"grid\['rate'\] is \[\[1, 2\], \[3\]\]",
    ),
    "complex": ({"grid": {"rate": [1j]}}, TypeError, r"grid\['rate'\] is \[1j\], expected real"),
    "too large": ({"grid": {"rate": [2**40]}}, ValueError, "expected integers that int32 can hold"),
    "name's type": ({"grid": {3: [1.0]}}, TypeError, r"grid is \{3: \[1.0\]\}, expected a dict"),
    "shape of what is drawn": (
        {"grid": {"rate": lambda key, shape: jnp.ones(3)}, "samples": 2},
        ValueError,
        r"what the function grid\['rate'\] returned has shape \(3,\), expected \(2,\)",
    ),
    "seed": ({"grid": {"rate": [0.1], "seed": [1]}}, ValueError, "grid has the name 'seed', which"),
    "data": ({"data": "abc"}, TypeError, "data has a str, expected an array of numbers"),
    "validation": ({"validation": ["a"]}, TypeError, "validation has a str at '0', expected"),
    "no function": ({"train": 3}, TypeError, "train is 3, expected a function"),
    "two results": (
        {"train": lambda *_: ({}, {})},
        TypeError,
        r"train returned \(dict, dict\), expected \(params, state, history\)",
    ),
    "history": (
        {"train": lambda *_: ({}, {}, [1.0])},
        TypeError,
        r"train returned \(dict, dict, list\)",
    ),
    "one result": ({"train": lambda *_: jnp.ones(3)}, TypeError, r"train returned \w+, expected"),
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
    arguments = {"train": quick, "key": KEY, "grid": {"rate": [0.1]}, "data": DATA} | changes
    with pytest.raises(error, match=f"sweep: .*{message}"):
        nn.sweep(**arguments)


def test_bad_input_of_log_uniform():
    with pytest.raises(ValueError, match="low is 0 and high 1, expected 0 < low < high"):
        nn.log_uniform(0, 1)
