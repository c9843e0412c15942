"""The benchmark: its arithmetic, and that contestants do the same work. No time is asserted."""

import contextlib
import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import thresholds
from benchmarks.match import Disagreement, Outcome, Result, disagreement, timed
from benchmarks.row import Contestant, Row, load_builder
from benchmarks.rows import ROWS, chosen
from benchmarks.table import ratios, seconds, speeds, table, three_digits
from tests.parameters import quick_first

TRAINING = ("mlp", "cnn", "lstm", "gru", "transformer", "tiny", "tiny64")
CHECKED = ("mlp", "gru", "tiny", "adam10", "call10", "fit_mlp", "roof_product")
QUICK = {"with_jaxnn", "by_hand", "with_stax", "with_optax"}


@pytest.fixture(autouse=True)
def _as_users_have_it():
    """Other libraries are not written for the strictest settings."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


def row_of(**changes):
    row = Row("Title", lambda tiny: None, {"ours": Contestant("a:b"), "theirs": Contestant("c:d")})
    return row._replace(**changes)


def values_of(row_name, builder):
    """The numbers of the first three pieces of work."""
    run = load_builder(builder)(ROWS[row_name].data(True))
    first, then = run(1), run(2)
    return [] if first is None else [*np.ravel(first).tolist(), *np.ravel(then).tolist()]


def values_of_all(row_name, libraries):
    """The numbers of each contestant with one of the libraries, of those that are installed."""
    values = {}
    for name, contestant in ROWS[row_name].contestants.items():
        library = contestant.builder.partition(":")[0]
        if not contestant.environment and (libraries is None or library in libraries):
            with contextlib.suppress(ModuleNotFoundError):
                values[name] = values_of(row_name, contestant.builder)
    assert next(iter(ROWS[row_name].contestants)) in values
    return values


@quick_first(2)
@pytest.mark.parametrize("row_name", CHECKED)
def test_contestants_that_compile_quickly_agree(row_name):
    values, row = values_of_all(row_name, QUICK), ROWS[row_name]
    disagreement(values, row.tolerance)
    if row_name in TRAINING:
        ours = next(iter(values.values()))
        assert np.ptp(ours) > 10 * row.tolerance * np.max(np.abs(ours))


@pytest.mark.slow
@pytest.mark.parametrize("row_name", ROWS)
def test_all_contestants_agree(row_name):
    disagreement(values_of_all(row_name, None), ROWS[row_name].tolerance)


def test_two_that_differ_disagree():
    with pytest.raises(Disagreement, match=r"theirs: deviates by 5.0e-01, expected 1e-03"):
        disagreement({"ours": [1.0, 2.0], "theirs": [1.0, 3.0]}, 1e-3)
    with pytest.raises(Disagreement, match="theirs: 1 values, expected 2"):
        disagreement({"ours": [1.0, 2.0], "theirs": [1.0]}, 1e-3)
    with pytest.raises(Disagreement, match="deviates by nan"):
        disagreement({"ours": [1.0, 2.0], "theirs": [1.0, np.nan]}, 1e-3)


def test_who_has_no_values_agrees():
    assert disagreement({"ours": [], "one": [2.0], "two": [2.002]}, 1e-2) == pytest.approx(1e-3)


def test_ratios_are_taken_round_by_round():
    middle, low, high = ratios([2.0, 30.0, 4.0], [1.0, 10.0, 1.0])
    assert (middle, low, high) == (3.0, 2.5, 3.5)
    assert ratios([2.0], [4.0]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2.00 s"), (0.0213, "21.3 ms"), (1e-3, "1.00 ms"), (4.5e-7, "0.45 µs")],
)
def test_seconds_have_three_digits(value, text):
    assert seconds(value) == text


def test_large_numbers_are_written_in_full():
    assert three_digits(54321.0) == "54,321"


def test_a_table():
    row = row_of(
        contestants={"ours": Contestant("a:b"), "theirs": Contestant("c:d", goal=3.0)},
        work=2.0,
        unit="GFLOP/s",
    )
    results = {
        "ours": Result([0.1, 0.1, 0.1], 1.5, 20.0),
        "theirs": Result([0.2, 0.2, 0.2], 2.5, 30.0),
    }
    outcome = Outcome(results, {"third": "No module named 'third'"}, 2e-6)
    assert speeds(row, outcome) == {"ours": 20.0, "theirs": 10.0}
    assert table(row, outcome, roof=40.0) == (
        "## Title\n\n"
        "|  | time | ÷ ours | quartiles | goal | GFLOP/s | of the roof | first | memory |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| ours | 100 ms | 1 | 1-1 |  | 20.0 | 50% | 1.50 s | 20 MB |\n"
        "| theirs | 200 ms | 2 | 2-2 | 3 missed | 10.0 | 25% | 2.50 s | 30 MB |\n\n"
        "third is left out: No module named 'third'. Results deviate by 2e-06 at most.\n"
    )


def test_a_table_of_fresh_processes_has_no_column_for_the_first():
    result = Result([0.1], 0.1, 20.0)
    text = table(row_of(cold=True), Outcome({"ours": result, "theirs": result}, {}, 0.0))
    assert "first" not in text
    assert "| theirs | 100 ms | 1 | 1-1 |  | 20 MB |" in text


def test_a_goal_is_missed_where_most_rounds_are_below_it():
    row = row_of(contestants={"ours": Contestant("a:b"), "theirs": Contestant("c:d", goal=2.0)})

    def line(*times):
        results = {"ours": Result([1.0] * 3, 1.0, 1.0), "theirs": Result([*times], 1.0, 1.0)}
        return table(row, Outcome(results, {}, 0.0)).splitlines()[-1]

    assert "| 2 |" in line(1.9, 1.9, 2.2)
    assert "| 2 missed |" in line(1.9, 1.9, 2.0)


def test_rounds_go_forwards_and_backwards():
    asked = []

    class Worker:
        def __init__(self, name, seconds):
            self.name, self.cost = name, seconds

        def pieces(self, enough):
            return 4

        def seconds(self, n):
            asked.append(self.name)
            return self.cost * n

    times = timed({"ours": Worker("ours", 1.0), "theirs": Worker("theirs", 3.0)}, 2)
    assert times == {"ours": [1.0, 1.0], "theirs": [3.0, 3.0]}
    assert asked == ["ours", "theirs", "theirs", "ours"]


@pytest.mark.slow
def test_a_threshold_is_tried_with_each_value_and_stays():
    module, seen = types.SimpleNamespace(LIMIT=3), []

    def make():
        seen.append(module.LIMIT)
        return lambda: None

    tried = thresholds.Threshold(module, "LIMIT", {"low": 0, "high": 9}, {"work": make})
    title, heading, _, row, _ = thresholds.lines_of(tried, rounds=2)
    assert (title, heading) == ("## LIMIT = 3\n", "| ms | low | high |")
    assert row.startswith("| work | ")
    assert "**" in row
    assert (seen, module.LIMIT) == ([0, 9], 3)
    for threshold in thresholds.THRESHOLDS:
        assert isinstance(getattr(threshold.module, threshold.name), int)


def test_rows_are_chosen_by_their_names_or_how_these_begin():
    assert chosen(["tiny"]) == ["tiny"]
    assert chosen(["adam"]) == ["adam10", "adam400"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(SystemExit, match="no row is called 'missing'"):
        chosen(["missing"])


@pytest.mark.slow
def test_a_worker_answers_and_ends_with_its_input():
    command = [sys.executable, "-m", "benchmarks.worker", "roof_stream", "XLA", "--tiny"]
    done = subprocess.run(
        command,
        input="3\n",
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    report, time = map(json.loads, done.stdout.splitlines())
    assert report["values"] == [0.5, 0.125]
    assert report["first"] > 0 < time


def test_the_rows_import_no_library():
    script = "import sys, benchmarks.rows; print(*sys.modules)"
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert not {"jax", "torch", "flax", "optax", "equinox"} & set(done.stdout.split())
