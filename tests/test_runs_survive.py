"""Whatever ends a run, it loses nothing: errors, signals, full disks, other processes."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

import jaxnn as nn
from jaxnn._training.host import checkpoints, clock, feeds, interrupts
from jaxnn._training.host.identity import sample, told
from jaxnn._training.host.owner import owned
from jaxnn._training.host.writer import Writer
from tests.parameters import quick_first
from tests.training_cases import DATA, KEY, LINEAR, SGD, VALIDATION, assert_equal, fitted

QUICK = {"model": LINEAR, "batch_size": 8, "epochs": 4, "shuffle": True}  # 12 steps


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of one step, and no checkpoint by the clock."""
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 0.0)


@pytest.fixture(scope="module")
def whole():
    return fitted(**QUICK)


def at_step(step, function):
    """A callback that calls a function after a step."""

    def on_step_chunk(event):
        if event.step == step:
            return function()
        return None

    return nn.callbacks.Callback(on_step_chunk=on_step_chunk)


def fail():
    raise OSError("the pipe is closed")


def goes_on(directory, whole, **changes):
    """Resumed, the run ends as one that was left alone; the step after which it went on."""
    seen = []
    first = nn.callbacks.Callback(on_step_chunk=seen.append)
    again = fitted(checkpoint=directory, resume=True, callbacks=[first], **(QUICK | changes))
    assert_equal(
        (again.params, again.history, again.opt_state),
        (whole.params, whole.history, whole.opt_state),
    )
    return seen[0].step - 1 if seen else 12


def names(directory):
    return sorted(path.name for path in directory.glob("*.safetensors"))


# Errors


def test_an_error_in_a_callback_comes_after_a_checkpoint_and_on_end(tmp_path, whole, small_chunks):
    ended = []
    last = nn.callbacks.Callback(on_end=ended.append)
    with pytest.raises(OSError, match="the pipe is closed"):
        fitted(checkpoint=tmp_path, callbacks=[last, at_step(5, fail)], **QUICK)
    assert [event.step for event in ended] == [5]
    assert goes_on(tmp_path, whole) == 5


def batches_until(step):
    """The batches of the data in their order, and an error instead of one of them."""
    drawn = 0

    def batches(epoch):
        nonlocal drawn
        for first in range(0, 22, 8):
            if drawn == step:
                fail()
            drawn += 1
            yield tuple(leaf[first : first + 8] for leaf in DATA)

    return batches


@pytest.mark.slow
def test_an_error_of_the_data_comes_after_a_checkpoint(tmp_path):
    stream = QUICK | {"batch_size": None, "data": batches_until(99)}
    whole = fitted(**stream)
    with pytest.raises(OSError, match="the pipe is closed"):
        fitted(checkpoint=tmp_path, **(stream | {"data": batches_until(7)}))
    again = fitted(checkpoint=tmp_path, resume=True, **(stream | {"data": batches_until(99)}))
    assert_equal((again.params, again.history), (whole.params, whole.history))


class WithState:
    """Batches of the data in their order, whose iterator tells where it stands, as grain's do."""

    def __init__(self, kind="dict", fails_at=None):
        self.kind, self.fails_at = kind, fails_at
        self.drawn = []

    def __iter__(self):
        return WithStateIterator(self)


class WithStateIterator:
    def __init__(self, of):
        self.of, self.next, self.state = of, 0, {}

    def __iter__(self):
        return self

    def __next__(self):
        if self.next == 3:
            raise StopIteration
        if len(self.of.drawn) == self.of.fails_at:
            fail()
        first, self.next = 8 * self.next, self.next + 1
        self.of.drawn.append(first)
        return tuple(leaf[first : first + 8] for leaf in DATA)

    def get_state(self):
        if self.of.kind == "bytes":
            return str(self.next).encode()
        if self.of.kind == "int keys":  # which JSON does not hold
            return {0: self.next}
        self.state["next"] = self.next  # always the same dict
        return self.state

    def set_state(self, state):
        assert self.of.kind != "int keys"
        self.next = int(state) if self.of.kind == "bytes" else state["next"]


@pytest.mark.parametrize("kind", ["dict", "bytes", "int keys"])
@pytest.mark.parametrize("step", [1, 5, 6])
def test_an_iterator_goes_on_from_its_state(step, kind, tmp_path, small_chunks):
    stream = QUICK | {"batch_size": None}
    whole = fitted(**(stream | {"data": WithState()}))
    first = stream | {"data": WithState(kind)}
    with pytest.raises(OSError, match="the pipe is closed"):
        fitted(checkpoint=tmp_path, callbacks=[at_step(step, fail)], **first)
    again = WithState(kind)
    result = fitted(checkpoint=tmp_path, resume=True, **(stream | {"data": again}))
    assert_equal((result.params, result.history), (whole.params, whole.history))
    if kind != "int keys":
        assert len(again.drawn) == 12 - step + 1  # the first for its shapes, and none twice


