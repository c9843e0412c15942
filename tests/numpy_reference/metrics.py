"""Metrics over a whole set at once, by their definitions: what batches must come to."""

import itertools
from collections.abc import Callable

import numpy as np

from .float64 import Array, as_float64
from .losses import softmax_cross_entropy


def mean(values: Array, weights: Array | None = None) -> float:
    """sum(weights values) / sum(weights), with weights of the shape of the values, or all 1."""
    values = as_float64(values)
    weights = np.ones(values.shape) if weights is None else as_float64(weights)
    if weights.shape != values.shape:
        raise ValueError(f"shapes differ: {values.shape} and {weights.shape}")
    return float((weights * values).sum() / weights.sum())


def _ones(labels: Array, weights: Array | None) -> Array:
    return np.ones(len(labels)) if weights is None else as_float64(np.asarray(weights, float))


def accuracy(logits: Array, labels: Array, weights: Array | None = None) -> float:
    """The share of examples whose largest logit is that of the label."""
    return mean(np.asarray(logits).argmax(-1) == np.asarray(labels), weights)


def top_k_accuracy(logits: Array, labels: Array, weights: Array | None = None, k: int = 2) -> float:
    """The share of examples whose label is among the first k of a stable descending order."""
    order = np.argsort(-np.asarray(logits), axis=-1, kind="stable")[:, :k]
    return mean((order == np.asarray(labels)[:, None]).any(-1), _ones(labels, weights))


def perplexity(logits: Array, labels: Array, weights: Array | None = None) -> float:
    """exp of the mean cross-entropy."""
    entropy, _ = softmax_cross_entropy(np.asarray(logits), np.asarray(labels))
    return float(np.exp(mean(entropy, _ones(labels, weights))))


def mean_absolute_error(y: Array, t: Array, weights: Array | None = None) -> float:
    """mean |y - t|."""
    return _mean_over_outputs(np.abs(as_float64(y) - as_float64(t)), weights)


def mean_squared_error(y: Array, t: Array, weights: Array | None = None) -> float:
    """mean (y - t)^2."""
    return _mean_over_outputs((as_float64(y) - as_float64(t)) ** 2, weights)


def root_mean_squared_error(y: Array, t: Array, weights: Array | None = None) -> float:
    """sqrt of the mean over examples and outputs."""
    return float(np.sqrt(mean_squared_error(y, t, weights)))


def _mean_over_outputs(values: Array, weights: Array | None) -> float:
    return mean(values.reshape(len(values), -1).mean(1), _ones(values, weights))


def mean_absolute_percentage_error(y: Array, t: Array, weights: Array | None = None) -> float:
    """mean 100 |y - t| / |t|."""
    return _mean_over_outputs(100 * np.abs(as_float64(y) - t) / np.abs(as_float64(t)), weights)


def psnr(y: Array, t: Array, weights: Array | None = None) -> float:
    """mean over examples of 10 log10(1 / mean squared error of the example)."""
    squares = (as_float64(y) - as_float64(t)).reshape(len(y), -1) ** 2
    return mean(10 * np.log10(1 / squares.mean(1)), _ones(y, weights))


def _per_output(y: Array, t: Array, weights: Array | None, function: Callable) -> float:
    y, t = (as_float64(a).reshape(len(a), -1) for a in (y, t))
    w = _ones(t, weights)
    return float(np.mean([function(*pair, w) for pair in zip(y.T, t.T, strict=True)]))


def _covariance(a: Array, b: Array, w: Array) -> float:
    return mean((a - mean(a, w)) * (b - mean(b, w)), w)


def r2_score(y: Array, t: Array, weights: Array | None = None) -> float:
    """1 - (mean squared error) / (variance), each output by itself."""
    return _per_output(
        y, t, weights, lambda y, t, w: 1 - mean((t - y) ** 2, w) / _covariance(t, t, w)
    )


def explained_variance(y: Array, t: Array, weights: Array | None = None) -> float:
    """1 - (variance of the error) / (variance), each output by itself."""
    return _per_output(
        y, t, weights, lambda y, t, w: 1 - _covariance(t - y, t - y, w) / _covariance(t, t, w)
    )


def pearson_correlation(y: Array, t: Array, weights: Array | None = None) -> float:
    """cov / sqrt(var var), each output by itself."""
    return _per_output(
        y,
        t,
        weights,
        lambda y, t, w: _covariance(y, t, w) / np.sqrt(_covariance(y, y, w) * _covariance(t, t, w)),
    )


def log_loss(logits: Array, labels: Array, weights: Array | None = None) -> float:
    """Mean cross-entropy."""
    entropy, _ = softmax_cross_entropy(np.asarray(logits), np.asarray(labels))
    return mean(entropy, _ones(labels, weights))


def expected_calibration_error(
    logits: Array, labels: Array, weights: Array | None = None, bins: int = 15
) -> float:
    """sum over bins of (weight of the bin) |mean right - mean confidence| / (all weight)."""
    p = np.exp(as_float64(logits))
    confidence = (p / p.sum(-1, keepdims=True)).max(-1)
    right = p.argmax(-1) == labels
    w, edges, total = _ones(labels, weights), np.linspace(0, 1, bins + 1), 0.0
    for low, high in itertools.pairwise(edges):
        chosen = (confidence > low) & (confidence <= high) & (w > 0)
        if chosen.any():
            gap = mean(right[chosen], w[chosen]) - mean(confidence[chosen], w[chosen])
            total += w[chosen].sum() * abs(gap)
    return total / w.sum()


