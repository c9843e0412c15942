"""Constructors of layers: each is an initialisation plus a call of its function."""

from jaxnn.layers.dense import dense, flatten
from jaxnn.layers.dropout import dropout
from jaxnn.layers.normalization import batch_norm, layer_norm

__all__ = ["batch_norm", "dense", "dropout", "flatten", "layer_norm"]
