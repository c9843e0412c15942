"""Runs that are interrupted go on as if nothing had happened."""

import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.host import checkpoints, clock
from tests.parameters import quick_first
from tests.training_cases import ADAM, DATA, LINEAR, VALIDATION, assert_equal, fitted

QUICK = {"model": LINEAR, "batch_size": 8, "epochs": 6, "optimizer": ADAM, "shuffle": True}


@pytest.fixture
def always(monkeypatch):
    """Chunks of one step, each followed by a checkpoint."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", 0.0)


def stop_after(step):
    return nn.callbacks.Callback(on_step_chunk=lambda event: event.step >= step)


@quick_first(2)
@pytest.mark.parametrize("step", [1, 3, 4, 11])
def test_a_run_goes_on_in_the_middle_of_an_epoch_or_at_its_end(step, tmp_path, always):
    whole = fitted(**QUICK)
    first = fitted(checkpoint=tmp_path, callbacks=[stop_after(step)], **QUICK)
    assert first.reason == "callback"
    seen = []
    again = fitted(
        checkpoint=tmp_path,
        resume=True,
        callbacks=[nn.callbacks.Callback(on_step_chunk=seen.append)],
        **QUICK,
    )
    assert seen[0].step == step + 1
    assert seen[0].examples == 22 * ((step + 1) // 3) + 8 * ((step + 1) % 3)
    assert_equal((again.params, again.history), (whole.params, whole.history))


def test_the_best_is_kept_and_can_be_loaded(tmp_path):
    params_of_epoch = []
    rates = nn.optimizers.sgd(lambda count: jnp.where(count < 9, 0.3, -0.1))
    options = QUICK | {"optimizer": rates, "validation": VALIDATION}
    result = fitted(
        checkpoint=tmp_path,
        callbacks=[lambda event: params_of_epoch.append(jax.tree.map(np.array, event.params))],
        **options,
    )
    best = int(np.argmin(result.history["val_loss"]))
    assert 0 < best < 5
    kept = nn.load(tmp_path / "best.safetensors", {"params": result.params, "state": {}})
    assert_equal(kept["params"], params_of_epoch[best])
    assert_equal(result.params, params_of_epoch[-1])  # nobody asked to go back
    resumed = fitted(
        checkpoint=tmp_path,
        resume=True,
        **(options | {"epochs": 7}),
        callbacks=[nn.callbacks.Callback()],
    )
    assert len(resumed.history["loss"]) == 7


def test_more_epochs_can_be_asked_for(tmp_path):
    whole = fitted(**QUICK)
    fitted(checkpoint=tmp_path, **(QUICK | {"epochs": 1}))
    again = fitted(checkpoint=tmp_path, resume=True, **QUICK)
    assert_equal((again.params, again.history), (whole.params, whole.history))


def test_callbacks_remember(tmp_path):
    def counter():
        count = 0

        def on_epoch(event):
            nonlocal count
            count += 1
            totals.append(count)

        def restore(value):
            nonlocal count
            count = value["count"]

        return nn.callbacks.Callback(
            on_epoch=on_epoch, save=lambda: {"count": count}, restore=restore
        )

    totals = []
    fitted(checkpoint=tmp_path, callbacks=[counter()], **(QUICK | {"epochs": 1}))
    fitted(checkpoint=tmp_path, resume=True, callbacks=[counter()], **QUICK)
    assert totals == [1, 2, 3, 4, 5, 6]
    fitted(checkpoint=tmp_path, resume=True, **QUICK)  # callbacks may differ


def test_a_run_is_not_overwritten(tmp_path):
    fitted(checkpoint=tmp_path, **QUICK)
    with pytest.raises(FileExistsError, match="expected resume=True"):
        fitted(checkpoint=tmp_path, **QUICK)


OTHERS = {
    "batch size": ({"batch_size": 7}, "batch_size 8, expected 7"),
    "key": ({"key": jax.random.key(2)}, "the key another list, by what is in it"),
    "order": ({"shuffle": False}, "shuffle True, expected False"),
    "data": ({"data": (DATA[0][:9], DATA[1][:9])}, "steps in an epoch 3, expected 2"),
    "model": ({"model": nn.dense(4)}, r"model dense\(3\), expected dense\(4\)"),
    "optimizer": ({"optimizer": nn.optimizers.sgd(0.1)}, r"expected sgd\(0.1\), as of this one"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_run_is_refused(case, tmp_path):
    fitted(checkpoint=tmp_path, **(QUICK | {"epochs": 1}))
    changes, message = OTHERS[case]
    with pytest.raises(ValueError, match=message):
        fitted(checkpoint=tmp_path, resume=True, **(QUICK | changes))


def test_a_checkpoint_that_is_damaged_or_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="resume is True and checkpoint is None"):
        fitted(resume=True, **QUICK)
    nn.save(tmp_path / "last.safetensors", {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="is not of fit"):
        fitted(checkpoint=tmp_path, resume=True, **QUICK)
    (tmp_path / "last.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        fitted(checkpoint=tmp_path, resume=True, **QUICK)


def test_ctrl_c_gives_what_was_learned(tmp_path, always):
    def interrupt(event):
        if event.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    callback = nn.callbacks.Callback(on_step_chunk=interrupt)
    result = fitted(callbacks=[callback], checkpoint=tmp_path, **QUICK)
    assert result.reason == "interrupted"
    assert len(result.history["loss"]) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    whole = fitted(**QUICK)
    again = fitted(checkpoint=tmp_path, resume=True, callbacks=[nn.callbacks.Callback()], **QUICK)
    assert_equal((again.params, again.history), (whole.params, whole.history))


def test_the_second_ctrl_c_is_the_usual_one(always):
    def interrupt(event):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fitted(callbacks=[nn.callbacks.Callback(on_step_chunk=interrupt)], **QUICK)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_threads_may_train():
    results = []
    thread = threading.Thread(target=lambda: results.append(fitted(**QUICK)))
    thread.start()
    thread.join()
    assert_equal(results[0].params, fitted(**QUICK).params)


def test_checkpoints_change_no_number(tmp_path):
    for options in ({}, {"early_stopping": nn.early_stopping("loss", patience=1)}):
        directory = tmp_path / str(len(options))
        plain, saved = fitted(**QUICK, **options), fitted(checkpoint=directory, **QUICK, **options)
        assert_equal(
            (plain.params, plain.history, plain.opt_state),
            (saved.params, saved.history, saved.opt_state),
        )