def test_an_error_before_the_first_step_leaves_no_checkpoint(tmp_path):
    with pytest.raises(OSError, match="the pipe is closed"):
        fitted(checkpoint=tmp_path, **(QUICK | {"batch_size": None, "data": batches_until(1)}))
    assert names(tmp_path) in ([], ["last.safetensors"])  # one batch was drawn ahead
    bad = nn.callbacks.Callback(save=lambda: {1, 2})
    with pytest.raises(TypeError, match="JSON cannot hold"):
        fitted(checkpoint=tmp_path / "other", callbacks=[bad], **QUICK)
    assert names(tmp_path / "other") == []


def test_a_run_that_goes_on_in_nan_is_not_saved_over_what_was_sound(tmp_path, whole, small_chunks):
    holed = (np.where(np.arange(22)[:, None] == 11, np.nan, DATA[0]), DATA[1])
    options = nn.checkpoints(tmp_path, every_steps=1, keep=2)
    with pytest.warns(
        RuntimeWarning, match="params are NaN after step 3 and are not saved.*after step 2"
    ) as told:
        lost = fitted(checkpoint=options, **(QUICK | {"data": holed}))
    assert len(told) == 1
    assert lost.reason == "epochs"
    assert np.isnan(lost.params["kernel"]).any()
    for name in names(tmp_path):
        if name != "best.safetensors":
            assert np.isfinite(nn.load(tmp_path / name)["carry/train/params/kernel"]).all()
    with pytest.warns(RuntimeWarning, match="is of a run with data"):
        again = fitted(checkpoint=options, resume="changed", **QUICK)
    assert_equal((again.params, again.history), (whole.params, whole.history))


def test_whoever_begins_with_nan_in_params_has_it_saved(tmp_path):
    params = {"kernel": np.full((3, 3), np.nan, np.float32), "bias": np.zeros(3, np.float32)}
    fitted(checkpoint=tmp_path, params=params, **QUICK)
    assert names(tmp_path) == ["last.safetensors"]


def test_a_run_that_is_lost_in_nan_is_not_saved_over_the_last(tmp_path, small_chunks):
    bad = (DATA[0], np.where(np.arange(22) == 21, 7, DATA[1]))  # in the third batch
    options = QUICK | {"data": bad, "shuffle": False, "batch_size": 8}

    def stream(epoch):
        for first in range(0, 22, 8):
            yield tuple(leaf[first : first + 8] for leaf in bad)

    options |= {"data": stream, "batch_size": None}
    with pytest.raises(ValueError, match="7"):
        fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=1), **options)
    saved = nn.load(tmp_path / "last.safetensors")
    assert np.all(np.isfinite(saved["carry/train/params/kernel"]))


def test_a_member_that_is_lost_in_nan_does_not_keep_the_others_from_being_saved(
    tmp_path, small_chunks
):
    def loss_fn(params, state, batch, key):
        return (params["w"] * batch).mean(), (state, {})

    options = QUICK | {"data": np.ones((8, 1), np.float32), "model": loss_fn, "loss": None}
    options |= {"params": {"w": np.array([1.0, np.nan], np.float32)}, "members": 2}
    with pytest.raises(OSError, match="the pipe is closed"):
        fitted(checkpoint=tmp_path, callbacks=[at_step(3, fail)], **options)
    saved = nn.load(tmp_path / "last.safetensors")
    assert np.isfinite(saved["carry/train/params/w"]).tolist() == [True, False]


# Signals


@pytest.mark.parametrize("streamed", [False, True])
def test_sigterm_is_sent_again_after_a_checkpoint(streamed, tmp_path, small_chunks):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(names(tmp_path)))
    changes = {"batch_size": None, "data": batches_until(99)} if streamed else {}
    whole = fitted(**(QUICK | changes))
    try:
        terminate = at_step(5, lambda: signal.raise_signal(signal.SIGTERM))
        result = fitted(checkpoint=tmp_path, callbacks=[terminate], **(QUICK | changes))
        assert heard == [["best.safetensors", "last.safetensors"]]
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.reason == "interrupted"
    if not streamed:
        assert goes_on(tmp_path, whole, **changes) == 5


@pytest.mark.parametrize("what", ["data", "validation"])
def test_sigterm_is_heard_while_a_source_blocks(what, tmp_path, small_chunks):
    heard, blocked, freed, calls, waited = [], threading.Event(), threading.Event(), [], []

    def blocking(epoch):
        calls.append(epoch)
        last = len(calls) > 1
        yield from batches_until(99)(epoch)
        if last:
            blocked.set()
            waited.append(freed.wait(300))

    def terminate():
        assert blocked.wait(300)
        os.kill(os.getpid(), signal.SIGTERM)

    sound = {"batch_size": None, "data": batches_until(99), what: batches_until(99)}
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(names(tmp_path)))
    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        result = fitted(checkpoint=tmp_path, **(QUICK | sound | {what: blocking}))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert waited == []
    freed.set()
    thread.join()
    assert result.reason == "interrupted"
    assert heard == [["best.safetensors", "last.safetensors"]]
    assert goes_on(tmp_path, fitted(**(QUICK | sound)), **sound) > 0


