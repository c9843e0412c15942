"""Losses and metrics over batches and data sets."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._core.layer import Layer
from jaxnn._core.types import Loss, PyTree
from jaxnn._training.data.arrays import count_examples, effective_batch_size, take_batch
from jaxnn.losses import Weighted
from jaxnn.losses._left_out import values_to_average
from jaxnn.metrics import Metric, mean
from jaxnn.metrics._accumulators import blank, merge, merge_into
from jaxnn.metrics._means import element_weights

Metrics = tuple[tuple[str, Metric], ...]
MetricsByName: TypeAlias = Annotated[
    Mapping[str, Metric], "a dict by name, such as {'accuracy': nn.metrics.accuracy()}"
]


def metric_sums(
    loss: Loss | None, metrics: Metrics, predictions: Any, targets: Any, weights: Any = None
) -> dict[str, PyTree]:
    """The accumulators of the loss and of the metrics over one batch."""
    sums = {}
    if loss is not None:
        values = loss_values(loss, predictions, targets)
        sums["loss"] = mean().update(mean().init(), values, None, weights)
    for name, metric in metrics:
        sums[name] = metric.update(metric.init(), predictions, targets, weights)
    return sums


def loss_values(loss: Loss, predictions: Any, targets: Any) -> Any:
    """The loss of each example, or several for each, perhaps `Weighted`."""
    examples = next((leaf.shape[0] for leaf in jax.tree.leaves(targets) if leaf.ndim), None)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(predictions)]
    hint = ""
    if examples is not None and any(shape[:1] != (examples,) for shape in shapes):
        hint = (
            f"the predictions have the shapes {shapes} for {examples} examples; to train or "
            "measure copies of a model side by side, give the model itself and members="
        )
    try:
        values = values_to_average("loss", loss, predictions, targets)
    except Exception as error:
        if hint:
            error.add_note(hint)
        raise
    shape = np.shape(values.values if isinstance(values, Weighted) else values)
    if examples is not None and shape[:1] not in ((), (examples,)):
        raise ValueError(
            f"loss: the values have shape {shape}, expected ({examples}, ...), since there are "
            f"{examples} examples" + (f": {hint}" if hint else "")
        )
    return values


def metric_values(metrics: Metrics, sums: Mapping[str, PyTree]) -> dict[str, Any]:
    """The values of accumulators; those that are no metric's own are means."""
    by_name = dict(metrics)
    return {name: by_name.get(name, mean()).compute(total) for name, total in sums.items()}


def evaluation_sums(
    model: Layer,
    loss: Loss | None,
    metrics: Metrics,
    params: PyTree,
    state: PyTree,
    data: PyTree,
    batch_size: int | None,
) -> dict[str, PyTree]:
    """The accumulators over a data set, batch by batch in one loop.

    The last batch is shifted back to be full; what it repeats has weight 0.
    """
    n = count_examples("evaluate", "data", data)
    size = effective_batch_size("evaluate", batch_size, n)

    def sums_from(first_new: Any) -> dict[str, PyTree]:
        start = jnp.minimum(first_new, n - size)
        x, y, *weights = harmless(*take_batch(data, n, start, size))
        predictions, _ = model.apply(params, state, x, train=False)
        is_new = start + jnp.arange(size) >= first_new
        counted = is_new
        if weights:
            (own,) = weights
            of_examples = element_weights(own.shape, is_new, is_new.dtype)
            counted = jnp.where(of_examples, own, jnp.zeros_like(own))
        return metric_sums(loss, metrics, predictions, y, counted)

    if size == n:
        return sums_from(0)

    def add(total: PyTree, first_new: jax.Array) -> tuple[PyTree, None]:
        return merge_into(total, sums_from(first_new), first_new), None

    starts = jnp.arange(0, n, size)
    zero = blank(jax.eval_shape(sums_from, 0), len(starts) * size)
    return lax.scan(add, zero, starts)[0]  # type: ignore[no-any-return]


def harmless(x: PyTree, y: PyTree, *weights: jax.Array) -> tuple[PyTree, ...]:
    """A batch in which what has weight 0 is finite: times 0, NaN and infinity would be NaN."""
    if not weights:
        return x, y
    counts = weights[0].astype(bool)

    def one(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        own = counts
        if leaf.shape[: own.ndim] != own.shape:
            own = jnp.any(own, axis=tuple(range(1, own.ndim)))
        own = element_weights(leaf.shape, own, own.dtype)
        return jnp.where(own | jnp.isfinite(leaf), leaf, jnp.zeros_like(leaf))

    x, y = jax.tree.map(one, (x, y))
    return x, y, *weights


def sums_of_batches(
    sums_of: Callable[[PyTree], dict[str, PyTree]], data: PyTree, batch_size: int | None
) -> dict[str, PyTree]:
    """The accumulators over a data set; the last batch may be smaller."""
    n = count_examples("evaluate", "data", data)
    size = effective_batch_size("evaluate", batch_size, n)
    first = sums_of(take_batch(data, n, 0, size))
    if size == n:
        return first

    def add(total: PyTree, start: jax.Array) -> tuple[PyTree, None]:
        return merge(total, sums_of(take_batch(data, n, start, size))), None

    full, left = divmod(n, size)
    total, _ = lax.scan(add, first, jnp.arange(1, full) * size)
    if left:
        total = merge(total, sums_of(take_batch(data, n, full * size, left)))
    return total
