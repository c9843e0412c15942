"""Further losses: percentages, pairs, rankings, preferences and generalized regions."""

import numpy as np

from .activations import log_softmax, softplus
from .float64 import Array, in_float64
from .losses import Result, cosine_similarity, hinge_loss, softmax_cross_entropy


@in_float64
def absolute_percentage_error(predictions: Array, targets: Array, epsilon: float = 1e-7) -> Result:
    """y = 100 |p - t| / m, m = max(|t|, epsilon); dm/dt = sign(t) where |t| is the larger."""
    e, m = predictions - targets, np.maximum(np.abs(targets), epsilon)
    slope = np.sign(targets) * (np.abs(targets) > epsilon)
    dp = 100 * np.sign(e) / m
    dt = -dp - 100 * np.abs(e) / m**2 * slope
    return 100 * np.abs(e) / m, lambda dy: (dp * dy, dt * dy)


@in_float64
def squared_logarithmic_error(predictions: Array, targets: Array) -> Result:
    """y = g^2, g = log(1 + p) - log(1 + t), negative numbers being 0; dp = 2 g / (1 + p)."""
    p, t = np.maximum(predictions, 0), np.maximum(targets, 0)
    g = np.log(1 + p) - np.log(1 + t)
    dp = 2 * g / (1 + p) * (predictions >= 0)
    dt = -2 * g / (1 + t) * (targets >= 0)
    return g**2, lambda dy: (dp * dy, dt * dy)


@in_float64
def gaussian_kl_divergence(
    means: Array,
    log_variances: Array,
    prior_means: Array | None = None,
    prior_log_variances: Array | None = None,
) -> Result:
    """y = (u - v + (exp(v) + (m - n)^2) / exp(u) - 1) / 2, of N(m, exp v) and N(n, exp u).

    dm = (m - n) / exp(u) = -dn, dv = (exp(v - u) - 1) / 2, du = (1 - exp(v - u) - (m - n)^2 /
    exp(u)) / 2.
    """
    n = 0.0 if prior_means is None else prior_means
    u = 0.0 if prior_log_variances is None else prior_log_variances
    ratio, square = np.exp(log_variances - u), (means - n) ** 2 / np.exp(u)
    dm = (means - n) / np.exp(u)
    slopes = [dm, (ratio - 1) / 2]
    if prior_means is not None:
        slopes.append(-dm)
    if prior_log_variances is not None:
        slopes.append((1 - ratio - square) / 2)
    y = (u - log_variances + ratio + square - 1) / 2
    return y, lambda dy: tuple(slope * dy for slope in slopes)


@in_float64
def squared_hinge_loss(predictor_outputs: Array, targets: Array) -> Result:
    """The square of the hinge loss h, whose derivative is 2 h times that of h."""
    h, backward = hinge_loss(predictor_outputs, targets)
    return h**2, lambda dy: backward(2 * h * dy)


@in_float64
def margin_ranking_loss(first: Array, second: Array, targets: Array, margin: float = 0.0) -> Result:
    """y = margin - t (a - b) where that is positive: da = -t, db = t, dt = b - a there."""
    y = margin - targets * (first - second)
    active = y > 0

    def backward(dy: Array) -> tuple[Array | None, ...]:
        slopes = -targets, targets, second - first
        return tuple(slope * active * dy for slope in slopes)

    return y * active, backward


@in_float64
def cosine_embedding_loss(
    first: Array, second: Array, targets: Array, margin: float = 0.0, axis: int = -1
) -> Result:
    """1 - c of pairs whose target is positive, max(0, c - margin) of others, c the cosine."""
    c, backward = cosine_similarity(first, second, axis=axis)
    is_pair = targets > 0
    y = np.where(is_pair, 1 - c, np.maximum(c - margin, 0))
    slope = np.where(is_pair, -1.0, c > margin)
    return y, lambda dy: (*backward(slope * dy), None)


@in_float64
def clip_loss(
    first: Array,
    second: Array,
    labels: Array | None = None,
    where: Array | None = None,
    temperature: float = 0.07,
) -> Result:
    """Half the cross-entropy of each row of s = cosine / temperature, and half that of its column.

    The targets are even over the examples with an equal label. Derivatives are those of the
    cross-entropy, summed over rows and columns, and of the cosine.
    """
    n = len(first)
    without = [None for given in (labels, where) if given is not None]
    labels = np.arange(n) if labels is None else labels
    present = np.arange(n) if where is None else np.flatnonzero(where)
    s = np.array([[cosine_similarity(a, b)[0] for b in second] for a in first]) / temperature
    equal = (labels[present][:, None] == labels[present][None, :]).astype(float)
    targets = equal / equal.sum(1, keepdims=True)
    block = s[np.ix_(present, present)]
    rows, through_rows = softmax_cross_entropy(block, targets)
    columns, through_columns = softmax_cross_entropy(block.T, targets)
    y = np.zeros(n)
    y[present] = (rows + columns) / 2

    def backward(dy: Array) -> tuple[Array | None, ...]:
        half = dy[present] / 2
        ds = (through_rows(half)[0] + through_columns(half)[0].T) / temperature
        gradients = np.zeros(first.shape), np.zeros(second.shape)
        for i, j in np.ndindex(ds.shape):
            a, b = present[i], present[j]
            da, db = cosine_similarity(first[a], second[b])[1](np.float64(ds[i, j]))
            gradients[0][a] += da
            gradients[1][b] += db
        return (*gradients, *without)

    return y, backward