def test_two_sigterms_at_once_are_one(tmp_path, whole, small_chunks):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(names(tmp_path)))

    def terminate():
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)

    try:
        fitted(checkpoint=tmp_path, callbacks=[at_step(5, terminate)], **QUICK)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [["best.safetensors", "last.safetensors"]]
    assert goes_on(tmp_path, whole) == 5


def test_a_sigterm_long_after_the_first_ends_at_once(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("at once"))
    monkeypatch.setattr(interrupts, "_SECONDS_OF_ONE", -1.0)
    try:
        with interrupts.interruptible(at_termination=lambda: None):
            signal.raise_signal(signal.SIGTERM)
            assert heard == ["at once"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_checkpoint_sigterm_is_left_alone(small_chunks):
    before = signal.getsignal(signal.SIGTERM)
    during = []
    look = at_step(3, lambda: during.append(signal.getsignal(signal.SIGTERM)))
    fitted(callbacks=[look], **QUICK)
    assert during == [before]


def test_a_process_dies_of_sigterm_after_its_checkpoint(tmp_path):
    program = f"""
import signal, jax, numpy as np, jaxnn as nn
from jaxnn._training.host import clock
clock.SECONDS_PER_CHUNK = 0.0
stop = nn.callbacks.Callback(
    on_step_chunk=lambda e: signal.raise_signal(signal.SIGTERM) if e.step == 3 else None)
x = np.ones((4, 2), np.float32)
nn.fit(nn.dense(1), (x, x[:, :1]), loss=nn.losses.squared_error, key=jax.random.key(0), epochs=9,
       optimizer=nn.optimizers.sgd(0.1), checkpoint={str(tmp_path)!r}, callbacks=[stop])
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == ""
    content = json.loads(nn.saved_metadata(tmp_path / "last.safetensors")["fit"])
    assert content["step"] == 3


def test_a_notice_of_preemption_ends_training(tmp_path, whole, small_chunks, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    notice = multihost_utils
    monkeypatch.setattr(notice, "reached_preemption_sync_point", lambda step: step == 7)
    result = fitted(checkpoint=tmp_path, **QUICK)
    assert result.reason == "interrupted"
    monkeypatch.undo()
    assert goes_on(tmp_path, whole) == 7


def test_ctrl_c_while_a_checkpoint_is_waited_for_is_no_deadlock():
    written, writer = threading.Event(), Writer("it")
    writer.write(written.set)
    assert written.wait(300)
    writer._piece._end.get()  # as by a `wait` that was interrupted just then
    writer.wait()
    assert not writer.is_busy
    assert not writer.failed


def test_a_second_ctrl_c_within_the_handler_is_no_deadlock(small_chunks):
    with interrupts.interruptible(at_termination=lambda: None) as wish:
        handler = signal.getsignal(signal.SIGINT)
        handler(signal.SIGINT, None)
        handler(signal.SIGINT, None)
        assert wish.is_set
        assert wish.termination is None
    assert not any(isinstance(value, threading.Event) for value in vars(wish).values())


def test_a_second_ctrl_c_in_the_midst_of_a_step_is_the_error_that_is_raised(
    tmp_path, small_chunks, whole, monkeypatch
):
    """The step has been given the memory of the arrays, and nothing has come back."""
    real = feeds.InMemory.advance

    def advance(self, steps, within_epoch):
        if self.at.step == 3:
            self._advance(self.position, self.order_key, self.data, self.validation, np.int32(4))
            raise KeyboardInterrupt
        real(self, steps, within_epoch)

    with monkeypatch.context() as patch:
        patch.setattr(feeds.InMemory, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=2), **QUICK)
    assert goes_on(tmp_path, whole) == 2


def test_within_asyncio_the_result_of_an_interrupted_run_is_not_lost(small_chunks):
    interrupt = at_step(3, lambda: signal.raise_signal(signal.SIGINT))

    async def train():
        result = fitted(callbacks=[interrupt], **QUICK)
        await asyncio.sleep(0)  # where asyncio's own handler would cancel
        return result

    assert asyncio.run(train()).reason == "interrupted"


def test_in_a_thread_no_handler_is_set(tmp_path, small_chunks):
    during = []
    look = at_step(3, lambda: during.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: fitted(checkpoint=tmp_path, callbacks=[look], **QUICK))
    thread.start()
    thread.join()
    assert during == [before]


# What is decided anew


@pytest.mark.slow
def test_fewer_epochs_do_not_spoil_the_checkpoint(tmp_path, whole):
    fitted(checkpoint=tmp_path, **(QUICK | {"epochs": 3}))
    for epochs in (1, 2, 1):
        fewer = fitted(checkpoint=tmp_path, resume=True, **(QUICK | {"epochs": epochs}))
        assert len(fewer.history["loss"]) == 3
    goes_on(tmp_path, whole)


@pytest.mark.slow
def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    rates = nn.optimizers.sgd(lambda count: jnp.where(count < 6, 0.3, -0.1))
    options = QUICK | {"optimizer": rates, "epochs": 9}
    stops = nn.early_stopping("loss", patience=2)
    short = fitted(checkpoint=tmp_path, early_stopping=stops, **options)
    assert short.reason == "early_stopping"
    again = fitted(checkpoint=tmp_path, resume=True, early_stopping=stops, **options)
    assert_equal((again.params, again.history), (short.params, short.history))
    longer = nn.early_stopping("loss", patience=4)
    whole = fitted(early_stopping=longer, **options)
    more = fitted(checkpoint=tmp_path, resume=True, early_stopping=longer, **options)
    assert len(short.history["loss"]) < len(more.history["loss"])
    assert_equal(
        (more.params, more.history, more.best_epoch),
        (whole.params, whole.history, whole.best_epoch),
    )
    without = fitted(checkpoint=tmp_path, resume=True, **options)
    assert without.reason == "epochs"
    assert_equal(without.history, fitted(**options).history)


@pytest.mark.slow
def test_members_that_stopped_go_on_together(tmp_path):
    rates = nn.optimizers.sgd(lambda count: jnp.where(count < 6, 0.3, -0.1))
    options = QUICK | {"members": 2, "epochs": 6, "optimizer": rates}
    stops = nn.early_stopping("loss", patience=1)
    short = fitted(checkpoint=tmp_path, early_stopping=stops, **options)
    assert short.history["epochs"].min() < 6
    more = fitted(checkpoint=tmp_path, resume=True, **options)
    assert more.history["loss"].shape == (6, 2)
    assert np.all(more.history["loss"] > 0)


@quick_first(1)
@pytest.mark.parametrize("choice", [pytest.param("stop", marks=pytest.mark.slow), "raise"])
def test_a_run_that_met_a_bad_step_tries_it_again(choice, tmp_path, whole):
    holed = (np.where(np.arange(22)[:, None] == 20, np.nan, DATA[0]), DATA[1])
    options = QUICK | {"on_nonfinite": choice}
    try:
        assert fitted(data=holed, checkpoint=tmp_path, **options).reason == "nonfinite"
    except FloatingPointError:
        assert choice == "raise"
    with pytest.raises(
        ValueError, match=r"data another float32.* by what is in it, expected the same"
    ):
        fitted(checkpoint=tmp_path, resume=True, **options)
    with pytest.warns(RuntimeWarning, match="is of a run with data"):
        again = fitted(checkpoint=tmp_path, resume="changed", **options)
    assert_equal((again.params, again.history), (whole.params, whole.history))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, "skip"),
        pytest.param("skip", None, marks=pytest.mark.slow),
        pytest.param("stop", "skip", marks=pytest.mark.slow),
    ],
)
def test_what_to_do_about_bad_steps_is_decided_anew(first, second, tmp_path, whole):
    fitted(checkpoint=tmp_path, on_nonfinite=first, **(QUICK | {"epochs": 2}))
    again = fitted(checkpoint=tmp_path, resume=True, on_nonfinite=second, **QUICK)
    assert_equal(again.params, whole.params)
    assert_equal(again.history["loss"], whole.history["loss"])


@pytest.mark.slow
def test_another_value_to_tell_the_best_by_begins_anew(tmp_path):
    options = QUICK | {"validation": VALIDATION, "metrics": {"a": nn.metrics.accuracy()}}
    fitted(checkpoint=nn.checkpoints(tmp_path, best="val_a"), **(options | {"epochs": 2}))
    result = fitted(checkpoint=tmp_path, resume=True, **options)
    assert result.best_epoch in (2, 3)
    assert result.best_value == pytest.approx(result.history["val_loss"][2:].min())
    with pytest.raises(ValueError, match="best='val_a' and early_stopping looks at 'val_loss'"):
        fitted(
            checkpoint=nn.checkpoints(tmp_path, best="val_a"),
            early_stopping=nn.early_stopping(),
            **options,
        )


@pytest.mark.filterwarnings("ignore:fit. checkpoint .* is of a run with")
def test_an_epoch_that_has_become_shorter_begins_anew(tmp_path):
    stop = at_step(1, lambda: True)
    clock_of_one = nn.checkpoints(tmp_path, every_steps=1)
    fitted(checkpoint=clock_of_one, callbacks=[stop], **QUICK)
    few = (DATA[0][:8], DATA[1][:8])  # one step
    result = fitted(checkpoint=tmp_path, resume="changed", **(QUICK | {"data": few}))
    assert result.history["loss"].shape == (4,)
    assert np.isfinite(result.history["loss"]).all()


# What is compared

FIRST = {"model": nn.serial(nn.dense(4), nn.tanh, nn.dense(3)), "epochs": 1, "shuffle": True}


def scaled_loss(factor):
    return lambda y, t: factor * nn.losses.softmax_cross_entropy(y, t)


FACTOR, OTHER_FACTOR = 1.0, np.float32(1.0)


def scaled(y):
    return FACTOR * y


def loss_of_globals(y, t):
    return OTHER_FACTOR * nn.losses.softmax_cross_entropy(scaled(y), t)


@pytest.mark.parametrize("name", ["FACTOR", "OTHER_FACTOR", "scaled"])
def test_globals_of_a_function_are_compared(name, monkeypatch):
    before = told(loss_of_globals)
    assert told(loss_of_globals) == before
    monkeypatch.setitem(globals(), name, _other(name))
    assert told(loss_of_globals) != before


def _other(name):
    return (lambda y: y) if name == "scaled" else 2.0


class ScaledLoss:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, y, t):
        return scaled_loss(self.factor)(y, t)


CHANGES = {
    "rate": ({}, {"optimizer": nn.optimizers.sgd(0.2)}, r"optimizer sgd\(0.1\), expected sgd\(0.2"),
    "schedule": (
        {"optimizer": nn.optimizers.sgd(lambda count: 0.1 - 0.0 * count.astype(float))},
        {"optimizer": nn.optimizers.sgd(lambda count: 0.2 - 0.0 * count.astype(float))},
        "optimizer another sgd",
    ),
    "array": (
        {"optimizer": nn.optimizers.sgd(np.float32(0.1))},
        {"optimizer": nn.optimizers.sgd(np.float32(0.3))},
        "optimizer",
    ),
    "activation": (
        {},
        {"model": nn.serial(nn.dense(4), nn.relu, nn.dense(3))},
        "model serial.*tanh.*expected serial.*relu",
    ),
    "own activation": (
        {"model": nn.serial(nn.dense(4), lambda x: x * 2, nn.dense(3))},
        {"model": nn.serial(nn.dense(4), lambda x: x * 3, nn.dense(3))},
        "model another serial",
    ),
    "loss": ({}, {"loss": nn.losses.poly_loss_cross_entropy}, "loss softmax.*expected poly"),
    "closure": ({"loss": scaled_loss(1.0)}, {"loss": scaled_loss(2.0)}, "loss another scaled_loss"),
    "object": ({"loss": ScaledLoss(1.0)}, {"loss": ScaledLoss(2.0)}, "loss another ScaledLoss"),
    "jitted": (
        {"loss": jax.jit(scaled_loss(1.0))},
        {"loss": jax.jit(scaled_loss(2.0))},
        "loss another .*scaled_loss",
    ),
    "regularizer": ({}, {"regularizer": nn.regularizers.l2(0.1)}, "regularizer None, expected l2"),
    "data": ({}, {"data": (DATA[0] + 1, DATA[1])}, "data another float32"),
    "validation": ({}, {"validation": VALIDATION}, "validation nothing, expected float32"),
    "shuffle": ({}, {"shuffle": False}, "shuffle True, expected False"),
}


def changes():
    """Always one of a constant, one of a function, and one that adds to the history."""
    quick = ("rate", "validation", "closure")
    return [pytest.param(c, marks=() if c in quick else pytest.mark.slow) for c in CHANGES]


@pytest.mark.parametrize("case", sorted(CHANGES.keys() - {"data", "validation"}))
def test_a_change_is_told(case):
    first, second, _ = CHANGES[case]
    for name, value in second.items():
        before = (FIRST | {"loss": nn.losses.softmax_cross_entropy} | first).get(name, SGD)
        assert told(value) != told(before)


@quick_first(2)
@pytest.mark.parametrize("case", changes())
def test_a_change_is_an_error_or_a_warning(case, tmp_path):
    first, second, message = CHANGES[case]
    fitted(checkpoint=tmp_path, **(FIRST | first))
    fitted(checkpoint=tmp_path, resume=True, **(FIRST | first))  # without a word
    with pytest.raises(ValueError, match=f"is of a run with {message}.*or resume='changed'"):
        fitted(checkpoint=tmp_path, resume=True, **(FIRST | first | second))
    with pytest.warns(RuntimeWarning, match=message):
        changed = fitted(
            checkpoint=tmp_path, resume="changed", **(FIRST | first | second | {"epochs": 2})
        )
    new = {"regularizer": "penalty", "validation": "val_loss"}.get(case, "loss")
    assert np.isnan(changed.history[new]).tolist() == [new != "loss", False]


@pytest.mark.filterwarnings("ignore:fit. checkpoint .* is of a run with optimizer")
def test_an_optimizer_with_another_state_begins_a_run_of_its_own(tmp_path):
    fitted(checkpoint=tmp_path, **FIRST)
    other = nn.optimizers.sgd(lambda count: 0.1 + 0.0 * count.astype(float))
    with pytest.raises(ValueError, match="another optimizer begins a run of its own"):
        fitted(checkpoint=tmp_path, resume="changed", **(FIRST | {"optimizer": other}))


def test_other_versions_warn_at_the_line_that_calls_fit(tmp_path, monkeypatch):
    fitted(checkpoint=tmp_path, **FIRST)
    monkeypatch.setattr(jax, "__version__", "0.99.0")
    text = "was written with jax .*, and this is 0.99.0"
    with pytest.warns(RuntimeWarning, match=text) as told:
        fitted(checkpoint=tmp_path, resume=True, **FIRST)
    assert Path(told[0].filename).name == "training_cases.py"


def test_a_run_is_told_alike_in_every_process():
    program = """
import jaxnn as nn
from jaxnn._training.host.identity import told
from tests import killed_run
from tests.training_cases import NOISY
for value in (NOISY, nn.losses.softmax_cross_entropy, killed_run.optimizers(), killed_run.batches,
              {"a": nn.metrics.accuracy()}, lambda x: x in {"a", "b", "c", "d"}):
    print(*told(value))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert told(nn.dense(3)).text == "dense(3)"
    assert told(nn.dense(3)) == told(nn.dense(3)) != told(nn.dense(4))
    assert sample((np.zeros(3), [1])).text == "a tuple"


# Which are kept


def test_the_last_and_some_others_are_kept(tmp_path, small_chunks):
    options = nn.checkpoints(tmp_path, every_steps=2, keep=2, keep_every=3)
    fitted(checkpoint=options, **QUICK)
    kept = ["best", "checkpoint-3", "checkpoint-5", "last"]  # of six
    assert names(tmp_path) == [f"{name}.safetensors" for name in kept]
    contents = {
        name: json.loads(nn.saved_metadata(tmp_path / name)["fit"]) for name in names(tmp_path)[1:]
    }
    assert [content["step"] for content in contents.values()] == [6, 10, 12]


@pytest.mark.parametrize("damage", ["lost", "short", "empty"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(damage, tmp_path, whole, small_chunks):
    options = nn.checkpoints(tmp_path, every_epochs=1, keep=3)
    with pytest.raises(OSError, match="pipe"):
        fitted(checkpoint=options, callbacks=[at_step(10, fail)], **QUICK)
    last = tmp_path / "last.safetensors"
    if damage == "lost":
        last.unlink()
        assert goes_on(tmp_path, whole) == 9
        return
    last.write_bytes(last.read_bytes()[:-3] if damage == "short" else b"")
    with pytest.warns(RuntimeWarning, match="training goes on from checkpoint-3.safetensors"):
        assert goes_on(tmp_path, whole) == 9


@pytest.mark.filterwarnings("ignore:saved_metadata")  # that the last is damaged
def test_what_a_run_goes_on_from_stays_until_the_next_is_written(tmp_path, whole, monkeypatch):
    fitted(checkpoint=nn.checkpoints(tmp_path, every_epochs=1), **(QUICK | {"epochs": 3}))
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    real = checkpoints.save

    def save(path, tree, **options):
        return fail() if path.name == "last.safetensors" else real(path, tree, **options)

    monkeypatch.setattr(checkpoints, "save", save)
    with pytest.warns(RuntimeWarning, match="was not written"):
        assert goes_on(tmp_path, whole) == 6
    monkeypatch.undo()
    assert goes_on(tmp_path, whole) == 6


def test_checkpoints_are_due_by_steps_epochs_or_seconds(tmp_path, small_chunks, monkeypatch):
    def saved_at(**options):
        steps = []
        piece = checkpoints.Checkpoints._piece
        with monkeypatch.context() as patch:
            patch.setattr(
                checkpoints.Checkpoints,
                "_piece",
                lambda self, at, seconds: steps.append(at.step) or piece(self, at, seconds),
            )
            fitted(checkpoint=nn.checkpoints(tmp_path / str(options), **options), **QUICK)
        return steps

    assert saved_at(every_steps=5) == [5, 10, 12]
    assert saved_at(every_epochs=2) == [6, 12]
    assert saved_at(every_seconds=0.0) == list(range(1, 13))
    assert saved_at(every_seconds=1e6) == [12]
    assert saved_at() == [12]
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 1e6)  # a chunk as long as may be
    assert saved_at(every_steps=4, keep=1) == [4, 8, 12]


def test_a_future_that_was_given_up_gives_way(tmp_path, small_chunks):
    options = nn.checkpoints(tmp_path, every_steps=2, keep=3)
    fitted(checkpoint=options, **(QUICK | {"epochs": 2}))  # after steps 2, 4 and 6
    (tmp_path / "checkpoint-2.safetensors").write_bytes(b"damaged")
    (tmp_path / "checkpoint-1.safetensors").replace(tmp_path / "last.safetensors")
    fitted(checkpoint=options, resume=True, **(QUICK | {"epochs": 2}))
    assert steps_of(tmp_path) == [2, 4, 6]


def test_a_link_in_the_place_of_the_last_one_keeps_the_older_ones_apart(tmp_path, small_chunks):
    place = tmp_path / "run"
    place.mkdir()
    (place / "last.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    fitted(checkpoint=nn.checkpoints(place, every_steps=4, keep=3), **QUICK)
    assert steps_of(place) == [4, 8, 12]


def steps_of(directory):
    """The steps of the checkpoints, by their names."""
    paths = [path for path in sorted(directory.glob("*.safetensors")) if path.stem != "best"]
    return [json.loads(nn.saved_metadata(path)["fit"])["step"] for path in paths]


# What cannot be written


def test_a_full_disk_costs_no_result(tmp_path, whole, small_chunks, monkeypatch):
    real, calls = checkpoints.save, []

    def full(path, tree, **options):
        calls.append(path)
        if 2 <= len(calls) <= 5:
            raise OSError(28, "No space left on device")
        real(path, tree, **options)

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.warns(RuntimeWarning, match="was not written: OSError: .* No space left on device"):
        result = fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=3), **QUICK)
    assert_equal((result.params, result.history), (whole.params, whole.history))
    assert json.loads(nn.saved_metadata(tmp_path / "last.safetensors")["fit"])["step"] == 12
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: fail())
    with pytest.warns(RuntimeWarning, match="was not written: OSError"):
        again = fitted(checkpoint=tmp_path, resume=True, **(QUICK | {"epochs": 5}))
    assert len(again.history["loss"]) == 5


