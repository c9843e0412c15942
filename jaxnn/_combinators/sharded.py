"""Models whose examples are split over many devices."""

from typing import Any

import jax

from jaxnn._core.children import wrap
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import LossFunction, PyTree


@constructor
def sharded(layer: Layer, sharding: Sharding) -> Layer:
    """The layer, each device with its part of the examples."""

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        y, state = layer.apply(params, state, sharding.split(x), key=key, train=train, **extra)
        return y, state

    return wrap(layer, apply)


@constructor
def sharded_loss(loss_fn: LossFunction, sharding: Sharding) -> LossFunction:
    """The loss function of `train_step`, each device with its part of the examples."""

    def split_loss_fn(params: PyTree, state: PyTree, batch: Any, key: Any) -> Any:
        return loss_fn(params, state, sharding.split(batch), key)

    return split_loss_fn
