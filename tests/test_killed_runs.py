"""Runs that are killed or interrupted, at whatever moment, end as one that was left alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import killed_run
from tests.training_cases import assert_equal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked off")

CASES = [*killed_run.optimizers(), "stream", "members"]
LAST_STEP = 3 * killed_run.EPOCHS


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """What forks lives, which have one cache of programs: only the first of a case compiles."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    with started(cache | os.environ) as server:
        yield server


@contextlib.contextmanager
def started(environment):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.killed_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=environment,
    )
    with process:
        yield process
        process.stdin.close()


class Moments:
    """Random moments of a life: some after a step, some on the way to the first one."""

    def __init__(self, seed, seconds):
        self.rng, self.seconds = np.random.default_rng(seed), seconds

    def wait(self, lines):
        """Wait for the next moment of the life that prints these lines, or for its end."""
        if self.rng.random() < 0.4:
            time.sleep(self.rng.uniform(0, self.seconds))
            return
        for _, line in zip(range(self.rng.integers(1, 25)), lines, strict=False):
            if line.startswith("ended"):
                return
        time.sleep(self.rng.uniform(0, 0.01))


class Lives:
    """The lives of runs in directories, a new one after each that has come to its end."""

    def __init__(self, server, case, directory):
        self.server, self.case, self.directory = server, case, directory
        self.runs = self.step = 0

    @property
    def place(self):
        """The directory of the run that is under way."""
        return self.directory / str(self.runs)

    def live(self, act=lambda process, lines: None):
        """A life, in which `act` happens; the exit status."""
        print(self.case, self.place, file=self.server.stdin, flush=True)
        process, status = int(self.server.stdout.readline()), []

        def lines():
            while not status:
                line = self.server.stdout.readline()
                if line.startswith("ended"):
                    status.append(int(line.split()[1]))
                else:
                    self.step = int(line)
                yield line

        printed = lines()
        act(process, printed)
        for _ in printed:
            pass
        if status[0] == 0 and self.step == LAST_STEP:
            self.check()
        return status[0]

    def check(self):
        """Compare a run that has ended with one that was left alone; the next one is another."""
        resumed = killed_run.run(self.case, self.place, resume=True)  # nothing is left to do
        whole = killed_run.run(self.case)
        assert_equal(
            (resumed.params, resumed.state, resumed.history, resumed.opt_state),
            (whole.params, whole.state, whole.history, whole.opt_state),
        )
        self.runs, self.step = self.runs + 1, 0


def send(moments, number, times=1):
    """What sends a signal to a life at the next moment, and again soon after."""

    def act(process, lines):
        moments.wait(lines)
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)
            time.sleep(moments.rng.uniform(0, 0.05) * (times > 1))

    return act


EXPECTED = {  # unless it ended before
    signal.SIGKILL: [-signal.SIGKILL, 0],
    signal.SIGINT: [130, 0],
    signal.SIGTERM: [-signal.SIGTERM, 0],
}


def survives(lives, numbers, seconds):
    """Send a signal in each life, which ends as it should; all runs come to their end."""
    moments = Moments(len(numbers), seconds)
    for life, number in enumerate(numbers):
        assert lives.live(send(moments, number, 1 + life % 2)) in EXPECTED[number]
    while lives.runs == 0 or lives.step:
        assert lives.live() == 0


@pytest.mark.slow
def test_a_run_survives(server, tmp_path):
    survives(Lives(server, "adamw", tmp_path), [signal.SIGKILL], seconds=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sixteen_kills(case, server, tmp_path):
    survives(Lives(server, case, tmp_path), [signal.SIGKILL] * 16, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adamw", "stream"])
def test_ctrl_c_at_a_hundred_moments(case, server, tmp_path):
    survives(Lives(server, case, tmp_path), [signal.SIGINT] * 85, 2.0)
    with started(os.environ | {"JAX_COMPILATION_CACHE_DIR": ""}) as cold:  # all compile
        survives(Lives(cold, case, tmp_path / "cold"), [signal.SIGINT] * 15, 6.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adamw", "stream"])
def test_sigterm_at_twenty_five_moments(case, server, tmp_path):
    survives(Lives(server, case, tmp_path), [signal.SIGTERM] * 25, 2.0)
