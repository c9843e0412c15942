"""What signatures speak of, for annotations of one's own.

    def block(width: int, activation: nn.typing.Activation = nn.relu) -> nn.Layer: ...

Arrays, keys and dtypes are JAX's: `jax.Array`, `jax.typing.ArrayLike`, `jax.typing.DTypeLike`;
initializers are `nn.initializers.Initializer`.
"""

from jaxnn._core.layer import LayerLike
from jaxnn._core.types import (
    Activation,
    Arrays,
    Axes,
    Data,
    Limit,
    Loss,
    LossFunction,
    Mask,
    OptimizerLike,
    Padding,
    PartialSpatialShape,
    PerAxis,
    PyTree,
    Regularizer,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    Selection,
    Shape,
    SpatialShape,
    Steps,
    TrainingRun,
)
from jaxnn.callbacks._callbacks import CallbackLike

__all__ = [
    "Activation",
    "Arrays",
    "Axes",
    "CallbackLike",
    "Data",
    "LayerLike",
    "Limit",
    "Loss",
    "LossFunction",
    "Mask",
    "OptimizerLike",
    "Padding",
    "PartialSpatialShape",
    "PerAxis",
    "PyTree",
    "Regularizer",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Selection",
    "Shape",
    "SpatialShape",
    "Steps",
    "TrainingRun",
]