def test_a_directory_that_vanishes_costs_no_result(tmp_path, whole, small_chunks):
    place = tmp_path / "run"

    def vanish():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()

    with pytest.warns(RuntimeWarning, match="was not written"):
        result = fitted(checkpoint=place, callbacks=[at_step(6, vanish)], **QUICK)
    assert_equal((result.params, result.history), (whole.params, whole.history))


def test_the_last_save_has_a_time_limit(tmp_path, monkeypatch):
    waits = threading.Event()
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: waits.wait())
    with pytest.warns(RuntimeWarning, match="TimeoutError: it took more than 0.01 seconds"):
        result = fitted(checkpoint=nn.checkpoints(tmp_path, time_limit=0.01), **QUICK)
    waits.set()
    assert result.reason == "epochs"


def test_a_save_that_hangs_does_not_keep_the_run_from_ending(tmp_path, small_chunks, monkeypatch):
    waits = threading.Event()
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: waits.wait())
    options = nn.checkpoints(tmp_path, every_steps=11, time_limit=0.01)
    with pytest.warns(RuntimeWarning, match="TimeoutError: it took more than 0.01 seconds"):
        result = fitted(checkpoint=options, **QUICK)
    waits.set()
    assert result.reason == "epochs"


@pytest.mark.filterwarnings("ignore:fit. checkpoint .*TimeoutError")
def test_a_save_that_hangs_is_waited_for_so_long_and_the_next_are_written_again(
    tmp_path, small_chunks, monkeypatch
):
    real, goes = checkpoints.save, threading.Event()

    def hanging(path, tree, **options):
        assert goes.wait(60)
        real(path, tree, **options)

    def let_it_end():
        goes.set()
        for thread in threading.enumerate():
            if thread.name == "jaxnn-writer":
                thread.join()

    def see(event):
        if event.step == 10:
            let_it_end()

    monkeypatch.setattr(checkpoints, "save", hanging)
    watch = nn.callbacks.Callback(on_step_chunk=see)
    options = nn.checkpoints(tmp_path, every_steps=4, keep=9, time_limit=0.01)
    fitted(checkpoint=options, callbacks=[watch], **QUICK)
    let_it_end()
    assert steps_of(tmp_path) == [4, 12]


