"""Metrics: triples of pure functions over accumulators that can be merged.

What is computed of the merged accumulators of batches, or of devices, is the metric of the whole
set: exactly, since sums and counts are merged, and never means.
"""

from jaxnn.metrics._accumulators import CompensatedSum, ExampleAccumulator, Metric, merge, merge_all
from jaxnn.metrics._confusion import CountAccumulator, confusion_matrix, f1, precision, recall
from jaxnn.metrics._means import (
    MeanAccumulator,
    accuracy,
    mean,
    mean_absolute_error,
    mean_squared_error,
    perplexity,
    root_mean_squared_error,
    top_k_accuracy,
)
from jaxnn.metrics._whole import average_precision, r2_score, roc_auc, whole_set

__all__ = [
    "CompensatedSum",
    "CountAccumulator",
    "ExampleAccumulator",
    "MeanAccumulator",
    "Metric",
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "f1",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "merge",
    "merge_all",
    "perplexity",
    "precision",
    "r2_score",
    "recall",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
    "whole_set",
]
