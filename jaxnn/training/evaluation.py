"""Predicting and evaluating in batches."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._arrays import PyTree
from jaxnn.layer import Layer, as_layer
from jaxnn.metrics import Metric, mean
from jaxnn.metrics.accumulators import blank, merge_into
from jaxnn.training.checks import Metrics, check_labels, check_metrics
from jaxnn.training.data import (
    count_examples,
    device_array,
    effective_batch_size,
    on_device,
    take_batch,
)

Loss = Callable[[Any, Any], Any]


def metric_sums(
    loss: Loss | None, metrics: Metrics, predictions: Any, targets: Any, weights: Any = None
) -> dict[str, PyTree]:
    """The accumulators of the loss and of the metrics over one batch."""
    sums = {}
    if loss is not None:
        metric = mean()
        sums["loss"] = metric.update(metric.init(), loss(predictions, targets), None, weights)
    for name, metric in metrics:
        sums[name] = metric.update(metric.init(), predictions, targets, weights)
    return sums


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
        x, y = take_batch(data, n, start, size)
        predictions, _ = model.apply(params, state, x, train=False)
        is_new = start + jnp.arange(size) >= first_new
        return metric_sums(loss, metrics, predictions, y, is_new)

    if size == n:
        return sums_from(0)

    def add(total: PyTree, first_new: jax.Array) -> tuple[PyTree, None]:
        return merge_into(total, sums_from(first_new), first_new), None

    starts = jnp.arange(0, n, size)
    zero = blank(jax.eval_shape(sums_from, 0), len(starts) * size)
    return lax.scan(add, zero, starts)[0]  # type: ignore[no-any-return]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 6))
def _evaluated(
    model: Layer,
    loss: Loss | None,
    metrics: Metrics,
    params: PyTree,
    state: PyTree,
    data: PyTree,
    batch_size: int | None,
) -> dict[str, Any]:
    sums = evaluation_sums(model, loss, metrics, params, state, data, batch_size)
    return metric_values(metrics, sums)


def evaluate(
    model: Any,
    params: PyTree,
    state: PyTree,
    data: Any,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """The loss and the metrics of a model over a data set, in evaluation mode.

    Args:
        model: a `Layer`, or a plain function of arrays.
        params: its parameters.
        state: its state, `{}` for none.
        data: a pair `(x, y)` of arrays, or pytrees of arrays, with the examples along axis 0.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            result's "loss" is their mean.
        metrics: `nn.metrics` by name.
        batch_size: how many examples at a time; None for all at once. The result does not depend
            on it.

    Returns:
        A float for each, by name; an array for a metric that has several values.

    Raises:
        TypeError: `data` is not a pair, or a metric is not one.
        ValueError: the lengths differ; a label is outside the classes; neither `loss` nor
            `metrics` is given.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> data = (jnp.arange(4.0), jnp.array([0.0, 1.0, 2.0, 7.0]))
        >>> nn.evaluate(nn.identity, {}, {}, data, loss=nn.losses.squared_error, batch_size=3)
        {'loss': 4.0}
    """
    model = as_layer(model, "evaluate: model")
    pairs = check_metrics("evaluate", metrics)
    if loss is None and not pairs:
        raise ValueError("evaluate: loss and metrics are both None, expected one at least")
    data, _ = on_device("evaluate", "data", data)
    check_labels("evaluate", model, loss, data=data)
    values = _evaluated(model, loss, pairs, params, state, data, batch_size)
    return {name: reported(value) for name, value in values.items()}


def reported(value: Any) -> Any:
    """A float, or an array for a metric that has several values."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


@functools.partial(jax.jit, static_argnums=(0, 4))
def _predicted(model: Layer, params: PyTree, state: PyTree, x: PyTree, batch_size: int) -> PyTree:
    n = count_examples("predict", "x", x)

    def predict_from(start: Any, size: int) -> PyTree:
        return model.apply(params, state, take_batch(x, n, start, size), train=False)[0]

    if batch_size == n:
        return predict_from(0, n)
    full, rest = divmod(n, batch_size)
    batches = lax.map(lambda i: predict_from(i * batch_size, batch_size), jnp.arange(full))
    joined = jax.tree.map(lambda y: y.reshape(full * batch_size, *y.shape[2:]), batches)
    if rest == 0:
        return joined
    last = predict_from(full * batch_size, rest)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), joined, last)


def predict(
    model: Any, params: PyTree, state: PyTree, x: PyTree, *, batch_size: int | None = None
) -> PyTree:
    """The output of a model for each example, in evaluation mode.

    Args:
        model: a `Layer`, or a plain function of arrays.
        params: its parameters.
        state: its state, `{}` for none.
        x: an array, or pytree of arrays, with the examples along axis 0.
        batch_size: how many examples at a time; None for all at once.

    Returns:
        The outputs along axis 0, as many as examples.

    Raises:
        ValueError: the leaves of `x` have different lengths, or none has examples.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.dense(2)
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> nn.predict(model, params, state, jnp.ones((7, 3)), batch_size=4).shape
        (7, 2)
    """
    model = as_layer(model, "predict: model")
    x = jax.tree.map(device_array, x)
    n = count_examples("predict", "x", x)
    return _predicted(model, params, state, x, effective_batch_size("predict", batch_size, n))
