"""Metrics against NumPy and scikit-learn, whole, in batches, over devices and in loops."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import metrics as reference
from tests.parameters import each_value_once, quick_first

metrics = nn.metrics
RNG = np.random.default_rng(0)
N, CLASSES = 23, 4
LOGITS = RNG.standard_normal((N, CLASSES)).astype(np.float32)
LABELS = RNG.permutation(np.arange(N) % CLASSES)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
SCORES = RNG.uniform(0, 1, N).astype(np.float32)
TIED = (np.round(SCORES * 5) / 5).astype(np.float32)
YES = RNG.integers(0, 2, N)
VALUES = RNG.standard_normal((N, 3)).astype(np.float32)
TARGETS = (VALUES + RNG.standard_normal((N, 3))).astype(np.float32)
WEIGHTS = RNG.integers(0, 4, N).astype(np.float32)  # whole numbers: every order of adding agrees
FRACTIONS = (RNG.uniform(0.1, 2.0, N) * (RNG.random(N) < 0.8)).astype(np.float32)
LISTS = TIED[:20].reshape(5, 4)[np.arange(N) % 5] + RNG.integers(0, 2, (N, 1)).astype(np.float32)
RELEVANCE = RNG.integers(0, 3, (N, 4)) * (RNG.random((N, 1)) < 0.8)
weightings = pytest.mark.parametrize(
    "weights", [None, WEIGHTS, FRACTIONS], ids=["unweighted", "whole", "fractions"]
)

# Each row: a metric, its predictions and targets, and whether each element is right.
ACCURACIES = {
    "labels": (metrics.accuracy(), LOGITS, LABELS, LOGITS.argmax(-1) == LABELS),
    "one-hot": (metrics.accuracy(), LOGITS, ONE_HOT, LOGITS.argmax(-1) == LABELS),
    "smooth-labels": (
        metrics.accuracy(),
        LOGITS,
        0.9 * ONE_HOT + 0.1 / CLASSES,
        LOGITS.argmax(-1) == LABELS,
    ),
    "other-axis": (
        metrics.accuracy(axis=1),
        np.stack([LOGITS, -LOGITS], -1),
        np.stack([LABELS, LABELS], -1),
        np.stack([LOGITS.argmax(-1) == LABELS, LOGITS.argmin(-1) == LABELS], -1),
    ),
    "float-labels": (
        metrics.accuracy(),
        LOGITS,
        LABELS.astype(np.float32),
        LOGITS.argmax(-1) == LABELS,
    ),
    "threshold": (metrics.accuracy(0.5), SCORES, YES, (SCORES > 0.5) == YES),
    "threshold-bool": (metrics.accuracy(0.5), SCORES, YES == 1, (SCORES > 0.5) == YES),
    "threshold-float": (
        metrics.accuracy(0.0),
        SCORES - 0.5,
        YES.astype(np.float32),
        (SCORES > 0.5) == YES,
    ),
    "threshold-2d": (metrics.accuracy(0.0), LOGITS, ONE_HOT, (LOGITS > 0) == (ONE_HOT == 1)),
    "top-2": (
        metrics.top_k_accuracy(2),
        LOGITS,
        LABELS,
        (np.argsort(-LOGITS)[:, :2] == LABELS[:, None]).any(-1),
    ),
    "top-3-other-axis": (
        metrics.top_k_accuracy(3, axis=1),
        LOGITS[:, :, None],
        LABELS[:, None],
        (np.argsort(-LOGITS)[:, :3] == LABELS[:, None]).any(-1)[:, None],
    ),
}
every_accuracy = pytest.mark.parametrize("row", ACCURACIES.values(), ids=ACCURACIES)

# Each case: a metric, its predictions and targets.
MEANS = {
    "mean": (metrics.mean(), VALUES, None),
    "mean-of-loss": (metrics.mean(nn.losses.squared_error), VALUES, TARGETS),
    "mean-of-cross-entropy": (
        metrics.mean(nn.losses.softmax_cross_entropy),
        LOGITS,
        LABELS,
    ),
    "mean_absolute_error": (metrics.mean_absolute_error(), VALUES, TARGETS),
    "mean_squared_error": (metrics.mean_squared_error(), VALUES, TARGETS),
    "root_mean_squared_error": (metrics.root_mean_squared_error(), VALUES, TARGETS),
    "mean_absolute_percentage_error": (metrics.mean_absolute_percentage_error(), VALUES, TARGETS),
    "psnr": (metrics.psnr(), VALUES, TARGETS),
    "perplexity": (metrics.perplexity(), LOGITS, LABELS),
    "log_loss": (metrics.log_loss(CLASSES), LOGITS, LABELS),
    "log_loss-binary": (metrics.log_loss(), LOGITS, ONE_HOT),
    "recall_at_k": (metrics.recall_at_k(2), LISTS, RELEVANCE),
    "mean_reciprocal_rank": (metrics.mean_reciprocal_rank(), LISTS, RELEVANCE),
    "ndcg": (metrics.ndcg(3), LISTS, RELEVANCE),
    "expected_calibration_error": (metrics.expected_calibration_error(CLASSES), LOGITS, LABELS),
}
COUNTS = {
    **{name: ACCURACIES[name][:3] for name in ("labels", "threshold", "top-2")},
    "confusion_matrix": (metrics.confusion_matrix(CLASSES), LOGITS, LABELS),
    "precision": (metrics.precision(classes=CLASSES), LOGITS, LABELS),
    "recall": (metrics.recall(classes=CLASSES, average=None), LOGITS, LABELS),
    "f1": (metrics.f1(classes=CLASSES, average="weighted"), LOGITS, LABELS),
    "f1-threshold": (metrics.f1(0.5), SCORES, YES),
    "iou": (metrics.iou(classes=CLASSES), LOGITS, LABELS),
    "iou-multilabel": (metrics.iou(0.0, classes=CLASSES), LOGITS, ONE_HOT),
    "matthews_correlation": (metrics.matthews_correlation(classes=CLASSES), LOGITS, LABELS),
}
WHOLE_SETS = {
    "roc_auc": (metrics.roc_auc(), TIED, YES),
    "roc_auc-classes": (metrics.roc_auc(CLASSES, average=None), LOGITS, LABELS),
    "average_precision": (metrics.average_precision(), TIED, YES),
    "roc_auc-multilabel": (metrics.roc_auc(CLASSES), LOGITS, ONE_HOT),
    "r2_score": (metrics.r2_score(), VALUES, TARGETS),
    "explained_variance": (metrics.explained_variance(), VALUES, TARGETS),
    "pearson_correlation": (metrics.pearson_correlation(), VALUES, TARGETS),
    "whole_set": (
        metrics.whole_set(lambda p, t, w: jnp.max(jnp.where(w > 0, p - t, -jnp.inf))),
        SCORES,
        YES.astype(np.float32),
    ),
}
CASES = MEANS | COUNTS | WHOLE_SETS
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@functools.cache
def compiled(metric):
    return jax.jit(lambda *batch: metric.compute(metric.update(metric.init(), *batch)))


def value_of(metric, *batch):
    return compiled(metric)(*batch)


def quick_for(names, rows):
    """A case for each row; those of other names are slow."""
    marks = {name: [] if name in names else [pytest.mark.slow] for name in rows}
    return pytest.mark.parametrize(
        "case", [pytest.param(row, id=name, marks=marks[name]) for name, row in rows.items()]
    )


def spread(weights, values):
    """One weight for each example as one for each element."""
    return np.broadcast_to(weights.reshape(-1, *[1] * (values.ndim - 1)), values.shape)


# Values


@every_accuracy
def test_accuracy(row):
    metric, predictions, targets, right = row
    assert 0 < right.mean() < 1

    @fast_jit
    def without_and_with(weights):
        given = metric, predictions, targets
        return value_of(*given), value_of(*given, weights)

    plain, weighted = without_and_with(WEIGHTS)
    np.testing.assert_allclose(plain, right.mean(), rtol=1e-6)
    np.testing.assert_allclose(weighted, reference.mean(right, spread(WEIGHTS, right)), rtol=1e-6)


@weightings
def test_mean(weights):
    expected = reference.mean(VALUES, None if weights is None else spread(weights, VALUES))
    np.testing.assert_allclose(
        value_of(metrics.mean(), VALUES, None, weights), expected, rtol=1e-5, atol=1e-6
    )


REFERENCES = {
    "accuracy": (metrics.accuracy(), LOGITS, LABELS, {}),
    "top_k_accuracy": (metrics.top_k_accuracy(3), LOGITS, LABELS, {"k": 3}),
    "perplexity": (metrics.perplexity(), LOGITS, LABELS, {}),
    "mean_absolute_error": (metrics.mean_absolute_error(), VALUES, TARGETS, {}),
    "mean_squared_error": (metrics.mean_squared_error(), VALUES, TARGETS, {}),
    "root_mean_squared_error": (metrics.root_mean_squared_error(), VALUES, TARGETS, {}),
    "mean_absolute_percentage_error": (
        metrics.mean_absolute_percentage_error(),
        VALUES,
        TARGETS,
        {},
    ),
    "psnr": (metrics.psnr(), VALUES, TARGETS, {}),
    "log_loss": (metrics.log_loss(CLASSES), LOGITS, LABELS, {}),
    "expected_calibration_error": (
        metrics.expected_calibration_error(CLASSES, 5),
        LOGITS,
        LABELS,
        {"bins": 5},
    ),
    "recall_at_k": (metrics.recall_at_k(2), LISTS, RELEVANCE, {}),
    "mean_reciprocal_rank": (metrics.mean_reciprocal_rank(), LISTS, RELEVANCE, {}),
    "ndcg": (metrics.ndcg(3), LISTS, RELEVANCE, {"k": 3}),
    "r2_score": (metrics.r2_score(), VALUES, TARGETS, {}),
    "explained_variance": (metrics.explained_variance(), VALUES, TARGETS, {}),
    "pearson_correlation": (metrics.pearson_correlation(), VALUES, TARGETS, {}),
    "matthews_correlation": (
        metrics.matthews_correlation(classes=CLASSES),
        LOGITS,
        LABELS,
        {"classes": CLASSES},
    ),
    "confusion_matrix": (
        metrics.confusion_matrix(CLASSES),
        LOGITS,
        LABELS,
        {"classes": CLASSES},
    ),
    "roc_auc": (metrics.roc_auc(), TIED, YES, {}),
    "average_precision": (metrics.average_precision(), TIED, YES, {}),
}


@each_value_once
@weightings
@pytest.mark.parametrize("name", REFERENCES)
def test_numpy(name, weights):
    metric, predictions, targets, options = REFERENCES[name]
    expected = getattr(reference, name)(predictions, targets, weights, **options)
    value = compiled(metric)(predictions, targets, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@each_value_once
@weightings
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])
@pytest.mark.parametrize("name", ["precision", "recall", "f1", "iou"])
def test_averages_over_classes(name, average, weights):
    """The labels are of fewer classes than there are: one is neither predicted nor true."""
    logits = np.concatenate([LOGITS, np.full((N, 1), -9, np.float32)], -1)
    metric = getattr(metrics, name)(classes=CLASSES + 1, average=average)
    counts = reference.confusion_matrix(logits, LABELS, weights, classes=CLASSES + 1)
    np.testing.assert_allclose(
        compiled(metric)(logits, LABELS, weights),
        getattr(reference, name)(counts, average),
        rtol=1e-5,
    )


def test_float64(x64):
    for name in ("mean", "f1", "roc_auc"):
        metric, predictions, targets = CASES[name]
        wide = [
            a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a
            for a in (predictions, targets)
        ]
        assert value_of(metric, *wide).dtype == jnp.float64
    ours = value_of(metrics.mean(), VALUES.astype(np.float64))
    np.testing.assert_allclose(ours, VALUES.astype(np.float64).mean(), rtol=1e-13)


# scikit-learn


@pytest.fixture(scope="module")
def sklearn():
    """The metrics of scikit-learn."""
    return pytest.importorskip("sklearn.metrics")


@pytest.fixture(scope="module")
def scikit_learn(sklearn):
    """Scikit-learn's of (sample_weight=...), and a compiled function of the weights with ours."""
    chosen = LOGITS.argmax(-1)
    averages = {
        f"{name} {average}": (
            getattr(metrics, name)(classes=CLASSES, average=average),
            (LOGITS, LABELS),
            functools.partial(
                getattr(sklearn, f"{name}_score"), LABELS, chosen, average=average, zero_division=0
            ),
        )
        for name in ("precision", "recall", "f1")
        for average in ("macro", "micro", "weighted", None)
    }
    yes_or_no = {
        f"{name} of yes": (
            getattr(metrics, name)(0.5),
            (SCORES, YES),
            functools.partial(getattr(sklearn, f"{name}_score"), YES, SCORES > 0.5),
        )
        for name in ("accuracy", "precision", "recall", "f1")
    }
    one_against_rest = {
        f"roc_auc of classes {average}": (
            metrics.roc_auc(CLASSES, average=average),
            (PROBABILITIES, LABELS),
            functools.partial(
                sklearn.roc_auc_score, LABELS, PROBABILITIES, multi_class="ovr", average=average
            ),
        )
        for average in ("macro", "weighted", None)
    }
    precisions = {
        f"average_precision of classes {average}": (
            metrics.average_precision(CLASSES, average=average),
            (PROBABILITIES, LABELS),
            functools.partial(
                sklearn.average_precision_score, ONE_HOT, PROBABILITIES, average=average
            ),
        )
        for average in ("macro", "weighted", None)
    }
    scores = {
        f"{name} {kind}": (
            getattr(metrics, name)(),
            (given, YES),
            functools.partial(getattr(sklearn, f"{name}_score"), YES, given),
        )
        for name in ("roc_auc", "average_precision")
        for kind, given in (("distinct", SCORES), ("tied", TIED), ("constant", 0 * SCORES))
    }
    several = np.stack([YES, LABELS == 1, YES * 0], -1)  # of one label there is none
    three = LOGITS[:, :3].copy()
    three[:, 2] = -1
    jaccard = functools.partial(sklearn.jaccard_score, zero_division=0)
    of_counts = {
        "precision": functools.partial(sklearn.precision_score, zero_division=0),
        "recall": functools.partial(sklearn.recall_score, zero_division=0),
        "f1": functools.partial(sklearn.f1_score, zero_division=0),
        "iou": jaccard,
    }
    multilabel = {
        f"{name} multilabel {average}": (
            getattr(metrics, name)(0.0, classes=3, average=average),
            (three, several),
            functools.partial(function, several, three > 0, average=average),
        )
        for name, function in of_counts.items()
        for average in ("macro", "micro", "weighted", None)
    } | {
        f"{name} multilabel {average}": (
            getattr(metrics, name)(2, average=average),
            (LOGITS[:, :2], several[:, :2]),
            functools.partial(
                getattr(sklearn, f"{name}_score"), several[:, :2], LOGITS[:, :2], average=average
            ),
        )
        for name in ("roc_auc", "average_precision")
        for average in ("macro", "weighted", None)
    }
    outputs = {
        f"{name} {average}": (
            getattr(metrics, name)(average=average),
            (VALUES, TARGETS),
            functools.partial(function, TARGETS, VALUES, multioutput=multioutput),
        )
        for name, function in (
            ("r2_score", sklearn.r2_score),
            ("explained_variance", sklearn.explained_variance_score),
        )
        for average, multioutput in (
            ("macro", "uniform_average"),
            ("weighted", "variance_weighted"),
            (None, "raw_values"),
        )
    }
    partial = functools.partial
    table = {
        **multilabel,
        **outputs,
        **{
            f"iou {average}": (
                metrics.iou(classes=CLASSES, average=average),
                (LOGITS, LABELS),
                partial(jaccard, LABELS, chosen, average=average),
            )
            for average in ("macro", "micro", "weighted", None)
        },
        "matthews_correlation": (
            metrics.matthews_correlation(classes=CLASSES),
            (LOGITS, LABELS),
            partial(sklearn.matthews_corrcoef, LABELS, chosen),
        ),
        "matthews_correlation of yes": (
            metrics.matthews_correlation(0.5),
            (SCORES, YES),
            partial(sklearn.matthews_corrcoef, YES, SCORES > 0.5),
        ),
        "confusion_matrix of yes": (
            metrics.confusion_matrix(threshold=0.5),
            (SCORES, YES),
            partial(sklearn.confusion_matrix, YES, SCORES > 0.5),
        ),
        "confusion_matrix multilabel": (
            metrics.confusion_matrix(3, threshold=0.0),
            (three, several),
            partial(sklearn.multilabel_confusion_matrix, several, three > 0),
        ),
        "log_loss": (
            metrics.log_loss(CLASSES),
            (LOGITS, LABELS),
            partial(sklearn.log_loss, LABELS, PROBABILITIES),
        ),
        "log_loss of probabilities": (
            metrics.log_loss(CLASSES, from_logits=False),
            (PROBABILITIES, LABELS),
            partial(sklearn.log_loss, LABELS, PROBABILITIES),
        ),
        "log_loss of certainty": (
            metrics.log_loss(from_logits=False),
            (YES[::-1].astype(np.float32), YES),
            partial(sklearn.log_loss, YES, YES[::-1].astype(np.float32)),
        ),
        "mean_absolute_percentage_error": (
            metrics.mean_absolute_percentage_error(),
            (VALUES, TARGETS),
            lambda **kw: 100 * sklearn.mean_absolute_percentage_error(TARGETS, VALUES, **kw),
        ),
        "ndcg": (metrics.ndcg(), (LISTS, RELEVANCE), partial(sklearn.ndcg_score, RELEVANCE, LISTS)),
        "ndcg of 2": (
            metrics.ndcg(2),
            (LISTS, RELEVANCE),
            partial(sklearn.ndcg_score, RELEVANCE, LISTS, k=2),
        ),
        "mean_reciprocal_rank": (
            metrics.mean_reciprocal_rank(),
            (LOGITS, LABELS),
            partial(sklearn.label_ranking_average_precision_score, ONE_HOT, LOGITS),
        ),
        "recall_at_k": (
            metrics.recall_at_k(2),
            (LOGITS, LABELS),
            partial(sklearn.top_k_accuracy_score, LABELS, LOGITS, k=2),
        ),
        **averages,
        **yes_or_no,
        **one_against_rest,
        **precisions,
        **scores,
        "accuracy": (
            metrics.accuracy(),
            (LOGITS, LABELS),
            partial(sklearn.accuracy_score, LABELS, chosen),
        ),
        "top_k_accuracy": (
            metrics.top_k_accuracy(2),
            (LOGITS, LABELS),
            partial(sklearn.top_k_accuracy_score, LABELS, LOGITS, k=2),
        ),
        "confusion_matrix": (
            metrics.confusion_matrix(CLASSES),
            (LOGITS, LABELS),
            partial(sklearn.confusion_matrix, LABELS, chosen),
        ),
        "perplexity": (
            metrics.perplexity(),
            (LOGITS, LABELS),
            lambda **kwargs: np.exp(sklearn.log_loss(LABELS, PROBABILITIES, **kwargs)),
        ),
        "r2_score": (
            metrics.r2_score(),
            (VALUES, TARGETS),
            partial(sklearn.r2_score, TARGETS, VALUES),
        ),
        "mean_absolute_error": (
            metrics.mean_absolute_error(),
            (VALUES, TARGETS),
            partial(sklearn.mean_absolute_error, TARGETS, VALUES),
        ),
        "mean_squared_error": (
            metrics.mean_squared_error(),
            (VALUES, TARGETS),
            partial(sklearn.mean_squared_error, TARGETS, VALUES),
        ),
        "root_mean_squared_error": (
            metrics.root_mean_squared_error(),
            (VALUES[:, 0], TARGETS[:, 0]),
            partial(sklearn.root_mean_squared_error, TARGETS[:, 0], VALUES[:, 0]),
        ),
    }

    @fast_jit
    def ours(weights):
        return {name: value_of(m, *arguments, weights) for name, (m, arguments, _) in table.items()}

    return {name: theirs for name, (_, _, theirs) in table.items()}, ours


