"""Losses, unreduced: elementwise for regression, one value per example for classification."""

import math
from collections.abc import Callable

import numpy as np

from .activations import log_softmax, sigmoid, softplus
from .float64 import Array, in_float64

Result = tuple[Array, Callable[[Array], tuple[Array | None, ...]]]


def _same_shape(a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")


def _gradient(values: Array, like: Array) -> Array | None:
    """A gradient for a floating argument, none for an integer one."""
    return values if like.dtype.kind == "f" else None


def _times(weight: Array, value: Array) -> Array:
    """weight * value with 0 * inf = 0, as lim p log p = 0."""
    return weight * np.where(weight == 0, 0.0, value)


@in_float64
def squared_error(predictions: Array, targets: Array) -> Result:
    """y = e^2 with e = predictions - targets; dy/de = 2e."""
    _same_shape(predictions, targets)
    e = predictions - targets
    return e**2, lambda dy: (2 * e * dy, -2 * e * dy)


@in_float64
def absolute_error(predictions: Array, targets: Array) -> Result:
    """y = |e| with e = predictions - targets; dy/de = sign(e), 0 at 0."""
    _same_shape(predictions, targets)
    e = predictions - targets
    return np.abs(e), lambda dy: (np.sign(e) * dy, -np.sign(e) * dy)


@in_float64
def huber_loss(predictions: Array, targets: Array, delta: float = 1.0) -> Result:
    """y = e^2 / 2 for |e| <= d = delta, else d (|e| - d / 2); dy/de = clip(e, -d, d)."""
    _same_shape(predictions, targets)
    e = predictions - targets
    slope = np.clip(e, -delta, delta)
    y = np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2))
    return y, lambda dy: (slope * dy, -slope * dy)


@in_float64
def softmax_cross_entropy(
    logits: Array, labels: Array, axis: int = -1, label_smoothing: float = 0.0
) -> Result:
    """y = -sum_i q_i log softmax(z)_i with q = (1 - s) p + s / classes, s the label smoothing.

    Labels p are distributions of the shape of the logits, or integers with `axis` missing.
    dz = softmax(z) sum(q) - q and dp = -(1 - s) log softmax(z).
    """
    classes = logits.shape[axis]
    integer = labels.dtype.kind in "iu"
    p = np.moveaxis(np.eye(classes)[labels], -1, axis) if integer else labels
    _same_shape(logits, p)
    q = (1 - label_smoothing) * p + label_smoothing / classes
    log_p, _ = log_softmax(logits, axis)

    def backward(dy: Array) -> tuple[Array, Array | None]:
        dy = np.expand_dims(dy, axis)
        dlogits = dy * (np.exp(log_p) * q.sum(axis, keepdims=True) - q)
        return dlogits, None if integer else _times(-dy * (1 - label_smoothing), log_p)

    return -_times(q, log_p).sum(axis), backward


@in_float64
def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Result:
    """y = -p log s(z) - (1 - p) log s(-z), where -log s(z) = softplus(-z) and s is sigmoid.

    dz = s(z) - p = (1 - p) s(z) - p s(-z), which does not cancel, and
    dp = softplus(-z) - softplus(z) = -z.
    """
    _same_shape(logits, labels)
    p = labels
    y = _times(p, softplus(-logits)[0]) + _times(1.0 - p, softplus(logits)[0])
    slope = (1.0 - p) * sigmoid(logits)[0] - p * sigmoid(-logits)[0]
    return y, lambda dy: (dy * slope, _times(-dy, logits))


# Regression


@in_float64
def l2_loss(predictions: Array, targets: Array) -> Result:
    """y = e^2 / 2 with e = predictions - targets; dy/de = e."""
    _same_shape(predictions, targets)
    e = predictions - targets
    return e**2 / 2, lambda dy: (e * dy, -e * dy)


@in_float64
def log_cosh(predictions: Array, targets: Array) -> Result:
    """y = log((exp(e) + exp(-e)) / 2), dy/de = (exp(e) - exp(-e)) / (exp(e) + exp(-e))."""
    _same_shape(predictions, targets)
    e = predictions - targets
    slope = (1 - np.exp(-2 * np.abs(e))) / (1 + np.exp(-2 * np.abs(e))) * np.sign(e)
    return np.logaddexp(e, -e) - math.log(2), lambda dy: (slope * dy, -slope * dy)


