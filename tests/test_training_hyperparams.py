"""`fit` with hyperparameters: the numbers of constants, by one program for all of them."""

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import counted_compilations
from tests.training_cases import (
    DATA,
    LINEAR,
    SGD,
    VALIDATION,
    X,
    assert_close,
    assert_equal,
    fitted,
)

HYPERPARAMS = {"rate": 0.2, "drop": np.float32(0.25)}


def model(hyperparams):
    return nn.serial(nn.dense(6), nn.dropout(hyperparams["drop"]), nn.dense(3))


def optimizer(hyperparams):
    return nn.optimizers.sgd(lambda count: hyperparams["rate"] / (count.astype(float) + 1))


OF_ALL = {
    "batch_size": 8,
    "validation": VALIDATION,
    "record": ["learning_rate"],
    "early_stopping": nn.early_stopping(),
    "on_nonfinite": "skip",
    "members": 2,
}


def test_the_numbers_are_those_of_constants_and_others_compile_nothing():
    options = OF_ALL | {"model": model, "optimizer": optimizer}
    result = fitted(hyperparams=HYPERPARAMS, **options)
    constants = OF_ALL | {"model": model(HYPERPARAMS), "optimizer": optimizer(HYPERPARAMS)}
    assert_close(result[:3], fitted(**constants)[:3])
    with counted_compilations() as compiled:
        other = fitted(hyperparams={"drop": np.float32(0), "rate": 0.1}, **options)
    assert compiled == []
    rates = (result.history["learning_rate"], other.history["learning_rate"])
    np.testing.assert_allclose(rates[0], 2 * rates[1], rtol=1e-6)


@pytest.mark.slow
def test_batches_that_are_read_and_a_loss_function():
    batches = [(X[:11], X[:11, :2]), (X[11:], X[11:, :2])]
    params, _ = nn.dense(2).init(jax.random.key(0), X)

    def loss_fn(params, state, batch, key):
        x, y = batch
        values = nn.losses.squared_error(nn.dense(2).apply(params, state, x)[0], y)
        return values.mean(), (state, {})

    given = {"loss": None, "params": params, "validation": batches}
    rates = {name: HYPERPARAMS[name] for name in ["rate"]}
    result = fitted(loss_fn, batches, optimizer=optimizer, hyperparams=rates, **given)
    expected = fitted(loss_fn, batches, optimizer=optimizer(rates), **given)
    assert_close(result[:3], expected[:3])
    assert not params["kernel"].is_deleted()


def test_what_was_given_stays_the_callers_and_no_tracer_leaks():
    hyperparams = {"rate": jax.numpy.float32(0.1)}
    with jax.checking_leaks():
        fitted(LINEAR, optimizer=optimizer, hyperparams=hyperparams, epochs=1)
    assert not hyperparams["rate"].is_deleted()


def test_functions_may_take_their_names_out():
    def own_optimizer(hyperparams):
        return nn.optimizers.sgd(hyperparams.pop("rate"), **hyperparams)

    def own_model(hyperparams):
        hyperparams.clear()
        return LINEAR

    hyperparams = {"rate": 0.1, "momentum": 0.5}
    result = fitted(own_model, optimizer=own_optimizer, hyperparams=hyperparams, epochs=1)
    constant = fitted(LINEAR, optimizer=nn.optimizers.sgd(0.1, momentum=0.5), epochs=1)
    assert_close(result.params, constant.params)
    assert hyperparams == {"rate": 0.1, "momentum": 0.5}


def test_a_run_goes_on_with_its_own_hyperparams_or_with_others_if_it_may(tmp_path):
    options = {"model": LINEAR, "optimizer": optimizer}
    first, second = {"rate": 0.2}, {"rate": 0.1}
    fitted(checkpoint=tmp_path, epochs=1, hyperparams=first, **options)
    whole = fitted(epochs=2, hyperparams=first, **options)
    again = fitted(checkpoint=tmp_path, resume=True, epochs=2, hyperparams=first, **options)
    assert_equal((again.params, again.history), (whole.params, whole.history))
    told = r"a run with hyperparams {rate: 0.2}, expected {rate: 0.1}, as of this one"
    with pytest.raises(ValueError, match=told):
        fitted(checkpoint=tmp_path, resume=True, epochs=3, hyperparams=second, **options)
    changed = options | {"checkpoint": tmp_path, "resume": "changed", "record": ["learning_rate"]}
    with pytest.warns(RuntimeWarning, match=f"{told}|record"):
        result = fitted(epochs=3, hyperparams=second, **changed)
    np.testing.assert_allclose(result.history["learning_rate"][-1], 0.1 / 3, rtol=1e-6)


BAD = {
    "no function": (
        {"hyperparams": {"rate": 0.1}},
        ValueError,
        "hyperparams has 'rate' and neither model nor optimizer is a function",
    ),
    "no dict": ({"hyperparams": 0.1, "optimizer": optimizer}, TypeError, "hyperparams is 0.1"),
    "no names and no function": (
        {"hyperparams": {}},
        ValueError,
        "hyperparams has no names and neither model nor optimizer is a function",
    ),
    "no arrays": (
        {"hyperparams": {"rate": "fast"}, "optimizer": optimizer},
        TypeError,
        "hyperparams has 'fast' at 'rate', expected a dict of arrays by name",
    ),
    "no strings": (
        {"hyperparams": {"rate": 0.1, 0: 0.2}, "optimizer": optimizer},
        TypeError,
        "hyperparams has the name 0, expected a dict of arrays by name",
    ),
    "too wide": (
        {"hyperparams": {"rate": np.int64(2**40)}, "optimizer": optimizer},
        ValueError,
        r"hyperparams\['rate'\] has the integer 1099511627776",
    ),
    "out of range": (
        {"hyperparams": {"rate": -1.0}, "optimizer": lambda h: nn.optimizers.sgd(h["rate"])},
        ValueError,
        "learning_rate is -1.0, expected a finite number >= 0",
    ),
    "no optimizer": (
        {"hyperparams": {"rate": 0.1}, "optimizer": lambda h: h["rate"]},
        TypeError,
        "fit: optimizer is .*expected an Optimizer",
    ),
    "no hyperparams": ({"optimizer": lambda h: SGD}, TypeError, "optimizer is <function"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fitted(LINEAR, DATA, **changes)


@pytest.mark.parametrize("argument", ["model", "optimizer"])
@pytest.mark.parametrize("function", [lambda h: h["speed"], lambda h: nn.dense(h["rate"])])
def test_an_error_of_a_function_of_them_tells_what_it_was_called_with(argument, function):
    changes = {"model": LINEAR, "hyperparams": {"rate": 1, "decay": {"late": 0.1}}}
    with pytest.raises((KeyError, TypeError)) as caught:
        fitted(data=DATA, **changes | {argument: function})
    (note,) = (note for note in caught.value.__notes__ if "hyperparams" in note)
    told = f"in {argument}(hyperparams) of fit, where hyperparams has 'decay/late', 'rate': arrays"
    assert note.startswith(told)