@pytest.mark.parametrize(
    "weights",
    [pytest.param(None, marks=pytest.mark.slow), WEIGHTS, FRACTIONS],
    ids=["unweighted", "whole", "fractions"],
)
def test_scikit_learn(scikit_learn, weights):
    theirs, ours = scikit_learn
    kwargs = {} if weights is None else {"sample_weight": weights}
    for name, value in ours(weights).items():
        expected = theirs[name](**kwargs)
        np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_the_area_of_a_large_set_with_many_ties(sklearn):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200_000)
    scores = np.round(rng.standard_normal(200_000) + 0.3 * labels, 3).astype(np.float32)
    for weights in (None, rng.uniform(0, 2, 200_000).astype(np.float32)):
        np.testing.assert_allclose(
            value_of(metrics.roc_auc(), scores, labels, weights),
            sklearn.roc_auc_score(labels, scores, sample_weight=weights),
            rtol=1e-6,
        )


# Batches, devices, loops

EXACT = COUNTS | WHOLE_SETS


@quick_for(["labels", "f1", "matthews_correlation", "roc_auc", "r2_score", "whole_set"], EXACT)
def test_batches_give_the_whole_exactly(case):
    """Batches of 0, 5, 0 and 18 examples, merged and one after the other."""
    metric, predictions, targets = case

    @fast_jit
    def three_ways(*whole):
        batches = zip(*(jnp.split(jnp.asarray(a), [0, 5, 5]) for a in whole), strict=True)
        merged, one_after_other = metric.init(), metric.init()
        for batch in batches:
            merged = metrics.merge(merged, metric.update(metric.init(), *batch))
            one_after_other = metric.update(one_after_other, *batch)
        return metric.compute(merged), metric.compute(one_after_other), value_of(metric, *whole)

    merged, one_after_other, whole = three_ways(predictions, targets, WEIGHTS)
    np.testing.assert_array_equal(merged, whole)
    np.testing.assert_array_equal(one_after_other, whole)