@in_float64
def quantile_loss(predictions: Array, targets: Array, quantile: Array) -> Result:
    """y = q (t - p) if the prediction is too low, (1 - q) (p - t) if it is too high."""
    _same_shape(predictions, targets)
    q = np.broadcast_to(np.float64(quantile), predictions.shape)
    y, slope = np.zeros(predictions.shape), np.zeros(predictions.shape)
    for i in np.ndindex(y.shape):
        too_low = targets[i] > predictions[i]
        slope[i] = -q[i] if too_low else 1 - q[i]
        y[i] = slope[i] * (predictions[i] - targets[i])
    return y, lambda dy: (slope * dy, -slope * dy)


@in_float64
def gaussian_nll(
    predictions: Array,
    targets: Array,
    variances: Array,
    full: bool = False,
    epsilon: float = 1e-6,
) -> Result:
    """y = -log of the density of N(p, v) at t, its constant left out if not full.

    dp = (p - t) / v, dt = -dp, dv = 1 / (2 v) - (p - t)^2 / (2 v^2) where v > epsilon.
    """
    _same_shape(predictions, targets)
    _same_shape(predictions, variances)
    v = np.where(variances < epsilon, epsilon, variances)
    density = np.exp(-((targets - predictions) ** 2) / (2 * v)) / np.sqrt(2 * math.pi * v)
    y = -np.log(density) - (0 if full else math.log(2 * math.pi) / 2)
    slope = (predictions - targets) / v
    dv = (1 / v - slope**2) / 2 * (variances > epsilon)
    return y, lambda dy: (slope * dy, -slope * dy, dv * dy)


def _digamma(x: float) -> float:
    """The derivative of log gamma: log z - 1/2z - 1/12z^2 + ... at z = x + 20, then step by step.

    From gamma(x + 1) = x gamma(x) follows digamma(x) = digamma(x + 1) - 1/x.
    """
    below = sum(1 / (x + k) for k in range(20))
    z = x + 20
    return math.log(z) - 1 / (2 * z) - 1 / (12 * z**2) + 1 / (120 * z**4) - 1 / (252 * z**6) - below


@in_float64
def poisson_nll(
    predictions: Array,
    targets: Array,
    log_input: bool = True,
    full: bool = False,
    epsilon: float = 1e-8,
) -> Result:
    """y = r - t log r, r = exp(p), dp = r - t; or r = p and log(p + e), dp = 1 - t / (p + e).

    dt = -log r. If full, log(t!) is added to y and digamma(t + 1) to dt.
    """
    _same_shape(predictions, targets)
    if log_input:
        rate, log_rate = np.exp(predictions), predictions
        slope = rate - targets
    else:
        rate, log_rate = predictions, np.log(predictions + epsilon)
        slope = 1 - targets / (predictions + epsilon)
    y, dt = rate - targets * log_rate, -log_rate
    if full:
        y = y + np.vectorize(math.lgamma)(targets + 1.0)
        dt = dt + np.vectorize(_digamma)(targets + 1.0)
    return y, lambda dy: (slope * dy, dt * dy)


# Yes or no


@in_float64
def sigmoid_focal_loss(
    logits: Array, labels: Array, alpha: float | None = None, gamma: float = 2.0
) -> Result:
    """y = w m^gamma c: weight, probability missed, cross-entropy, with s = sigmoid(z).

    m = p (1 - s) + (1 - p) s, so dm/dz = s (1 - s) (1 - 2 p) and dm/dp = 1 - 2 s;
    dc/dz = s - p, dc/dp = -z; w = a p + (1 - a) (1 - p), dw/dp = 2 a - 1.
    """
    _same_shape(logits, labels)
    p, s = labels, sigmoid(logits)[0]
    c, _ = sigmoid_binary_cross_entropy(logits, labels)
    m = p * (1 - s) + (1 - p) * s
    w = np.ones(p.shape) if alpha is None else alpha * p + (1 - alpha) * (1 - p)
    dw = 0.0 if alpha is None else 2 * alpha - 1
    power, slope = m**gamma, gamma * m ** (gamma - 1)
    dz = w * (slope * s * (1 - s) * (1 - 2 * p) * c + power * (s - p))
    dp = dw * power * c + w * (slope * (1 - 2 * s) * c - power * logits)
    return w * power * c, lambda dy: (dz * dy, dp * dy)


