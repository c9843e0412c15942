"""Arithmetic on arrays: what the layers compute, without parameter dicts.

Whoever writes models as plain functions over their own dicts uses this floor alone.
"""

from jaxnn.functional.dense import flatten, linear
from jaxnn.functional.dropout import dropout
from jaxnn.functional.normalization import batch_norm, batch_statistics, layer_norm

__all__ = ["batch_norm", "batch_statistics", "dropout", "flatten", "layer_norm", "linear"]
