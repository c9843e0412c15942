"""Predicting and evaluating in batches."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._combinators.copies import members_of
from jaxnn._core.arrays import PyTree, widen
from jaxnn._core.layer import Layer, as_layer
from jaxnn._training.checks import Metrics, check_labels, check_metrics
from jaxnn._training.data.arrays import (
    check_set,
    count_examples,
    device_array,
    effective_batch_size,
    on_device,
    take_batch,
)
from jaxnn._training.data.sources import Source, as_source, is_streamed
from jaxnn.metrics import Metric, mean
from jaxnn.metrics._accumulators import blank, merge, merge_into

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
        x, y, *weights = take_batch(data, n, start, size)
        predictions, _ = model.apply(params, state, x, train=False)
        is_new = start + jnp.arange(size) >= first_new
        counted = jnp.where(is_new, weights[0], jnp.zeros_like(weights[0])) if weights else is_new
        return metric_sums(loss, metrics, predictions, y, counted)

    if size == n:
        return sums_from(0)

    def add(total: PyTree, first_new: jax.Array) -> tuple[PyTree, None]:
        return merge_into(total, sums_from(first_new), first_new), None

    starts = jnp.arange(0, n, size)
    zero = blank(jax.eval_shape(sums_from, 0), len(starts) * size)
    return lax.scan(add, zero, starts)[0]  # type: ignore[no-any-return]


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

    full, rest = divmod(n, size)
    total, _ = lax.scan(add, first, jnp.arange(1, full) * size)
    if rest:
        total = merge(total, sums_of(take_batch(data, n, full * size, rest)))
    return total


def of_members(model: Layer) -> tuple[Layer, Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """What a model is an ensemble of, and what makes a function of one member one of all.

    A model that is no ensemble is its own only member.
    """
    layer, members = members_of(model)
    if members is None:
        return model, lambda function: function
    innermost, of_all = of_members(layer)
    return innermost, lambda function: jax.vmap(of_all(function))


def _axes_of_members(model: Layer) -> int:
    layer, members = members_of(model)
    return 0 if members is None else 1 + _axes_of_members(layer)


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
    layer, of_all = of_members(model)

    def values(params: PyTree, state: PyTree) -> dict[str, Any]:
        sums = evaluation_sums(layer, loss, metrics, params, state, data, batch_size)
        return metric_values(metrics, sums)

    return of_all(values)(params, state)  # type: ignore[no-any-return]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums_of_batch(
    model: Layer, loss: Loss | None, metrics: Metrics, params: PyTree, state: PyTree, batch: PyTree
) -> dict[str, PyTree]:
    layer, of_all = of_members(model)

    def sums(params: PyTree, state: PyTree) -> dict[str, PyTree]:
        return evaluation_sums(layer, loss, metrics, params, state, batch, None)

    return of_all(sums)(params, state)  # type: ignore[no-any-return]


def _evaluated_by_batches(
    model: Layer, loss: Loss | None, metrics: Metrics, params: PyTree, state: PyTree, source: Source
) -> dict[str, Any]:
    _, of_all = of_members(model)
    with source.batches(0) as batches:
        parts = (_sums_of_batch(model, loss, metrics, params, state, batch) for batch in batches)
        total = functools.reduce(of_all(merge), parts)
    return of_all(lambda total: metric_values(metrics, total))(total)  # type: ignore[no-any-return]


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
        data: `(x, y)` or `(x, y, weights)`, arrays or pytrees of arrays with the examples along
            axis 0; mapped files, or batches from an iterable, as `fit` takes them.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            result's "loss" is their mean.
        metrics: `nn.metrics` by name.
        batch_size: how many examples at a time; None for all at once. The result does not depend
            on it.

    Returns:
        A float for each, by name; an array for a metric that has several values, and for an
        ensemble, by member.

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
    if is_streamed(data):
        source = as_source("evaluate", "data", data, batch_size=batch_size, shuffle_key=None)
        check_set("evaluate", "data", source.example, supervised=True)
        values = _evaluated_by_batches(model, loss, pairs, params, state, source)
    else:
        data, _ = on_device("evaluate", "data", data)
        check_labels("evaluate", model, loss, data=data)
        values = _evaluated(model, loss, pairs, params, state, data, batch_size)
    return {name: reported(value) for name, value in values.items()}


def reported(value: Any) -> Any:
    """A float, or an array for a metric that has several values."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