def _hinge(margin: float, outputs: Array, targets: Array) -> Result:
    """y = margin - o t where that is positive: do = -t, dt = -o there; 0 elsewhere."""
    _same_shape(outputs, targets)
    active = margin - outputs * targets > 0

    def backward(dy: Array) -> tuple[Array | None, ...]:
        return -targets * active * dy, _gradient(-outputs * active * dy, targets)

    return active * (margin - outputs * targets), backward


@in_float64
def hinge_loss(predictor_outputs: Array, targets: Array) -> Result:
    """The margin is 1."""
    return _hinge(1.0, predictor_outputs, targets)


@in_float64
def perceptron_loss(predictor_outputs: Array, targets: Array) -> Result:
    """The margin is 0."""
    return _hinge(0.0, predictor_outputs, targets)


# Classes


def _multiclass_margin(margin: float, scores: Array, labels: Array) -> Result:
    """The worst rival takes its score plus the margin; the label its own, without.

    The gradient is 1 for the class of the maximum and -1 for the label, 0 if they are the same.
    """
    y, slope = np.zeros(labels.shape), np.zeros(scores.shape)
    for i in np.ndindex(labels.shape):
        label = labels[i]
        with_margin = [s if c == label else s + margin for c, s in enumerate(scores[i])]
        winner = int(np.argmax(with_margin))
        y[i] = with_margin[winner] - scores[i][label]
        slope[i][winner] += 1
        slope[i][label] -= 1
    return y, lambda dy: (slope * dy[..., None], None)


@in_float64
def multiclass_hinge_loss(scores: Array, labels: Array) -> Result:
    """The margin is 1."""
    return _multiclass_margin(1.0, scores, labels)


@in_float64
def multiclass_perceptron_loss(scores: Array, labels: Array) -> Result:
    """The margin is 0."""
    return _multiclass_margin(0.0, scores, labels)


@in_float64
def softmax_cross_entropy_with_integer_labels(logits: Array, labels: Array) -> Result:
    """y = log sum_c exp(z_c) - z_label, one example after the other; dz = softmax(z) - one hot."""
    y, slope = np.zeros(labels.shape), np.zeros(logits.shape)
    for i in np.ndindex(labels.shape):
        highest = logits[i].max()
        exponentials = np.exp(logits[i] - highest)
        y[i] = highest + math.log(exponentials.sum()) - logits[i][labels[i]]
        slope[i] = exponentials / exponentials.sum()
        slope[i][labels[i]] -= 1
    return y, lambda dy: (slope * dy[..., None], None)


@in_float64
def poly_loss_cross_entropy(
    logits: Array, labels: Array, epsilon: float = 2.0, axis: int = -1
) -> Result:
    """y = cross-entropy + epsilon sum_c q_c (1 - p_c) with p = softmax(z).

    As dp_c/dz_j = p_c ([c = j] - p_j), the second term has dz_j = epsilon p_j (sum_c q_c p_c - q_j)
    and dq = epsilon (1 - p).
    """
    cross_entropy, cross_entropy_backward = softmax_cross_entropy(logits, labels, axis)
    p = np.exp(log_softmax(logits, axis)[0])
    integer = labels.dtype.kind in "iu"
    q = np.moveaxis(np.eye(logits.shape[axis])[labels], -1, axis) if integer else labels

    def backward(dy: Array) -> tuple[Array, Array | None]:
        dlogits, dlabels = cross_entropy_backward(dy)
        dy = np.expand_dims(dy, axis)
        dlogits = dlogits + dy * epsilon * p * ((q * p).sum(axis, keepdims=True) - q)
        return dlogits, None if integer else dlabels + dy * epsilon * (1 - p)

    return cross_entropy + epsilon * (q * (1 - p)).sum(axis), backward


@in_float64
def nll(log_probs: Array, labels: Array, axis: int = -1) -> Result:
    """y = -sum_c q_c l_c: dl = -q, dq = -l."""
    integer = labels.dtype.kind in "iu"
    q = np.moveaxis(np.eye(log_probs.shape[axis])[labels], -1, axis) if integer else labels

    def backward(dy: Array) -> tuple[Array, Array | None]:
        dy = np.expand_dims(dy, axis)
        return -q * dy, None if integer else -log_probs * dy

    return -_times(q, log_probs).sum(axis), backward


@in_float64
def smooth_labels(labels: Array, alpha: float, axis: int = -1) -> Result:
    """y = (1 - a) p + a / n: dp = (1 - a) dy."""
    y = (1 - alpha) * labels + alpha / labels.shape[axis]
    return y, lambda dy: ((1 - alpha) * dy,)


