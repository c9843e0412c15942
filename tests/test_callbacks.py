"""What `fit` calls while it trains, and what it shows."""

import csv
import io
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.progress import counted, form_of
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


def test_a_line_for_each_epoch_has_all_metrics(capsys):
    error = {"error": nn.metrics.mean_squared_error()}
    result = fitted(progress="epochs", epochs=2, metrics=error, record=["gradient_norm/*"])
    printed = capsys.readouterr().err.splitlines()
    for i, line in enumerate(printed):
        shown = " ".join(line.split()[4:]).partition(" examples/s")[0]
        for name in ("loss", "error", "val_loss", "val_error"):
            assert f"{name} {result.history[name][i]:.4g}" in shown
        assert line.startswith(f"epoch {i + 1}/2  step {3 * i + 3}/6  ")
        assert "gradient_norm" not in line
    assert len(printed) == 2


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


NAMES = [f"val_metric_{i}" for i in range(9)]


def event(step, seconds, seconds_compiling=40.0):
    """One of a run of 10 epochs of 10 steps with 4 examples each."""
    metrics = {"loss": 0.5, **dict.fromkeys(NAMES, 0.123456), "confusion": np.eye(2)}
    return nn.callbacks.Event(
        step // 10, 10, step, 100, 4 * step, seconds, seconds_compiling, metrics, 0.25, {}, {}
    )


def test_what_was_compiled_counts_in_no_rate_and_no_time_left():
    pace = progress.Pace()
    pace.tick(event(1, 50.0))
    assert pace.texts(event(1, 50.0)) == ["compiled in 40.0 s"]
    pace.tick(event(2, 52.0))
    assert pace.texts(event(2, 52.0)) == ["03:16 left", "2 examples/s"]  # 98 steps of 2 s
    pace.tick(event(3, 74.0, 60.0))  # 20 s to compile the smaller last batch
    assert pace.texts(event(3, 74.0, 60.0)) == ["03:14 left", "2 examples/s"]
    pace.tick(event(4, 76.0, 60.0))
    assert pace.texts(event(100, 76.0, 60.0)) == ["2 examples/s"]


def test_a_rate_forgets_what_was_long_ago():
    pace = progress.Pace()
    for step, seconds in [(0, 0.0), (10, 10.0), (20, 40.0)]:  # 1 s, then 3 s a step
        pace.tick(event(step, seconds, 0.0))
    mean = (0.5 * 10 + 30) / (0.5 * 10 + 10)
    assert pace.texts(event(20, 40.0))[0] == f"03:{80 * mean - 180:02.0f} left"


def test_a_clock_hears_what_its_thread_compiles():
    with clock.Clock() as ours:
        assert ours.seconds_compiling == 0
        jax.jit(lambda x: x + 1)(np.float32(1))
        heard = ours.seconds_compiling
        assert 0 < heard < ours.seconds
        thread = threading.Thread(target=lambda: jax.jit(lambda x: x + 2)(np.float32(1)))
        thread.start()
        thread.join()
        assert ours.seconds_compiling == heard
        ours._hear("/jax/core/compile/outer", 1000.0)  # which all of it is a part of
        assert ours.seconds_compiling == pytest.approx(1000)
    jax.jit(lambda x: x + 3)(np.float32(1))
    assert ours.seconds_compiling == pytest.approx(1000)


