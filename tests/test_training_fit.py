"""`fit` and `training_run`: the same run, seen from the host and as a pure function."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.layer import child_key
from jaxnn._training.data.shuffle import epoch_seeds, shuffled_indices
from jaxnn._training.host import clock
from tests.compiling import counted_compilations
from tests.training_cases import (
    ACCURACY,
    ADAM,
    DATA,
    KEY,
    LABELS,
    LINEAR,
    NOISY,
    PLAIN,
    SGD,
    VALIDATION,
    X,
    assert_close,
    fitted,
    run,
    settings,
)

PENALTY = nn.regularizers.l2(1e-2)
# One program for all tests that are about the whole of it.
ALL = {
    "batch_size": 8,
    "shuffle": True,
    "regularizer": PENALTY,
    "metrics": {"accuracy": ACCURACY},
    "validation": VALIDATION,
}
CASES = {
    "all of it": ALL,
    "full batch": {"optimizer": ADAM, "shuffle": True},
    "batches": {"batch_size": 11, "optimizer": ADAM, "shuffle": True},
    "one by one": {"batch_size": 1, "optimizer": ADAM, "shuffle": True},
    "batch larger than the data": {"batch_size": 100},
    "in order": {"batch_size": 8, "optimizer": ADAM},
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c == "all of it" else pytest.mark.slow) for c in CASES],
)
def test_fit_agrees_with_the_pure_run(case):
    options = {"validation": VALIDATION} | CASES[case]
    result = fitted(**options)
    assert_close((result.params, result.state, result.history), run(**options))
    names = {"loss", "val_loss"}
    if case == "all of it":
        names |= {"accuracy", "val_accuracy", "penalty"}
    assert set(result.history) == names
    assert all(values.shape == (3,) for values in result.history.values())


@pytest.mark.parametrize("case", ["all of it", pytest.param("full batch", marks=pytest.mark.slow)])
def test_the_length_of_the_chunks_changes_no_number(case, monkeypatch):
    options = {"validation": VALIDATION} | CASES[case]
    results = []
    for seconds in (0.0, 0.002, 100.0):
        monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", seconds)
        results.append(fitted(**options))
    monkeypatch.undo()
    results.append(fitted(callbacks=[lambda event: None], **options))
    for other in results[1:]:
        chex.assert_trees_all_equal(results[0], other)


@pytest.mark.parametrize("epochs", [pytest.param(64, marks=pytest.mark.slow), 131, 150])
def test_a_long_history_is_that_of_a_handwritten_scan(epochs, monkeypatch):
    """Rows are written some at a time: as many as epochs, a prime of them, and in shifted parts."""
    linear, y = nn.dense(1), X[:, :1] * X[:, 1:2]
    start = {"kernel": np.full((3, 1), 1 / 3, np.float32), "bias": np.zeros(1, np.float32)}
    options = {"loss": nn.losses.squared_error, "optimizer": nn.optimizers.sgd(0.1)}
    options |= {"epochs": epochs}

    def step(params, _):
        loss, grads = jax.value_and_grad(
            lambda p: jnp.mean(jnp.square(jnp.asarray(X) @ p["kernel"] + p["bias"][None] - y))
        )(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss

    expected = jax.jit(lambda p: jax.lax.scan(step, p, length=epochs))(start)
    train = jax.jit(nn.training_run(linear, **options))
    params, _, history = train(jax.random.key(1), (X, y), params=start)
    chex.assert_trees_all_close((params, history["loss"]), expected, rtol=1e-5)
    for seconds in (0.0005, 100.0):
        monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", seconds)
        key = jax.random.key(1)
        result = nn.fit(linear, (X, y), key=key, params=start, progress=False, **options)
        chex.assert_trees_all_close((result.params, result.history["loss"]), expected, rtol=1e-5)


def test_batches_are_exactly_those_of_a_handwritten_loop():
    """The last, smaller batch is a batch of its own: batch norm sees its examples only."""
    result = fitted(**ALL)

    def loss_fn(params, state, batch, key):
        predictions, state = NOISY.apply(params, state, batch[0], key=key, train=True)
        loss = jnp.mean(nn.losses.softmax_cross_entropy(predictions, batch[1]))
        return loss + PENALTY(params), (state, {"data": loss})

    params, state = jax.jit(NOISY.init)(child_key(KEY, "init"), X[:1])
    now = nn.train_state(params, state, SGD, child_key(KEY, "steps"))
    step = jax.jit(nn.train_step(loss_fn, SGD))
    losses = []
    for epoch in range(3):
        seeds = epoch_seeds(child_key(KEY, "shuffle"), epoch)
        order = np.asarray(shuffled_indices(seeds, 22, np.arange(22, dtype=np.int32)))
        total = 0.0
        for first in range(0, 22, 8):
            rows = order[first : first + 8]
            now, metrics = step(now, (X[rows], LABELS[rows]))
            total += float(metrics["data"]) * len(rows)
        losses.append(total / 22)
    assert_close((result.params, result.state), (now.params, now.state))
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-5)


@pytest.mark.slow
def test_vmap_trains_many_networks_as_one_by_one():
    def model(hyperparams):
        return nn.serial(nn.dropout(hyperparams["rate"]), nn.dense(3))

    def optimizer(hyperparams):
        return nn.optimizers.sgd(hyperparams["learning_rate"])

    options = settings(optimizer=optimizer, batch_size=11, shuffle=True)
    train = nn.training_run(model, **options)
    keys = jax.random.split(jax.random.key(3), 3)
    sweep = {
        "learning_rate": np.array([1e-3, 1e-2, 1e-1], np.float32),
        "rate": np.array([0.0, 0.2, 0.5], np.float32),
    }
    together = jax.jit(jax.vmap(train, in_axes=(0, None, 0)))(keys, DATA, sweep)
    alone_run = jax.jit(train)
    for i in range(3):
        alone = alone_run(keys[i], DATA, jax.tree.map(lambda leaf, i=i: leaf[i], sweep))
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(one, alone, rtol=1e-4, atol=1e-5)


def test_the_key_decides_everything():
    one, same = fitted(**ALL), fitted(**ALL)
    other = fitted(**ALL, key=jax.random.key(2))
    chex.assert_trees_all_equal(one, same)
    assert (one.history["loss"] != other.history["loss"]).all()


def test_learning_lowers_the_loss():
    result = fitted(PLAIN, epochs=60, optimizer=nn.optimizers.sgd(1.0))
    assert result.history["loss"][-1] < 0.3 * result.history["loss"][0]


def test_history_is_the_mean_over_the_epoch_and_leaves_the_penalty_out():
    frozen = nn.optimizers.sgd(0.0)
    result = fitted(
        LINEAR,
        optimizer=frozen,
        batch_size=8,
        regularizer=nn.regularizers.l2(0.5),
        metrics={"accuracy": ACCURACY},
        validation=DATA,
    )
    whole = nn.evaluate(
        LINEAR,
        result.params,
        result.state,
        DATA,
        loss=nn.losses.softmax_cross_entropy,
        metrics={"accuracy": ACCURACY},
    )
    for name, value in whole.items():
        np.testing.assert_allclose(result.history[name], value, rtol=1e-5)
        np.testing.assert_allclose(result.history[f"val_{name}"], value, rtol=1e-5)
    penalty = nn.regularizers.l2(0.5)(result.params)
    np.testing.assert_allclose(result.history["penalty"], penalty, rtol=1e-5)


def test_given_parameters_are_where_training_begins_and_stay_the_callers():
    params, state = PLAIN.init(jax.random.key(5), X)
    before = jax.tree.map(np.asarray, params)
    result = fitted(PLAIN, params=params, state=state, optimizer=nn.optimizers.sgd(0.0))
    chex.assert_trees_all_equal(before, params)
    chex.assert_trees_all_close(before, result.params)


def equal_parts():
    """The same arguments of `fit`, all made anew."""
    return {
        "model": nn.serial(nn.dense(6), nn.tanh, nn.dense(3)),
        "optimizer": nn.optimizers.adam(nn.schedules.cosine_decay_schedule(1e-2, 100)),
        "loss": partial(nn.losses.softmax_cross_entropy, label_smoothing=0.1),
        "metrics": {"right": nn.metrics.accuracy()},
        "regularizer": nn.regularizers.l2(1e-3),
        "validation": VALIDATION,
        "batch_size": 11,
        "early_stopping": nn.early_stopping("loss"),
        "on_nonfinite": "skip",
    }


def test_a_second_call_with_equal_parts_compiles_nothing():
    def all_three(seed):
        parts = equal_parts()
        result = fitted(key=jax.random.key(seed), **parts)
        variables = result.params, result.state
        nn.predict(parts["model"], *variables, X, batch_size=11)
        options = {"loss": parts["loss"], "metrics": parts["metrics"]}
        nn.evaluate(parts["model"], *variables, VALIDATION, **options)

    all_three(1)
    with counted_compilations() as compiled:
        all_three(2)
    assert compiled == []


def test_more_epochs_and_fewer_compile_nothing():
    lengths = []
    fitted(LINEAR, epochs=3)
    with counted_compilations() as compiled:
        for epochs in (1, 2, 16):
            history = fitted(LINEAR, epochs=epochs).history
            lengths.append(len(history["loss"]))
    assert compiled == []
    assert lengths == [1, 2, 16]


@pytest.mark.slow
def test_the_count_of_compilations_sees_a_call_with_other_parts():
    fitted(LINEAR, regularizer=nn.regularizers.l2(1e-3))
    with counted_compilations() as compiled:
        fitted(LINEAR, regularizer=nn.regularizers.l2(2e-3))
    assert compiled


def test_numpy_data_are_copied_not_aliased():
    from jaxnn._training.data.arrays import arrays_on_device

    for _ in range(20):
        buffer = np.zeros((64, 64), np.float32)
        array = arrays_on_device("fit: data", buffer)
        buffer += 1
        assert not array.any()


def test_inputs_may_be_pytrees():
    model = nn.compose(
        lambda f, x: f.out(jnp.concatenate([x["a"], x["b"]], axis=-1)), out=nn.dense(3)
    )
    data = ({"a": X, "b": X[:, :1]}, LABELS)
    result = fitted(model, data=data, batch_size=11, validation=data)
    assert result.params["out"]["kernel"].shape == (4, 3)
    assert nn.predict(model, result.params, {}, data[0], batch_size=5).shape == (22, 3)


def test_double_precision(x64):
    data = (np.asarray(X, np.float64), LABELS)
    result = fitted(data=data, batch_size=11, validation=data, shuffle=True)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((result.params, result.state, result.history))}
    assert dtypes == {np.dtype("float64")}


@pytest.mark.slow
def test_an_optax_optimizer_fits_as_well():
    optax = pytest.importorskip("optax")
    ours = fitted(LINEAR, optimizer=ADAM)
    with jax.numpy_dtype_promotion("standard"):
        theirs = fitted(LINEAR, optimizer=optax.adam(1e-2))
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", ["data", "validation"])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_of_the_classes_is_refused_before_training(where, label):
    wrong = LABELS.copy()
    wrong[4] = label
    pairs = {"data": DATA, "validation": DATA, where: (X, wrong)}
    with pytest.raises(ValueError, match=rf"fit: {where} has the label {label} at \(4,\)"):
        fitted(PLAIN, data=pairs["data"], validation=pairs["validation"])
    params, state = PLAIN.init(jax.random.key(0), X)
    loss = partial(nn.losses.softmax_cross_entropy, label_smoothing=0.1)
    with pytest.raises(ValueError, match="evaluate: data has the label"):
        nn.evaluate(PLAIN, params, state, (X, wrong), loss=loss)


BAD = {
    "one array": (
        {"data": X},
        TypeError,
        r"data is an array of shape \(22, 3\), expected \(x, y\)",
    ),
    "lengths": ({"data": (X, LABELS[:5])}, ValueError, r"different lengths \(0: 22, 1: 5\)"),
    "empty": ({"data": (X[:0], LABELS[:0])}, ValueError, "data has no examples"),
    "scalar": ({"data": (X, 1.0)}, ValueError, "data has a scalar"),
    "validation": ({"validation": (X, LABELS[:5])}, ValueError, "validation has arrays of"),
    "epochs": ({"epochs": 0}, ValueError, "epochs is 0, expected at least 1"),
    "epochs' type": ({"epochs": 1.5}, TypeError, "epochs is 1.5, expected an integer"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
    "batch size's type": ({"batch_size": 2.0}, TypeError, "batch_size is 2.0, expected an integer"),
    "optimizer": ({"optimizer": nn.optimizers.sgd}, TypeError, "optimizer is the constructor sgd"),
    "loss": ({"loss": "mse"}, TypeError, "loss is 'mse', expected a function"),
    "metric": ({"metrics": {"m": nn.metrics.accuracy}}, TypeError, r"metrics\['m'\] is the const"),
    "metric's name": ({"metrics": {"loss": ACCURACY}}, ValueError, "metrics has the name 'loss'"),
    "key": ({"key": 0}, TypeError, "key is int, expected a typed PRNG key"),
    "callback": ({"callbacks": [1]}, TypeError, "callbacks has 1, expected a Callback"),
    "model": ({"model": 3}, TypeError, "fit: model is 3, expected a Layer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fitted(**changes)


def test_bad_input_of_the_pure_run():
    with pytest.raises(ValueError, match="training_run: epochs is 0"):
        nn.training_run(PLAIN, **settings(epochs=0))
    with pytest.raises(TypeError, match="training_run: model is 3"):
        nn.training_run(3, **settings())
    with pytest.raises(TypeError, match="training_run: optimizer is None"):
        nn.training_run(PLAIN, **settings(optimizer=lambda _: None))(jax.random.key(0), DATA)
    with pytest.raises(ValueError, match="training_run: data has arrays of different lengths"):
        nn.training_run(PLAIN, **settings())(jax.random.key(0), (X, LABELS[:3]))
