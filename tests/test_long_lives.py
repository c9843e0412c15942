"""However much one process trains, its memory, maps, files and threads do not grow."""

import gc
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core import programs
from jaxnn._training.host import clock
from tests.training_cases import DATA, LINEAR, SGD, fitted

PROC = Path("/proc/self")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROC.exists(), reason="Linux tells it in /proc"),
]


class Held(NamedTuple):
    """What the process has."""

    megabytes: float
    maps: int
    files: int
    threads: int


def held():
    gc.collect()
    pages = int((PROC / "statm").read_text().split()[1])
    maps = len((PROC / "maps").read_text().splitlines())
    return Held(pages / 256, maps, len(list((PROC / "fd").iterdir())), threading.active_count())


def fit_anew(**changes):
    """A model that no call before has had, and so programs of its own."""
    fitted(nn.serial(nn.dense(3), lambda x: x), optimizer=SGD, **changes)


def batches(epoch):
    for first in range(0, 22, 8):
        yield tuple(leaf[first : first + 8] for leaf in DATA)


def sweep():
    train = nn.training_run(
        LINEAR,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=lambda rates: nn.optimizers.sgd(rates["rate"]),
        epochs=2,
    )
    rates = {"rate": nn.log_uniform(1e-4, 1e-1)}
    result = nn.sweep(train, jax.random.key(0), rates, DATA, samples=500, lanes=10)
    assert len(result.table["rate"]) == 500


def train_for_long():
    """4,000 epochs, of a step each, and as many calls of a callback."""
    seen = []
    count = nn.callbacks.Callback(on_step_chunk=lambda event: seen.append(None))
    fitted(LINEAR, optimizer=SGD, epochs=4_000, callbacks=[count])
    assert len(seen) == 4_000


LIVES = {
    "fits": (fit_anew, 10),
    "streamed fits": (lambda: fit_anew(data=batches), 10),
    "sweeps": (sweep, 1),
    "epochs and callbacks": (train_for_long, 1),
}


@pytest.mark.parametrize("life", LIVES)
def test_nothing_grows(life, monkeypatch):
    monkeypatch.setattr(programs, "MOST_PROGRAMS", 8)
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 0.0)
    live, times = LIVES[life]
    for _ in range(times):
        live()
    before = held()
    for _ in range(times):
        live()
    grown = np.subtract(held(), before)
    assert np.all(grown < (20, 100, 1, 1)), Held(*grown)
