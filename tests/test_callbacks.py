"""What `fit` calls while it trains, and what it shows."""

import io
import sys

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.training import host, progress

X = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
DATA = (X, X**2)
MODEL = nn.serial(nn.dense(4), nn.tanh, nn.dense(1))
SGD = nn.optimizers.sgd(0.1)


def fitted(**changes):
    options = {"loss": nn.losses.squared_error, "optimizer": SGD, "epochs": 4, "batch_size": 4}
    options |= {"validation": DATA, "progress": False}
    return nn.fit(MODEL, DATA, key=jax.random.key(0), **(options | changes))


def test_events_tell_where_training_stands(monkeypatch):
    monkeypatch.setattr(host, "SECONDS_PER_CHUNK", 0.0)
    chunks, epochs, ends = [], [], []
    result = fitted(callbacks=[nn.callbacks.Callback(epochs.append, chunks.append, ends.append)])
    assert [event.step for event in chunks] == list(range(1, 13))
    assert [event.epoch for event in chunks] == [i // 3 for i in range(1, 13)]
    assert [event.examples for event in chunks[:4]] == [4, 8, 10, 14]
    assert [event.step for event in epochs] == [3, 6, 9, 12]
    assert [event.metrics["val_loss"] for event in epochs] == result.history["val_loss"].tolist()
    assert chunks[0].metrics == {}
    assert chunks[0].running_loss > 0
    assert (chunks[0].epochs, chunks[0].steps) == (4, 12)
    (end,) = ends
    assert (end.epoch, end.running_loss) == (4, result.history["loss"][-1])
    seconds = [event.seconds for event in chunks]
    assert seconds == sorted(seconds)


def test_parameters_of_an_epoch_event_are_those_after_that_epoch():
    seen = []
    fitted(callbacks=[lambda event: seen.append(jax.tree.map(np.array, event.params))])
    shorter = fitted(epochs=2)
    jax.tree.map(np.testing.assert_array_equal, seen[1], shorter.params)


def test_a_true_result_stops_training():
    result = fitted(callbacks=[lambda event: event.epoch == 2])
    assert result.history["loss"].shape == (2,)
    full = fitted()
    np.testing.assert_array_equal(result.history["loss"], full.history["loss"][:2])


def test_early_stopping_waits_for_its_patience():
    stop = nn.callbacks.early_stopping("loss", patience=3)
    result = fitted(optimizer=nn.optimizers.sgd(0.0), shuffle=False, epochs=10, callbacks=[stop])
    assert len(result.history["loss"]) == 4  # the first is the best, then three without better
    improving = fitted(epochs=10, callbacks=[nn.callbacks.early_stopping(patience=3)])
    assert len(improving.history["loss"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience is 0, expected at least 1"),
        ({"min_delta": -1.0}, "min_delta is -1.0, expected at least 0"),
        ({"mode": "low"}, "mode is 'low', expected 'min' or 'max'"),
    ],
)
def test_bad_input_of_early_stopping(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.callbacks.early_stopping(**arguments)


def test_early_stopping_names_the_metrics_that_there_are():
    with pytest.raises(ValueError, match=r"'val_accuracy', expected one of \['loss', 'val_loss'\]"):
        fitted(callbacks=[nn.callbacks.early_stopping("val_accuracy")])


def test_lines_show_epoch_loss_validation_and_throughput(capsys):
    fitted(progress="lines")
    line = capsys.readouterr().err.splitlines()[-1]
    for part in ("epoch 4/4", "step 12/12", "loss 0.", "val_loss 0.", "examples/s"):
        assert part in line


def test_without_a_terminal_nothing_is_shown_unless_asked(capsys):
    fitted(progress=None)
    assert capsys.readouterr().err == ""
    fitted(progress=True)
    assert "epoch 4/4" in capsys.readouterr().err


def test_the_bar_counts_steps(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(host, "SECONDS_PER_CHUNK", 0.0)
    out = io.StringIO()
    fitted(callbacks=[progress.bar(12, out)])
    first, *_, last = out.getvalue().strip().split("\r")
    assert "compiling" in first
    for part in ("epoch 4/4", "loss 0.", "val_loss 0.", "examples/s"):
        assert part in last


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxnn\[progress\]'"):
        fitted(progress="bar")


def test_an_unknown_progress_is_refused():
    with pytest.raises(ValueError, match="progress is 'none'"):
        fitted(progress="none")
