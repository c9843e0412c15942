"""Drawing ahead in a thread: order, bounds, errors, and that no thread is left behind."""

import gc
import linecache
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from contextlib import contextmanager, nullcontext

import jax
import jax.numpy as jnp
import pytest

from jaxnn._training.data.prefetch import prefetched

SECONDS = 20  # what no wait of these tests comes near


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


@contextmanager
def no_new_thread():
    before = threading.enumerate()
    try:
        yield
    finally:
        assert threading.enumerate() == before


class Source:
    """A generator that notes what becomes of it."""

    def __init__(self, n, fails_at=None):
        self.n, self.fails_at = n, fails_at
        self.drawn, self.ran_in, self.closed_in = 0, None, None

    def items(self):
        try:
            for i in range(self.n):
                self.ran_in = threading.current_thread()
                if i == self.fails_at:
                    self.fail()
                self.drawn = i + 1
                yield i
        finally:
            self.closed_in = threading.current_thread()

    def fail(self):
        raise OSError("the disk is gone")


@pytest.mark.parametrize("ahead", [0, 1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_items_come_in_order_and_end(ahead, n):
    source = Source(n)
    with no_new_thread(), prefetched(source.items(), ahead) as items:
        assert list(items) == list(range(n))
        assert next(items, None) is None
    in_a_thread = source.closed_in is not threading.current_thread()
    assert in_a_thread == (ahead > 0)


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_thread_draws_ahead_but_not_farther(ahead):
    drawn, taken = threading.Semaphore(0), 0
    farthest = 0

    def source():
        nonlocal farthest
        for i in range(20):
            farthest = max(farthest, i + 1 - taken)
            drawn.release()
            yield i

    def waits_for(n):
        return all(drawn.acquire(timeout=SECONDS) for _ in range(n))

    with prefetched(source(), ahead) as items:
        assert waits_for(ahead)  # though nothing was asked for
        for i in range(10):
            taken += 1
            assert next(items) == i
            assert waits_for(1)
        time.sleep(0.05)
        assert not drawn.acquire(blocking=False)
    assert farthest == ahead


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_an_error_of_the_source_comes_where_the_item_would_have(ahead):
    got = []
    with (
        no_new_thread(),
        pytest.raises(OSError, match="the disk is gone") as caught,
        prefetched(Source(9, fails_at=4).items(), ahead) as items,
    ):
        got.extend(items)
    assert got == [0, 1, 2, 3]
    functions = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert functions[-2:] == ["items", "fail"]


def test_nothing_is_drawn_after_leaving():
    begun, goes_on, drawn = threading.Event(), threading.Event(), []

    def source():
        for i in range(9):
            drawn.append(i)
            begun.set()
            goes_on.wait(SECONDS)
            yield i

    timer = threading.Timer(0.05, goes_on.set)
    with prefetched(source(), 5):
        assert begun.wait(SECONDS)
        timer.start()
    timer.join()
    assert drawn == [0]


def test_an_error_that_nobody_came_to_is_not_raised():
    with prefetched(Source(9, fails_at=2).items(), 3) as items:
        assert next(items) == 0


class LeavingError(Exception):
    """How the consumer leaves."""


def take_all(items):
    assert list(items) == list(range(50))


def take_some(items):
    assert next(items) == 0
    assert next(items) == 1


def take_none(items):
    pass


def fail_with(error):
    def fail(items):
        take_some(items)
        raise error

    return fail


EXITS = {
    "exhaustion": (take_all, None),
    "break": (take_some, None),
    "unused": (take_none, None),
    "error": (fail_with(LeavingError()), LeavingError),
    "interrupt": (fail_with(KeyboardInterrupt()), KeyboardInterrupt),
    "exit": (fail_with(SystemExit()), SystemExit),
}


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("way", EXITS)
def test_however_it_is_left_the_source_is_closed_in_its_thread_which_has_ended(way, ahead):
    leave, error = EXITS[way]
    source = Source(50)
    before = threading.enumerate()
    raises = pytest.raises(error) if error else nullcontext()
    with raises, prefetched(source.items(), ahead) as items:
        leave(items)
    assert threading.enumerate() == before
    assert source.closed_in is source.ran_in
    assert source.ran_in is None or (source.ran_in is threading.current_thread()) == (ahead == 0)
    assert next(items, None) is None


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_in_closing_is_raised_in_leaving(ahead):
    def source():
        try:
            yield from range(9)
        finally:
            raise OSError("cannot close")

    def leave(items):
        assert next(items) == 0
        raise LeavingError

    with (
        no_new_thread(),
        pytest.raises(OSError, match="cannot close"),
        prefetched(source(), ahead) as items,
    ):
        next(items)
    with pytest.raises(OSError, match="cannot close") as caught, prefetched(source(), 2) as items:
        leave(items)
    assert isinstance(caught.value.__context__, LeavingError)


def interrupt_main():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="signals to a thread are POSIX's"
)


@needs_signals
def test_ctrl_c_while_waiting_for_a_slow_source():
    closed = threading.Event()

    def source():
        try:
            yield 0
            interrupt_main()
            time.sleep(0.1)
            yield 1
        finally:
            closed.set()

    with no_new_thread(), pytest.raises(KeyboardInterrupt), prefetched(source(), 1) as items:
        list(items)
    assert closed.is_set()


@pytest.fixture
def ctrl_c_in_waiting_only():
    """Signals that come when the waiting is over do nothing: their number need not be right."""

    def raise_within(number, frame):
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if "drawn.get()" in line or "closed.get()" in line:
            raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, raise_within)
    yield
    signal.signal(signal.SIGINT, usual)


