"""jaxnn: neural networks as pure functions in JAX."""

from jaxnn import functional, initializers, losses, metrics, optimizers, regularizers, schedules
from jaxnn.activations import *  # noqa: F403
from jaxnn.combinators import compose, parallel, residual, serial
from jaxnn.layer import Cell, Layer, elementwise, stateless
from jaxnn.layers import batch_norm, dense, dropout, flatten, layer_norm

__version__ = "0.1.0"
