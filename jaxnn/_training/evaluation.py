"""Predicting and evaluating in batches."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._combinators.copies import check_copies
from jaxnn._combinators.sharded import sharded
from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.programs import compiled
from jaxnn._core.progress import counted
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import Arrays, Data, Loss, PyTree
from jaxnn._training.checks import check_labels, check_metrics
from jaxnn._training.data.arrays import (
    arrays_on_device,
    check_set,
    count_examples,
    effective_batch_size,
    example_of,
    on_device,
    take_batch,
)
from jaxnn._training.data.placed import Placed, own_rows
from jaxnn._training.data.sources import as_source, is_streamed
from jaxnn._training.measuring import Metrics, MetricsByName, evaluation_sums, metric_values
from jaxnn._training.outside import finder, has_integers, has_nan, look_through, sums_of_each
from jaxnn.metrics._accumulators import merge


def _evaluated(
    model: Layer,
    loss: Loss | None,
    metrics: Metrics,
    batch_size: int | None,
    members: int | None,
    params: PyTree,
    state: PyTree,
    data: PyTree,
) -> dict[str, Any]:
    sums = _sums(model, loss, metrics, batch_size, members, params, state, data)
    return _values(metrics, members, sums)


def _sums(
    model: Layer,
    loss: Loss | None,
    metrics: Metrics,
    batch_size: int | None,
    members: int | None,
    params: PyTree,
    state: PyTree,
    data: PyTree,
) -> dict[str, PyTree]:
    def of_one(params: PyTree, state: PyTree) -> dict[str, PyTree]:
        return evaluation_sums(model, loss, metrics, params, state, data, batch_size)

    return _of_each(members, of_one)(params, state)  # type: ignore[no-any-return]


def _values(metrics: Metrics, members: int | None, sums: PyTree) -> dict[str, Any]:
    return _of_each(members, lambda sums: metric_values(metrics, sums))(sums)  # type: ignore[no-any-return]


def _of_each(members: int | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one network as one of all members, if there are any."""
    return function if members is None else jax.vmap(function)


