"""Training in forked and spawned processes, in threads, and without a terminal."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.host.interrupts import interruptible
from jaxnn._training.host.owner import owned
from tests.training_cases import LINEAR, SGD, assert_equal, fitted

OPTIONS = {"model": LINEAR, "batch_size": 8, "epochs": 4, "optimizer": SGD}  # 12 steps
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")


def forked(act):
    """The exit status of a child in which something happens that does not need JAX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn of all that a child might do
        child = os.fork()
    if child == 0:
        try:
            os._exit(bool(act()))
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Fork


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_forked_child_ends_by_a_signal_that_its_parent_would_hear(number):
    with interruptible(at_termination=lambda: None) as wish:
        assert forked(lambda: signal.raise_signal(number)) == -number
    assert not wish.is_set


@needs_fork
def test_a_forked_child_neither_owns_a_directory_nor_frees_it(tmp_path):
    def try_to_own():
        try:
            with owned("fit", tmp_path):
                return False
        except BlockingIOError as error:
            return f"by process {os.getppid()}" in str(error)

    with owned("fit", tmp_path):
        assert forked(try_to_own) == 1
        assert forked(try_to_own) == 1
    assert forked(try_to_own) == 0


@needs_fork
def test_who_reads_the_directory_does_not_take_it_away(tmp_path):
    def try_to_own():
        with contextlib.suppress(BlockingIOError), owned("fit", tmp_path):
            return True
        return False

    with owned("fit", tmp_path) as hold:
        shutil.copytree(tmp_path, tmp_path / "copy")  # the system takes the lock away
        hold()
        assert forked(try_to_own) == 0
    assert forked(try_to_own) == 1


@pytest.mark.parametrize("make", ["symlink_to", "fifo", "mkdir"])
def test_what_is_no_file_in_the_place_of_the_lock_is_left_alone(make, tmp_path):
    other, lock = tmp_path / "other", tmp_path / ".owner"
    other.write_text("precious")
    if make == "fifo":
        os.mkfifo(lock)
    else:
        getattr(lock, make)(*[other] * (make == "symlink_to"))
    with pytest.raises(OSError, match=r"\.owner"), owned("fit", tmp_path):
        pass
    assert other.read_text() == "precious"


IN_A_PROCESS = """
import multiprocessing, os, sys, time
import jax, numpy as np, jaxnn as nn
from jaxnn._training.host import clock
clock.SECONDS_PER_CHUNK = 0.0
x = np.ones((8, 2), np.float32)

def train(data, progress=None, **options):
    return nn.fit(nn.dense(1), data, loss=nn.losses.squared_error, key=jax.random.key(0),
                  optimizer=nn.optimizers.sgd(0.1), progress=progress, checkpoint=sys.argv[1],
                  **options)
"""


def program(text, directory, *command, **options):
    """A Python of its own that runs a text; the arguments are those of Popen."""
    start = [*command, sys.executable, "-W", "ignore", "-c", IN_A_PROCESS + text, str(directory)]
    return subprocess.Popen(start, **options)


def saved_step(directory):
    return json.loads(nn.saved_metadata(directory / "last.safetensors")["fit"])["step"]


@needs_fork
@pytest.mark.slow
def test_workers_that_the_data_fork_off_end_when_they_are_told_to(tmp_path):
    text = """
def batches(epoch):
    with multiprocessing.get_context("fork").Pool(2) as pool:  # whose end is SIGTERM to each
        for rows in pool.imap(abs, [x] * 3):
            yield rows, rows[:, :1]

assert train(batches, epochs=2).reason == "epochs"
"""
    with program(text, tmp_path) as done:
        assert done.wait(300) == 0
    assert saved_step(tmp_path) == 6


# Spawn


def train_and_die(directory):
    ends = nn.callbacks.Callback(on_step_chunk=lambda event: event.step >= 5 and os._exit(7))
    fitted(checkpoint=nn.checkpoints(directory, every_steps=1), callbacks=[ends], **OPTIONS)


@pytest.mark.slow
def test_what_a_spawned_child_began_its_parent_ends(tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=train_and_die, args=(tmp_path,))
    child.start()
    child.join(300)
    assert child.exitcode == 7
    seen = []
    look = nn.callbacks.Callback(on_step_chunk=seen.append)
    resumed = fitted(checkpoint=tmp_path, resume=True, callbacks=[look], **OPTIONS)
    assert 3 < seen[0].step <= 5
    whole = fitted(**OPTIONS)
    assert_equal((resumed.params, resumed.history), (whole.params, whole.history))


# Threads


def test_threads_train_side_by_side(tmp_path):
    """Each in its directory, with a run of its own, and all as if they were alone."""
    begun, results = threading.Barrier(2, timeout=300), {}

    def train(number):
        meet = nn.callbacks.Callback(on_step_chunk=lambda event: event.step == 1 and begun.wait())
        results[number] = fitted(
            key=jax.random.key(number),
            checkpoint=tmp_path / str(number),
            callbacks=[meet],
            **OPTIONS,
        )

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, result in results.items():
        alone = fitted(key=jax.random.key(number), **OPTIONS)
        assert_equal((result.params, result.history), (alone.params, alone.history))
        saved = nn.load(tmp_path / f"{number}/last.safetensors")
        assert_equal(saved["carry/train/params/kernel"], np.asarray(alone.params["kernel"]))
    assert len(results) == 2


# Without a terminal


@pytest.mark.slow
@pytest.mark.parametrize("progress", [None, True, "lines", "bar"])
def test_without_standard_streams(progress, tmp_path):
    text = f"train((x, x[:, :1]), {progress!r}, epochs=2)"
    with program(text, tmp_path, "sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-') as done:
        assert done.wait(300) == 0
    assert saved_step(tmp_path) == 2


@pytest.mark.slow
@pytest.mark.parametrize("progress", ["bar", "lines"])
def test_a_terminal_that_is_closed(progress, tmp_path):
    """Whoever hangs up ends the process, after a checkpoint."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    text = f"""
import fcntl, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)  # the terminal of this session
tell = nn.callbacks.Callback(on_step_chunk=lambda event: print("step") or time.sleep(0.01))
train((x, x[:, :1]), {progress!r}, epochs=10**5, callbacks=[tell])
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    streams = dict.fromkeys(["stdin", "stdout", "stderr"], theirs)
    with program(text, tmp_path, **streams, start_new_session=True) as done:
        os.close(theirs)
        while b"step" not in os.read(ours, 1000):
            pass
        os.close(ours)
        assert done.wait(300) == -signal.SIGHUP
    assert saved_step(tmp_path) >= 1
