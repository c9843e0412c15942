"""jaxnn: neural networks as pure functions in JAX."""

from jaxnn import (
    activations,
    callbacks,
    functional,
    initializers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
)
from jaxnn.activations import *  # noqa: F403
from jaxnn.combinators import (
    compose,
    ensemble,
    mixed_precision,
    parallel,
    remat,
    residual,
    serial,
    stack,
)
from jaxnn.layer import Cell, Layer, elementwise, stateless
from jaxnn.layers import batch_norm, dense, dropout, flatten, layer_norm
from jaxnn.training import (
    FitResult,
    TrainState,
    evaluate,
    fit,
    predict,
    train_state,
    train_step,
    training_run,
)

__version__ = "0.1.0"

__all__ = [
    *activations.__all__,
    "Cell",
    "FitResult",
    "Layer",
    "TrainState",
    "batch_norm",
    "callbacks",
    "compose",
    "dense",
    "dropout",
    "elementwise",
    "ensemble",
    "evaluate",
    "fit",
    "flatten",
    "functional",
    "initializers",
    "layer_norm",
    "losses",
    "metrics",
    "mixed_precision",
    "optimizers",
    "parallel",
    "predict",
    "regularizers",
    "remat",
    "residual",
    "schedules",
    "serial",
    "stack",
    "stateless",
    "train_state",
    "train_step",
    "training_run",
]