# Divergences: sums of terms over an axis, of which a mask may leave out some.


def _summed(terms: Array, slopes: tuple[Array, ...], axis: int, where: Array | None) -> Result:
    kept = np.ones(terms.shape) if where is None else where.astype(float)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        gradients = tuple(np.expand_dims(dy, axis) * kept * slope for slope in slopes)
        return gradients if where is None else (*gradients, None)

    return (terms * kept).sum(axis), backward


@in_float64
def kl_divergence(
    log_predictions: Array, targets: Array, where: Array | None = None, axis: int = -1
) -> Result:
    """Terms t (log t - l): dl = -t, dt = log t + 1 - l."""
    log_t = np.log(targets)
    slopes = -targets, log_t + 1 - log_predictions
    return _summed(targets * (log_t - log_predictions), slopes, axis, where)


@in_float64
def kl_divergence_with_log_targets(
    log_predictions: Array, log_targets: Array, where: Array | None = None, axis: int = -1
) -> Result:
    """Terms exp(u) (u - l): dl = -exp(u), du = exp(u) (u - l) + exp(u)."""
    t, gap = np.exp(log_targets), log_targets - log_predictions
    return _summed(t * gap, (-t, t * gap + t), axis, where)


@in_float64
def generalized_kl_divergence(
    log_predictions: Array, targets: Array, where: Array | None = None, axis: int = -1
) -> Result:
    """Terms t (log t - l) + exp(l) - t: dl = exp(l) - t, dt = log t - l."""
    gap, p = np.log(targets) - log_predictions, np.exp(log_predictions)
    return _summed(targets * gap + p - targets, (p - targets, gap), axis, where)


# Vectors


@in_float64
def cosine_similarity(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    epsilon: float = 0.0,
    axis: int = -1,
) -> Result:
    """y = a.b / (|a| |b|), squared norms below epsilon being epsilon.

    da = b / (|a| |b|) - y a / |a|^2, the second term only where the norm is a's own; db likewise.
    """
    _same_shape(predictions, targets)
    kept = np.ones(predictions.shape) if where is None else where.astype(float)
    a, b = np.moveaxis(predictions * kept, axis, -1), np.moveaxis(targets * kept, axis, -1)
    y, da, db = np.zeros(a.shape[:-1]), np.zeros(a.shape), np.zeros(a.shape)
    for i in np.ndindex(y.shape):
        aa, bb = a[i] @ a[i], b[i] @ b[i]
        if max(aa, epsilon) == 0 or max(bb, epsilon) == 0:
            continue
        norms = math.sqrt(max(aa, epsilon) * max(bb, epsilon))
        y[i] = a[i] @ b[i] / norms
        da[i] = b[i] / norms - (y[i] * a[i] / aa if aa > epsilon else 0)
        db[i] = a[i] / norms - (y[i] * b[i] / bb if bb > epsilon else 0)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dy = np.expand_dims(dy, axis)
        gradients = tuple(kept * dy * np.moveaxis(d, -1, axis) for d in (da, db))
        return gradients if where is None else (*gradients, None)

    return y, backward


@in_float64
def cosine_distance(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    epsilon: float = 0.0,
    axis: int = -1,
) -> Result:
    """One minus the similarity."""
    y, backward = cosine_similarity(predictions, targets, where, epsilon, axis)
    return 1 - y, lambda dy: backward(-dy)


@in_float64
def triplet_margin_loss(
    anchors: Array,
    positives: Array,
    negatives: Array,
    axis: int = -1,
    norm_degree: float = 2.0,
    margin: float = 1.0,
    eps: float = 1e-6,
) -> Result:
    """y = d(a, p) - d(a, n) + margin where that is positive, with d = (sum |u|^k + eps)^(1/k).

    d's derivative in u = a - b is |u|^(k-1) sign(u) d / (sum |u|^k + eps).
    """
    a, p, n = (np.moveaxis(x, axis, -1) for x in (anchors, positives, negatives))
    y, slopes = np.zeros(a.shape[:-1]), [np.zeros(a.shape) for _ in range(3)]

    def distance(u: Array) -> tuple[float, Array]:
        total = (np.abs(u) ** norm_degree).sum() + eps
        d = total ** (1 / norm_degree)
        return d, np.abs(u) ** (norm_degree - 1) * np.sign(u) * d / total

    for i in np.ndindex(y.shape):
        (near, near_slope), (far, far_slope) = distance(a[i] - p[i]), distance(a[i] - n[i])
        if near - far + margin > 0:
            y[i] = near - far + margin
            for slope, value in zip(
                slopes, (near_slope - far_slope, -near_slope, far_slope), strict=True
            ):
                slope[i] = value

    def backward(dy: Array) -> tuple[Array, ...]:
        return tuple(np.expand_dims(dy, axis) * np.moveaxis(s, -1, axis) for s in slopes)

    return y, backward


