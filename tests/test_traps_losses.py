"""What went wrong in losses and metrics, here or in other libraries, and does not any more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import losses as reference
from tests.parameters import each_value_once

L, M = nn.losses, nn.metrics
RNG = np.random.default_rng(0)
NARROW = [jnp.int8, jnp.uint8, jnp.int16, jnp.uint16]


def value(metric, predictions, targets, weights=None):
    return np.asarray(metric.compute(metric.update(metric.init(), predictions, targets, weights)))


# Labels in narrow integers, with more classes than those count


@each_value_once
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "loss",
    [
        L.softmax_cross_entropy,
        L.softmax_cross_entropy_with_integer_labels,
        L.nll,
        L.poly_loss_cross_entropy,
        L.multiclass_hinge_loss,
        L.multiclass_perceptron_loss,
    ],
)
def test_narrow_labels_are_those_that_they_are(loss, dtype):
    """The number of classes was cast to the dtype of the labels: [11.4, nan]."""
    classes = 300 if jnp.iinfo(dtype).bits == 8 else 70_000
    labels = np.array([0, min(int(jnp.iinfo(dtype).max), classes - 1), 3])
    scores = RNG.standard_normal((3, classes)).astype(np.float32)
    if loss is L.nll:
        scores = np.asarray(jax.nn.log_softmax(scores))
    narrow, wide = (loss(scores, jnp.asarray(labels, d)) for d in (dtype, jnp.int32))
    np.testing.assert_array_equal(narrow, wide)
    if loss is L.softmax_cross_entropy and classes == 300:
        expected, _ = reference.softmax_cross_entropy(scores, labels)
        np.testing.assert_allclose(narrow, expected, rtol=1e-5)


def test_ctc_with_narrow_labels_and_a_large_blank():
    logits = RNG.standard_normal((2, 6, 300)).astype(np.float32)
    labels = np.array([[3, 100], [5, 7]])
    none = np.zeros((2, 6)), np.zeros((2, 2))
    narrow, wide = (
        L.ctc_loss(logits, none[0], jnp.asarray(labels, d), none[1], blank_id=299)
        for d in (jnp.int8, jnp.int32)
    )
    np.testing.assert_array_equal(narrow, wide)


@each_value_once
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "metric",
    [
        M.accuracy(),
        M.top_k_accuracy(5),
        M.perplexity(),
        M.confusion_matrix(200),
        M.recall(classes=200),
        M.roc_auc(200),
    ],
    ids=repr,
)
def test_metrics_of_narrow_labels(metric, dtype):
    labels = RNG.integers(0, 127, 50)
    scores = RNG.standard_normal((50, 200)).astype(np.float32)
    narrow, wide = (value(metric, scores, jnp.asarray(labels, d)) for d in (dtype, jnp.int32))
    np.testing.assert_array_equal(narrow, wide)


# One class, one column


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("metric", [M.accuracy(), M.top_k_accuracy(1)], ids=repr)
@pytest.mark.parametrize("predictions", [(4, 1), (4,)])
def test_one_column_of_scores_is_no_model_of_classes(metric, shape, predictions):
    """Its largest score is always the first: an accuracy of 1, whatever the model says."""
    with pytest.raises(ValueError, match="predictions"):
        value(metric, jnp.zeros(predictions), jnp.zeros(shape, jnp.int32))
    if metric == M.accuracy():
        with pytest.raises(ValueError, match=r"accuracy\(0\.0\)"):
            value(metric, jnp.zeros(predictions), jnp.zeros(predictions, jnp.int32))


def test_a_binary_model_is_counted_with_a_threshold():
    scores, labels = jnp.array([[2.0], [-1.0], [0.5], [-3.0]]), jnp.array([[1], [1], [0], [0]])
    assert value(M.accuracy(0.0), scores, labels) == 0.5


@pytest.mark.parametrize(
    "loss",
    [
        L.softmax_cross_entropy,
        L.nll,
        L.poly_loss_cross_entropy,
        L.multiclass_hinge_loss,
        L.multiclass_perceptron_loss,
    ],
)
def test_the_loss_of_a_single_class_is_refused(loss):
    with pytest.raises(ValueError, match="two classes at least"):
        loss(jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32))


# NaN


def test_nan_is_wrong_everywhere():
    nan = np.nan
    logits = np.array([[nan, nan], [0.0, nan], [1.0, 0.0], [0.0, 1.0]], np.float32)
    labels = np.array([0, 0, 0, 1])
    assert value(M.accuracy(), logits, labels) == 0.5
    assert value(M.top_k_accuracy(1), logits, labels) == 0.5
    binary, yes = np.array([nan, nan, -1.0, 1.0], np.float32), np.array([0, 1, 0, 1])
    assert value(M.accuracy(0.0), binary, yes) == 0.5
    # Of two positives one was found; of what was called positive, all are.
    assert value(M.recall(0.0), binary, yes) == 0.5
    assert value(M.precision(0.0), binary, yes) == 1
    np.testing.assert_allclose(
        value(M.recall(classes=2, average=None), logits, labels), [1 / 3, 1], rtol=1e-6
    )
    np.testing.assert_array_equal(value(M.precision(classes=2, average=None), logits, labels), 1)
    assert np.isnan(value(M.confusion_matrix(2), logits, labels)).any()
    assert np.isnan(value(M.roc_auc(), binary, yes))
    weights = np.array([0, 0, 1, 1], np.float32)
    np.testing.assert_array_equal(value(M.confusion_matrix(2), logits, labels, weights), np.eye(2))


# Binary cross-entropy with weights


@each_value_once
@pytest.mark.parametrize("pos_weight", [None, 3.0, np.array([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("class_weights", [None, np.array([1.0, 0.0, 2.0])])
def test_binary_cross_entropy_with_weights(pos_weight, class_weights):
    """By hand; the derivative is c ((1 - y) s(z) - p y s(-z))."""
    z, y = 3 * RNG.standard_normal((5, 3)), RNG.uniform(0, 1, (5, 3))
    p = 1.0 if pos_weight is None else pos_weight
    c = 1.0 if class_weights is None else class_weights

    def log_sigmoid(z):
        return -np.logaddexp(0, -z)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    options = {"pos_weight": pos_weight, "class_weights": class_weights}
    loss = functools.partial(L.sigmoid_binary_cross_entropy, **options)
    expected = -c * (p * y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z))
    np.testing.assert_allclose(loss(z.astype(np.float32), y), expected, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda z: loss(z, y.astype(np.float32)).sum())(z.astype(np.float32))
    by_hand = c * ((1 - y) * sigmoid(z) - p * y * sigmoid(-z))
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-4, atol=1e-5)
    torch = pytest.importorskip("torch")
    weights = (None if w is None else torch.as_tensor(np.asarray(w)) for w in (class_weights, p))
    weight, pos = weights
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.as_tensor(z), torch.as_tensor(y), weight=weight, pos_weight=pos, reduction="none"
    )
    np.testing.assert_allclose(expected, theirs.numpy(), rtol=1e-10)


def test_infinite_logits_with_weights():
    logits, labels = jnp.array([jnp.inf, -jnp.inf]), jnp.array([1.0, 0.0])
    loss = L.sigmoid_binary_cross_entropy(logits, labels, pos_weight=2.0)
    np.testing.assert_array_equal(loss, [0, 0])


# Values within their range


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_leaves_no_range(dtype):
    x = jnp.asarray(RNG.standard_normal((2000, 7)), dtype)
    cosine = L.cosine_similarity(jnp.concatenate([x, x]), jnp.concatenate([x, -x]))
    assert float(jnp.max(jnp.abs(cosine))) <= 1
    assert float(jnp.min(L.cosine_distance(x, 3 * x))) >= 0
    log_p = jax.nn.log_softmax(x)
    assert float(jnp.min(L.generalized_kl_divergence(log_p, jnp.exp(log_p)))) >= 0


def test_what_is_put_back_into_its_range_keeps_its_gradient():
    x = jnp.asarray(RNG.standard_normal((50, 3)), jnp.float32)
    y = jnp.asarray(RNG.standard_normal((50, 3)), jnp.float32)

    def unclamped(x):
        return jnp.sum(x * y, -1) / jnp.linalg.norm(x, axis=-1) / jnp.linalg.norm(y, axis=-1)

    ours = jax.grad(lambda x: L.cosine_similarity(x, y).sum())(x)
    np.testing.assert_allclose(ours, jax.grad(lambda x: unclamped(x).sum())(x), atol=1e-6)


# Arguments that were taken in silence

LOGITS, LABELS = jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32)
REFUSED = {
    "class_weights": lambda: L.softmax_cross_entropy(
        LOGITS, LABELS, class_weights=jnp.array([1.0, -1.0, 1.0])
    ),
    "pos_weight": lambda: L.sigmoid_binary_cross_entropy(LOGITS, LOGITS, pos_weight=-1.0),
    "temperature": lambda: L.ntxent(LOGITS, LABELS, temperature=0.0),
    "ignore_index": lambda: L.softmax_cross_entropy(LOGITS, LABELS, ignore_index=1.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name):
    with pytest.raises((TypeError, ValueError), match=f"{name} is"):
        REFUSED[name]()


# Labels of margin losses, -1 and 1


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        (nn.metrics.accuracy(0.0), 3 / 4),
        (nn.metrics.precision(0.0), 2 / 3),
        (nn.metrics.roc_auc(), 3 / 4),
        (nn.metrics.average_precision(), 5 / 6),
        (nn.metrics.log_loss(), np.log1p(np.exp([-2.0, -1.0, 1.5, -1.0])).mean()),
    ],
    ids=["accuracy", "precision", "roc_auc", "average_precision", "log_loss"],
)
def test_a_label_of_minus_one_is_negative(metric, known):
    scores, signs = np.array([2.0, -1.0, 1.5, 1.0], np.float32), np.array([1, -1, -1, 1])
    for labels in (signs, signs.astype(np.float32), signs > 0):
        value = metric.compute(metric.update(metric.init(), scores, labels))
        np.testing.assert_allclose(value, known, rtol=1e-6)