def of_examples(case, weights):
    """The examples of a case as a batch each."""
    return jax.tree.map(lambda a: a[:, None], (*case[1:], weights))


@quick_first(3)
@pytest.mark.parametrize(
    "name", ["mean", "perplexity", "confusion_matrix", "f1", "roc_auc", "r2_score"]
)
def test_devices(name):
    """Gathered from all devices, the accumulators make the whole."""
    case = CASES[name]
    metric = case[0]

    def on_each(batch):
        sums = metric.update(metric.init(), *batch)
        return metric.compute(metrics.merge_all(jax.lax.all_gather(sums, "devices")))

    values = fast_jit(jax.vmap(on_each, axis_name="devices"))(of_examples(case, WEIGHTS))
    whole = value_of(*case, WEIGHTS)
    np.testing.assert_allclose(values, np.broadcast_to(whole, values.shape), rtol=1e-5)


@each_value_once
@pytest.mark.parametrize("name", ["mean", "labels", "confusion_matrix", "f1"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_sums_may_be_added_up_over_devices(name, weights):
    metric = CASES[name][0]

    def with_psum(batch):
        sums = metric.update(metric.init(), *batch)
        return metric.compute(jax.lax.psum(sums, "devices"))

    values = fast_jit(jax.vmap(with_psum, axis_name="devices"))(of_examples(CASES[name], weights))
    whole = value_of(*CASES[name], weights)
    np.testing.assert_allclose(values, np.broadcast_to(whole, values.shape), rtol=1e-5)


@pytest.mark.parametrize("name", ["roc_auc", "r2_score"])
def test_examples_that_were_added_up_give_nan(name):
    metric, *batch = WHOLE_SETS[name]
    sums = metric.update(metric.init(), *batch)
    added = jax.tree.map(jnp.add, sums, sums)
    assert np.isnan(metric.compute(added)).all()
    assert np.isfinite(metric.compute(metrics.merge(sums, sums))).all()


@quick_for(["mean", "psnr", "ndcg", "confusion_matrix", "roc_auc", "r2_score"], CASES)
def test_scan(case):
    """Stacked by a loop and merged; sums may be carried as well."""
    metric = case[0]

    def step(sums, batch):
        of_batch = metric.update(metric.init(), *batch)
        return metrics.merge(sums, of_batch) if carried else sums, of_batch

    @fast_jit
    def scanned(examples):
        sums, stacked = jax.lax.scan(step, metric.init(), examples)
        return metric.compute(metrics.merge_all(stacked)), metric.compute(sums) if carried else None

    carried = case[0] not in [row[0] for row in WHOLE_SETS.values()]
    merged, one_after_other = scanned(of_examples(case, WEIGHTS))
    whole = compiled(metric)(*case[1:], WEIGHTS)
    np.testing.assert_allclose(merged, whole, rtol=1e-5)
    if carried:
        np.testing.assert_allclose(one_after_other, whole, rtol=1e-5)


# Large counts


def test_counts_beyond_the_integers_of_float32():
    """2^24 + 1 is no float32, so that adding one to 2^24 is lost without the rest."""
    metric = metrics.accuracy(0.5)
    one_right = metric.update(metric.init(), jnp.ones(1), jnp.ones(1))
    one_wrong = metric.update(metric.init(), jnp.ones(1), jnp.zeros(1))
    many = jax.tree.map(lambda leaf: leaf * 2**24, one_right)
    assert np.float32(2**24) + np.float32(1) == 2**24

    def add_ones(sums, _):
        return metrics.merge(sums, one_wrong), None

    sums, _ = jax.jit(lambda sums: jax.lax.scan(add_ones, sums, length=1000))(many)
    wrong = np.float64(1 - metric.compute(sums))
    np.testing.assert_allclose(wrong, 1000 / (2**24 + 1000), rtol=2e-3)
    assert sums.weight.value + np.float64(sums.weight.compensation) == 2**24 + 1000

    confusion = metrics.confusion_matrix(2)
    one = confusion.update(confusion.init(), np.array([[0.0, 1.0]]), np.array([1]))
    counts = metrics.merge(jax.tree.map(lambda leaf: leaf * 2**24, one), one, one, one)
    assert np.float64(counts.value[1, 1]) + np.float64(counts.compensation[1, 1]) == 2**24 + 3


def test_a_sum_that_overflows_is_infinite():
    metric = metrics.mean()
    huge = metric.update(metric.init(), jnp.full(1, 3e38))
    assert metric.compute(metrics.merge(huge, huge)) == np.inf
    infinite = metric.update(metric.init(), np.array([np.inf]))
    assert metric.compute(metrics.merge(infinite, huge)) == np.inf


def test_targets_far_from_zero():
    """The variance of targets at 1449 is not lost in their squares."""
    targets = np.float32(1449 + np.array([-1.0, 0.0, 1.0, 0.5]))
    predictions = targets + np.float32([0.1, -0.1, 0.2, 0.0])
    expected = reference.r2_score(predictions, targets)
    np.testing.assert_allclose(value_of(metrics.r2_score(), predictions, targets), expected, 1e-4)


# Edges


@every_case
def test_no_examples(case):
    """NaN for what is divided by their number, no counts in a confusion matrix."""
    metric, predictions, targets = case
    nothing = jax.tree.map(lambda a: a[:0], (predictions, targets))
    for value in (
        metric.compute(metric.init()),
        value_of(metric, *nothing),
        value_of(metric, predictions, targets, np.zeros(N, np.float32)),
    ):
        if metric is CASES["confusion_matrix"][0]:
            np.testing.assert_array_equal(value, np.zeros((CLASSES, CLASSES)))
        else:
            assert np.isnan(value).all()


@every_case
def test_what_has_weight_zero_may_be_anything(case):
    metric, predictions, targets = case
    weights = np.ones(N, np.float32)
    weights[[0, 7]] = 0
    spoiled = predictions.copy()
    spoiled[[0, 7]] = np.nan
    labels = None if targets is None else targets.copy()
    if labels is not None and labels.dtype.kind == "i" and labels.ndim == 1:
        labels[[0, 7]] = 1000
    expected = value_of(metric, predictions, targets, weights)
    np.testing.assert_array_equal(value_of(metric, spoiled, labels, weights), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_of_weight_zero_are_ignored(bad):
    values, weights = np.array([1.0, bad, 3.0], np.float32), np.array([1.0, 0.0, 1.0])
    assert value_of(metrics.mean(), values, None, weights) == 2

    slope = jax.grad(lambda v: value_of(metrics.mean(), v, None, weights))(jnp.asarray(values))
    np.testing.assert_array_equal(slope, [0.5, 0.0, 0.5])


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float16, jnp.bfloat16, np.float32])
def test_values_and_weights_of_any_dtype(dtype):
    values, weights = jnp.asarray([1, 0, 1, 1], dtype), jnp.asarray([1, 1, 0, 1], dtype)
    assert value_of(metrics.mean(), values) == 0.75
    np.testing.assert_allclose(value_of(metrics.mean(), values, None, weights), 2 / 3, rtol=1e-6)


IGNORING = {
    "iou": functools.partial(metrics.iou, classes=CLASSES),
    "matthews_correlation": functools.partial(metrics.matthews_correlation, classes=CLASSES),
    "log_loss": functools.partial(metrics.log_loss, CLASSES),
    "expected_calibration_error": functools.partial(metrics.expected_calibration_error, CLASSES),
    "recall_at_k": functools.partial(metrics.recall_at_k, 2),
    "ndcg": metrics.ndcg,
    "accuracy": metrics.accuracy,
    "top_k_accuracy": functools.partial(metrics.top_k_accuracy, 2),
    "perplexity": metrics.perplexity,
    "confusion_matrix": functools.partial(metrics.confusion_matrix, CLASSES),
    "precision": functools.partial(metrics.precision, classes=CLASSES),
    "recall": functools.partial(metrics.recall, classes=CLASSES),
    "f1": functools.partial(metrics.f1, classes=CLASSES),
}


@quick_first(5)
@pytest.mark.parametrize("name", IGNORING)
def test_ignored_targets_count_in_no_way(name):
    """As tokens of sequences of which some are padding: the weight is one for each sequence."""
    logits, labels = LOGITS[:20].reshape(4, 5, CLASSES), LABELS[:20].reshape(4, 5).copy()
    labels[0, 3:] = labels[2, :1] = -1
    weights = np.array([2.0, 1.0, 0.5, 1.0])
    kept = (labels != -1).reshape(-1)
    ours = compiled(IGNORING[name](ignore_index=-1))(logits, labels, weights)
    flat = logits.reshape(20, CLASSES)[kept], labels.reshape(-1)[kept], weights.repeat(5)[kept]
    np.testing.assert_allclose(ours, compiled(IGNORING[name]())(*flat), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "confusion_matrix",
        "precision",
        "recall",
        "f1",
        "iou",
        "matthews_correlation",
        "log_loss",
        "expected_calibration_error",
    ],
)
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_outside_the_classes_gives_nan(name, label):
    labels = LABELS.copy()
    labels[3] = label
    assert np.isnan(np.sum(value_of(IGNORING[name](), LOGITS, labels)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_probabilities_are_kept_from_0_by_the_precision_of_their_dtype(dtype):
    metric = metrics.log_loss(2, from_logits=False)
    wrong = value_of(metric, jnp.asarray([[0, 1]], dtype), np.array([0]))
    np.testing.assert_allclose(wrong, -np.log(float(jnp.finfo(dtype).eps)), rtol=1e-6)


def test_top_k_of_ties_and_nan():
    """Of equals the first is the larger, as for the largest; NaN is never right."""
    equal = jnp.zeros((3, 3))
    for k, share in ((1, 1 / 3), (2, 2 / 3), (3, 1.0)):
        value = value_of(metrics.top_k_accuracy(k), equal, jnp.arange(3))
        np.testing.assert_allclose(value, share, rtol=1e-6)
    assert value_of(metrics.accuracy(), equal, jnp.arange(3)) == pytest.approx(1 / 3)
    spoiled = np.array([[np.nan, 1.0, 0.0], [np.nan, 1.0, 0.0]])
    assert value_of(metrics.top_k_accuracy(2), spoiled, np.array([0, 2])) == 0
    assert value_of(metrics.top_k_accuracy(5), equal, np.array([3, -1, 0])) == pytest.approx(1 / 3)


def test_scores_without_both_kinds_or_with_nan():
    for name in ("roc_auc", "average_precision"):
        metric = getattr(metrics, name)()
        assert np.isnan(value_of(metric, SCORES, np.zeros(N)))
        spoiled = np.where(np.arange(N) == 3, np.nan, SCORES)
        assert np.isnan(value_of(metric, spoiled, YES))
    assert np.isnan(value_of(metrics.roc_auc(), SCORES, np.ones(N)))
    assert value_of(metrics.average_precision(), SCORES, np.ones(N)) == pytest.approx(1)
    infinite = np.array([np.inf, np.inf, -np.inf, 0.0], np.float32)
    assert value_of(metrics.roc_auc(), infinite, np.array([1, 0, 0, 1])) == 0.625


@quick_first(1)
@pytest.mark.parametrize("name", ["recall_at_k", "mean_reciprocal_rank", "ndcg"])
def test_lists_of_different_lengths(name):
    """Items that fill a list up count in no way, nor does a list of nothing else."""
    make = functools.partial(getattr(metrics, name), *[2] * (name == "recall_at_k"))
    scores, relevance = LISTS[:3].copy(), RELEVANCE[:3].copy()
    scores[0, 1] = -np.inf
    relevance[0] = [-1, 1, 2, 0]
    relevance[2] = -1
    padded = value_of(make(ignore_index=-1), scores, relevance)
    short = [value_of(make(), s, r) for s, r in ((scores[:1, 1:], relevance[:1, 1:]),)]
    full = value_of(make(), scores[1:2], relevance[1:2])
    np.testing.assert_allclose(padded, (short[0] + full) / 2, rtol=1e-6)
    scores[1, 0] = np.nan
    assert np.isnan(value_of(make(ignore_index=-1), scores, relevance))


def test_correlation_of_what_does_not_vary_and_of_rare_classes():
    constant, varying = jnp.full(3, 2.0), jnp.arange(3.0)
    assert np.isnan(value_of(metrics.pearson_correlation(), constant, varying))
    assert value_of(metrics.pearson_correlation(), varying * 1e-3, varying) == pytest.approx(1)
    assert value_of(metrics.matthews_correlation(1.5), varying, jnp.zeros(3)) == 0
    scores, labels = np.zeros(3_000_000, np.float32), np.zeros(3_000_000, np.int32)
    scores[:2], labels[1:3] = 1, 1  # one of two found, one false alarm
    value = value_of(metrics.matthews_correlation(0.5), scores, labels)
    np.testing.assert_allclose(value, 0.5, rtol=1e-5)


def test_psnr_without_error_is_infinite():
    assert value_of(metrics.psnr(255), jnp.ones((2, 3)), jnp.ones((2, 3))) == np.inf
    np.testing.assert_allclose(
        value_of(metrics.psnr(255), jnp.zeros((1, 3)), jnp.full((1, 3), 2.55)), 40, rtol=1e-6
    )


def test_r2_of_constant_targets(sklearn):
    for predictions in ([2.0, 2.0, 2.0], [2.0, 2.0, 3.0]):
        ours = value_of(metrics.r2_score(), np.array(predictions), jnp.full(3, 2.0))
        assert ours == sklearn.r2_score([2.0, 2.0, 2.0], predictions)
    assert np.isnan(value_of(metrics.r2_score(), jnp.ones(1), jnp.ones(1)))


def test_nothing_predicted_and_nothing_true_is_zero(sklearn):
    scores, labels = jnp.zeros(3), jnp.zeros(3, int)
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")(labels, scores > 0.5, zero_division=0)
        assert value_of(getattr(metrics, name)(0.5), scores, labels) == theirs == 0


BAD = {
    "labels": ((metrics.accuracy(), LOGITS, LABELS[:5]), ["(23, 4)", "(5,)", "(23,)"]),
    "labels-2d": ((metrics.accuracy(), LOGITS, LABELS[:, None]), ["(23, 4)", "(23, 1)"]),
    "threshold": ((metrics.accuracy(0.5), SCORES[:, None], YES), ["(23, 1)", "(23,)"]),
    "no-targets": ((metrics.accuracy(), LOGITS), ["accuracy", "targets"]),
    "weights": ((metrics.mean(), VALUES, None, WEIGHTS[:5]), ["weights", "(5,)", "(23, 3)"]),
    "weights-2d": (
        (metrics.mean(), VALUES, None, np.ones((N, 2))),
        ["weights", "(23, 2)", "(23, 3)", "one for each example"],
    ),
    "weights-of-scalar": (
        (metrics.mean(), jnp.float32(1.0), None, jnp.float32(1.0)),
        ["weights", "()"],
    ),
    "top-k": ((metrics.top_k_accuracy(2), LOGITS, ONE_HOT), ["top_k_accuracy", "(23, 4)"]),
    "confusion": ((metrics.confusion_matrix(3), LOGITS, LABELS), ["(23, 4)", "3 classes"]),
    "precision": ((metrics.precision(0.5), SCORES[:, None], YES), ["precision", "(23, 1)"]),
    "f1": ((metrics.f1(classes=4), LOGITS, ONE_HOT), ["f1", "(23, 4)"]),
    "auc": ((metrics.roc_auc(), SCORES[:, None], YES), ["roc_auc", "(23, 1)", "(23,)"]),
    "auc-classes": ((metrics.roc_auc(3), LOGITS, LABELS), ["roc_auc", "3 classes"]),
    "auc-weights": ((metrics.roc_auc(), SCORES, YES, WEIGHTS[:5]), ["weights", "(5,)"]),
    "labels-of-scores": ((metrics.f1(0.5, classes=3), LOGITS, ONE_HOT), ["f1", "3 classes"]),
    "binary-log-loss": ((metrics.log_loss(), LOGITS, LABELS), ["log_loss", "(23, 4)", "(23,)"]),
    "lists": ((metrics.ndcg(), LISTS, RELEVANCE[:, :2]), ["ndcg", "(23, 4)", "(23, 2)"]),
    "psnr": ((metrics.psnr(), VALUES, SCORES), ["psnr", "(23, 3)", "(23,)"]),
    "r2": ((metrics.r2_score(), VALUES, SCORES), ["r2_score", "(23, 3)", "(23,)"]),
    "whole-set": (
        (metrics.whole_set(lambda p, t, w: p), SCORES, YES[:5]),
        ["whole_set", "(23,)", "(5,)"],
    ),
    "whole-set-targets": ((metrics.whole_set(lambda p, t, w: p), SCORES), ["whole_set", "targets"]),
}


@pytest.mark.parametrize(("arguments", "fragments"), BAD.values(), ids=BAD)
def test_bad_input(arguments, fragments):
    with pytest.raises((ValueError, TypeError)) as error:
        value_of(*arguments)
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)


BAD_OPTIONS = [
    (lambda: metrics.top_k_accuracy(0), ["top_k_accuracy: k is 0"]),
    (lambda: metrics.top_k_accuracy(1.5), ["top_k_accuracy: k is 1.5", "integer"]),
    (lambda: metrics.confusion_matrix(0), ["confusion_matrix: classes is 0"]),
    (lambda: metrics.precision(), ["precision: threshold is None and classes is None"]),
    (lambda: metrics.confusion_matrix(), ["confusion_matrix: threshold is None and classes"]),
    (lambda: metrics.matthews_correlation(0.5, average="micro"), ["average is 'micro'"]),
    (lambda: metrics.pearson_correlation(average="weighted"), ["average is 'weighted'"]),
    (lambda: metrics.explained_variance(average="micro"), ["average is 'micro'", "'macro'"]),
    (lambda: metrics.psnr(0.0), ["psnr: data_range is 0.0"]),
    (lambda: metrics.expected_calibration_error(bins=0), ["bins is 0"]),
    (lambda: metrics.f1(classes=3, average="mean"), ["f1: average is 'mean'", "'macro'"]),
    (lambda: metrics.roc_auc(3, average="micro"), ["roc_auc: average is 'micro'", "'macro'"]),
    (lambda: metrics.average_precision(0), ["average_precision: classes is 0"]),
]


@pytest.mark.parametrize(("call", "fragments"), BAD_OPTIONS)
def test_bad_options(call, fragments):
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)


def test_the_tables_have_every_metric():
    tested = {name.partition("-")[0] for name in CASES} | REFERENCES.keys()
    functions = {name for name in metrics.__all__ if not inspect.isclass(getattr(metrics, name))}
    assert {"merge", "merge_all"} == functions - tested
