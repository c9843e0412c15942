"""Losses and gradients that are infinite or NaN, and the scale of the loss in half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.host import clock
from tests.numpy_reference import optimizer_wrappers as reference
from tests.numpy_reference import optimizers as rules
from tests.parameters import quick_first
from tests.training_cases import ADAM, KEY, LABELS, LINEAR, SGD, X, assert_close, fitted, run

BAD = X.copy()
BAD[17, 1] = np.nan  # in the last of three batches
HOSTILE = {"data": (BAD, LABELS), "batch_size": 8}


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_nothing_is_done_unless_asked_for():
    result = fitted(LINEAR, **HOSTILE)
    assert np.isnan(result.history["loss"]).all()
    assert not finite(result.params)
    assert set(result.history) == {"loss"}


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_an_error_names_step_and_leaves(seconds, monkeypatch):
    monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", seconds)
    message = "fit: the loss and the gradient of 'bias', 'kernel' is infinite or NaN at step 2"
    with pytest.raises(FloatingPointError, match=message):
        fitted(LINEAR, on_nonfinite="raise", **HOSTILE)


def root(params, state, batch, key):
    """Its value is finite at 0, its derivative is not."""
    x, _ = batch
    return jnp.sqrt(params["a"] * 0 + jnp.sum(params["b"] ** 2) * x.mean()), (state, {})


def test_a_gradient_may_be_bad_where_the_loss_is_not():
    params = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    message = "fit: the gradient of 'a', 'b' is infinite or NaN at step 0"
    with pytest.raises(FloatingPointError, match=message):
        fitted(root, loss=None, params=params, on_nonfinite="raise")


@pytest.mark.parametrize("train", ["fit", "training_run"])
def test_skipping_leaves_everything_as_it_was_and_is_counted(train):
    """As if the bad batch were not there, but that steps are counted."""
    two = {"data": (X[:16], LABELS[:16]), "batch_size": 8}
    if train == "fit":
        ours = fitted(LINEAR, on_nonfinite="skip", **HOSTILE)
        theirs = fitted(LINEAR, **two)
        assert_close((ours.params, ours.opt_state), (theirs.params, theirs.opt_state))
        params, history = ours.params, ours.history
    else:
        params, _, history = run(LINEAR, on_nonfinite="skip", **HOSTILE)
        theirs = fitted(LINEAR, **two)
    assert_close(params, theirs.params)
    np.testing.assert_allclose(history["loss"], theirs.history["loss"], rtol=1e-5)
    assert history["skipped"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("train", ["fit", "training_run"])
def test_stopping_keeps_what_was_before(train):
    """Also where good batches come after the bad one, which is the second here."""
    options = HOSTILE | {"data": (np.roll(BAD, -8, axis=0), np.roll(LABELS, -8))}
    one = fitted(LINEAR, (X[8:16], LABELS[8:16]), epochs=1)
    if train == "fit":
        result = fitted(LINEAR, on_nonfinite="stop", **options)
        assert result.reason == "nonfinite"
        assert len(result.history["loss"]) == 0  # the first epoch was not finished
        params = result.params
    else:
        params, _, history = run(LINEAR, on_nonfinite="stop", **options)
        assert history["epochs"] == 0
    assert_close(params, one.params)


@quick_first(1)
@pytest.mark.parametrize("choice", ["raise", "skip", "stop"])
def test_a_good_run_is_what_it_is_without(choice):
    plain = fitted(LINEAR)
    watched = fitted(LINEAR, on_nonfinite=choice)
    assert watched.history.pop("skipped", np.zeros(3)).tolist() == [0, 0, 0]
    assert watched.reason == "epochs"
    assert_close((watched.params, watched.history), (plain.params, plain.history), rtol=1e-6)


def test_data_that_come_in_batches():
    def batches(epoch):
        for i in range(0, 22, 8):
            yield BAD[i : i + 8], LABELS[i : i + 8]

    with pytest.raises(FloatingPointError, match="at step 2, counted from 0"):
        fitted(LINEAR, batches, on_nonfinite="raise")


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"on_nonfinite is 'ignore', expected 'raise', 'skip', 'stop'"
    ):
        fitted(LINEAR, on_nonfinite="ignore")
    with pytest.raises(
        ValueError, match=r"on_nonfinite is 'raise', expected 'skip', 'stop' or None"
    ):
        run(LINEAR, on_nonfinite="raise")


# The scale of the loss


HALF = nn.mixed_precision(LINEAR, jnp.float16, output_dtype=jnp.float32)
FULL = nn.serial(nn.dense(16), nn.tanh, nn.dense(3))


def tiny(logits, labels):
    """A loss so small that its gradients are zero in float16."""
    return 1e-7 * nn.losses.softmax_cross_entropy(logits, labels)


def test_small_gradients_survive_in_half_precision():
    def result(model, optimizer):
        return fitted(model, loss=tiny, optimizer=optimizer, epochs=20).history["loss"] * 1e7

    sgd = nn.optimizers.sgd(3e6)
    lost = result(HALF, sgd)
    scaled = result(HALF, nn.optimizers.dynamic_loss_scale(sgd))
    full = result(LINEAR, sgd)
    assert full[-1] < 0.8 * full[0]
    np.testing.assert_allclose(scaled, full, rtol=5e-3)
    assert lost[-1] > full[-1] + 0.05


def test_a_scale_that_is_too_large_falls_until_it_fits():
    optimizer = nn.optimizers.dynamic_loss_scale(ADAM, initial=2.0**24)
    result = fitted(HALF, optimizer=optimizer, epochs=40, on_nonfinite="raise")
    state = result.opt_state
    assert 1 <= int(state.total_skipped) < 20
    assert float(state.loss_scale) == 2.0**24 / 2 ** int(state.total_skipped)
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_a_loss_that_stays_bad_is_told_once_the_scale_is_at_its_minimum():
    optimizer = nn.optimizers.dynamic_loss_scale(ADAM, initial=4.0)
    params = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    with pytest.raises(FloatingPointError, match=r"the gradient of 'a', 'b' .* at step 1"):
        fitted(root, loss=None, params=params, optimizer=optimizer, on_nonfinite="raise", epochs=9)


def test_the_scale_grows_after_good_steps_and_changes_no_update():
    options = {"epochs": 9, "record": ("gradient_norm",)}
    plain = fitted(LINEAR, **options)
    optimizer = nn.optimizers.dynamic_loss_scale(SGD, initial=8.0, period=4)
    scaled = fitted(LINEAR, optimizer=optimizer, **options)
    assert_close((scaled.params, scaled.history), (plain.params, plain.history))
    assert float(scaled.opt_state.loss_scale) == 8.0 * 2**2  # nine steps
    assert int(scaled.opt_state.good_steps) == 1


def test_the_scale_is_that_of_numpy():
    """Gradients that overflow now and then, by the same rule in both."""
    settings = {"initial": 8.0, "period": 3, "factor": 2.0, "minimum": 2.0}
    ours = nn.optimizers.dynamic_loss_scale(nn.optimizers.adam(0.1), **settings)
    theirs = reference.dynamic_loss_scale(reference.each(rules.adam(0.1)), **settings)
    gradients = np.array([3, np.inf, 1, 2, -1, np.nan, np.inf, np.inf, 4, 1, 2, 3, 1], np.float32)
    w, state = jnp.zeros(1), ours.init(jnp.zeros(1))
    w_numpy, state_numpy = {"": np.zeros(1)}, theirs.init({"": np.zeros(1)})
    update = jax.jit(ours.update)
    for g in gradients:
        updates, state = update(jnp.array([g]), state)
        moves, state_numpy = theirs.update({"": np.array([g])}, state_numpy, w_numpy)
        w, w_numpy = w + updates, {"": w_numpy[""] + moves[""]}
        np.testing.assert_allclose(w, w_numpy[""], rtol=1e-5)
        assert float(state.loss_scale) == state_numpy["scale"]
        assert bool(state.at_minimum) == (state_numpy["scale"] == 2.0)
    assert int(state.total_skipped) == 4


def test_the_hyperparameters_of_the_scale_may_be_traced():
    def two_steps(settings):
        optimizer = nn.optimizers.dynamic_loss_scale(nn.optimizers.sgd(1.0), period=1, **settings)
        state = optimizer.init(jnp.zeros(1))
        _, state = optimizer.update(jnp.ones(1), state)
        return optimizer.update(jnp.full(1, jnp.nan), state)[1].loss_scale

    settings = {"initial": 4.0, "factor": 8.0, "minimum": 2.0}
    assert float(jax.jit(two_steps)(settings)) == float(two_steps(settings)) == 4.0


def test_an_inner_optimizer_sees_the_true_loss_and_gradient():
    def update(grads, state, params=None, *, value, grad, value_fn, **extra):
        seen = grads["w"] + 10 * value + 100 * grad["w"] + 1000 * value_fn(params)
        return {"w": seen}, state

    inner = nn.optimizers.Optimizer(lambda params: (), update)
    optimizer = nn.optimizers.dynamic_loss_scale(inner, initial=8.0)
    step = nn.train_step(
        lambda params, state, batch, key: (params["w"] ** 2, (state, {})), optimizer
    )
    start = nn.train_state({"w": jnp.float32(2.0)}, {}, optimizer, KEY)
    assert step(start, X)[0].params["w"] == 2 + 4444  # 4 of each


@pytest.mark.slow
def test_line_searches_see_the_true_loss_and_gradient():
    plain = fitted(LINEAR, optimizer=nn.optimizers.lbfgs(), epochs=4)
    optimizer = nn.optimizers.dynamic_loss_scale(nn.optimizers.lbfgs())
    scaled = fitted(LINEAR, optimizer=optimizer, epochs=4)
    assert_close(scaled.params, plain.params, rtol=1e-4)


@pytest.mark.slow
def test_bfloat16_learns_as_well_as_float32():
    """Parameters and their updates in float32, everything between in bfloat16: within 2 %."""
    x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    data = (x, (x @ np.linspace(-1, 1, 8) > 0).astype(np.int32))
    options = {"epochs": 30, "batch_size": 32, "optimizer": nn.optimizers.sgd(0.5)}
    full = fitted(FULL, data, **options)
    half = fitted(nn.mixed_precision(FULL, jnp.bfloat16, output_dtype=jnp.float32), data, **options)
    assert half.params[0]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(half.history["loss"], full.history["loss"], rtol=0.02)
    assert full.history["loss"][-1] < 0.2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"initial": 0.5}, ValueError, "initial is 0.5, expected a finite number >= 1"),
        ({"period": 0}, ValueError, "period is 0, expected at least 1"),
        ({"factor": 1.0}, ValueError, "factor is 1.0, expected more than 1"),
        ({"minimum": 0.0}, ValueError, "minimum is 0.0, expected more than 0"),
        ({"inner": None}, TypeError, "inner is None"),
    ],
)
def test_bad_input_of_dynamic_loss_scale(arguments, error, message):
    with pytest.raises(error, match=f"dynamic_loss_scale: {message}"):
        nn.optimizers.dynamic_loss_scale(**({"inner": ADAM} | arguments))


def test_no_state_no_scale():
    assert nn.optimizers.loss_scale(ADAM.init(jnp.zeros(2))) is None
