"""What went wrong in training, here or in other libraries, and does not any more."""

import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.data import arrays
from tests.parameters import each_value_once
from tests.training_cases import DATA, KEY, LABELS, LINEAR, VALIDATION, X, assert_close, fitted, run

SOFTMAX = nn.losses.softmax_cross_entropy


# Batches in a list


@pytest.mark.parametrize(
    "number", [2, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def test_a_list_of_batches_is_one_of_batches(number):
    """Of two or three, it was taken for a data set of as many parts."""
    batches = [(X[i : i + 5], LABELS[i : i + 5]) for i in range(0, 5 * number, 5)]
    listed = fitted(LINEAR, batches, validation=batches)
    iterated = fitted(LINEAR, lambda: iter(batches), validation=VALIDATION)
    assert_close(listed.params, iterated.params)
    value = nn.evaluate(LINEAR, listed.params, {}, batches, loss=SOFTMAX)["loss"]
    whole = (X[: 5 * number], LABELS[: 5 * number])
    np.testing.assert_allclose(
        value, nn.evaluate(LINEAR, listed.params, {}, whole, loss=SOFTMAX)["loss"], rtol=1e-6
    )


# Integers that the device's dtype does not hold

WIDE = {
    "another class": np.int64(2**32 + 1),
    "the class 0": np.uint64(2**63),
    "negative": np.int64(-(2**31) - 1),
}


def batches_of(x, y):
    return lambda: iter([(x[:11], y[:11]), (x[11:], y[11:])])


def memmaps_of(x, y, directory):
    mapped = []
    for name, array in (("x", x), ("y", y)):
        file = np.memmap(directory / name, array.dtype, "w+", shape=array.shape)
        file[:] = array
        mapped.append(file)
    return tuple(mapped)


@each_value_once
@pytest.mark.parametrize("value", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("source", ["arrays", "batches", "memmap", "shuffled memmap"])
def test_an_integer_that_would_become_another_is_refused(source, value, tmp_path):
    y = LABELS.astype(value.dtype)
    y[20] = value
    data = X, y
    if source == "batches":
        data = batches_of(*data)
    elif "memmap" in source:
        data = memmaps_of(*data, tmp_path)
    with pytest.raises(ValueError, match=rf"at '1' has the integer {value} at \(\d+,\)"):
        fitted(LINEAR, data, batch_size=8, shuffle=source == "shuffled memmap")


def test_ids_are_looked_at_as_labels_are():
    ids = np.full((4, 2), 3, np.int64)
    ids[1, 1] += 2**32
    for function in (
        lambda: fitted(
            nn.embedding(5, 3), (ids, np.zeros((4, 2, 3))), loss=nn.losses.squared_error
        ),
        lambda: nn.predict(nn.embedding(5, 3), {"embedding": jnp.ones((5, 3))}, {}, ids),
        lambda: nn.evaluate(LINEAR, {}, {}, (X, np.full(22, 2**40)), loss=SOFTMAX),
    ):
        with pytest.raises(ValueError, match=r"has the integer \d+ at \("):
            function()


def test_wide_integers_that_fit_are_taken():
    narrow, wide = (fitted(LINEAR, (X, LABELS.astype(d))) for d in (np.int32, np.int64))
    assert_close(narrow.params, wide.params)


def test_a_masked_array_is_refused():
    masked = np.ma.masked_array(LABELS, LABELS == 0)
    for data in ((X, masked), batches_of(X, masked)):
        with pytest.raises(TypeError, match=r"masked array.*weights of 0"):
            fitted(LINEAR, data)


# Counts beyond 32 bits


def test_more_examples_than_32_bits_count_are_refused(monkeypatch):
    monkeypatch.setattr(arrays, "MOST_EXAMPLES", 21)
    for function in (fitted, run):
        with pytest.raises(ValueError, match="data has 22 examples, expected at most 21"):
            function(LINEAR, epochs=1)


def test_more_steps_than_32_bits_count_are_refused():
    for function in (fitted, run):
        with pytest.raises(ValueError, match="epochs is 1000000000 of 3 steps each"):
            function(LINEAR, epochs=10**9, batch_size=8)


# Callbacks


@pytest.mark.parametrize(
    ("result", "stops"),
    [
        (True, True),
        (np.True_, True),
        (jnp.asarray(True), True),
        (False, False),
        (None, False),
        (7, False),
        ("written", False),
        (np.ones(3), False),
    ],
)
def test_only_true_stops(result, stops):
    reason = fitted(LINEAR, callbacks=[lambda event: result]).reason
    assert reason == ("callback" if stops else "epochs")


# Standard error


class Odd:
    """A stream that can do nothing but write."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


class Broken(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream", [None, closed(), Odd(), Broken()], ids=["None", "closed", "odd", "broken"]
)
@pytest.mark.parametrize("progress", [None, False, True, "lines"])
def test_fit_runs_whatever_standard_error_is(stream, progress, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    options = {"loss": SOFTMAX, "optimizer": nn.optimizers.sgd(0.1), "key": KEY, "epochs": 1}
    assert nn.fit(LINEAR, DATA, progress=progress, **options).reason == "epochs"


# Complex parameters


def test_complex_parameters_go_downhill():
    """For |w - c|² the update is -2 rate (w - c), by hand; jax.grad gives its conjugate."""
    target, rate = np.array([0.5 - 1j, 2 + 0.5j]), 0.1
    w = np.array([1 + 2j, -1j])

    def loss_fn(params, state, batch, key):
        return jnp.sum(jnp.abs(params["w"] - target) ** 2), (state, {})

    start = {"w": jnp.asarray(w, jnp.complex64)}
    result = nn.fit(
        loss_fn,
        jnp.zeros((1, 1)),
        params=start,
        optimizer=nn.optimizers.sgd(rate),
        key=KEY,
        epochs=5,
        progress=False,
    )
    for _ in range(5):
        w = w - 2 * rate * (w - target)
    np.testing.assert_allclose(result.params["w"], w, rtol=1e-5)
    assert (np.diff(result.history["loss"]) < 0).all()


def test_a_complex_layer_learns_a_complex_map():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((64, 3)) + 1j * rng.standard_normal((64, 3))).astype(np.complex64)
    y = x @ np.array([[1 + 1j], [2j], [-1 + 0.5j]], np.complex64)

    def init(key, x):
        return {"kernel": jnp.zeros((3, 1), jnp.complex64)}

    def loss(predictions, y):
        return jnp.abs(predictions - y) ** 2

    layer = nn.pure(init, lambda params, x: x @ params["kernel"])
    result = fitted(layer, (x, y), loss=loss, optimizer=nn.optimizers.adam(0.1), epochs=200)
    assert result.history["loss"][-1] < 1e-3


# Messages: the argument, what came, and the call that would have been right

MISTAKES = {
    "a list of metrics": ({"metrics": ["accuracy"]}, TypeError, r"metrics is \['accuracy'\].*dict"),
    "a string of metrics": ({"metrics": "abc"}, TypeError, r"metrics is 'abc'.*nn.metrics"),
    "a metric not called": (
        {"metrics": {"a": nn.metrics.accuracy}},
        TypeError,
        r"call it, accuracy",
    ),
    "a callback alone": (
        {"callbacks": print},
        TypeError,
        r"callbacks is print, .*such as \[print\]",
    ),
    "a callback not called": (
        {"callbacks": [nn.callbacks.csv_log]},
        TypeError,
        r"callbacks has csv_log, .*: call it, csv_log",
    ),
    "a string of callbacks": ({"callbacks": "abc"}, TypeError, r"callbacks is 'abc'.*a sequence"),
    "a function for a metric": (
        {"metrics": {"a": SOFTMAX}},
        TypeError,
        r"\['a'\] is softmax_cross_entropy, .*nn\.metrics\.mean\(function\)",
    ),
    "stopping not called": (
        {"early_stopping": nn.early_stopping},
        TypeError,
        r"early_stopping is early_stopping, expected nn\.early_stopping\(",
    ),
    "a state without params": ({"state": {}}, ValueError, "state is given and params is None"),
    "a list of numbers alone": ({"data": [[1.0, 2.0]]}, TypeError, "of numbers need np.asarray"),
    "an optimizer not called": ({"optimizer": nn.optimizers.adam}, TypeError, r"call it, adam"),
    "a loss not called": ({"loss": nn.losses.ignoring}, TypeError, r"call it, ignoring"),
    "a penalty not called": ({"regularizer": nn.regularizers.l2}, TypeError, r"call it, l2"),
    "a number for a penalty": ({"regularizer": 1e-4}, TypeError, r"regularizer is 0.0001"),
    "lists of numbers": ({"data": ([[1.0, 2.0]], [0])}, ValueError, r"at '0/0/0'.*np.asarray"),
    "labels in words": ({"data": (X, np.array(["a"] * 22))}, TypeError, r"at '1'.*np\.unique"),
    "stopping without validation": (
        {"early_stopping": nn.early_stopping("val_loss")},
        ValueError,
        r"'val_loss' and validation is None, expected validation=\(x, y\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_remedy(mistake):
    changes, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        fitted(LINEAR, **changes)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.full(22, 2**32 + 1), ValueError, "data at '1' has the integer 4294967297"),
        (np.array(["a"] * 22), TypeError, "data has the dtype <U1 at '1'"),
    ],
)
def test_a_run_that_is_not_compiled_looks_at_its_data(y, error, message, key):
    train = nn.training_run(LINEAR, loss=SOFTMAX, optimizer=nn.optimizers.sgd(0.1), epochs=1)
    with pytest.raises(error, match=f"training_run: {message}"):
        train(key, (X, y))


def test_a_run_that_stops_by_validation_says_that_there_is_none(key):
    options = {"loss": SOFTMAX, "optimizer": nn.optimizers.sgd(0.1), "epochs": 1}
    train = nn.training_run(LINEAR, early_stopping=nn.early_stopping(), **options)
    with pytest.raises(ValueError, match=r"told by 'val_loss', .*needs a validation set"):
        train(key, (X, LABELS))


# Labels and ids outside of what they index, where the early check does not see them

IDS = np.random.default_rng(0).integers(0, 5, (22, 4))
TOKENS = nn.serial(nn.embedding(5, 6), nn.dense(3))


def own_loss(predictions, y):
    return SOFTMAX(predictions, y)


def outside(array, value):
    array = np.array(array)
    array[(13, 2)[: array.ndim]] = value
    return array


@each_value_once
@pytest.mark.parametrize("source", ["arrays", "batches", "memmap"])
@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (LINEAR, X, outside(LABELS, 7), r"at '1' has the integer 7 .*expected 0 to 2, as softmax"),
        (LINEAR, X, outside(LABELS, -1), r"at '1' has the integer -1 .*expected 0 to 2"),
        (TOKENS, outside(IDS, 5), IDS % 3, r"at '0' has the integer 5 .*expected 0 to 4, as embed"),
    ],
    ids=["label", "negative label", "id"],
)
def test_what_made_a_loss_nan_is_named(source, model, x, y, message, tmp_path):
    data = x.astype(x.dtype if x.dtype == np.float32 else np.int32), y.astype(np.int32)
    if source == "batches":
        data = batches_of(*data)
    elif source == "memmap":
        data = memmaps_of(*data, tmp_path)
    with pytest.raises(ValueError, match=message):
        fitted(model, data, loss=own_loss, batch_size=11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "members"),
    [
        ("arrays", 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("arrays", None), ("batches", None), ("batches", 2), ("memmap", None))
        ),
    ],
)
def test_what_made_the_loss_of_a_measured_set_nan_is_named(source, members, tmp_path):
    sound = jnp.asarray(IDS), jnp.asarray(IDS[:, 0] % 3)
    wrong = IDS.astype(np.int32), outside(IDS[:, 0] % 3, 7).astype(np.int32)
    if source == "batches":
        wrong = batches_of(*wrong)
    elif source == "memmap":
        wrong = memmaps_of(*wrong, tmp_path)
    model = nn.serial(TOKENS, lambda x: x.mean(1))
    message = r"at '1' has the integer 7 at \(\d+,\), expected 0 to 2, as softmax"
    trained = fitted(model, sound, loss=own_loss, members=members)
    options = {"loss": own_loss, "members": members}
    size = None if source == "batches" else 5
    with pytest.raises(ValueError, match=f"^evaluate: .*{message}"):
        nn.evaluate(model, trained.params, trained.state, wrong, batch_size=size, **options)
    with pytest.raises(ValueError, match=f"^fit: .*validation.*{message}"):
        fitted(model, sound, validation=wrong, **options)
    if members and source == "arrays":
        with pytest.raises(ValueError, match=f"^fit: data.*{message}"):
            fitted(model, wrong, **options)


def test_an_id_that_makes_a_prediction_nan_is_named():
    params, state = TOKENS.init(KEY, jnp.asarray(IDS))
    wrong = outside(IDS, 5).astype(np.int32)
    for x in (wrong, lambda: iter([wrong[:11], wrong[11:]])):
        message = r"^predict: .*x[^']* has the integer 5 at \(2, 2\), expected 0 to 4, as embed"
        with pytest.raises(ValueError, match=message):
            nn.predict(TOKENS, params, state, x, batch_size=11 if x is wrong else None)
    traced = jax.jit(lambda x: nn.predict(TOKENS, params, state, x))(wrong)
    assert np.isnan(traced[13, 2]).all()
    lost = jnp.full((5, 6), np.nan)
    assert np.isnan(nn.predict(nn.embedding(5, 6), {"embedding": lost}, {}, IDS)).all()


def test_a_loss_that_is_nan_for_another_reason_stays_so():
    nan = fitted(LINEAR, (np.where(X > 1, np.nan, X), LABELS), loss=own_loss)
    assert np.isnan(nan.history["loss"]).all()
