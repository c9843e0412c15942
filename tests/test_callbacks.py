"""What `fit` calls while it trains, and what it shows."""

import csv
import io
import sys

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.host import clock, progress

X = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
DATA = (X, X**2)
MODEL = nn.dense(1)
SGD = nn.optimizers.sgd(0.1)


def fitted(**changes):
    options = {"loss": nn.losses.squared_error, "optimizer": SGD, "epochs": 4, "batch_size": 4}
    options |= {"shuffle": False, "validation": DATA, "progress": False}
    return nn.fit(MODEL, DATA, key=jax.random.key(0), **(options | changes))


def test_events_tell_where_training_stands(monkeypatch):
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 0.0)
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
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 0.0)
    out = io.StringIO()
    fitted(callbacks=[progress.bar(12, out)])
    first, *_, last = out.getvalue().strip().split("\r")
    assert "compiling" in first
    for part in ("epoch 4/4", "loss 0.", "val_loss 0.", "examples/s"):
        assert part in last


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install tqdm"):
        fitted(progress="bar")


def test_an_unknown_progress_is_refused():
    with pytest.raises(ValueError, match="progress is 'none'"):
        fitted(progress="none")


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_as_a_table(tmp_path):
    result = fitted(callbacks=[nn.callbacks.csv_log(tmp_path / "log.csv")])
    rows = rows_of(tmp_path / "log.csv")
    assert list(rows[0]) == ["epoch", "step", "seconds", "loss", "val_loss"]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == result.history["loss"].tolist()


def test_a_log_goes_on_where_its_checkpoint_was(tmp_path):
    def log():
        return nn.callbacks.csv_log(tmp_path / "log.csv")

    whole = fitted()
    fitted(callbacks=[log()], checkpoint=tmp_path, epochs=2)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("3,9,0.0,killed after the checkpoint,\n")
    fitted(callbacks=[log()], checkpoint=tmp_path, resume=True)
    rows = rows_of(tmp_path / "log.csv")
    assert [float(row["loss"]) for row in rows] == whole.history["loss"].tolist()


def test_a_log_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    result = fitted(callbacks=[nn.callbacks.tensorboard_log(tmp_path / "run")])
    (file,) = (tmp_path / "run").iterdir()
    seen = scalars(file)
    for name, values in result.history.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-6)
    assert len(seen["running_loss"]) >= 4


def scalars(file):
    """The values by name in a file of events."""
    from tensorboardX.proto.event_pb2 import Event

    data, values = file.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            values.setdefault(value.tag, []).append(value.simple_value)
        data = data[16 + length :]
    return values


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        nn.callbacks.tensorboard_log("run")
