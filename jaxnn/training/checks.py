"""What is checked on the host before training starts."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._arrays import PyTree
from jaxnn.layer import Layer, abstract
from jaxnn.losses import softmax_cross_entropy
from jaxnn.metrics import Metric

RESERVED = ("loss", "penalty")


def check_metrics(
    function: str, metrics: Mapping[str, Metric] | None
) -> tuple[tuple[str, Metric], ...]:
    """The metrics as pairs, which can be hashed."""
    pairs = tuple((metrics or {}).items())
    for name, metric in pairs:
        if name in RESERVED or name.startswith("val_"):
            raise ValueError(
                f"{function}: metrics has the name {name!r}, expected another: 'loss', 'penalty' "
                "and 'val_...' are the history's own"
            )
        if not isinstance(metric, Metric):
            raise TypeError(
                f"{function}: metrics[{name!r}] is {metric!r}, expected a Metric such as "
                "nn.metrics.accuracy()"
            )
    return pairs


def check_labels(function: str, name: str, model: Layer, loss: Any, data: PyTree | None) -> None:
    """Raise if an integer label is outside of the classes, which a compiled run cannot."""
    if data is None:
        return
    while isinstance(loss, functools.partial):
        loss = loss.func
    x, y = data
    if loss is not softmax_cross_entropy or not jnp.issubdtype(
        getattr(y, "dtype", jnp.float32), jnp.integer
    ):
        return
    example = example_of(x)
    params, state = jax.eval_shape(model.init, jax.random.key(0), example)
    logits, _ = jax.eval_shape(model.apply, params, state, example)
    if logits.ndim != y.ndim + 1:
        return
    labels, classes = np.asarray(y), logits.shape[-1]
    wrong = np.argwhere((labels < 0) | (labels >= classes))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"{function}: {name} has the label {labels[place]} at {place}, expected labels from 0 "
            f"to {classes - 1}, since the model's output has shape {logits.shape}"
        )


def example_of(x: PyTree) -> PyTree:
    """The shapes and dtypes of one example, as a batch of size 1."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = abstract(leaf)
        return jax.ShapeDtypeStruct((1, *spec.shape[1:]), spec.dtype)

    return jax.tree.map(one, x)
