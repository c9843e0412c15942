"""Metrics of lists that are ordered by scores, as search results and recommendations are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_count, widen
from jaxnn._core.construction import constructor
from jaxnn.metrics._accumulators import Metric
from jaxnn.metrics._means import arrays, check_classes, counted_of, mean_of
from jaxnn.metrics._whole import ties


@constructor
def recall_at_k(k: int, axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Recall at k: the part of the relevant items that is among the k of the highest scores.

    The mean over the lists; a list without a relevant item has 0. Of equal scores the first counts
    as the highest, as in `top_k_accuracy`, which it equals for integer labels.

    Args:
        k: the number of items, at least 1.
        axis: the axis of the items, which makes a list.
        ignore_index: the target of items to ignore, as of those that fill a list up; None for none.

    Returns:
        A `Metric`. The predictions are scores, the targets of the same shape, with more than 0 for
        a relevant item; or integers in the shape without `axis`, where one item is relevant. A list
        with a score that is NaN has NaN.

    Raises:
        ValueError: `k` is less than 1, or the shapes do not fit.
        TypeError: `k` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.recall_at_k(2)
        >>> scores, relevant = jnp.array([[0.9, 0.1, 0.5, 0.4]]), jnp.array([[1, 0, 0, 1]])
        >>> metric.compute(metric.update(metric.init(), scores, relevant))
        Array(0.5, dtype=float32)
    """
    check_count("recall_at_k", "k", k)

    def recall(relevance: jax.Array, rank: jax.Array) -> jax.Array:
        is_relevant = (relevance > 0).astype(relevance.dtype)
        return _ratio(jnp.sum(is_relevant[:k]), jnp.sum(is_relevant))

    return _of_lists("recall_at_k", recall, axis, ignore_index)


@constructor
def mean_reciprocal_rank(axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Mean reciprocal rank (MRR): `1 / rank` of the first relevant item of each list, averaged.

    A list without a relevant item has 0. Of equal scores the first counts as the highest. See
    `recall_at_k` for the arguments.

    Returns:
        A `Metric`, of the predictions and targets of `recall_at_k`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean_reciprocal_rank()
        >>> scores = jnp.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1]])
        >>> metric.compute(metric.update(metric.init(), scores, jnp.array([0, 0])))
        Array(0.75, dtype=float32)
    """

    def reciprocal_rank(relevance: jax.Array, rank: jax.Array) -> jax.Array:
        is_relevant = relevance > 0
        first = 1 + jnp.argmax(is_relevant).astype(relevance.dtype)
        return jnp.where(jnp.any(is_relevant), 1 / first, 0)

    return _of_lists("mean_reciprocal_rank", reciprocal_rank, axis, ignore_index)


@constructor
def ndcg(k: int | None = None, axis: int = -1, *, ignore_index: int | None = None) -> Metric:
    """Normalised discounted cumulative gain: relevance, discounted by rank.

    `Σ_i relevance_i / log2(1 + rank_i)` over the k items of the highest scores, divided by its
    largest possible value. The mean over the lists; a list without a relevant item has 0. Items of
    equal scores share the mean of their discounts, as in scikit-learn.

    Paper: Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques, 2002. For the
    gain `2^relevance - 1` give that as the target.

    Args:
        k: the number of items that count, at least 1; None for all.
        axis: the axis of the items, which makes a list.
        ignore_index: the target of items to ignore, as of those that fill a list up; None for none.

    Returns:
        A `Metric`. The predictions are scores, the targets of the same shape: relevances of at
        least 0; or integers in the shape without `axis`, where one item is relevant. A list with a
        score that is NaN has NaN.

    Raises:
        ValueError: `k` is less than 1, or the shapes do not fit.
        TypeError: `k` is no integer.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.ndcg()
        >>> scores, relevance = jnp.array([[0.9, 0.1, 0.5]]), jnp.array([[3.0, 2.0, 0.0]])
        >>> metric.compute(metric.update(metric.init(), scores, relevance)).round(4)
        Array(0.9386, dtype=float32)
    """
    if k is not None:
        check_count("ndcg", "k", k)

    def gain(relevance: jax.Array, rank: jax.Array) -> jax.Array:
        places = jnp.arange(relevance.size, dtype=relevance.dtype)
        discount = 1 / jnp.log2(places + 2)
        if k is not None:
            discount = jnp.where(places < k, discount, 0)
        first, last = ties(rank)
        up_to = jnp.cumsum(discount)
        of_ties = up_to[last] - up_to[first] + discount[first]
        number = (last - first + 1).astype(relevance.dtype)
        shared = jnp.where(number == 1, discount, of_ties / number)
        best = jnp.sum(jnp.sort(relevance, descending=True) * discount)
        return _ratio(jnp.sum(relevance * shared), best)

    return _of_lists("ndcg", gain, axis, ignore_index)


def _of_lists(
    metric: str,
    function: Callable[[jax.Array, jax.Array], jax.Array],
    axis: int,
    ignore_index: int | None,
) -> Metric:
    """The mean over lists of a function of relevances and ranks, ordered by the scores.

    The ranks are integers that are equal for equal scores; ignored items come last.
    """

    def of_one(scores: jax.Array, relevance: jax.Array, counted: jax.Array) -> jax.Array:
        is_nan = jnp.any(jnp.isnan(scores) & counted)
        scores = jnp.where(counted, scores, -jnp.inf)
        order = jnp.lexsort((-scores, ~counted))
        scores, counted, relevance = scores[order], counted[order], relevance[order]
        differs = (scores[1:] != scores[:-1]) | (counted[1:] != counted[:-1])
        rank = jnp.cumsum(jnp.concatenate([jnp.array([False]), differs]), dtype=jnp.int32)
        return jnp.where(is_nan, jnp.nan, function(jnp.where(counted, relevance, 0), rank))

    def values(
        predictions: ArrayLike, targets: ArrayLike | None
    ) -> tuple[jax.Array, jax.Array | None]:
        predictions, targets = arrays(metric, predictions, targets)
        scores = widen(jnp.moveaxis(predictions, axis, -1))
        if predictions.shape == targets.shape and predictions.ndim:
            relevance = targets = jnp.moveaxis(targets, axis, -1)
        else:
            check_classes(metric, predictions, targets, axis)
            targets = targets[..., None]
            items = jnp.arange(scores.shape[-1], dtype=jnp.int32).reshape(
                (1,) * (targets.ndim - 1) + (-1,)
            )
            relevance = targets.astype(jnp.int32) == items
        counted = counted_of(targets, ignore_index)
        is_list = None if counted is None else jnp.any(counted, -1)
        counted = jnp.broadcast_to(True if counted is None else counted, scores.shape)
        relevance = relevance.astype(scores.dtype)
        lists = (x.reshape(-1, x.shape[-1]) for x in (scores, relevance, counted))
        of_lists = jax.vmap(of_one)(*lists).reshape(scores.shape[:-1])
        return of_lists, is_list

    return mean_of(values, better="more")


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