def predict(
    model: Any, params: PyTree, state: PyTree, x: PyTree, *, batch_size: int | None = None
) -> PyTree:
    """The output of a model for each example, in evaluation mode.

    Args:
        model: a `Layer`, or a plain function of arrays.
        params: its parameters.
        state: its state, `{}` for none.
        x: an array, or pytree of arrays, with the examples along axis 0; mapped files, or batches
            of `x` from an iterable, as `fit` takes them.
        batch_size: how many examples at a time; None for all at once.

    Returns:
        The outputs along axis 0, as many as examples; for an ensemble along axis 1, and axis 0 is
        for the members. NumPy arrays if `x` comes in batches.

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
    if is_streamed(x):
        source = as_source("predict", "x", x, batch_size=batch_size, shuffle_key=None)
        with source.batches(0) as batches:
            parts = [
                jax.tree.map(np.asarray, _predicted(model, params, state, batch, None))
                for batch in batches
            ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, _axes_of_members(model)), *parts)
    x, size = _inputs("predict", x, batch_size)
    return _predicted(model, params, state, x, size)


def predict_with_spread(
    model: Any,
    params: PyTree,
    state: PyTree,
    x: PyTree,
    *,
    batch_size: int | None = None,
    output: Callable[[Any], PyTree] | None = None,
) -> tuple[PyTree, PyTree]:
    """What the members of an ensemble predict on the average, and how far they are apart.

    `mean_i f_i(x)` and `sqrt(mean_i (f_i(x) - mean)^2)` over the members `f_i`.

    Paper: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using
    Deep Ensembles, https://arxiv.org/abs/1612.01474

    Args:
        model: what `nn.ensemble` returns.
        params: its parameters, as `fit` returns them.
        state: its state.
        x: an array, or pytree of arrays, with the examples along axis 0.
        batch_size: how many examples at a time; None for all at once.
        output: what to average, a function of a member's output: `jax.nn.softmax` for the
            probabilities of classes. None for the output itself.

    Returns:
        `(mean, spread)`, each with the shape of one member's outputs.

    Raises:
        ValueError: `model` is no ensemble; the leaves of `x` have different lengths.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.ensemble(nn.serial(nn.dense(16), nn.tanh, nn.dense(1)), 5)
        >>> x = jnp.linspace(-1, 1, 8)[:, None]
        >>> result = nn.fit(model, (x, x ** 2), loss=nn.losses.squared_error,
        ...                 optimizer=nn.optimizers.adam(1e-2), key=jax.random.key(0), epochs=300)
        >>> mean, spread = nn.predict_with_spread(
        ...     model, result.params, result.state, jnp.array([[0.5], [3.0]]))
        >>> bool(spread[1, 0] > 5 * spread[0, 0])         # they disagree where nothing was seen
        True
    """
    model = as_layer(model, "predict_with_spread: model")
    if members_of(model)[1] is None:
        raise ValueError(
            f"predict_with_spread: model is {model!r}, expected nn.ensemble(layer, members)"
        )
    x, size = _inputs("predict_with_spread", x, batch_size)
    return _spread(model, output, params, state, x, size)  # type: ignore[no-any-return]


def _inputs(function: str, x: PyTree, batch_size: int | None) -> tuple[PyTree, int]:
    x = jax.tree.map(device_array, x)
    return x, effective_batch_size(function, batch_size, count_examples(function, "x", x))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _predicted(
    model: Layer, params: PyTree, state: PyTree, x: PyTree, batch_size: int | None
) -> PyTree:
    layer, of_all = of_members(model)

    def outputs(params: PyTree, state: PyTree) -> PyTree:
        return _in_batches(lambda x: layer.apply(params, state, x, train=False)[0], x, batch_size)

    return of_all(outputs)(params, state)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _spread(
    model: Layer,
    output: Callable[[Any], PyTree] | None,
    params: PyTree,
    state: PyTree,
    x: PyTree,
    batch_size: int,
) -> tuple[PyTree, PyTree]:
    def of_batch(x: PyTree) -> tuple[PyTree, PyTree]:
        y, _ = model.apply(params, state, x, train=False)
        y = y if output is None else jax.vmap(output)(y)
        wide = jax.tree.map(lambda leaf: widen(leaf), y)

        def averaged(function: Callable[..., jax.Array]) -> PyTree:
            return jax.tree.map(lambda w, leaf: function(w, axis=0).astype(leaf.dtype), wide, y)

        return averaged(jnp.mean), averaged(jnp.std)

    return _in_batches(of_batch, x, batch_size)  # type: ignore[no-any-return]


def _in_batches(function: Callable[[PyTree], PyTree], x: PyTree, batch_size: int | None) -> PyTree:
    """`function` of batch after batch of `x`, joined along axis 0; of all at once for None."""
    if batch_size is None:
        return function(x)
    n = len(jax.tree.leaves(x)[0])

    def of_batch(start: Any, size: int) -> PyTree:
        return function(take_batch(x, n, start, size))

    if batch_size == n:
        return of_batch(0, n)
    full, rest = divmod(n, batch_size)
    batches = lax.map(lambda i: of_batch(i * batch_size, batch_size), jnp.arange(full))
    joined = jax.tree.map(lambda y: y.reshape(full * batch_size, *y.shape[2:]), batches)
    if rest == 0:
        return joined
    last = of_batch(full * batch_size, rest)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), joined, last)