def test_without_a_thread_checkpoints_are_written_all_the_same(tmp_path, small_chunks, monkeypatch):
    real = threading.Thread.start

    def start(thread):
        if thread.name == "jaxnn-writer":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=4, keep=3), **QUICK)
    assert steps_of(tmp_path) == [4, 8, 12]


def test_a_best_that_cannot_be_written_costs_no_run_and_is_written_later(tmp_path, whole):
    best = tmp_path / "best.safetensors"
    best.mkdir()
    with pytest.warns(RuntimeWarning, match=r"best\.safetensors is there and is no file"):
        fitted(checkpoint=tmp_path, **(QUICK | {"epochs": 3}))
    best.rmdir()
    goes_on(tmp_path, whole)
    assert best.is_file()
    best.unlink()
    goes_on(tmp_path, whole, epochs=4)


def test_training_goes_on_while_a_thread_writes(tmp_path, small_chunks, monkeypatch):
    real, steps, goes = checkpoints.save, [], threading.Event()

    def slow(path, tree, **options):
        if path.name == "last.safetensors":
            assert goes.wait(60)
        real(path, tree, **options)

    def see(event):
        steps.append(event.step)
        if event.step == 5:
            goes.set()

    monkeypatch.setattr(checkpoints, "save", slow)
    watch = nn.callbacks.Callback(on_step_chunk=see)
    fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=3), callbacks=[watch], **QUICK)
    assert steps == list(range(1, 13))


