"""Losses and metrics in `evaluate`, `fit` and `training_run`: the whole set's value, exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import metrics as reference
from tests.parameters import quick_first
from tests.scripts import on_devices

RNG = np.random.default_rng(0)
N = 23
SCORES = np.round(RNG.standard_normal(N), 1).astype(np.float32)  # with ties
YES = (SCORES + RNG.standard_normal(N) > 0).astype(np.int32)
X = RNG.standard_normal((N, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, N).astype(np.int32)
BATCH_SIZES = [None, 1, 5, 23]
AUC = {"auc": nn.metrics.roc_auc()}


@quick_first(3)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_evaluation_in_batches_gives_the_whole(batch_size):
    """23 is no multiple of 5: the last batch repeats two examples, with weight 0."""
    metrics = {
        **AUC,
        "r2": nn.metrics.r2_score(),
        "f1": nn.metrics.f1(0.0),
        "counts": nn.metrics.mean(),
    }
    got = nn.evaluate(nn.identity, {}, {}, (SCORES, YES), metrics=metrics, batch_size=batch_size)
    whole = nn.evaluate(nn.identity, {}, {}, (SCORES, YES), metrics=metrics)
    assert got["auc"] == whole["auc"]
    assert got["f1"] == whole["f1"]
    np.testing.assert_allclose(got["auc"], reference.roc_auc(SCORES, YES), rtol=1e-6)
    np.testing.assert_allclose(got["r2"], reference.r2_score(SCORES, YES), rtol=1e-5)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_metric_with_several_values(batch_size):
    metrics = {"confusion": nn.metrics.confusion_matrix(3), "auc": nn.metrics.roc_auc(3)}
    got = nn.evaluate(nn.identity, {}, {}, (X, LABELS), metrics=metrics, batch_size=batch_size)
    assert isinstance(got["auc"], float)
    expected = reference.confusion_matrix(X, LABELS, classes=3)
    np.testing.assert_array_equal(got["confusion"], expected)


def test_data_on_several_devices_is_one_set():
    """Under `jit`, a sharded array is the whole array: nothing has to be merged."""
    automatic = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), ("devices",), axis_types=automatic)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    data = jax.device_put((SCORES, YES), sharding)
    got = nn.evaluate(nn.identity, {}, {}, data, metrics=AUC, batch_size=5)
    np.testing.assert_allclose(got["auc"], reference.roc_auc(SCORES, YES), rtol=1e-6)


@pytest.mark.slow
def test_two_devices():
    on_devices(2, "metrics_on_two_devices")


# Training: with a rate of 0 the model stays what it was, so each epoch sees the same predictions.

FROZEN = {
    "loss": nn.losses.softmax_cross_entropy,
    "optimizer": nn.optimizers.sgd(0.0),
    "epochs": 2,
    "batch_size": 10,
    "shuffle": False,
    "metrics": {
        "auc": nn.metrics.roc_auc(3, average=None),
        "confusion": nn.metrics.confusion_matrix(3),
        "ap": nn.metrics.average_precision(3),
    },
}
MODEL = nn.dense(3)
DATA, VALIDATION = (X, LABELS), (X[:17], LABELS[:17])


def expected_history(params):
    """The metrics of the final, hence of every, model."""
    for name, (x, y) in {"": DATA, "val_": VALIDATION}.items():
        logits, _ = MODEL.apply(params, {}, x)
        for metric in ("auc", "confusion", "ap"):
            m = FROZEN["metrics"][metric]
            yield f"{name}{metric}", m.compute(m.update(m.init(), logits, y))


def check(params, history):
    for name, value in expected_history(params):
        assert history[name].shape == (2, *value.shape)
        for epoch in range(2):
            np.testing.assert_allclose(history[name][epoch], value, rtol=1e-6)


@pytest.mark.slow
def test_training_run():
    train = jax.jit(nn.training_run(MODEL, **FROZEN))
    params, _, history = train(jax.random.key(0), DATA, None, VALIDATION)
    check(params, history)


@pytest.mark.parametrize("progress", [pytest.param(False, marks=pytest.mark.slow), "lines"])
def test_fit(progress, capsys):
    seen = []
    result = nn.fit(
        MODEL,
        DATA,
        key=jax.random.key(0),
        validation=VALIDATION,
        progress=progress,
        callbacks=[lambda event: seen.append(event.metrics)],
        **FROZEN,
    )
    check(result.params, result.history)
    assert isinstance(seen[-1]["val_ap"], float)
    np.testing.assert_array_equal(seen[-1]["confusion"], result.history["confusion"][-1])
    shown = capsys.readouterr().err
    assert ("val_ap" in shown) == (progress == "lines")
    assert "confusion" not in shown


@pytest.mark.slow
def test_many_networks_at_once():
    train = nn.training_run(MODEL, **FROZEN)
    keys = jax.random.split(jax.random.key(0), 3)
    _, _, history = jax.jit(jax.vmap(train, in_axes=(0, None)))(keys, (X, LABELS))
    for i, key in enumerate(keys):
        _, _, alone = jax.jit(train)(key, (X, LABELS))
        np.testing.assert_allclose(history["auc"][i], alone["auc"], rtol=1e-6)


# Labels are checked on the host before anything runs

PADDED = np.where(np.arange(N) % 4 == 0, -100, LABELS)


@pytest.mark.parametrize(
    "loss",
    [
        nn.losses.softmax_cross_entropy,
        nn.losses.softmax_cross_entropy_with_integer_labels,
        nn.losses.ignoring(nn.losses.nll, -1),
        functools.partial(nn.losses.poly_loss_cross_entropy, epsilon=1.0),
        nn.losses.multiclass_hinge_loss,
    ],
)
def test_a_label_outside_the_classes_is_refused(loss):
    with pytest.raises(ValueError, match=r"data has the label -100 at \(0,\), expected labels"):
        nn.evaluate(nn.identity, {}, {}, (X, PADDED), loss=loss)


def test_ignored_labels_pass():
    loss = nn.losses.ignoring(nn.losses.softmax_cross_entropy, -100)
    accuracy = {"accuracy": nn.metrics.accuracy(ignore_index=-100)}
    got = nn.evaluate(nn.identity, {}, {}, (X, PADDED), loss=loss, metrics=accuracy, batch_size=5)
    kept = PADDED != -100
    alone = nn.evaluate(
        nn.identity,
        {},
        {},
        (X[kept], LABELS[kept]),
        loss=nn.losses.softmax_cross_entropy,
        metrics={"accuracy": nn.metrics.accuracy()},
    )
    np.testing.assert_allclose(got["accuracy"], alone["accuracy"], rtol=1e-6)
    np.testing.assert_allclose(got["loss"], alone["loss"], rtol=1e-5)


def test_the_axis_of_the_classes():
    loss = functools.partial(nn.losses.softmax_cross_entropy, axis=1)
    x, y = np.zeros((4, 3, 5), np.float32), np.full((4, 5), 2)
    assert nn.evaluate(nn.identity, {}, {}, (x, y), loss=loss)["loss"] == pytest.approx(np.log(3))
    with pytest.raises(ValueError, match="expected labels from 0 to 2"):
        nn.evaluate(nn.identity, {}, {}, (x, y + 1), loss=loss)


@pytest.mark.slow
def test_every_reduced_loss_trains():
    """One value for each example, or one for the batch: `fit` takes their mean."""
    embeddings = jnp.asarray(X)
    result = nn.fit(
        nn.dense(2),
        (embeddings, LABELS),
        loss=nn.losses.ntxent,
        optimizer=nn.optimizers.adam(0.05),
        key=jax.random.key(0),
        epochs=30,
        progress=False,
    )
    assert result.history["loss"][-1] < result.history["loss"][0]
