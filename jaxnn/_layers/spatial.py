"""What layers over spatial axes share: their inputs have a batch, whose examples never mix."""

from collections.abc import Callable

import jax

from jaxnn._core.layer import Layer, elementwise, shape_of
from jaxnn._core.types import PartialSpatialShape, PyTree

_AXES = {1: "time", 2: "height, width", 3: "depth, height, width"}


def check_batched(layer: str, x: PyTree, rank: int) -> None:
    """Raise unless `x` has at least a batch axis before its `rank` spatial axes and the channels.

    Images without channels would be one image, whose rows are the examples.
    """
    shape = shape_of(layer, x)
    if len(shape) < rank + 2:
        spatial = _AXES.get(rank, f"{rank} spatial axes")
        raise ValueError(
            f"{layer}: x has shape {shape}, expected (batch, {spatial}, channels): x[..., None] "
            "adds an axis of channels, x[None] one of a batch"
        )


def spatial_layer(
    name: str, sizes: PartialSpatialShape, function: Callable[..., jax.Array]
) -> Layer:
    """The layer `function(x, sizes)`, of a number for each spatial axis."""

    def call(x: PyTree) -> jax.Array:
        check_batched(name, x, len(sizes))
        return function(x, sizes)

    return elementwise(call)