def matthews_correlation(
    logits: Array, labels: Array, weights: Array | None = None, classes: int = 2
) -> float:
    """The correlation of one-hot predictions and targets, over examples and classes."""
    w = _ones(labels, weights)
    x, y = np.eye(classes)[np.argmax(logits, -1)], np.eye(classes)[labels]

    def covariance(a: Array, b: Array) -> float:
        return sum(_covariance(i, j, w) for i, j in zip(a.T, b.T, strict=True))

    return covariance(x, y) / np.sqrt(covariance(x, x) * covariance(y, y))


def _best_first(scores: Array, relevance: Array) -> Array:
    return np.asarray(relevance)[np.argsort(-np.asarray(scores), kind="stable")]


def recall_at_k(y: Array, t: Array, weights: Array | None = None, k: int = 2) -> float:
    """Mean over lists of (relevant in the first k) / (relevant)."""
    lists = [_best_first(*pair) > 0 for pair in zip(y, t, strict=True)]
    return mean(np.array([a[:k].sum() / max(a.sum(), 1) for a in lists]), _ones(t, weights))


def mean_reciprocal_rank(y: Array, t: Array, weights: Array | None = None) -> float:
    """Mean over lists of 1 / (place of the first relevant, from 1)."""
    ranks = [np.flatnonzero(_best_first(*pair) > 0)[:1] + 1 for pair in zip(y, t, strict=True)]
    return mean(np.array([1 / r[0] if r.size else 0 for r in ranks]), _ones(t, weights))


def ndcg(y: Array, t: Array, weights: Array | None = None, k: int | None = None) -> float:
    """Mean over lists of the gain over the best gain; of all orders of ties, the mean."""
    values = []
    for scores, relevance in zip(as_float64(y), as_float64(t), strict=True):
        discount = 1 / np.log2(np.arange(2, len(scores) + 2))
        discount[k:] = 0 if k is not None else discount[k:]
        gains = [
            (relevance[list(order)] * discount).sum()
            for order in itertools.permutations(range(len(scores)))
            if (np.diff(scores[list(order)]) <= 0).all()
        ]
        best = (np.sort(relevance)[::-1] * discount).sum()
        values.append(np.mean(gains) / best if best else 0)
    return mean(np.array(values), _ones(t, weights))


def confusion_matrix(
    logits: Array, labels: Array, weights: Array | None = None, classes: int = 2
) -> Array:
    """Weights counted one by one, in the row of the label and the column of the largest logit."""
    counts = np.zeros((classes, classes))
    for row, label, w in zip(logits, labels, _ones(labels, weights), strict=True):
        counts[label, np.argmax(row)] += w
    return counts


def _per_class(counts: Array) -> dict[str, Array]:
    right, predicted, actual = np.diag(counts), counts.sum(0), counts.sum(1)
    with np.errstate(invalid="ignore"):
        values = {
            "precision": right / predicted,
            "recall": right / actual,
            "f1": 2 * right / (predicted + actual),
            "iou": right / (predicted + actual - right),
        }
    return {name: np.nan_to_num(value) for name, value in values.items()}


def _averaged(name: str, counts: Array, average: str | None) -> float | Array:
    values = _per_class(counts)[name]
    if average is None:
        return values
    if average == "micro":  # each error is a false positive of one class, a false negative of one
        return float(np.trace(counts) / counts.sum())
    occurs = counts.sum(0) + counts.sum(1) > 0
    shares = occurs if average == "macro" else counts.sum(1)
    return float((values * shares).sum() / shares.sum())


def precision(counts: Array, average: str | None = "macro") -> float | Array:
    """Right among predicted, from a confusion matrix."""
    return _averaged("precision", counts, average)


def recall(counts: Array, average: str | None = "macro") -> float | Array:
    """Right among actual, from a confusion matrix."""
    return _averaged("recall", counts, average)


def f1(counts: Array, average: str | None = "macro") -> float | Array:
    """The harmonic mean of both, from a confusion matrix."""
    return _averaged("f1", counts, average)


def iou(counts: Array, average: str | None = "macro") -> float | Array:
    """Right among what is predicted or actual, from a confusion matrix."""
    if average == "micro":
        right, whole = np.trace(counts), counts.sum()
        return float(right / (2 * whole - right))
    return _averaged("iou", counts, average)


def roc_auc(scores: Array, labels: Array, weights: Array | None = None) -> float:
    """The share of pairs of a positive and a negative in order, half a pair where they are tied."""
    w = _ones(labels, weights)
    in_order = of_all = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(np.asarray(labels) == 0):
            won = 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
            in_order += w[i] * w[j] * won
            of_all += w[i] * w[j]
    return in_order / of_all


def average_precision(scores: Array, labels: Array, weights: Array | None = None) -> float:
    """sum over the thresholds of (recall there - recall before) precision there."""
    w, labels = _ones(labels, weights), np.asarray(labels).astype(bool)
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores[w > 0]), reverse=True):
        chosen = scores >= threshold
        right = w[chosen & labels].sum()
        recall_here = right / w[labels].sum()
        total += (recall_here - recall_before) * right / w[chosen].sum()
        recall_before = recall_here
    return float(total)