def test_metrics_that_are_no_more_beside_the_bar_stand_below(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(os, "get_terminal_size", lambda file: os.terminal_size((80, 24)))
    out = type("Terminal", (io.StringIO,), {"fileno": lambda self: 1})()
    shown = progress.bar(100, out)
    shown.on_step_chunk(event(10, 50.0))
    shown.on_end(event(10, 50.0))
    drawn = [line for line in re.split(r"[\r\n]", out.getvalue()) if line.strip()]
    first, *below = drawn[-4:]
    assert first.startswith("epoch 2/10 |##  ")
    assert "compiled in 40.0 s" in first
    assert "  ".join(below) == "  ".join(f"{name} 0.1235" for name in NAMES)
    assert all(len(line) < 80 for line in drawn[-4:])


def test_a_notebook_has_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    assert form_of("fit", None) is None
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    assert form_of("fit", None) == "bar"
    terminal = SimpleNamespace(get_ipython=lambda: SimpleNamespace(config={}))
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert form_of("fit", None) is None


def test_what_takes_longer_than_a_second_is_counted(monkeypatch, capsys):
    now = iter([0.0, 0.5, 1.5, 1.5, 2.0, 2.5, 2.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    pieces = counted("load", "lines", "abcd", 4, "files")
    assert list(pieces) == list("abcd")
    assert capsys.readouterr().err.splitlines() == ["load: 2 of 4 files", "load: 4 of 4 files"]


def test_what_comes_batch_by_batch_shows_how_many(monkeypatch, capsys):
    monkeypatch.setattr("jaxnn._core.progress.SECONDS_BETWEEN_LINES", 0.0)
    batches = [DATA, DATA]
    nn.evaluate(nn.identity, {}, {}, batches, loss=nn.losses.squared_error, progress="lines")
    nn.predict(nn.identity, {}, {}, lambda epoch: iter([X, X, X]), progress="lines")
    printed = capsys.readouterr().err.splitlines()
    assert printed[:2] == ["evaluate: 1 of 2 batches", "evaluate: 2 of 2 batches"]
    assert printed[2:] == ["predict: 1 batches", "predict: 2 batches", "predict: 3 batches"]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install tqdm"):
        fitted(progress="bar")


def test_an_unknown_progress_is_refused():
    with pytest.raises(ValueError, match="progress is 'none'"):
        fitted(progress="none")


def test_a_chunk_ends_at_the_steps_that_a_callback_wants():
    seen = []
    wants = nn.callbacks.Callback(on_step_chunk=lambda event: seen.append(event.step))
    fitted(callbacks=[wants._replace(at_steps=(5, 11, 7, 100))])
    assert {5, 7, 11, 12} <= set(seen)


def test_a_profile_is_of_the_steps_that_were_asked_for(monkeypatch):
    seen, steps = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: seen.append((path, steps[-1])))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append(("", steps[-1])))
    tell = nn.callbacks.Callback(on_step_chunk=lambda event: steps.append(event.step))
    fitted(callbacks=[tell, nn.callbacks.profile("traces", start=3, stop=7)])
    assert seen == [("traces", 3), ("", 7)]
    fitted(callbacks=[tell, nn.callbacks.profile("traces", start=11, stop=99)])
    assert seen[2:] == [("traces", 11), ("", 12)]
    with pytest.raises(ValueError, match="profile: stop is 3, expected more than start, 3"):
        nn.callbacks.profile("traces", start=3, stop=3)


@pytest.mark.slow
def test_a_profile_is_written(tmp_path):
    fitted(callbacks=[nn.callbacks.profile(tmp_path, start=1, stop=3)])
    assert list(tmp_path.rglob("*.xplane.pb"))


def both(state):
    """A metric with two values, of which one is not finite."""
    return jnp.stack([nn.metrics.mean().compute(state), jnp.inf])


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


def test_a_log_in_lines_of_json(tmp_path):
    def log():
        return nn.callbacks.json_log(tmp_path / "log.jsonl")

    rates = {"of each": nn.metrics.Metric(*nn.metrics.mean_squared_error()[:2], both, "min")}
    whole = fitted(metrics=rates)
    fitted(metrics=rates, callbacks=[log()], checkpoint=tmp_path, epochs=2)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"epoch": 3, "killed": ' + 999 * "1")
    fitted(metrics=rates, callbacks=[log()], checkpoint=tmp_path, resume=True)
    rows = list(map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert [row["loss"] for row in rows] == whole.history["loss"].tolist()
    assert [row["of each"] for row in rows] == [
        [v, None] for v, _ in whole.history["of each"].tolist()
    ]


def test_a_log_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    result = fitted(callbacks=[nn.callbacks.tensorboard_log(tmp_path / "run")])
    (file,) = (tmp_path / "run").iterdir()
    seen = summaries(file)
    for name, values in result.history.items():
        found = [value.simple_value for value in seen[name]]
        np.testing.assert_allclose(found, values, rtol=1e-6)
    assert len(seen["running_loss"]) >= 4


def test_histograms_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    log = nn.callbacks.tensorboard_log(tmp_path, histograms=["*1/kernel"])
    kernel = np.array([0.5, -1.5, 2.5, np.nan, np.inf], np.float32)
    there = event(10, 1.0)._replace(params={"layer_1": {"kernel": kernel}, "bias": np.ones(1)})
    for function in log[:3]:
        function(there)
    (file,) = tmp_path.iterdir()
    seen = summaries(file)
    (found,) = seen["params/layer_1/kernel"]
    assert found.histo.num == 3
    assert (found.histo.min, found.histo.max, found.histo.sum) == (-1.5, 2.5, 1.5)
    assert "params/bias" not in seen
    wrong = nn.callbacks.tensorboard_log(tmp_path, histograms=["layer_2/*"])
    with pytest.raises(ValueError, match=r"histograms: 'layer_2/\*' match.* layer_1/kernel"):
        wrong.on_step_chunk(there)


def summaries(file):
    """What a file of events has, by name."""
    from tensorboardX.proto.event_pb2 import Event

    data, values = file.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            values.setdefault(value.tag, []).append(value)
        data = data[16 + length :]
    return values


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        nn.callbacks.tensorboard_log("run")


def test_logs_for_services_as_the_documentation_writes_them(monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "training.md"
    seen = []

    def stand_in(name):
        return lambda *given, **options: seen.append((name, *given, options))

    run = SimpleNamespace(log=stand_in("log"), finish=stand_in("finish"))
    wandb = SimpleNamespace(init=lambda **options: (seen.append(("init", options)), run)[1])
    names = ("start_run", "log_metrics", "end_run")
    mlflow = SimpleNamespace(**{name: stand_in(name) for name in names})
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    defined = {"nn": nn}
    for code in re.findall(r"```python\n(import \w+\n.*?)```", page.read_text(), re.DOTALL):
        exec(code, defined)
    result = fitted(epochs=1, callbacks=[defined["wandb_log"](project="p")])
    row = {name: values[0] for name, values in result.history.items()}
    assert seen == [("init", {"project": "p"}), ("log", row, {"step": 3}), ("finish", {})]
    seen.clear()
    fitted(epochs=1, callbacks=[defined["mlflow_log"](run_name="r")])
    row = (row, {"step": 3})
    assert seen == [("start_run", {"run_name": "r"}), ("log_metrics", *row), ("end_run", {})]
