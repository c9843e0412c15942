"""Figures of what `fit`, `evaluate`, `sweep`, `capture` and `diagnose` return, by matplotlib."""

from jaxnn.plot._arrays import attention_maps, embedding, histograms
from jaxnn.plot._layers import layers_over_depth, layers_over_time, rate_range
from jaxnn.plot._predictions import (
    calibration,
    confusion_matrix,
    predicted_against_true,
    predictions,
    roc,
)
from jaxnn.plot._sweeps import sweep
from jaxnn.plot._training import filters, learning_curves

__all__ = [
    "attention_maps",
    "calibration",
    "confusion_matrix",
    "embedding",
    "filters",
    "histograms",
    "layers_over_depth",
    "layers_over_time",
    "learning_curves",
    "predicted_against_true",
    "predictions",
    "rate_range",
    "roc",
    "sweep",
]
