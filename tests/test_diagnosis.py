"""What is wrong with a set-up is named, nothing is said of healthy ones, and the cure helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._diagnosis.faults import FAULTS
from tests import diagnosis_cases as cases
from tests.diagnosis_cases import SQUARED, Case, O

BROKEN = cases.TUNING | cases.HELD_OUT
HEALTHY = cases.HEALTHY_TUNING | cases.HEALTHY_HELD_OUT


def diagnosed(case, **options):
    return nn.diagnose(
        *(case.model, case.data),
        loss=case.loss,
        optimizer=case.optimizer,
        key=jax.random.key(0),
        batch_size=case.batch_size,
        **options,
    )


def names(diagnosis):
    return [found.name for found in diagnosis.findings]


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set_up_has_its_fault_named_and_the_cure_mends_it(name):
    fault, broken, cured = BROKEN[name]
    diagnosis = diagnosed(broken())
    assert names(diagnosis)[0] == fault
    assert diagnosis.findings[0].cure in str(diagnosis).replace("\n  ", " ")
    assert fault not in names(diagnosed(cured()))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_set_up_is_not_accused(name):
    assert names(diagnosed(HEALTHY[name]())) == []


def test_each_fault_has_two_broken_set_ups_one_of_them_held_out():
    of_curves = {"overfitting", "underfitting", "plateau", "nonfinite"}
    for group in (cases.TUNING, cases.HELD_OUT):
        assert {case.fault for case in group.values()} == FAULTS.keys() - of_curves
    assert len(BROKEN) >= 24
    assert len(HEALTHY) >= 12
    for fault in FAULTS.values():
        assert FAULTS.keys() > set(fault.explains)


# One small set-up, of which all is compiled once

X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X[:, :1] - X[:, 1:2]
SMALL = Case(nn.serial(nn.dense(4), nn.tanh, nn.dense(1)), (X, Y), SQUARED, O.sgd(0.1), 16)


@pytest.fixture(scope="module")
def small():
    return diagnosed(SMALL, steps=20, history={"loss": [1.0, np.nan]})


def test_the_numbers_are_those_of_the_set_up(small):
    assert names(small) == ["nonfinite"]  # of the history alone
    assert list(small.layers["path"]) == ["0", "2"]
    chance = np.mean((Y - Y.mean()) ** 2)
    np.testing.assert_allclose(small.numbers["loss_of_best_constant"], chance, rtol=1e-3)
    losses = dict(zip(small.rates["multiple"], small.rates["loss"], strict=True))
    assert losses[1.0] < small.numbers["loss_at_start"]
    np.testing.assert_allclose(losses[0.001], small.numbers["loss_at_start"], rtol=0.05)
    assert min(losses, key=losses.get) == small.numbers["best_multiple"]


def test_the_report_has_the_finding_the_layers_and_the_rates(small):
    text = str(small)
    assert text.startswith("nonfinite (poor convergence)\n  Evidence: the loss is nan in epoch 1.")
    for word in ("Cure: look for NaN", "gradient_norm", "multiple", "loss_on_one_batch"):
        assert word in text
    assert str(nn.Diagnosis((), {}, {}, {})) == "No fault found."


def test_gradients_of_layers_are_those_of_numpy(small):
    """By hand for y = tanh(x A + a) B + b and the mean of squares."""
    from jaxnn._core.layer import child_key

    params, _ = SMALL.model.init(child_key(jax.random.key(0), "init"), X[:1])
    first, _, last = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    z = X @ first["kernel"] + first["bias"]
    h = np.tanh(z)
    y = h @ last["kernel"] + last["bias"]
    at_y = 2 * (y - Y) / len(Y)
    at_z = (1 - h**2) * (at_y @ last["kernel"].T)
    expected = [np.linalg.norm(at_z), np.linalg.norm(at_y)]
    np.testing.assert_allclose(small.layers["gradient_norm"], expected, rtol=1e-4)
    np.testing.assert_allclose(small.layers["std"], [z.std(), y.std()], rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": (X, Y[:5])}, ValueError, "data has arrays of different lengths"),
        ({"data": X}, TypeError, "data is"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"state": {}}, ValueError, "state is given and params is None"),
        ({"optimizer": 0.1}, TypeError, "optimizer"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    given = {
        "model": SMALL.model,
        "data": SMALL.data,
        "loss": SQUARED,
        "optimizer": SMALL.optimizer,
    }
    with pytest.raises(error, match=f"diagnose: .*{message}"):
        nn.diagnose(**given | {"key": jax.random.key(0)} | changes)


def test_data_that_are_not_finite_are_named_before_anything_else():
    x = X.copy()
    x[3, 1] = np.nan
    (found,) = diagnosed(SMALL._replace(data=(x, Y)), steps=20).findings
    assert (found.name, found.evidence) == ("nonfinite", "x has NaN or infinity")


# Curves

EPOCHS = np.arange(30)
FALLS = np.exp(-EPOCHS / 8)
CURVES = {
    "healthy": ({"loss": FALLS + 0.02, "val_loss": FALLS + 0.05}, []),
    "converged to noise": ({"loss": 0.5 + FALLS, "val_loss": 0.55 + FALLS}, []),
    "below zero": ({"loss": -3 + FALLS}, []),
    "too short to tell": ({"loss": [1.0, 1.0]}, []),
    "overfitting": ({"loss": FALLS, "val_loss": FALLS + 0.02 * EPOCHS + 0.3}, ["overfitting"]),
    "underfitting": ({"loss": 1 - EPOCHS / 1e3, "val_loss": 1 - EPOCHS / 1e3}, ["underfitting"]),
    "plateau": ({"loss": np.where(EPOCHS < 9, FALLS, 0.4 + 0.1 * (-1.0) ** EPOCHS)}, ["plateau"]),
    "rises": ({"loss": 1 + EPOCHS / 5}, ["rate_too_large"]),
    "infinite": ({"loss": np.where(EPOCHS < 9, FALLS, np.inf)}, ["nonfinite"]),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_tell_overfitting_underfitting_plateaus_and_divergence(name):
    history, expected = CURVES[name]
    assert names(nn.diagnose_history(history)) == expected


def fitted(model, data, optimizer, epochs, validation=None, **options):
    return nn.fit(
        *(model, data),
        optimizer=optimizer,
        key=jax.random.key(0),
        epochs=epochs,
        validation=validation,
        progress=False,
        **options,
    ).history


@pytest.mark.slow
def test_histories_of_fit_are_read_and_the_cures_help():
    (x, y), (xv, yv) = cases.curve(noise=1.0), cases.curve(noise=1.0, seed=30)
    few = x[:24], y[:24]
    large, small = cases.deep(2, width=64, out=1), cases.deep(1, width=4, out=1)
    options = {"loss": SQUARED, "validation": (xv, yv), "batch_size": 24}
    over = fitted(large, few, O.adam(1e-2), 200, **options)
    assert names(nn.diagnose_history(over)) == ["overfitting"]
    cured = fitted(
        large,
        few,
        O.adam(1e-2),
        200,
        early_stopping=nn.early_stopping("val_loss", patience=3),
        **options,
    )
    assert names(nn.diagnose_history(cured)) == []

    square = np.float32(np.sign(x[:, :1] * x[:, 1:2]))  # exclusive or: no line tells it
    options = {"loss": SQUARED, "batch_size": 64}
    under = fitted(
        nn.serial(nn.dense(1, kernel_init=nn.initializers.zeros)),
        (x, square),
        O.sgd(1e-2),
        30,
        **options,
    )
    assert names(nn.diagnose_history(under)) == ["underfitting"]
    assert names(nn.diagnose_history(fitted(large, (x, square), O.adam(3e-3), 60, **options))) == []

    noisy = {"loss": SQUARED, "batch_size": 4}
    bounces = fitted(small, (x, y), O.adam(0.3), 60, **noisy)
    assert names(nn.diagnose_history(bounces)) == ["plateau"]
    decayed = nn.schedules.cosine_decay_schedule(0.03, 60 * 48)
    assert names(nn.diagnose_history(fitted(small, (x, y), O.adam(decayed), 60, **noisy))) == []


def test_a_history_without_a_loss_for_each_epoch_is_refused():
    for history in ({}, {"loss": jnp.ones((3, 2))}):
        with pytest.raises(ValueError, match=r"diagnose_history: history\['loss'\] has shape"):
            nn.diagnose_history(history)