@checked
def evaluate(
    model: LayerLike,
    params: Arrays,
    state: Arrays,
    data: Data,
    *,
    loss: Loss | None = None,
    metrics: MetricsByName | None = None,
    batch_size: int | None = None,
    members: int | None = None,
    progress: bool | Literal["bar", "lines"] | None = None,
    sharding: Sharding | None = None,
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
        members: how many copies of the model `params` and `state` hold along a leading axis, as
            `fit` with `members` returns them, each measured by itself; None for one without such
            an axis.
        progress: as in `fit`; only shown for batches that come one by one and take longer than a
            second.
        sharding: `nn.sharding(...)`: how the examples and the params are spread over many devices.

    Returns:
        A float for each, by name; an array for a metric that has several values, and with
        `members` an array with axis 0 for them.

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
    if members is not None:
        check_count("evaluate", "members", members)
        check_copies("evaluate", members, params)
        check_copies("evaluate", members, state, "state")
    find = None if loss is None else finder(model, loss, members)
    check_sharding("evaluate", sharding)
    plain, model = model, _on_devices(model, sharding)
    params, state = _placed(sharding, params, state, members)
    if is_streamed(data):
        source = as_source(
            "evaluate",
            "data",
            data,
            batch_size=batch_size,
            shuffle_key=None,
            weighted=True,
            own_rows=own_rows(sharding),
        )
        check_set("evaluate", "data", source.example, supervised=True)
        sums_of = compiled(_sums, model, loss, pairs, None, members)
        look = None if find is None else partial(find, "evaluate: a batch of data", params, state)
        with source.batches(0) as batches:
            placed = Placed("evaluate: data", source, batches, sharding)
            shown = counted("evaluate", progress, placed, source.steps, "batches")
            parts = sums_of_each(partial(sums_of, params, state), shown, look)
            sums = functools.reduce(_of_each(members, merge), parts)
        values = _values(pairs, members, sums)
    else:
        data, _ = on_device("evaluate", "data", data, sharding=sharding)
        check_labels("evaluate", plain, loss, data=data)
        evaluated = compiled(_evaluated, model, loss, pairs, batch_size, members)
        values = evaluated(params, state, data)
        if find is not None and np.isnan(values["loss"]).any():
            look_through(find, "evaluate: data", params, state, data, batch_size)
    return {name: reported(value) for name, value in values.items()}


def reported(value: Any) -> Any:
    """A float, or an array for a metric that has several values."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


@checked
def predict(
    model: LayerLike,
    params: Arrays,
    state: Arrays,
    x: Data,
    *,
    batch_size: int | None = None,
    progress: bool | Literal["bar", "lines"] | None = None,
    sharding: Sharding | None = None,
) -> PyTree:
    """The output of a model for each example, in evaluation mode.

    Args:
        model: a `Layer`, or a plain function of arrays.
        params: its parameters.
        state: its state, `{}` for none.
        x: an array, or pytree of arrays, with the examples along axis 0; mapped files, or batches
            of `x` from an iterable, as `fit` takes them.
        batch_size: how many examples at a time; None for all at once.
        progress: as in `fit`; only shown for batches that come one by one and take longer than a
            second.
        sharding: `nn.sharding(...)`: how the examples and the params are spread over many devices.

    Returns:
        The outputs for all examples, joined along the axis that has the examples: axis 0, or the
        one behind the members' if the model is an `ensemble`. NumPy arrays if `x` comes in batches.

    Raises:
        ValueError: the leaves of `x` have different lengths, or none has examples; an id is outside
            of a table and so makes NaN.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.dense(2)
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> nn.predict(model, params, state, jnp.ones((7, 3)), batch_size=4).shape
        (7, 2)
    """
    check_sharding("predict", sharding)
    model = as_layer(model, "predict: model")
    find = finder(model, None)
    model = _on_devices(model, sharding)
    params, state = _placed(sharding, params, state)
    if is_streamed(x):
        if sharding is not None and sharding.group.has_others:
            raise ValueError(
                "predict: x comes in batches and sharding is over the devices of several "
                "processes, expected those of one, which gets the predictions"
            )
        source = as_source("predict", "x", x, batch_size=batch_size, shuffle_key=None)
        predicted = compiled(_predicted, model, None)
        with source.batches(0) as batches:
            parts = []
            for batch in counted("predict", progress, batches, source.steps, "batches"):
                placed = _batch(sharding, batch)
                part = jax.tree.map(np.asarray, predicted(params, state, placed))
                if has_integers(batch) and has_nan(part):
                    find("predict: a batch of x", params, state, placed)
                parts.append(part)
        axes = axes_of_examples(partial(evaluated_output, model, params, state), source.example)
        return jax.tree.map(lambda axis, *leaves: np.concatenate(leaves, axis), axes, *parts)
    x, size = inputs("predict", x, batch_size)
    if sharding is not None:
        x = sharding.put_data(x)
    y = compiled(_predicted, model, size)(params, state, x)
    if has_integers(x) and has_nan(y):
        look_through(find, "predict: x", params, state, x, size)
    return y


def _on_devices(model: Layer, sharding: Sharding | None) -> Layer:
    return model if sharding is None else sharded(model, sharding)


def _placed(
    sharding: Sharding | None, params: PyTree, state: PyTree, members: int | None = None
) -> tuple[PyTree, PyTree]:
    if sharding is None:
        return params, state
    return sharding.put_params(params, members), sharding.put(state)


def _batch(sharding: Sharding | None, batch: PyTree) -> PyTree:
    return batch if sharding is None else sharding.put_batch(batch)


def inputs(function: str, x: PyTree, batch_size: int | None) -> tuple[PyTree, int]:
    x = arrays_on_device(f"{function}: x", x)
    return x, effective_batch_size(function, batch_size, count_examples(function, "x", x))


def evaluated_output(model: Layer, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
    return model.apply(params, state, x, train=False)[0]


def _predicted(
    model: Layer, batch_size: int | None, params: PyTree, state: PyTree, x: PyTree
) -> PyTree:
    return in_batches(partial(evaluated_output, model, params, state), x, batch_size)


def in_batches(function: Callable[[PyTree], PyTree], x: PyTree, batch_size: int | None) -> PyTree:
    """`function` of batch after batch of `x`, joined; of all at once for None."""
    n = len(jax.tree.leaves(x)[0])
    if batch_size is None or batch_size == n:
        return function(x)

    def of_batch(start: Any, size: int) -> PyTree:
        return function(take_batch(x, n, start, size))

    axes = axes_of_examples(function, example_of(x))
    full, left = divmod(n, batch_size)
    batches = lax.map(lambda i: of_batch(i * batch_size, batch_size), jnp.arange(full))

    def joined(axis: int, y: jax.Array) -> jax.Array:
        y = jnp.moveaxis(y, 0, axis)
        return lax.collapse(y, axis, axis + 2)

    parts = [jax.tree.map(joined, axes, batches)]
    if left:
        parts.append(of_batch(full * batch_size, left))
    return jax.tree.map(lambda axis, *leaves: jnp.concatenate(leaves, axis), axes, *parts)


def axes_of_examples(function: Callable[[PyTree], PyTree], example: PyTree) -> PyTree:
    """For each output, the axis that grows with the number of examples."""

    def shapes(size: int) -> PyTree:
        resized = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), example
        )
        return jax.eval_shape(function, resized)

    def one(y: jax.ShapeDtypeStruct, longer: jax.ShapeDtypeStruct) -> int:
        pairs = enumerate(zip(y.shape, longer.shape, strict=True))
        axes = [axis for axis, (size, other) in pairs if size != other]
        if len(axes) != 1:
            raise ValueError(
                f"predict: an output of the model has shape {y.shape} for 2 examples and "
                f"{longer.shape} for 3, expected one axis for the examples"
            )
        return axes[0]

    return jax.tree.map(one, shapes(2), shapes(3))
