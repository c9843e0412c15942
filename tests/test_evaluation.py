"""`predict` and `evaluate`: nothing depends on the size of the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

RNG = np.random.default_rng(1)
X = RNG.normal(size=(13, 3)).astype(np.float32)
Y = RNG.normal(size=(13, 2)).astype(np.float32)
MODEL = nn.serial(nn.dense(4), nn.batch_norm(), nn.relu, nn.dropout(0.5), nn.dense(2))
LOSS = nn.losses.squared_error
METRICS = {"error": nn.metrics.mean(nn.losses.absolute_error)}


@pytest.fixture(scope="module")
def variables():
    params, state = MODEL.init(jax.random.key(0), X)
    _, state = MODEL.apply(params, state, X, key=jax.random.key(1), train=True)
    return params, state


@pytest.mark.parametrize("batch_size", [None, 1, 4, 5, 13, 50])
def test_prediction(batch_size, variables):
    expected, _ = MODEL.apply(*variables, X)
    predictions = nn.predict(MODEL, *variables, X, batch_size=batch_size)
    np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 1, 4, 5, 13, 50])
def test_evaluation(batch_size, variables):
    predictions, _ = MODEL.apply(*variables, X)
    got = nn.evaluate(MODEL, *variables, (X, Y), loss=LOSS, metrics=METRICS, batch_size=batch_size)
    errors = np.asarray(predictions) - Y
    assert got.keys() == {"loss", "error"}
    np.testing.assert_allclose(got["loss"], np.mean(errors**2), rtol=1e-5)
    np.testing.assert_allclose(got["error"], np.mean(abs(errors)), rtol=1e-5)


def test_a_nan_counts_once_wherever_it_falls(variables):
    """The last batch is shifted back over examples that were seen: they count for nothing there."""
    x = X.copy()
    x[-1] = np.nan
    assert np.isnan(nn.evaluate(MODEL, *variables, (x, Y), loss=LOSS, batch_size=5)["loss"])
    predictions = nn.predict(MODEL, *variables, x, batch_size=5)
    assert np.isnan(predictions[-1]).all()
    assert not np.isnan(predictions[:-1]).any()


def test_outputs_may_be_pytrees(variables):
    twice = nn.parallel(a=nn.identity, b=lambda x: x.sum(axis=-1))
    y = nn.predict(twice, {"a": {}, "b": {}}, {}, X, batch_size=4)
    np.testing.assert_array_equal(y["a"], X)
    assert y["b"].shape == (13,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.evaluate(MODEL, {}, {}, (X, Y)), ValueError, "loss and metrics are both None"),
        (lambda: nn.evaluate(MODEL, {}, {}, X, loss=LOSS), TypeError, r"expected \(x, y\)"),
        (
            lambda: nn.evaluate(nn.identity, {}, {}, (X, Y), loss=LOSS),
            ValueError,
            r"predictions have shape \(13, 3\) and targets \(13, 2\)",
        ),
        (lambda: nn.predict(MODEL, {}, {}, jnp.zeros(())), ValueError, "x has a scalar"),
        (lambda: nn.predict(MODEL, {}, {}, X, batch_size=0), ValueError, "batch_size is 0"),
        (lambda: nn.predict(None, {}, {}, X), TypeError, "predict: model is None"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
