"""A whole loss function in place of a model and a loss; weights; own hyperparameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.layer import child_key
from tests.training_cases import (
    ACCURACY,
    DATA,
    KEY,
    LABELS,
    LINEAR,
    NOISY,
    SGD,
    VALIDATION,
    X,
    assert_close,
    assert_equal,
    fitted,
    run,
    settings,
)

OPTIONS = {"batch_size": 8, "shuffle": True, "validation": VALIDATION}


def loss_fn(params, state, batch, key):
    """What `fit` does of a model and a loss, written out."""
    x, y = batch
    logits, state = NOISY.apply(params, state, x, key=key, train=key is not None)
    right = logits.argmax(axis=-1) == y
    loss = nn.losses.softmax_cross_entropy(logits, y).mean()
    return loss, (state, {"right": right.mean(), "of": jnp.stack([right.mean(), loss])})


@pytest.fixture(scope="module")
def start():
    return jax.jit(NOISY.init)(child_key(KEY, "init"), X[:1])


@pytest.fixture(scope="module")
def supervised():
    return fitted(metrics={"right": ACCURACY}, **OPTIONS)


def test_fit_is_that_of_the_model(start, supervised):
    """Also the means over an epoch, whose last batch is smaller, and those of the validation."""
    params, state = start
    result = fitted(loss_fn, loss=None, params=params, state=state, **OPTIONS)
    of = {name: result.history.pop(name) for name in ("of", "val_of")}
    assert_close((result.params, result.state), (supervised.params, supervised.state))
    assert result.history.keys() == supervised.history.keys()
    for name, values in supervised.history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-5)
    assert of["of"].shape == (3, 2)
    np.testing.assert_allclose(of["val_of"][:, 1], result.history["val_loss"], rtol=1e-5)


@pytest.mark.slow
def test_the_pure_run_is_that_of_the_model(start, supervised):
    params, state = start
    train = nn.training_run(loss_fn, optimizer=SGD, epochs=3, batch_size=8)
    got = jax.jit(train)(KEY, DATA, None, VALIDATION, params=params, state=state)
    assert_close(got[:2], (supervised.params, supervised.state))
    np.testing.assert_allclose(got[2]["val_right"], supervised.history["val_right"], rtol=1e-5)


def test_batches_may_be_of_any_structure_and_params_too():
    data = {"inputs": [X], "targets": {"y": LABELS}}

    def fit_line(params, state, batch, key):
        logits = nn.functional.linear(batch["inputs"][0], params["w"])
        loss = nn.losses.softmax_cross_entropy(logits, batch["targets"]["y"]).mean()
        return loss, (state, {})

    penalty = nn.regularizers.l2(0.1, where="w")
    result = fitted(
        fit_line, data, loss=None, params={"w": jnp.zeros((3, 3))}, epochs=20, regularizer=penalty
    )
    assert result.state == {}
    assert result.history["loss"][-1] < 0.9 * result.history["loss"][0]
    assert result.history["penalty"][-1] > 0


def test_an_evaluation_without_a_key_that_needs_one_says_so(start):
    def noisy(params, state, batch, key):
        return jax.random.normal(key), (state, {})

    with pytest.raises(TypeError) as caught:
        fitted(noisy, loss=None, params={"w": jnp.zeros(2)}, **OPTIONS)
    assert any("validation" in note and "key is None" in note for note in caught.value.__notes__)


BAD = {
    "no params": ({}, ValueError, "params is None, expected the initial params"),
    "metrics": ({"metrics": {"m": ACCURACY}}, TypeError, "loss is None, expected a function"),
    "a layer": ({"model": LINEAR}, TypeError, "loss is None, expected a function"),
    "reported": (
        {"model": lambda p, s, b, k: (0.0, (s, 1.0)), "params": {}},
        TypeError,
        "metrics are 1.0, expected a dict",
    ),
    "name": (
        {"model": lambda p, s, b, k: (0.0, (s, {"val_a": 1.0})), "params": {}},
        ValueError,
        "metrics has the name 'val_a'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fitted(**({"model": loss_fn, "loss": None} | changes))


# Weights


WEIGHTS = np.array([0, 1, 2, 1, 3] * 5, np.int32)[:22]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.int32])
def test_a_weight_is_as_many_examples(dtype):
    """In one batch: the gradient, the loss, the metrics, and those of the validation."""
    repeated = tuple(np.repeat(part, WEIGHTS, axis=0) for part in DATA)
    weighted = (*DATA, WEIGHTS.astype(dtype))
    options = {"metrics": {"right": ACCURACY}}
    ours = fitted(LINEAR, weighted, validation=weighted, **options)
    theirs = fitted(LINEAR, repeated, validation=repeated, **options)
    assert_close((ours.params, ours.history), (theirs.params, theirs.history))
    params, _, history = run(LINEAR, weighted, validation=weighted, **options)
    assert_close((params, history), (ours.params, ours.history))


def test_examples_without_weight_teach_nothing():
    x = X.copy()
    x[:11] = 1e3  # the whole first batch
    weights = np.ones(22, np.float32)
    weights[:11] = 0
    data = (x, LABELS, weights)
    ours = fitted(LINEAR, data, batch_size=11, on_nonfinite="raise")
    rest = fitted(
        LINEAR,
        (X[11:], LABELS[11:]),
        params=LINEAR.init(child_key(KEY, "init"), X)[0],
    )
    np.testing.assert_allclose(ours.history["loss"], rest.history["loss"], rtol=1e-5)


def test_weights_of_classes_are_those_of_the_loss():
    by_class = jnp.array([1.0, 2.0, 5.0])
    loss = functools.partial(nn.losses.softmax_cross_entropy, class_weights=by_class)
    ours = fitted(LINEAR, loss=loss)
    weights = np.asarray(by_class)[LABELS]
    scaled = nn.optimizers.sgd(0.1 * weights.mean())  # mean of w l, not divided by the sum of w
    theirs = fitted(LINEAR, (*DATA, weights), optimizer=scaled)
    assert_close(ours.params, theirs.params)


def test_what_depends_on_hyperparameters_is_made_of_them():
    """Label smoothing and the strength of a penalty, traced, in one program."""

    def train(key, data, hyperparams, validation=None):
        loss = functools.partial(
            nn.losses.softmax_cross_entropy, label_smoothing=hyperparams["smoothing"]
        )
        penalty = nn.regularizers.l2(hyperparams["strength"])
        pure = nn.training_run(
            LINEAR, loss=loss, optimizer=SGD, epochs=3, shuffle=False, regularizer=penalty
        )
        return pure(key, data, validation=validation)

    several = {"smoothing": np.float32([0.0, 0.1, 0.3]), "strength": np.float32([0.0, 0.1, 1.0])}
    together = jax.jit(jax.vmap(train, in_axes=(None, None, 0)))(KEY, DATA, several)
    smoothing, strength = (float(several[name][2]) for name in ("smoothing", "strength"))
    loss = functools.partial(nn.losses.softmax_cross_entropy, label_smoothing=smoothing)
    alone = fitted(LINEAR, loss=loss, regularizer=nn.regularizers.l2(strength))
    assert_close(jax.tree.map(lambda leaf: leaf[2], together[0]), alone.params)


def test_a_run_can_begin_where_another_ended():
    first = fitted(LINEAR)
    again = fitted(LINEAR, params=first.params, state=first.state)
    train = jax.jit(nn.training_run(LINEAR, **settings()))
    params, _, _ = train(KEY, DATA, params=first.params)
    assert_close(params, again.params)
    assert_equal(first.params, fitted(LINEAR).params)