@needs_signals
@pytest.mark.usefixtures("ctrl_c_in_waiting_only")
def test_a_second_ctrl_c_leaves_a_source_that_blocks():
    interrupted, left, unblocked = threading.Event(), threading.Event(), threading.Event()
    thread = None

    def interrupt_until(heard):
        while not heard.wait(0.02):  # a signal just before a lock is seen after it only
            interrupt_main()

    def source():
        nonlocal thread
        thread = threading.current_thread()
        yield 0
        interrupt_until(interrupted)
        interrupt_until(left)  # main waits for this thread
        unblocked.wait(SECONDS)
        yield 1

    def interrupted_once(items):
        try:
            list(items)
        except KeyboardInterrupt:
            interrupted.set()
            raise

    with pytest.raises(KeyboardInterrupt), prefetched(source(), 1) as items:
        interrupted_once(items)
    left.set()
    assert thread.is_alive()
    unblocked.set()
    thread.join(SECONDS)
    assert not thread.is_alive()


@needs_signals
@pytest.mark.slow
def test_a_source_that_blocks_for_ever_does_not_keep_the_process():
    program = """
import signal, threading, time
from jaxnn._training.data.prefetch import prefetched
def source():
    yield 0
    for _ in range(2):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)
    threading.Event().wait()
try:
    with prefetched(source(), 1) as items:
        list(items)
except KeyboardInterrupt:
    print("left")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "left\n"


@pytest.mark.parametrize("ahead", [0, 2])
def test_the_source_runs_under_the_settings_of_the_caller(ahead):
    def source():
        array = jnp.zeros(3, float)
        yield array.dtype, jax.config.jax_default_device
        yield jnp.asarray(2**40).dtype, jax.config.jax_default_device

    device = jax.devices("cpu")[0]
    with (
        jax.enable_x64(True),
        jax.default_device(device),
        prefetched(source(), ahead) as items,
    ):
        assert list(items) == [("float64", device), ("int64", device)]
    with prefetched(source(), ahead) as items:
        assert next(items) == ("float32", None)


def test_an_item_that_was_taken_is_not_kept():
    class Item:
        pass

    with prefetched((Item() for _ in range(9)), 2) as items:
        seen = [weakref.ref(next(items)) for _ in range(5)]
        gc.collect()
        assert [ref() is None for ref in seen[:4]] == [True] * 4


def test_stress():
    """Whatever the delays, the items come in order and all ends well."""
    rng = random.Random(0)

    def delay(scale):
        if rng.random() < 0.3:
            time.sleep(rng.random() * scale)

    def source(n, fails_at, scale):
        for i in range(n):
            delay(scale)
            if i == fails_at:
                raise OSError(i)
            yield i

    before = threading.enumerate()
    for _ in range(150):
        n, ahead, scale = rng.randrange(12), rng.randrange(5), rng.choice([0, 1e-4, 1e-3])
        fails_at, stops_at = rng.randrange(30), rng.randrange(30)
        got, failed = [], False
        try:
            with prefetched(source(n, fails_at, scale), ahead) as items:
                for item in items:
                    delay(scale)
                    got.append(item)
                    if item == stops_at:
                        break
        except OSError as error:
            failed = error.args == (fails_at,)
        assert got == list(range(min(n, fails_at, stops_at + 1)))
        assert failed == (fails_at < n and fails_at <= stops_at)
        assert threading.enumerate() == before
