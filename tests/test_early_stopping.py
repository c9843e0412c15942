"""Stopping when nothing improves any more, and going back to the best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.best import is_better
from tests.parameters import quick_first
from tests.training_cases import (
    ACCURACY,
    DATA,
    KEY,
    LINEAR,
    VALIDATION,
    assert_close,
    fitted,
    run,
    settings,
)

EPOCHS = 8
# After six steps the gradient is climbed: the best epoch is in the middle.
ROUGH = {
    "optimizer": nn.optimizers.sgd(lambda count: jnp.where(count < 6, 0.3, -0.1)),
    "epochs": EPOCHS,
    "batch_size": 11,
}


def by_hand(values, patience, min_delta=0.0):
    """The best epoch, and the number of epochs that are trained."""
    best, at, waited = np.inf, -1, 0
    for epoch, value in enumerate(values):
        if value < best - min_delta:
            best, at, waited = value, epoch, 0
        else:
            waited += 1
        if waited == patience:
            return at, epoch + 1
    return at, len(values)


@pytest.fixture(scope="module")
def untouched():
    """A run without early stopping, and its params after each epoch."""
    params = []
    result = fitted(
        LINEAR,
        validation=VALIDATION,
        callbacks=[lambda event: params.append(jax.tree.map(np.array, event.params))],
        **ROUGH,
    )
    values = result.history["val_loss"]
    assert 0 < np.argmin(values) < EPOCHS - 2  # else there is nothing to see
    return result, params


def trainings():
    """Both with each patience; always one of the two, since what stops them is the same."""
    quick = {("fit", 1), ("training_run", 3), ("fit", 2)}
    for train in ("fit", "training_run"):
        for patience, min_delta in ((1, 0.0), (3, 0.0), (2, 0.3), (20, 0.0)):
            marks = () if (train, patience) in quick else pytest.mark.slow
            yield pytest.param(train, patience, min_delta, marks=marks)


def test_params_that_became_nan_after_a_good_loss_are_not_the_best():
    def loss_fn(params, state, batch, key):
        w = params["w"]
        return jnp.sqrt(jnp.maximum(w - 0.6, 0)).sum(), (state, {})  # NaN where that is 0

    result = fitted(
        loss_fn,
        np.zeros((2, 1), np.float32),
        loss=None,
        params={"w": np.array([1.0], np.float32)},
        optimizer=nn.optimizers.sgd(0.7),
        early_stopping=nn.early_stopping("loss", patience=9),
    )
    assert result.history["loss"][1] == 0.0  # and its gradient is NaN
    assert result.best_epoch == 0
    assert np.isfinite(result.params["w"]).all()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_an_infinite_value_is_never_the_best(mode):
    wanted = nn.early_stopping("loss", mode=mode)
    values = np.array([np.nan, -np.inf, np.inf, 1.0], np.float32)
    for is_first in (True, False):
        better = is_better(wanted, values, 0.0 if mode == "max" else 2.0, is_first)
        np.testing.assert_array_equal(better, [False, False, False, True])


@quick_first(2)
@pytest.mark.parametrize(("train", "patience", "min_delta"), list(trainings()))
def test_it_ends_at_the_right_epoch_with_the_params_of_the_best(
    train, patience, min_delta, untouched
):
    plain, params_of_epoch = untouched
    best, epochs = by_hand(plain.history["val_loss"], patience, min_delta)
    stopping = nn.early_stopping(patience=patience, min_delta=min_delta)
    if train == "fit":
        result = fitted(LINEAR, validation=VALIDATION, early_stopping=stopping, **ROUGH)
        params, history = result.params, result.history
        assert result.reason == ("early_stopping" if epochs < EPOCHS else "epochs")
        assert len(history["loss"]) == epochs
    else:
        params, _, history = run(LINEAR, validation=VALIDATION, early_stopping=stopping, **ROUGH)
        assert history.pop("epochs") == epochs
        for rows in history.values():
            assert (rows[epochs:] == rows[epochs - 1]).all()
    assert_close(params, params_of_epoch[best])
    for name, values in plain.history.items():
        np.testing.assert_allclose(history[name][:epochs], values[:epochs], rtol=1e-5)


def test_larger_may_be_better(untouched):
    plain, params_of_epoch = untouched
    worst = int(np.argmax(plain.history["val_loss"]))
    stopping = nn.early_stopping("val_loss", mode="max", patience=EPOCHS)
    result = fitted(LINEAR, validation=VALIDATION, early_stopping=stopping, **ROUGH)
    assert_close(result.params, params_of_epoch[worst])


def test_each_of_many_networks_stops_at_its_own_time():
    rates = jnp.array([0.0, 1.0, 100.0])
    options = settings(
        optimizer=nn.optimizers.sgd, early_stopping=nn.early_stopping("loss", patience=2), epochs=6
    )
    train = nn.training_run(LINEAR, **options)
    params, _, history = jax.jit(jax.vmap(train, in_axes=(None, None, 0)))(KEY, DATA, rates)
    assert history["epochs"].tolist()[:2] == [3, 6]
    for i in range(3):
        alone = jax.jit(train)(KEY, DATA, rates[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], (params, history)), alone[::2])


def test_a_metric_knows_its_direction():
    """It returned the worst epoch, the one of the least accuracy."""
    options = {"metrics": {"right": ACCURACY}, "validation": VALIDATION, **ROUGH}
    stopping = nn.early_stopping("val_right", patience=EPOCHS)
    result = fitted(LINEAR, early_stopping=stopping, **options)
    values = result.history["val_right"]
    assert values.min() < values.max()
    assert result.best_value == values.max()
    assert result.best_epoch == values.argmax()


def test_the_best_epoch_and_its_value_are_told(untouched, tmp_path):
    stopping = nn.early_stopping(patience=1)
    result = fitted(LINEAR, validation=VALIDATION, early_stopping=stopping, **ROUGH)
    assert result.best_epoch == result.history["val_loss"].argmin()
    assert result.best_value == result.history["val_loss"].min()
    assert untouched[0].best_epoch is None
    kept = fitted(LINEAR, validation=VALIDATION, checkpoint=tmp_path, **ROUGH)
    assert kept.best_epoch == kept.history["val_loss"].argmin()


@quick_first(1)
@pytest.mark.parametrize("name", [pytest.param("gradient_norm", marks=pytest.mark.slow), "own"])
def test_what_has_no_direction_must_be_told_it(name):
    own = nn.metrics.Metric(*nn.metrics.accuracy()[:3])
    options = {"metrics": {"own": own}, "record": ["gradient_norm"]}
    with pytest.raises(ValueError, match=r"whether less or more is better, .* mode='min'"):
        fitted(LINEAR, early_stopping=nn.early_stopping(name), **options)
    fitted(LINEAR, early_stopping=nn.early_stopping(name, mode="max"), **options)


@pytest.mark.parametrize("train", [fitted, pytest.param(run, marks=pytest.mark.slow)])
def test_a_sound_run_has_no_nan_and_no_infinity(train):
    options = {"early_stopping": nn.early_stopping("loss", patience=1), "on_nonfinite": "skip"}
    jax.config.update("jax_debug_nans", True)
    jax.config.update("jax_debug_infs", True)
    try:
        train(LINEAR, members=2, validation=VALIDATION, metrics={"r": ACCURACY}, **options, **ROUGH)
    finally:
        jax.config.update("jax_debug_nans", False)
        jax.config.update("jax_debug_infs", False)


def test_nan_is_no_improvement():
    bad = np.full_like(VALIDATION[0], np.nan)
    result = fitted(
        LINEAR, validation=(bad, VALIDATION[1]), early_stopping=nn.early_stopping(patience=2)
    )
    assert result.reason == "early_stopping"
    assert len(result.history["loss"]) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience is 0, expected at least 1"),
        ({"patience": 1.5}, TypeError, "patience is 1.5, expected an integer"),
        ({"min_delta": -1.0}, ValueError, "min_delta is -1.0, expected at least 0"),
        ({"mode": "low"}, ValueError, "mode is 'low', expected 'min', 'max' or None"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=f"early_stopping: {message}"):
        nn.early_stopping(**arguments)


def test_the_metrics_that_there_are_are_named():
    with pytest.raises(ValueError, match=r"'val_accuracy', expected .*: \['loss', 'val_loss'\]"):
        fitted(validation=VALIDATION, early_stopping=nn.early_stopping("val_accuracy"))
    with pytest.raises(TypeError, match=r"early_stopping is 5, expected nn.early_stopping\(...\)"):
        fitted(early_stopping=5)