def test_a_reader_finds_the_last_checkpoint_while_the_next_is_written(
    tmp_path, small_chunks, monkeypatch
):
    real, found = checkpoints.save, []

    def save(path, tree, **options):
        if path.name == "last.safetensors":
            found.append(path.exists() and int(nn.load(path)["step"]))
        real(path, tree, **options)

    monkeypatch.setattr(checkpoints, "save", save)
    fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=1), **QUICK)
    assert found == [False, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]  # steps in an epoch


def test_relative_paths_and_bytes(tmp_path, monkeypatch, small_chunks):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    leave = at_step(2, lambda: os.chdir(tmp_path / "elsewhere"))
    fitted(checkpoint="run", callbacks=[leave], **QUICK)
    assert names(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    fitted(checkpoint=bytes(tmp_path / "other"), **QUICK)
    assert names(tmp_path / "other") == ["best.safetensors", "last.safetensors"]


def test_callbacks_may_save_numbers_of_numpy_and_get_them_by_name(tmp_path):
    def counter(count, totals):
        def on_epoch(event):
            nonlocal count
            count = count + 1
            totals.append(int(count))

        def restore(value):
            nonlocal count
            count = np.int64(value)

        return nn.callbacks.Callback(on_epoch=on_epoch, save=lambda: count, restore=restore)

    first, second = [], []
    both = [counter(np.int64(0), first), counter(jnp.array(10), second)]
    fitted(checkpoint=tmp_path, callbacks=both, **(QUICK | {"epochs": 2}))
    both = [counter(np.int64(0), first), counter(np.int64(0), second)]
    fitted(checkpoint=tmp_path, resume=True, callbacks=[nn.callbacks.Callback(), *both], **QUICK)
    assert first == [1, 2, 3, 4]
    assert second == [11, 12, 13, 14]


@pytest.mark.parametrize("value", [{1: "a"}, [{"a": {None: 1}}], {1}, 1j, b"a", KEY])
def test_what_a_callback_would_not_get_back_is_refused(value, tmp_path):
    callback = nn.callbacks.Callback(save=lambda: value)
    with pytest.raises(TypeError, match="whose save returned what JSON cannot hold"):
        fitted(checkpoint=tmp_path, callbacks=[callback], **QUICK)


def test_a_callback_that_fails_to_save_later_costs_no_checkpoint(tmp_path, small_chunks):
    values, restored = iter([1, 2]), []
    callback = nn.callbacks.Callback(save=lambda: next(values), restore=restored.append)
    with pytest.warns(RuntimeWarning, match="whose save failed: StopIteration"):
        fitted(checkpoint=nn.checkpoints(tmp_path, every_steps=5), callbacks=[callback], **QUICK)
    assert steps_of(tmp_path) == [10, 12]
    again = nn.callbacks.Callback(save=callback.save, restore=restored.append)
    values = iter([0])
    fitted(checkpoint=tmp_path, resume=True, callbacks=[again], **QUICK)
    assert restored == [2]


# One owner


def try_to_own(directory, results):
    try:
        with owned("fit", Path(directory)):
            results.put("owned")
    except BlockingIOError as error:
        results.put(str(error))


@pytest.mark.slow  # fork is quick
def test_a_directory_has_one_owner(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()

    def tried():
        process = spawn.Process(target=try_to_own, args=(str(tmp_path), results))
        process.start()
        found = results.get(timeout=120)
        process.join()
        return found

    with owned("fit", tmp_path):
        assert tried() == (
            f"fit: checkpoint {tmp_path} is in use by process {os.getpid()}, expected a directory "
            "for each run; it is free again when that ends"
        )
        with pytest.raises(BlockingIOError, match="another thread of this process"):
            fitted(checkpoint=tmp_path, **QUICK)
    assert tried() == "owned"
    fitted(checkpoint=tmp_path, **QUICK)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every_steps": 0}, ValueError, "every_steps is 0"),
        ({"every_epochs": 1.5}, TypeError, "every_epochs is 1.5"),
        ({"every_seconds": -1.0}, ValueError, "every_seconds is -1.0"),
        ({"keep": 0}, ValueError, "keep is 0"),
        ({"keep_every": 0}, ValueError, "keep_every is 0"),
        ({"best": 3}, TypeError, "best is 3"),
        ({"mode": "less"}, ValueError, "mode is 'less'"),
        ({"time_limit": float("nan")}, ValueError, "time_limit is nan"),
    ],
)
def test_options_are_checked(options, error, message, tmp_path):
    with pytest.raises(error, match=f"checkpoints: {message}"):
        nn.checkpoints(tmp_path, **options)


def test_arguments_of_fit_are_checked(tmp_path):
    with pytest.raises(ValueError, match="checkpoint is '', expected the name of a directory"):
        fitted(checkpoint="", **QUICK)
    with pytest.raises(ValueError, match="directory is b'', expected its name"):
        nn.checkpoints(b"")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is there and is no directory"):
        fitted(checkpoint=tmp_path / "file", **QUICK)
    with pytest.raises(
        TypeError, match=r"checkpoint is 3, expected a directory or nn\.checkpoints"
    ):
        fitted(checkpoint=3, **QUICK)
    with pytest.raises(ValueError, match="resume is 'yes', expected True or False or 'changed'"):
        fitted(checkpoint=tmp_path, resume="yes", **QUICK)
