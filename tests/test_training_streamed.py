"""Data that come in batches: the same numbers as from memory, and nothing left running."""

import threading

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.training_cases import (
    ACCURACY,
    DATA,
    KEY,
    LABELS,
    LINEAR,
    NOISY,
    VALIDATION,
    X,
    assert_close,
    assert_equal,
    fitted,
)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def mapped(tmp_path):
    """The data as files that are mapped into memory."""
    arrays = []
    for name, array in (("x", X), ("y", LABELS)):
        np.save(tmp_path / f"{name}.npy", array)
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    return tuple(arrays)


def batches(epoch):
    """Each epoch in another order."""
    order = np.random.default_rng(epoch).permutation(22)
    for i in range(0, 22, 8):
        yield X[order[i : i + 8]], LABELS[order[i : i + 8]]


@pytest.mark.parametrize(
    ("model", "shuffle"),
    [
        (LINEAR, True),
        pytest.param(NOISY, True, marks=pytest.mark.slow),
        pytest.param(NOISY, False, marks=pytest.mark.slow),
    ],
    ids=["linear-shuffled", "noisy-shuffled", "noisy-in order"],
)
def test_mapped_files_give_the_numbers_of_memory(model, shuffle, mapped):
    size = 11 if model is LINEAR else 8
    options = {"batch_size": size, "shuffle": shuffle, "metrics": {"right": ACCURACY}}
    ours = fitted(model, mapped, validation=VALIDATION, **options)
    theirs = fitted(model, validation=VALIDATION, **options)
    assert_close(
        (ours.params, ours.state, ours.history), (theirs.params, theirs.state, theirs.history)
    )


@pytest.mark.slow
def test_validation_may_be_streamed_and_data_not(mapped):
    """Also metrics that need all examples at once, since mapped files tell how many there are."""
    binary = (LABELS > 0).astype(np.int32)
    model = nn.serial(nn.dense(1), lambda x: x[:, 0])
    options = {
        "loss": nn.losses.sigmoid_binary_cross_entropy,
        "batch_size": 11,
        "metrics": {"auc": nn.metrics.roc_auc()},
    }
    resident = fitted(model, (X, binary), validation=(X, binary), **options)
    x, _ = mapped
    streamed = fitted(model, (X, binary), validation=(x, binary), **options)
    assert_close((streamed.params, streamed.history), (resident.params, resident.history))


def test_a_function_of_the_epoch(monkeypatch):
    seen = []
    result = fitted(LINEAR, batches, callbacks=[seen.append], validation=lambda: batches(0))
    assert [event.epoch for event in seen] == [1, 2, 3]
    assert [event.step for event in seen] == [3, 6, 9]
    assert [event.examples for event in seen] == [22, 44, 66]
    assert seen[0].steps is None
    assert np.isfinite(result.history["val_loss"]).all()
    again = fitted(LINEAR, batches, validation=lambda: batches(0))
    assert_equal((result.params, result.history), (again.params, again.history))


def test_a_loader_of_torch():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    ours = fitted(data=loader, validation=loader)
    theirs = fitted(batch_size=8, shuffle=False, validation=DATA)
    assert_close((ours.params, ours.history), (theirs.params, theirs.history))


@pytest.mark.slow
def test_a_loss_function_takes_batches_of_any_structure():
    def dictionaries(epoch):
        for x, y in batches(epoch):
            yield {"x": x, "deep": [y]}

    def loss_fn(params, state, batch, key):
        logits, _ = LINEAR.apply(params, {}, batch["x"])
        loss = nn.losses.softmax_cross_entropy(logits, batch["deep"][0]).mean()
        return loss, (state, {})

    params, _ = LINEAR.init(jax.random.key(3), X)
    ours = fitted(loss_fn, dictionaries, loss=None, params=params)
    theirs = fitted(LINEAR, batches, params=params)
    assert_close((ours.params, ours.history), (theirs.params, theirs.history))


def test_errors_of_the_source_come_out(tmp_path):
    def broken(epoch):
        yield X[:8], LABELS[:8]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fitted(LINEAR, broken)


def test_a_callback_that_raises_leaves_no_thread():
    def stop(event):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fitted(LINEAR, batches, callbacks=[nn.callbacks.Callback(on_step_chunk=stop)])


def test_what_a_batch_has_to_be_is_said():
    with pytest.raises(
        TypeError, match=r"fit: data is an array of shape \(1, 3\), expected \(x, y\)"
    ):
        fitted(data=lambda epoch: iter([X[:8]]))
    first = nn.serial(nn.dense(1), lambda x: x[:, 0])
    auc, loss = {"auc": nn.metrics.roc_auc()}, nn.losses.sigmoid_binary_cross_entropy
    with pytest.raises(ValueError, match="metrics has one that needs all examples at once"):
        fitted(first, data=batches, loss=loss, metrics=auc)


def test_evaluating_and_predicting_by_batches(mapped):
    variables = jax.jit(NOISY.init)(KEY, X)
    options = {"loss": nn.losses.softmax_cross_entropy, "metrics": {"right": ACCURACY}}
    whole = nn.evaluate(NOISY, *variables, DATA, **options)
    for data in (mapped, lambda: batches(0)):
        got = nn.evaluate(NOISY, *variables, data, batch_size=8, **options)
        assert got.keys() == whole.keys()
        for name in whole:
            np.testing.assert_allclose(got[name], whole[name], rtol=1e-5)
    expected = nn.predict(NOISY, *variables, X)
    for x in (mapped[0], lambda: iter([X[:8], X[8:16], X[16:]])):
        got = nn.predict(NOISY, *variables, x, batch_size=8)
        assert isinstance(got, np.ndarray)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