@in_float64
def dpo_loss(
    chosen: Array,
    rejected: Array,
    reference_chosen: Array,
    reference_rejected: Array,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Result:
    """y = (1 - e) softplus(-h) + e softplus(h), h = beta ((c - r) - (C - R)).

    dh = e - sigmoid(-h), since softplus' is the sigmoid and sigmoid(h) = 1 - sigmoid(-h).
    """
    h = beta * (chosen - rejected - reference_chosen + reference_rejected)
    e = label_smoothing
    slope = beta * (e - 1 / (1 + np.exp(h)))
    y = (1 - e) * softplus(-h)[0] + e * softplus(h)[0]
    return y, lambda dy: (slope * dy, -slope * dy, -slope * dy, slope * dy)


@in_float64
def ranking_softmax_loss(logits: Array, labels: Array, weights: Array | None = None) -> Result:
    """y = -sum_i w_i l_i log softmax(z)_i: a cross-entropy of targets that need not sum to 1."""
    w = np.ones(labels.shape) if weights is None else weights
    y, backward = softmax_cross_entropy(logits, labels * w)

    def with_weights(dy: Array) -> tuple[Array | None, ...]:
        dlogits, dtargets = backward(dy)
        gradients = dlogits, dtargets * w
        return gradients if weights is None else (*gradients, dtargets * labels)

    return y, with_weights


@in_float64
def safe_softmax_cross_entropy(logits: Array, labels: Array) -> Result:
    """The cross-entropy, whose reference has 0 log 0 = 0 too."""
    return softmax_cross_entropy(logits, labels)


@in_float64
def generalized_dice_loss(
    predictions: Array,
    targets: Array,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Result:
    """y = 1 - 2 N / D, N = sum_c w I and D = sum_c w (P + T), w = max(T, 1)^-2.

    With I = sum p t, P = sum p, T = sum t over the pixels: dN/dp = w t, dD/dp = w, dN/dt = w p +
    w' I, dD/dt = w + w' (P + T), w' = -2 T^-3 where T > 1, else 0. The softmax comes after.
    """
    p = np.exp(log_softmax(predictions, -1)[0]) if apply_softmax else predictions
    first = 1 if ignore_background else 0
    y, dp, dt = np.zeros(len(p)), np.zeros(p.shape), np.zeros(p.shape)
    for b in range(len(p)):
        pixels = tuple(range(p.ndim - 2))
        both, of_p, of_t = ((x[b]).sum(pixels) for x in (p * targets, p, targets))
        w = np.maximum(of_t, 1.0) ** -2
        slope = np.where(of_t > 1, -2 * np.maximum(of_t, 1.0) ** -3, 0)
        w[:first], slope[:first] = 0, 0
        above, below = (w * both).sum(), (w * (of_p + of_t)).sum()
        y[b] = 1 - 2 * above / below
        for d, above_slope, below_slope in (
            (dp, w * targets[b], w),
            (dt, w * p[b] + slope * both, w + slope * (of_p + of_t)),
        ):
            d[b] = -2 * (above_slope * below - above * below_slope) / below**2

    def backward(dy: Array) -> tuple[Array, Array]:
        per_pixel = dy.reshape(len(p), *[1] * (p.ndim - 1))
        d = per_pixel * dp
        if apply_softmax:
            d = p * (d - (d * p).sum(-1, keepdims=True))
        return d, per_pixel * dt

    return y, backward


@in_float64
def linear_softmax_cross_entropy(
    x: Array,
    kernel: Array,
    labels: Array,
    bias: Array,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    soft_cap: float | None = None,
) -> Result:
    """The cross-entropy of c tanh(z / c), z = x W + b, whose slope is 1 - tanh(z / c)^2.

    dx = dz W^T, dW = x^T dz and db = sum dz, of the rows that are not ignored.
    """
    z = x @ kernel + bias
    bent = z if soft_cap is None else soft_cap * np.tanh(z / soft_cap)
    slope = np.ones_like(z) if soft_cap is None else 1 - np.tanh(z / soft_cap) ** 2
    counts = labels != (labels.max() + 1 if ignore_index is None else ignore_index)
    y, backward = softmax_cross_entropy(bent, labels * counts, label_smoothing=label_smoothing)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dz = backward(np.where(counts, dy, 0.0))[0] * slope
        rows = dz.reshape(-1, dz.shape[-1])
        return dz @ kernel.T, x.reshape(-1, x.shape[-1]).T @ rows, None, rows.sum(0)

    return np.where(counts, y, 0.0), pullback
