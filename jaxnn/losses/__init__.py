"""Losses: unreduced, elementwise for regression, one value per example for classification.

The names and semantics are optax's. The reduction belongs to the caller, who can so weight
examples and average over devices exactly. Values are computed and returned in float32 or wider.
"""

from jaxnn.losses._binary import sigmoid_binary_cross_entropy, sigmoid_focal_loss
from jaxnn.losses._classification import (
    nll,
    poly_loss_cross_entropy,
    ranking_softmax_loss,
    safe_softmax_cross_entropy,
    smooth_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxnn.losses._ctc import ctc_loss
from jaxnn.losses._divergences import (
    gaussian_kl_divergence,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)
from jaxnn.losses._likelihoods import gaussian_nll, poisson_nll
from jaxnn.losses._linear_cross_entropy import linear_softmax_cross_entropy
from jaxnn.losses._margins import (
    hinge_loss,
    margin_ranking_loss,
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    perceptron_loss,
    squared_hinge_loss,
)
from jaxnn.losses._preferences import dpo_loss
from jaxnn.losses._regression import (
    absolute_error,
    absolute_percentage_error,
    huber_loss,
    l2_loss,
    log_cosh,
    quantile_loss,
    squared_error,
    squared_logarithmic_error,
)
from jaxnn.losses._segmentation import dice_loss, generalized_dice_loss
from jaxnn.losses._similarity import (
    clip_loss,
    cosine_distance,
    cosine_embedding_loss,
    cosine_similarity,
    ntxent,
    triplet_margin_loss,
)
from jaxnn.losses._weighted import Weighted, ignoring

__all__ = [
    "Weighted",
    "absolute_error",
    "absolute_percentage_error",
    "clip_loss",
    "cosine_distance",
    "cosine_embedding_loss",
    "cosine_similarity",
    "ctc_loss",
    "dice_loss",
    "dpo_loss",
    "gaussian_kl_divergence",
    "gaussian_nll",
    "generalized_dice_loss",
    "generalized_kl_divergence",
    "hinge_loss",
    "huber_loss",
    "ignoring",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "linear_softmax_cross_entropy",
    "log_cosh",
    "margin_ranking_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "nll",
    "ntxent",
    "perceptron_loss",
    "poisson_nll",
    "poly_loss_cross_entropy",
    "quantile_loss",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "squared_hinge_loss",
    "squared_logarithmic_error",
    "triplet_margin_loss",
]
