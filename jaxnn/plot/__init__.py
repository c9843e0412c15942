"""Figures of what `fit`, `evaluate`, `sweep` and `diagnose` return, by matplotlib."""

from jaxnn.plot._layers import layers_over_depth, layers_over_time, rate_range
from jaxnn.plot._predictions import calibration, confusion_matrix, roc
from jaxnn.plot._training import filters, learning_curves

__all__ = [
    "calibration",
    "confusion_matrix",
    "filters",
    "layers_over_depth",
    "layers_over_time",
    "learning_curves",
    "rate_range",
    "roc",
]