@in_float64
def ntxent(
    embeddings: Array, labels: Array, where: Array | None = None, temperature: float = 0.07
) -> Result:
    """The mean over pairs (i, j) with equal labels of -log(e_ij / (e_ij + sum_k e_ik)).

    e = exp(cosine / temperature), k over the other labels. With r_k = e_ik / (e_ij + sum e), the
    derivative of one term in the similarity s_ij is r_j - 1 and in s_ik it is r_k; from there on
    by that of the cosine.
    """
    n = len(embeddings)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    takes_part = [True] * n if where is None else where
    present = [i for i in range(n) if takes_part[i]]
    pairs = [(i, j) for i in present for j in present if i != j and labels[i] == labels[j]]
    total, slope = 0.0, np.zeros((n, n))
    for i, j in pairs:
        others = [j, *(k for k in present if labels[k] != labels[i])]
        s = np.array([units[i] @ units[k] / temperature for k in others])
        shares = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        total -= math.log(shares[0])
        slope[i, others] += shares
        slope[i, j] -= 1
    count = max(len(pairs), 1)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        gradient = np.zeros(embeddings.shape)
        for i, k in zip(*np.nonzero(slope), strict=True):
            _, cosine_backward = cosine_similarity(embeddings[i], embeddings[k])
            di, dk = cosine_backward(np.float64(slope[i, k] * dy / temperature / count))
            gradient[i] += di
            gradient[k] += dk
        return (gradient, None) if where is None else (gradient, None, None)

    return np.float64(total / count), backward


# Regions


@in_float64
def dice_loss(
    predictions: Array,
    targets: Array,
    class_weights: Array | None = None,
    smooth: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
) -> Result:
    """One minus N / D for each example and class, of which the mean (or sum) is taken.

    N = i + smooth and D = i + alpha (P - i) + beta (T - i) + smooth, with
    i = sum p t, P = sum p, T = sum t over the pixels. In p: dN = t, dD = t (1 - a - b) + a; in t:
    dN = p, dD = p (1 - a - b) + b; and d(-N / D) = -(dN D - N dD) / D^2. The softmax and the
    sigmoid come after by their own rules.
    """
    _same_shape(predictions, targets)
    classes = predictions.shape[-1]
    if not apply_softmax:
        p = predictions
    elif classes == 1:
        p = sigmoid(predictions)[0]
    else:
        p = np.exp(log_softmax(predictions, -1)[0])
    y = np.zeros((len(p), classes))
    dp, dt = np.zeros(p.shape), np.zeros(p.shape)
    for b, c in np.ndindex(y.shape):
        pixels, truth = p[b, ..., c], targets[b, ..., c]
        both = (pixels * truth).sum()
        above = both + smooth
        below = both + alpha * (pixels.sum() - both) + beta * (truth.sum() - both) + smooth
        y[b, c] = 1 - above / below
        rest = 1 - alpha - beta
        dp[b, ..., c] = -(truth * below - above * (truth * rest + alpha)) / below**2
        dt[b, ..., c] = -(pixels * below - above * (pixels * rest + beta)) / below**2
    first = 1 if ignore_background and classes > 1 else 0
    share = 1 / (classes - first) if reduction == "mean" else 1.0
    scale = np.where(np.arange(classes) < first, 0.0, share)
    weights = scale if class_weights is None else scale * class_weights

    def backward(dy: Array) -> tuple[Array, Array]:
        if reduction == "none":
            per_class = np.concatenate([np.zeros((len(p), first)), dy], -1) * weights
        else:
            per_class = dy[:, None] * weights
        per_pixel = per_class.reshape(len(p), *[1] * (p.ndim - 2), classes)
        d = per_pixel * dp
        if apply_softmax and classes == 1:
            d = d * p * (1 - p)
        elif apply_softmax:
            d = p * (d - (d * p).sum(-1, keepdims=True))
        return d, per_pixel * dt

    weighted = y * weights
    return (weighted[:, first:] if reduction == "none" else weighted.sum(-1)), backward
