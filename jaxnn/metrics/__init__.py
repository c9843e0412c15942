"""Metrics: triples of pure functions over accumulators that can be merged.

What is computed of the merged accumulators of batches, or of devices, is the metric of the whole
set: exactly, since sums and counts are merged, and never means.
"""

from jaxnn.metrics._accumulators import CompensatedSum, ExampleAccumulator, Metric, merge, merge_all
from jaxnn.metrics._confusion import (
    CountAccumulator,
    confusion_matrix,
    f1,
    iou,
    matthews_correlation,
    precision,
    recall,
)
from jaxnn.metrics._means import (
    MeanAccumulator,
    accuracy,
    mean,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    perplexity,
    psnr,
    root_mean_squared_error,
    top_k_accuracy,
)
from jaxnn.metrics._probabilities import expected_calibration_error, log_loss
from jaxnn.metrics._ranking import mean_reciprocal_rank, ndcg, recall_at_k
from jaxnn.metrics._regression import explained_variance, pearson_correlation, r2_score
from jaxnn.metrics._whole import average_precision, roc_auc, whole_set

__all__ = [
    "CompensatedSum",
    "CountAccumulator",
    "ExampleAccumulator",
    "MeanAccumulator",
    "Metric",
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "expected_calibration_error",
    "explained_variance",
    "f1",
    "iou",
    "log_loss",
    "matthews_correlation",
    "mean",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_reciprocal_rank",
    "mean_squared_error",
    "merge",
    "merge_all",
    "ndcg",
    "pearson_correlation",
    "perplexity",
    "precision",
    "psnr",
    "r2_score",
    "recall",
    "recall_at_k",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
    "whole_set",
]
