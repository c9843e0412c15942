"""A row, run: its contestants in processes of their own, asked in turn."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.row import Contestant, Row

ROUNDS, SECONDS_OF_A_ROUND, REST = 7, 0.25, 0.05
"""torch's threads wait actively for some milliseconds after their work: others rest until then."""


class Disagreement(Exception):  # noqa: N818
    """Contestants do not compute the same."""


class Result(NamedTuple):
    """What was measured of a contestant: seconds for a piece of work in each round, ..."""

    times: list[float]
    first: float
    """The seconds that the first piece of work takes, compilation included, imports not."""
    memory: float
    """The peak of memory of that, in MB, above what is in use after the imports."""


class Outcome(NamedTuple):
    """The results of a row, and who was missing, with the reason."""

    results: dict[str, Result]
    missing: dict[str, str]
    deviation: float
    """The largest deviation of one contestant's numbers from ours, relative to the largest."""


class Worker:
    """The process of a contestant."""

    def __init__(self, row: str, name: str, contestant: Contestant, tiny: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", row, name]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment.pop("OMP_WAIT_POLICY", None)
        self.process = subprocess.Popen(
            command + ["--tiny"] * tiny,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | dict(contestant.environment),
        )
        self.report = self.answer()

    def answer(self) -> Any:
        """The next line of the worker."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args[2:])} ended without an answer")
        return json.loads(line)

    def seconds(self, n: int) -> float:
        """How long `n` pieces of work take."""
        print(n, file=self.process.stdin, flush=True)
        seconds: float = self.answer()
        return seconds

    def pieces(self, enough: float) -> int:
        """How many pieces of work take about so many seconds."""
        n = 1
        while (seconds := self.seconds(n)) < enough / 4:
            n *= 2 if seconds > enough / 64 else 16
        return max(1, math.ceil(n * enough / seconds))

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def disagreement(values: Mapping[str, Sequence[float]], tolerance: float) -> float:
    """The largest deviation from the first that has values.

    Raises:
        Disagreement: it is larger than `tolerance`.
    """
    given = {name: np.array(numbers) for name, numbers in values.items() if len(numbers)}
    worst = 0.0
    for name, numbers in given.items():
        ours = next(iter(given.values()))
        if numbers.shape != ours.shape:
            raise Disagreement(f"{name}: {numbers.size} values, expected {ours.size}")
        deviation = float(np.max(np.abs(numbers - ours)) / np.max(np.abs(ours)))
        if not deviation <= tolerance:
            raise Disagreement(f"{name}: deviates by {deviation:.1e}, expected {tolerance:.0e}")
        worst = max(worst, deviation)
    return worst


def play(name: str, row: Row, *, rounds: int = ROUNDS, tiny: bool = False) -> Outcome:
    """Start the contestants, check that they agree, and time them in turn."""
    workers: dict[str, Worker] = {}
    missing: dict[str, str] = {}
    try:
        for contestant in row.contestants:
            worker = Worker(name, contestant, row.contestants[contestant], tiny)
            workers[contestant] = worker
            if "missing" in worker.report:
                missing[contestant] = worker.report["missing"]
                workers.pop(contestant).close()
        reports = {contestant: worker.report for contestant, worker in workers.items()}
        deviation = disagreement({c: r["values"] for c, r in reports.items()}, row.tolerance)
        if row.cold:
            times = {contestant: [report["first"]] for contestant, report in reports.items()}
        else:
            times = timed(workers, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    if row.cold:
        for contestant in (c for _ in range(rounds - 1) for c in reports):
            worker = Worker(name, contestant, row.contestants[contestant], tiny)
            times[contestant].append(worker.report["first"])
            worker.close()
    results = {}
    for contestant, report in reports.items():
        share = row.contestants[contestant].share
        whole = [share * seconds for seconds in times[contestant]]
        results[contestant] = Result(whole, report["first"], report["memory"])
    return Outcome(results, missing, deviation)


def timed(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """The seconds for a piece of work, round by round, forwards and backwards in turn."""
    pieces = {name: worker.pieces(SECONDS_OF_A_ROUND) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    for _ in range(rounds):
        for name in order:
            time.sleep(REST)
            times[name].append(workers[name].seconds(pieces[name]) / pieces[name])
        order.reverse()
    return times
