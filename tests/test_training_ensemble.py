"""Members of a run are trained side by side, each as it would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.host import clock
from tests.parameters import quick_first
from tests.training_cases import (
    ACCURACY,
    DATA,
    KEY,
    LINEAR,
    NOISY,
    SGD,
    VALIDATION,
    X,
    assert_close,
    assert_equal,
    fitted,
    run,
)

MEMBERS = 3
OPTIONS = {
    "batch_size": 11,
    "epochs": 3,
    "shuffle": True,
    "validation": VALIDATION,
    "metrics": {"right": ACCURACY},
}


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@pytest.fixture(scope="module")
def ensemble():
    return fitted(NOISY, members=MEMBERS, **OPTIONS)


@quick_first(1)
@pytest.mark.parametrize("i", [0, 2])
def test_a_member_is_what_it_would_be_alone(i, ensemble):
    """Its own initial values, noise and order of the examples, from its own key."""
    alone = fitted(NOISY, key=jax.random.fold_in(KEY, i), **OPTIONS)
    assert_close(member((ensemble.params, ensemble.state), i), (alone.params, alone.state))
    for name, values in alone.history.items():
        np.testing.assert_allclose(ensemble.history[name][:, i], values, rtol=1e-5)


@pytest.mark.slow
def test_the_pure_run_does_the_same(ensemble):
    params, state, history = run(NOISY, members=MEMBERS, **OPTIONS)
    assert_close((params, state, history), (ensemble.params, ensemble.state, ensemble.history))


def test_gradients_of_members_do_not_mix():
    """A norm over all parameters would be one over all members."""
    clipped = nn.optimizers.chain(nn.optimizers.clip_by_global_norm(0.1), SGD)
    together = fitted(LINEAR, members=MEMBERS, optimizer=clipped)
    alone = fitted(LINEAR, optimizer=clipped, key=jax.random.fold_in(KEY, 1))
    assert_close(member(together.params, 1), alone.params)
    params, _, history = run(LINEAR, members=MEMBERS, optimizer=clipped)
    assert_close((params, history), (together.params, together.history))


def test_each_member_stops_early_by_itself(monkeypatch):
    stopping = nn.early_stopping("loss", patience=1, min_delta=0.06)
    moving = nn.optimizers.sgd(0.1, momentum=0.9)
    options = {"epochs": 12, "early_stopping": stopping, "optimizer": moving}
    results = []
    for seconds in (0.0, 100.0):
        monkeypatch.setattr(clock, "SECONDS_PER_CHUNK", seconds)
        results.append(fitted(LINEAR, members=MEMBERS, **options))
    assert_equal(results[0].params, results[1].params)
    lengths = results[0].history["epochs"]
    assert len(set(lengths)) > 1
    for i in range(MEMBERS):
        alone = fitted(LINEAR, key=jax.random.fold_in(KEY, i), **options)
        assert alone.best_epoch == results[0].best_epoch[i]
        np.testing.assert_allclose(alone.best_value, results[0].best_value[i], rtol=1e-5)
        assert len(alone.history["loss"]) == lengths[i]
        ours = member((results[0].params, results[0].opt_state), i)
        assert_close(ours, (alone.params, alone.opt_state))


def test_members_are_evaluated_one_by_one(ensemble):
    options = {
        "loss": nn.losses.softmax_cross_entropy,
        "metrics": {"right": ACCURACY},
        "members": MEMBERS,
    }
    for batch_size in (None, 3):
        values = nn.evaluate(
            NOISY, ensemble.params, ensemble.state, VALIDATION, batch_size=batch_size, **options
        )
        for name, value in values.items():
            np.testing.assert_allclose(value, ensemble.history[f"val_{name}"][-1], rtol=1e-5)


@pytest.mark.slow
def test_predictions_of_all_members_and_their_mean_and_spread(ensemble):
    model = nn.ensemble(NOISY, MEMBERS)
    variables = ensemble.params, ensemble.state
    whole, _ = model.apply(*variables, X)
    for batch_size in (None, 5):
        got = nn.predict(model, *variables, X, batch_size=batch_size)
        assert got.shape == (MEMBERS, 22, 3)
        np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-6)
        mean, spread = nn.predict_with_spread(model, *variables, X, batch_size=batch_size)
        np.testing.assert_allclose(mean, np.mean(whole, axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(spread, np.std(whole, axis=0), rtol=1e-4, atol=1e-6)
        probabilities, _ = nn.predict_with_spread(
            model, *variables, X, batch_size=batch_size, output=jax.nn.softmax
        )
        np.testing.assert_allclose(
            probabilities, np.mean(jax.nn.softmax(whole), axis=0), rtol=1e-5, atol=1e-6
        )


def test_averages_over_augmentations_and_dropout():
    """Of a linear model and one that drops half: what the mean is of is known."""
    params, state = LINEAR.init(jax.random.key(0), X)
    keys = {"key": jax.random.key(3), "samples": 400}

    def augment(key, x):
        return jnp.where(jax.random.bernoulli(key), x, 3 * x)

    plain, _ = LINEAR.apply(params, state, X)
    mean, spread = nn.predict_averaged(LINEAR, params, state, X, augment=augment, **keys)
    tripled = mean - plain  # so often, by two more
    share = np.median(tripled / plain) / 2
    assert abs(share - 0.5) < 0.1
    np.testing.assert_allclose(tripled, 2 * share * plain, rtol=1e-3, atol=1e-4)
    expected = 2 * np.abs(plain) * np.sqrt(share * (1 - share))
    np.testing.assert_allclose(spread, expected, rtol=1e-3, atol=1e-4)

    dropping = nn.serial(nn.dropout(0.5), nn.dense(3))
    mean, spread = nn.predict_averaged(
        dropping, ({}, params), state, X, train=True, batch_size=8, **keys
    )
    np.testing.assert_allclose(mean, plain, atol=5 * np.max(spread) / np.sqrt(400))
    twice, _ = nn.predict_averaged(
        dropping, ({}, params), state, np.tile(X, (2, 1)), train=True, batch_size=22, **keys
    )
    assert not np.allclose(twice[:22], twice[22:], rtol=1e-3)  # each batch has its own noise
    variance = np.square(X) @ np.square(params["kernel"])  # x / rate with the odds of a coin
    np.testing.assert_allclose(np.square(spread), variance, rtol=0.3, atol=0.05)


def test_an_average_needs_something_that_differs():
    with pytest.raises(ValueError, match="predict_averaged: augment is None and train is False"):
        nn.predict_averaged(
            LINEAR, *LINEAR.init(jax.random.key(0), X), X, key=jax.random.key(1), samples=2
        )


def test_a_model_that_is_no_ensemble_has_no_spread():
    with pytest.raises(ValueError, match=r"predict_with_spread: model is .*, expected nn.ensemble"):
        nn.predict_with_spread(LINEAR, *LINEAR.init(KEY, X), X)


def notes_of(error):
    return " ".join([str(error.value), *getattr(error.value, "__notes__", [])])


def test_keys_whose_numbers_depend_on_what_is_beside_are_told():
    key = jax.random.key(0, impl="rbg")
    fitted(LINEAR, key=key, epochs=1)
    with pytest.warns(UserWarning, match="fit: key is of the kind 'rbg'.*expected"):
        fitted(LINEAR, key=key, epochs=1, members=2)
    with pytest.warns(UserWarning, match="training_run: key is of the kind 'rbg'"):
        run(LINEAR, key=key, epochs=1, members=2)


def test_the_loss_of_an_ensemble_must_take_its_axis():
    with pytest.raises(ValueError, match="logits") as error:
        fitted(nn.ensemble(LINEAR, 2))
    assert "members=" in notes_of(error)


def test_a_loss_of_other_examples_is_refused():
    def loss(predictions, y):
        return jnp.mean((predictions - 1.0) ** 2, axis=-1)

    with pytest.raises(ValueError, match=r"loss: the values have shape \(2, 1\)") as error:
        fitted(nn.ensemble(LINEAR, 2), loss=loss, batch_size=None)
    assert "members=" in notes_of(error)


@pytest.mark.slow
def test_an_ensemble_is_an_ordinary_layer_whose_loss_takes_an_axis_more():
    """Wherever it stands: a wrapper around it changes nothing."""

    def loss(predictions, y):
        each = jax.vmap(nn.losses.softmax_cross_entropy, (0, None))(predictions, y)
        return jnp.sum(each, axis=0)

    plain = nn.ensemble(LINEAR, 2)
    wrapped = nn.remat(plain)
    results = [fitted(model, loss=loss) for model in (plain, wrapped)]
    assert results[0].history["loss"].ndim == 1
    assert_close(results[0].params, results[1].params)
    moved = jax.tree.leaves(results[0].params)
    assert all(leaf.shape[0] == 2 for leaf in moved)


@pytest.mark.slow
def test_members_of_a_wrapped_model_are_members_of_what_is_wrapped():
    together = fitted(nn.remat(LINEAR), members=2)
    again = fitted(LINEAR, members=2)
    assert_close(together.params, again.params)


@pytest.mark.parametrize("members", [0, -1])
def test_members_are_at_least_one(members):
    for function in (fitted, run):
        with pytest.raises(ValueError, match="members is"):
            function(LINEAR, members=members)


def test_params_of_another_number_of_members_are_refused(ensemble):
    with pytest.raises(ValueError, match=r"params\['0/kernel'\] has shape .*size 2"):
        fitted(NOISY, members=2, params=ensemble.params, state=ensemble.state)
    with pytest.raises(ValueError, match="evaluate: params"):
        nn.evaluate(
            NOISY, ensemble.params, {}, DATA, loss=nn.losses.softmax_cross_entropy, members=2
        )


def test_members_of_a_loss_function():
    def loss_fn(params, state, batch, key):
        x, y = batch
        logits = x @ params["w"]
        return jnp.mean(nn.losses.softmax_cross_entropy(logits, y)), (state, {})

    start = {"w": np.random.default_rng(7).normal(size=(2, 3, 3)).astype(np.float32)}
    options = {"optimizer": SGD, "epochs": 2, "shuffle": False}
    together = nn.fit(loss_fn, DATA, key=KEY, params=start, members=2, **options)
    key = jax.random.fold_in(KEY, 1)
    alone = nn.fit(loss_fn, DATA, key=key, params=member(start, 1), **options)
    assert_close(member(together.params, 1), alone.params)


def test_given_params_are_those_of_all_members(ensemble):
    frozen = nn.optimizers.sgd(0.0)
    result = fitted(
        NOISY, members=MEMBERS, params=ensemble.params, state=ensemble.state, optimizer=frozen
    )
    assert_equal(result.params, ensemble.params)


def test_data_read_in_batches_are_the_same_for_all_members():
    x, y = DATA

    def batches(epoch):
        for i in (0, 11):
            yield x[i : i + 11], y[i : i + 11]

    streamed = fitted(LINEAR, batches, members=2, validation=VALIDATION)
    resident = fitted(LINEAR, members=2, batch_size=11, validation=VALIDATION)
    assert_close((streamed.params, streamed.history), (resident.params, resident.history))
