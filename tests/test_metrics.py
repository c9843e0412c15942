"""Metrics against NumPy and scikit-learn, whole, in batches, over devices and in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import metrics as reference

RNG = np.random.default_rng(0)
N, CLASSES = 23, 4
LOGITS = RNG.standard_normal((N, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
SCORES = RNG.uniform(0, 1, N).astype(np.float32)
YES = RNG.integers(0, 2, N)
VALUES = RNG.standard_normal((N, 3)).astype(np.float32)
WEIGHTS = RNG.integers(0, 4, N).astype(np.float32)  # whole numbers: every order of adding agrees

# Each row: a metric, its predictions and targets, and whether each element is right.
ACCURACIES = {
    "labels": (nn.metrics.accuracy(), LOGITS, LABELS, LOGITS.argmax(-1) == LABELS),
    "one-hot": (nn.metrics.accuracy(), LOGITS, ONE_HOT, LOGITS.argmax(-1) == LABELS),
    "smooth-labels": (
        nn.metrics.accuracy(),
        LOGITS,
        0.9 * ONE_HOT + 0.1 / CLASSES,
        LOGITS.argmax(-1) == LABELS,
    ),
    "other-axis": (
        nn.metrics.accuracy(axis=1),
        np.stack([LOGITS, -LOGITS], -1),
        np.stack([LABELS, LABELS], -1),
        np.stack([LOGITS.argmax(-1) == LABELS, LOGITS.argmin(-1) == LABELS], -1),
    ),
    "float-labels": (
        nn.metrics.accuracy(),
        LOGITS,
        LABELS.astype(np.float32),
        LOGITS.argmax(-1) == LABELS,
    ),
    "threshold": (nn.metrics.accuracy(0.5), SCORES, YES, (SCORES > 0.5) == YES),
    "threshold-bool": (nn.metrics.accuracy(0.5), SCORES, YES == 1, (SCORES > 0.5) == YES),
    "threshold-float": (
        nn.metrics.accuracy(0.0),
        SCORES - 0.5,
        YES.astype(np.float32),
        (SCORES > 0.5) == YES,
    ),
    "threshold-2d": (nn.metrics.accuracy(0.0), LOGITS, ONE_HOT, (LOGITS > 0) == (ONE_HOT == 1)),
}
every_accuracy = pytest.mark.parametrize("row", ACCURACIES.values(), ids=ACCURACIES)

CASES = {
    "mean": (nn.metrics.mean(), VALUES, None),
    "mean-of-loss": (nn.metrics.mean(nn.losses.squared_error), VALUES, VALUES[::-1].copy()),
    "mean-of-cross-entropy": (
        nn.metrics.mean(nn.losses.softmax_cross_entropy),
        LOGITS,
        LABELS,
    ),
    **{f"accuracy-{name}": row[:3] for name, row in ACCURACIES.items()},
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def value_of(metric, *batch):
    return metric.compute(metric.update(metric.init(), *batch))


def spread(weights, values):
    """One weight for each example as one for each element."""
    return np.broadcast_to(weights.reshape(-1, *[1] * (values.ndim - 1)), values.shape)


# Values


@every_accuracy
def test_accuracy(row):
    metric, predictions, targets, right = row
    assert 0 < right.mean() < 1
    np.testing.assert_allclose(value_of(metric, predictions, targets), right.mean(), rtol=1e-6)
    weighted = value_of(metric, predictions, targets, WEIGHTS)
    np.testing.assert_allclose(weighted, reference.mean(right, spread(WEIGHTS, right)), rtol=1e-6)


def test_accuracy_is_that_of_scikit_learn():
    accuracy_score = pytest.importorskip("sklearn.metrics").accuracy_score
    for weights in (None, WEIGHTS):
        np.testing.assert_allclose(
            value_of(nn.metrics.accuracy(), LOGITS, LABELS, weights),
            accuracy_score(LABELS, LOGITS.argmax(-1), sample_weight=weights),
            rtol=1e-6,
        )
        np.testing.assert_allclose(
            value_of(nn.metrics.accuracy(0.5), SCORES, YES, weights),
            accuracy_score(YES, SCORES > 0.5, sample_weight=weights),
            rtol=1e-6,
        )


def test_accuracy_is_that_of_the_reference():
    ours = value_of(nn.metrics.accuracy(), LOGITS, LABELS, WEIGHTS)
    np.testing.assert_allclose(ours, reference.accuracy(LOGITS, LABELS, WEIGHTS), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_mean(weights):
    expected = reference.mean(VALUES, None if weights is None else spread(weights, VALUES))
    np.testing.assert_allclose(value_of(nn.metrics.mean(), VALUES, None, weights), expected, 1e-5)


def test_mean_of_a_loss_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    ours = value_of(nn.metrics.mean(nn.losses.squared_error), VALUES, VALUES[::-1].copy(), WEIGHTS)
    theirs = sklearn.mean_squared_error(VALUES[::-1], VALUES, sample_weight=WEIGHTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_float64(x64):
    ours = value_of(nn.metrics.mean(), VALUES.astype(np.float64))
    assert ours.dtype == jnp.float64
    np.testing.assert_allclose(ours, VALUES.astype(np.float64).mean(), rtol=1e-13)


# Batches, devices, loops

SPLITS = {"equal": [8, 16], "uneven-and-empty": [0, 1, 5, 5, 23]}


@every_accuracy
@pytest.mark.parametrize("cuts", SPLITS.values(), ids=SPLITS)
def test_any_split_gives_the_whole_exactly(row, cuts):
    metric, predictions, targets, _ = row
    batches = [np.split(a, cuts) for a in (predictions, targets, WEIGHTS)]
    merged, one_after_other = metric.init(), metric.init()
    for batch in zip(*batches, strict=True):
        merged = jax.tree.map(jnp.add, merged, metric.update(metric.init(), *batch))
        one_after_other = metric.update(one_after_other, *batch)
    whole = value_of(metric, predictions, targets, WEIGHTS)
    assert metric.compute(merged) == whole
    assert metric.compute(one_after_other) == whole


@every_case
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_a_sum_over_devices_is_the_whole(case, weights):
    metric, predictions, targets = case

    def with_psum(batch):
        batch = jax.tree.map(lambda a: a[None], batch)
        sums = metric.update(metric.init(), *batch)
        return metric.compute(jax.lax.psum(sums, "devices"))

    batch = (predictions, targets, weights)
    whole = value_of(metric, *batch)
    values = jax.jit(jax.vmap(with_psum, axis_name="devices"))(batch)
    np.testing.assert_allclose(values, np.full(N, whole), rtol=1e-5)


@every_case
def test_jit_and_scan(case):
    metric, predictions, targets = case
    batch = (predictions, targets, WEIGHTS)
    whole = value_of(metric, *batch)
    np.testing.assert_allclose(jax.jit(lambda b: value_of(metric, *b))(batch), whole, rtol=1e-5)

    def step(sums, example):
        return metric.update(sums, *jax.tree.map(lambda a: a[None], example)), None

    sums, _ = jax.lax.scan(step, metric.init(), batch)
    np.testing.assert_allclose(metric.compute(sums), whole, rtol=1e-5)


# Edges


@every_case
def test_no_examples_give_nan(case):
    metric, predictions, targets = case
    assert np.isnan(metric.compute(metric.init()))
    nothing = jax.tree.map(lambda a: a[:0], (predictions, targets))
    assert np.isnan(value_of(metric, *nothing))
    assert np.isnan(value_of(metric, predictions, targets, np.zeros(N)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_of_weight_zero_are_ignored(bad):
    values, weights = np.array([1.0, bad, 3.0], np.float32), np.array([1.0, 0.0, 1.0])
    assert value_of(nn.metrics.mean(), values, None, weights) == 2

    slope = jax.grad(lambda v: value_of(nn.metrics.mean(), v, None, weights))(jnp.asarray(values))
    np.testing.assert_array_equal(slope, [0.5, 0.0, 0.5])


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float16, jnp.bfloat16, np.float32])
def test_values_and_weights_of_any_dtype(dtype):
    values, weights = jnp.asarray([1, 0, 1, 1], dtype), jnp.asarray([1, 1, 0, 1], dtype)
    assert value_of(nn.metrics.mean(), values) == 0.75
    np.testing.assert_allclose(value_of(nn.metrics.mean(), values, None, weights), 2 / 3, rtol=1e-6)


BAD = {
    "labels": ((nn.metrics.accuracy(), LOGITS, LABELS[:5]), ["(23, 4)", "(5,)", "(23,)"]),
    "labels-2d": ((nn.metrics.accuracy(), LOGITS, LABELS[:, None]), ["(23, 4)", "(23, 1)"]),
    "threshold": ((nn.metrics.accuracy(0.5), SCORES[:, None], YES), ["(23, 1)", "(23,)"]),
    "no-targets": ((nn.metrics.accuracy(), LOGITS), ["accuracy", "targets"]),
    "weights": ((nn.metrics.mean(), VALUES, None, WEIGHTS[:5]), ["weights", "(5,)", "(23, 3)"]),
    "weights-2d": (
        (nn.metrics.mean(), VALUES, None, np.ones((N, 3))),
        ["weights", "one for each example"],
    ),
    "weights-of-scalar": (
        (nn.metrics.mean(), jnp.float32(1.0), None, jnp.float32(1.0)),
        ["weights", "()"],
    ),
}


@pytest.mark.parametrize(("arguments", "fragments"), BAD.values(), ids=BAD)
def test_bad_input(arguments, fragments):
    with pytest.raises((ValueError, TypeError)) as error:
        value_of(*arguments)
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)


def test_the_tables_have_every_metric():
    assert set(nn.metrics.__all__) == {"Metric", "accuracy", "mean"}
