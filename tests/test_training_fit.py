"""`fit` and `training_run`: the same run, seen from the host and as a pure function."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.data.shuffle import epoch_seeds, shuffled_indices
from jaxnn._training.host import clock
from tests.compiling import counted_compilations

RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 0)
VALIDATION = (X[:7] + 0.1, LABELS[:7])
NOISY = nn.serial(nn.dense(6), nn.batch_norm(), nn.relu, nn.dropout(0.25), nn.dense(3))
PLAIN = nn.serial(nn.dense(6), nn.tanh, nn.dense(3))
ADAM = nn.optimizers.adam(1e-2)
ACCURACY = nn.metrics.accuracy()

CASES = {
    "full batch": {},
    "batches": {"batch_size": 11},
    "remainder": {"batch_size": 8},
    "one by one": {"batch_size": 1},
    "batch larger than the data": {"batch_size": 100},
    "in order": {"batch_size": 8, "shuffle": False},
    "penalty": {"batch_size": 8, "regularizer": nn.regularizers.l2(1e-2)},
    "metrics": {"batch_size": 8, "metrics": {"accuracy": ACCURACY}},
    "all of it": {
        "batch_size": 8,
        "shuffle": False,
        "regularizer": nn.regularizers.l2(1e-2),
        "metrics": {"accuracy": ACCURACY},
    },
}
# Of the others, each is a part of one of these, or is without a remainder.
ALWAYS = ("full batch", "remainder", "one by one", "all of it")


def settings(**changes):
    """The common arguments of both."""
    common = {"loss": nn.losses.softmax_cross_entropy, "optimizer": ADAM, "epochs": 3}
    return common | changes


def fitted(model=NOISY, key=None, data=(X, LABELS), **changes):
    key = jax.random.key(1) if key is None else key
    return nn.fit(model, data, key=key, progress=False, **settings(**changes))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c in ALWAYS else pytest.mark.slow) for c in CASES],
)
def test_fit_agrees_with_the_pure_run(case):
    options = CASES[case]
    result = fitted(validation=VALIDATION, **options)
    train = jax.jit(nn.training_run(NOISY, **settings(**options)))
    params, state, history = train(jax.random.key(1), (X, LABELS), None, VALIDATION)
    chex.assert_trees_all_close(
        (result.params, result.state, result.history),
        (params, state, history),
        rtol=2e-5,
        atol=2e-6,
    )
    names = {"loss", "val_loss"}
    names |= {"accuracy", "val_accuracy"} if "metrics" in options else set()
    names |= {"penalty"} if "regularizer" in options else set()
    assert set(result.history) == names
    assert all(values.shape == (3,) for values in result.history.values())


@pytest.mark.parametrize("case", ["full batch", "remainder"])
def test_the_length_of_the_chunks_changes_no_number(case, monkeypatch):
    results = []
    for seconds in (0.0, 0.002, 100.0):
        monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", seconds)
        results.append(fitted(validation=VALIDATION, **CASES[case]))
    monkeypatch.undo()
    results.append(fitted(validation=VALIDATION, callbacks=[lambda event: None], **CASES[case]))
    for other in results[1:]:
        chex.assert_trees_all_equal(results[0], other)


@pytest.mark.parametrize("epochs", [64, 131, 150])
def test_a_long_history_is_that_of_a_handwritten_scan(epochs, monkeypatch):
    """Rows are written some at a time: as many as epochs, a prime of them, and in shifted parts."""
    linear, y, start = nn.dense(1), X[:, :1] * X[:, 1:2], {"kernel": jnp.ones((3, 1)) / 3}
    start["bias"] = jnp.zeros(1)
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


@pytest.mark.parametrize("batch_size", [8, 11])
def test_batches_are_exactly_those_of_a_handwritten_loop(batch_size):
    """The last, smaller batch is a batch of its own: batch norm sees its examples only."""
    model, key = NOISY, jax.random.key(1)
    result = fitted(batch_size=batch_size)

    def loss_fn(params, state, batch, key):
        predictions, state = model.apply(params, state, batch[0], key=key, train=True)
        return jnp.mean(nn.losses.softmax_cross_entropy(predictions, batch[1])), (state, {})

    from jaxnn._core.layer import child_key

    params, state = jax.jit(model.init)(child_key(key, "init"), X[:1])
    now = nn.train_state(params, state, ADAM, child_key(key, "steps"))
    step = jax.jit(nn.train_step(loss_fn, ADAM))
    losses = []
    for epoch in range(3):
        seeds = epoch_seeds(child_key(key, "shuffle"), epoch)
        order = np.asarray(shuffled_indices(seeds, 22, jnp.arange(22)))
        total = 0.0
        for first in range(0, 22, batch_size):
            rows = order[first : first + batch_size]
            now, metrics = step(now, (X[rows], LABELS[rows]))
            total += float(metrics["loss"]) * len(rows)
        losses.append(total / 22)
    chex.assert_trees_all_close(
        (result.params, result.state), (now.params, now.state), rtol=2e-5, atol=2e-6
    )
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-5)


def test_vmap_trains_many_networks_as_one_by_one():
    def model(hyperparams):
        return nn.serial(nn.dense(6), nn.tanh, nn.dropout(hyperparams["rate"]), nn.dense(3))

    def optimizer(hyperparams):
        return nn.optimizers.adam(hyperparams["learning_rate"])

    options = settings(optimizer=optimizer, batch_size=8)
    train = nn.training_run(model, **options)
    keys = jax.random.split(jax.random.key(3), 3)
    sweep = {"learning_rate": jnp.array([1e-3, 1e-2, 1e-1]), "rate": jnp.array([0.0, 0.2, 0.5])}
    together = jax.jit(jax.vmap(train, in_axes=(0, None, 0)))(keys, (X, LABELS), sweep)
    alone_run = jax.jit(train)
    for i in range(3):
        alone = alone_run(keys[i], (X, LABELS), jax.tree.map(lambda leaf, i=i: leaf[i], sweep))
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(one, alone, rtol=1e-4, atol=1e-5)


def test_the_key_decides_everything():
    one, same = fitted(batch_size=8), fitted(batch_size=8)
    other = fitted(batch_size=8, key=jax.random.key(2))
    chex.assert_trees_all_equal(one, same)
    assert (one.history["loss"] != other.history["loss"]).all()


def test_learning_lowers_the_loss():
    result = fitted(PLAIN, epochs=60, batch_size=8)
    assert result.history["loss"][-1] < 0.3 * result.history["loss"][0]


def test_history_is_the_mean_over_the_epoch_and_leaves_the_penalty_out():
    frozen = nn.optimizers.sgd(0.0)
    result = fitted(
        PLAIN,
        optimizer=frozen,
        batch_size=8,
        regularizer=nn.regularizers.l2(0.5),
        metrics={"accuracy": ACCURACY},
        validation=(X, LABELS),
    )
    whole = nn.evaluate(
        PLAIN,
        result.params,
        result.state,
        (X, LABELS),
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
        "loss": functools.partial(nn.losses.softmax_cross_entropy, label_smoothing=0.1),
        "metrics": {"right": nn.metrics.accuracy()},
        "regularizer": nn.regularizers.l2(1e-3),
        "validation": VALIDATION,
        "batch_size": 8,
        "early_stopping": nn.early_stopping("loss"),
        "on_nonfinite": "skip",
    }


def test_a_second_call_with_equal_parts_compiles_nothing():
    def all_three(seed):
        parts = equal_parts()
        result = fitted(key=jax.random.key(seed), **parts)
        variables = result.params, result.state
        nn.predict(parts["model"], *variables, X, batch_size=8)
        options = {"loss": parts["loss"], "metrics": parts["metrics"]}
        nn.evaluate(parts["model"], *variables, VALIDATION, **options)

    all_three(1)
    with counted_compilations() as compiled:
        all_three(2)
    assert compiled == []


def test_the_count_of_compilations_sees_a_call_with_other_parts():
    fitted(**equal_parts())
    with counted_compilations() as compiled:
        fitted(**equal_parts() | {"regularizer": nn.regularizers.l2(2e-3)})
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
    result = fitted(model, data=data, batch_size=8, validation=data)
    assert result.params["out"]["kernel"].shape == (4, 3)
    assert nn.predict(model, result.params, {}, data[0], batch_size=5).shape == (22, 3)


def test_double_precision(x64):
    data = (np.asarray(X, np.float64), LABELS)
    result = fitted(data=data, batch_size=8, validation=data)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((result.params, result.state, result.history))}
    assert dtypes == {np.dtype("float64")}


def test_an_optax_optimizer_fits_as_well():
    optax = pytest.importorskip("optax")
    ours = fitted(PLAIN, batch_size=8)
    with jax.numpy_dtype_promotion("standard"):
        theirs = fitted(PLAIN, batch_size=8, optimizer=optax.adam(1e-2))
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", ["data", "validation"])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_of_the_classes_is_refused_before_training(where, label):
    wrong = LABELS.copy()
    wrong[4] = label
    pairs = {"data": (X, LABELS), "validation": (X, LABELS), where: (X, wrong)}
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
        nn.training_run(PLAIN, **settings(optimizer=lambda _: None))(jax.random.key(0), (X, LABELS))
    with pytest.raises(ValueError, match="training_run: data has arrays of different lengths"):
        nn.training_run(PLAIN, **settings())(jax.random.key(0), (X, LABELS[:3]))
