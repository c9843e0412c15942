"""Means over what counts: weights of examples and elements, ignored labels, the last batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import losses as reference
from tests.parameters import each_value_once, quick_first
from tests.training_cases import KEY, assert_close, run

SOFTMAX = nn.losses.softmax_cross_entropy
RNG = np.random.default_rng(0)
N, TIME, CLASSES, RATE = 10, 4, 5, 0.5
X = RNG.standard_normal((N, TIME, 3)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, (N, TIME)).astype(np.int32)
PADDED = np.where(RNG.random((N, TIME)) < 0.5, -1, LABELS)
PADDED[0], PADDED[7] = LABELS[0], -1  # one without padding, one without anything else
MODEL = nn.dense(CLASSES, use_bias=False, kernel_init=nn.initializers.zeros)


def fit(data, **changes):
    options = {
        "loss": SOFTMAX,
        "optimizer": nn.optimizers.sgd(RATE),
        "key": KEY,
        "epochs": 2,
        "batch_size": 4,
        "shuffle": False,
        "progress": False,
    }
    return nn.fit(MODEL, data, **options | changes)


def by_hand(weights, epochs=2, size=4):
    """Kernel and losses: in NumPy, the mean is Σ w l / Σ w, over batches and over the epoch."""
    kernel, rows = np.zeros((3, CLASSES)), []
    for _ in range(epochs):
        total = count = 0.0
        for first in range(0, N, size):
            x, w = X[first : first + size].astype(float), weights[first : first + size]
            labels = LABELS[first : first + size]
            values, backward = reference.softmax_cross_entropy(x @ kernel, labels)
            total, count = total + (w * values).sum(), count + w.sum()
            if w.sum() > 0:
                dlogits, _ = backward(w / w.sum())
                kernel = kernel - RATE * np.einsum("bti,btk->ik", x, dlogits)
        rows.append(total / count)
    return kernel, rows


def test_uniform_scores_have_the_loss_of_chance_however_much_is_padding():
    result = fit(
        (X, PADDED), loss=nn.losses.ignoring(SOFTMAX, -1), optimizer=nn.optimizers.sgd(0.0)
    )
    np.testing.assert_allclose(result.history["loss"], np.log(CLASSES), rtol=1e-6)


@pytest.mark.parametrize(
    "batch_size", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 10))]
)
def test_padding_has_no_part_in_loss_and_gradient(batch_size):
    loss = nn.losses.ignoring(SOFTMAX, -1)
    perplexity = {"perplexity": nn.metrics.perplexity(ignore_index=-1)}
    result = fit(
        (X, PADDED), loss=loss, batch_size=batch_size, metrics=perplexity, validation=(X, PADDED)
    )
    kernel, rows = by_hand((PADDED >= 0).astype(float), size=batch_size)
    np.testing.assert_allclose(result.params["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.history["loss"], rows, rtol=1e-5)
    for name in ("", "val_"):
        exponential = np.exp(result.history[f"{name}loss"])
        np.testing.assert_allclose(result.history[f"{name}perplexity"], exponential, rtol=1e-5)


@pytest.mark.slow
def test_the_pure_run_and_streams_do_the_same():
    loss = nn.losses.ignoring(SOFTMAX, -1)
    fitted = fit((X, PADDED), loss=loss)
    options = {"loss": loss, "optimizer": nn.optimizers.sgd(RATE), "shuffle": False}
    params, _, _ = run(MODEL, (X, PADDED), epochs=2, batch_size=4, **options)
    batches = [(X[i : i + 4], PADDED[i : i + 4]) for i in range(0, N, 4)]
    assert_close((params, params), (fitted.params, fit(batches, loss=loss).params))


@quick_first(1)
@pytest.mark.parametrize("axes", [1, 2])
def test_weights_have_any_first_axes_of_the_values(axes):
    weights = RNG.uniform(0, 2, (N, TIME)[:axes]).astype(np.float32)
    weights[3] = 0
    every = np.broadcast_to(weights.reshape(N, -1), (N, TIME))
    data = X, LABELS, weights
    result = fit(data, metrics={"right": nn.metrics.accuracy()}, validation=data)
    kernel, rows = by_hand(every)
    np.testing.assert_allclose(result.params["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.history["loss"], rows, rtol=1e-5)
    logits = np.asarray(nn.predict(MODEL, result.params, {}, X))
    right = (np.argmax(logits, axis=-1) == LABELS) * every
    np.testing.assert_allclose(
        result.history["val_right"][-1], right.sum() / every.sum(), rtol=1e-5
    )


def test_a_mask_of_booleans_is_weights():
    results = []
    for mask in (PADDED >= 0, (PADDED >= 0).astype(np.float32)):
        metrics = {"right": nn.metrics.accuracy()}
        results.append(fit((X, LABELS, mask), metrics=metrics, validation=(X, LABELS, mask)))
    jax.tree.map(np.testing.assert_array_equal, *((r.params, r.history) for r in results))


def test_weights_of_elements_and_of_the_loss_multiply():
    weights = RNG.uniform(0, 2, N).astype(np.float32)
    result = fit((X, PADDED, weights), loss=nn.losses.ignoring(SOFTMAX, -1))
    kernel, _ = by_hand((PADDED >= 0) * weights[:, None].astype(float))
    np.testing.assert_allclose(result.params["kernel"], kernel, rtol=1e-4, atol=1e-6)


def test_what_has_weight_0_may_be_nan():
    weights = np.ones(N, np.float32)
    weights[[2, 6]] = 0
    x, y = X.copy(), X[..., :1] * 2
    x[2], y[6] = np.nan, np.inf
    options = {"loss": nn.losses.squared_error, "validation": (x, y, weights)}
    model = nn.dense(1, use_bias=False)
    results = [
        nn.fit(
            model,
            (a, b, weights),
            optimizer=nn.optimizers.sgd(0.1),
            key=KEY,
            epochs=2,
            batch_size=5,
            shuffle=False,
            progress=False,
            **options,
        )
        for a, b in ((x, y), (np.nan_to_num(X), X[..., :1] * 2))
    ]
    assert_close(results[0].params, results[1].params)
    assert_close(results[0].history["loss"], results[1].history["loss"])


@each_value_once
@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight, streamed):
    weights = np.ones((N, TIME), np.float32)
    weights[9, 2] = weight
    data = X, LABELS, weights
    if streamed:
        data = [tuple(part[i : i + 5] for part in data) for i in range(0, N, 5)]
    with pytest.raises(ValueError, match=rf"has the weight {weight} at \(\d, 2\)"):
        fit(data)
    with pytest.raises(ValueError, match=rf"has the weight {weight} at \(\d, 2\)"):
        nn.evaluate(MODEL, {"kernel": jnp.zeros((3, CLASSES))}, {}, data, loss=SOFTMAX)


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match="data has weights of dtype complex64, expected real ones"):
        fit((X, LABELS, np.ones((N, TIME), np.complex64)))


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(functools.partial(SOFTMAX, ignore_index=-1), label_smoothing=0.1),
        lambda z, y: SOFTMAX(z, y, ignore_index=-1),
        lambda z, y: 2 * nn.losses.nll(jax.nn.log_softmax(z), y, ignore_index=-1),
    ],
)
def test_a_loss_that_has_zeros_for_a_label_is_refused(loss):
    parameters = {"kernel": jnp.zeros((3, CLASSES))}
    for function in (
        lambda: fit((X, PADDED), loss=loss),
        lambda: run(MODEL, (X, PADDED), loss=loss),
        lambda: nn.evaluate(MODEL, parameters, {}, (X, PADDED), loss=loss),
    ):
        with pytest.raises(ValueError, match=r"nn\.losses\.ignoring\(loss, -1\)"):
            function()


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: SOFTMAX(z, jnp.maximum(y, 0), where=y >= 0),
        lambda z, y: nn.losses.squared_error(z[..., 0], y.astype(z.dtype), where=y >= 0),
        lambda z, y: nn.losses.sigmoid_binary_cross_entropy(z[..., 0], y > 0, where=y >= 0),
    ],
)
def test_a_loss_that_has_zeros_where_a_mask_hides_is_refused(loss):
    with pytest.raises(ValueError, match=r"expected nn\.losses\.Weighted\(values, where\)"):
        nn.evaluate(MODEL, {"kernel": jnp.zeros((3, CLASSES))}, {}, (X, PADDED), loss=loss)


def test_a_loss_may_take_its_own_mean_of_what_a_label_leaves():
    def own_mean(z, y):
        count = (y >= 0).sum(1).clip(1).astype(z.dtype)
        return SOFTMAX(z, y, ignore_index=-1).sum(1) / count

    parameters = {"kernel": jnp.zeros((3, CLASSES))}
    value = nn.evaluate(MODEL, parameters, {}, (X, PADDED), loss=own_mean)["loss"]
    expected = np.log(CLASSES) * (PADDED >= 0).any(1).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_a_label_outside_of_the_classes_is_found_behind_ignoring():
    wrong = np.where(PADDED == 2, CLASSES, PADDED)
    with pytest.raises(ValueError, match=f"data has the label {CLASSES} at"):
        fit((X, wrong), loss=nn.losses.ignoring(SOFTMAX, -1))


def test_a_mean_as_a_metric_counts_what_the_loss_counts():
    ignoring = nn.losses.ignoring(SOFTMAX, -1)
    metric, logits = nn.metrics.mean(ignoring), X @ np.eye(3, CLASSES)
    values, _ = reference.softmax_cross_entropy(logits, LABELS)
    for weights in (np.ones(N), np.arange(N) + 0.5):
        expected = np.average(values, weights=weights[:, None] * (PADDED >= 0))
        sums = metric.update(metric.init(), logits, PADDED, weights)
        np.testing.assert_allclose(metric.compute(sums), expected, rtol=1e-5)
    sums = metric.update(metric.init(), logits, PADDED)
    expected = np.average(values, weights=PADDED >= 0)
    np.testing.assert_allclose(metric.compute(sums), expected, rtol=1e-5)
    own = nn.metrics.mean(lambda z, y: SOFTMAX(z, y, ignore_index=-1))
    with pytest.raises(ValueError, match=r"^mean: softmax_cross_entropy has ignore_index=-1"):
        own.update(own.init(), jnp.zeros((N, TIME, CLASSES)), PADDED)


def test_values_and_weights_have_one_shape():
    def loss(predictions, y):
        return nn.losses.Weighted(SOFTMAX(predictions, y), jnp.ones(len(y)))

    with pytest.raises(ValueError, match=r"and their weights .*, expected one shape"):
        fit((X, LABELS), loss=loss)


def test_the_optimizer_gets_the_denominator():
    seen = []

    def update(grads, state, params=None, *, weight, **extra):
        jax.debug.callback(lambda w: seen.append(float(w)), weight)
        return jax.tree.map(jnp.zeros_like, grads), state

    optimizer = nn.optimizers.Optimizer(lambda params: (), update)
    fit((X, PADDED), loss=nn.losses.ignoring(SOFTMAX, -1), optimizer=optimizer, epochs=1)
    jax.effects_barrier()
    counts = (PADDED >= 0).sum(axis=1)
    assert seen == [counts[:4].sum(), counts[4:8].sum(), counts[8:].sum()]

    def loss_fn(params, state, batch, key):
        return jnp.sum(params["w"] * batch), (state, {})

    seen.clear()
    step = nn.train_step(loss_fn, optimizer)
    step(nn.train_state({"w": jnp.ones(())}, {}, optimizer, KEY), jnp.ones(7))
    jax.effects_barrier()
    assert seen == [7]
