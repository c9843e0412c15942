"""A linear layer whose product is left to the loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.children import wrap
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.types import PyTree


@constructor
def deferred(layer: LayerLike) -> Layer:
    """A linear layer that returns its input and kernel instead of their product.

    For `nn.losses.linear_softmax_cross_entropy`, which never makes all the logits of a large
    vocabulary. The params are those of the layer itself, so that the same model without `deferred`
    predicts and generates with them.

    Args:
        layer: a layer with one kernel, as `nn.dense`, or an `nn.embedding`, whose calls with
            `attend=True` are deferred (tied weights).

    Returns:
        A `Layer` with the params, state and keywords of `layer`, whose output is a dict of "x",
        "kernel" and, if there is one, "bias".

    Raises:
        ValueError: the params of `layer` are not those of a linear layer.

    Example:
        >>> import functools, jax, jax.numpy as jnp, jaxnn as nn
        >>> def model(wrap=lambda head: head):
        ...     return nn.serial(embed=nn.embedding(50, 8), hidden=nn.dense(8), relu=nn.relu,
        ...                      head=wrap(nn.dense(50)))
        >>> def loss(head, labels):
        ...     return nn.losses.linear_softmax_cross_entropy(
        ...         **head, labels=labels, reduction="mean")
        >>> tokens = jnp.arange(40).reshape(8, 5)
        >>> result = nn.fit(
        ...     model(nn.deferred), (tokens, tokens + 1), loss=loss, epochs=1,
        ...     optimizer=nn.optimizers.adam(0.01), key=jax.random.key(0))
        >>> nn.predict(model(), result.params, result.state, tokens).shape
        (8, 5, 50)
    """
    layer = as_layer(layer, "deferred: layer")

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        given = dict(params) if isinstance(params, Mapping) else {}
        if given.keys() == {"embedding"}:
            if not extra.get("attend"):
                return layer.apply(params, state, x, key=key, train=train, **extra)
            given = {"kernel": given["embedding"].T}
        if not {"kernel"} <= given.keys() <= {"kernel", "bias"} or jnp.ndim(given["kernel"]) != 2:
            raise ValueError(
                f"deferred: layer is {layer!r}, expected one with a kernel of two axes, as nn.dense"
            )
        return {"x": x, **given}, state

    return wrap(layer, apply)
