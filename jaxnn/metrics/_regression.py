"""Metrics of numbers that need all examples at once: what is explained, what is correlated."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import widen
from jaxnn._core.construction import constructor
from jaxnn.metrics._accumulators import Metric
from jaxnn.metrics._means import check_equal_shapes, element_weights
from jaxnn.metrics._whole import of_whole_set

AVERAGES = ("macro", "weighted", None)


@constructor
def r2_score(*, average: Literal["macro", "weighted"] | None = "macro") -> Metric:
    """R², the coefficient of determination: `1 - Σ (t - predictions)² / Σ (t - mean(t))²`.

    Where the targets t do not vary it is 1 for predictions without error, else 0. The mean of the
    targets is subtracted before the squares, so that targets far from 0 lose no precision: see
    `whole_set` for what that takes.

    Args:
        average: over several outputs, each of which has a score: "macro", the mean; "weighted",
            weighted by the variance of the targets; None for a score each, `(...)`.

    Returns:
        A `Metric`; NaN for fewer than two examples. The predictions and targets have the same
        shape, `(batch, ...)`.

    Raises:
        ValueError: `average` is none of the three; the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.r2_score()
        >>> predictions, targets = jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(0.5, dtype=float32)
    """

    def unexplained(errors: jax.Array, share: jax.Array) -> jax.Array:
        return jnp.sum(share * jnp.square(errors), 0)

    return _explained("r2_score", unexplained, average)


@constructor
def explained_variance(*, average: Literal["macro", "weighted"] | None = "macro") -> Metric:
    """The explained variance: `1 - var(t - predictions) / var(t)`.

    It is `r2_score` for predictions whose errors have mean 0, and forgives those that are off by a
    constant. See `r2_score` for the arguments.

    Returns:
        A `Metric`; NaN for fewer than two examples. The predictions and targets have the same
        shape, `(batch, ...)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.explained_variance()
        >>> predictions, targets = jnp.array([2.0, 3.0, 4.0]), jnp.array([1.0, 2.0, 3.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(1., dtype=float32)
    """

    def unexplained(errors: jax.Array, share: jax.Array) -> jax.Array:
        return jnp.sum(share * jnp.square(_centred(errors, share)), 0)

    return _explained("explained_variance", unexplained, average)


@constructor
def pearson_correlation(*, average: Literal["macro"] | None = "macro") -> Metric:
    """The Pearson correlation of predictions and targets: `cov(p, t) / sqrt(var(p) var(t))`.

    The means are subtracted first, over all examples: see `whole_set` for what that takes.

    Args:
        average: over several outputs, each of which has a correlation: "macro", the mean; None for
            a correlation each, `(...)`.

    Returns:
        A `Metric`, in [-1, 1]; NaN where the predictions or the targets do not vary. Both have the
        same shape, `(batch, ...)`.

    Raises:
        ValueError: `average` is neither; the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.pearson_correlation()
        >>> predictions, targets = jnp.array([1.0, 2.0, 4.0]), jnp.array([3.0, 2.0, 0.0])
        >>> metric.compute(metric.update(metric.init(), predictions, targets))
        Array(-1., dtype=float32)
    """
    metric = "pearson_correlation"
    if average not in ("macro", None):
        raise ValueError(f"{metric}: average is {average!r}, expected 'macro' or None")

    def correlation(predictions: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        predictions, targets, share = _shares(predictions, targets, weights)
        p, t = _unit(predictions, share), _unit(targets, share)
        values = jnp.clip(jnp.sum(share * p * t, 0), -1, 1)
        return values if average is None else jnp.mean(values)

    return of_whole_set(metric, correlation, _equal_shapes(metric))


def _explained(
    metric: str,
    unexplained: Callable[[jax.Array, jax.Array], jax.Array],
    average: Literal["macro", "weighted"] | None,
) -> Metric:
    """What part of the variance of the targets is not that of the errors."""
    if average not in AVERAGES:
        raise ValueError(f"{metric}: average is {average!r}, expected one of {AVERAGES}")

    def score(predictions: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        predictions, targets, share = _shares(predictions, targets, weights)
        rest = unexplained(targets - predictions, share)
        variance = jnp.sum(share * jnp.square(_centred(targets, share)), 0)
        is_constant = variance == 0
        scores = 1 - rest / jnp.where(is_constant, 1, variance)
        scores = jnp.where(is_constant, (rest == 0).astype(scores.dtype), scores)
        if average == "weighted":
            whole = jnp.sum(variance)
            weighted = jnp.sum(variance * scores) / jnp.where(whole == 0, 1, whole)
            scores = jnp.where(whole == 0, jnp.mean(scores), weighted)
        elif average == "macro":
            scores = jnp.mean(scores)
        return jnp.where(jnp.sum(weights != 0) < 2, jnp.nan, scores)

    return of_whole_set(metric, score, _equal_shapes(metric))


def _shares(
    predictions: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both in float, and the share of each example in the sum of the weights."""
    predictions, targets = widen(predictions), widen(targets)
    w = element_weights(targets.shape, weights, targets.dtype)
    predictions, targets = (jnp.where(w != 0, x, 0) for x in (predictions, targets))
    return predictions, targets, w / jnp.sum(w)


def _centred(x: jax.Array, share: jax.Array) -> jax.Array:
    return x - jnp.sum(share * x, 0, keepdims=True)


def _unit(x: jax.Array, share: jax.Array) -> jax.Array:
    """Of mean 0 and variance 1."""
    centred = _centred(x, share)
    return centred / jnp.sqrt(jnp.sum(share * jnp.square(centred), 0, keepdims=True))


def _equal_shapes(metric: str) -> Callable[[jax.Array, jax.Array], None]:
    return lambda predictions, targets: check_equal_shapes(metric, predictions, targets)
