"""Arithmetic on arrays: what the layers compute, without parameter dicts.

Whoever writes models as plain functions over their own dicts uses this floor alone.
"""

from jaxnn.functional._activations import prelu
from jaxnn.functional._attention import dot_product_attention
from jaxnn.functional._augmentation import (
    center_crop,
    cutout,
    mixup,
    random_crop,
    random_flip,
    random_masking,
    random_shift,
)
from jaxnn.functional._batch_normalization import batch_norm, batch_statistics
from jaxnn.functional._convolution import conv, conv_transpose
from jaxnn.functional._dense import flatten, linear, linear_general, maxout, reshape
from jaxnn.functional._dropout import (
    alpha_dropout,
    dropout,
    gaussian_dropout,
    gaussian_noise,
    spatial_dropout,
    stochastic_depth,
)
from jaxnn.functional._embeddings import attend, embed, embed_bag
from jaxnn.functional._equations import einsum
from jaxnn.functional._linear_attention import linear_attention
from jaxnn.functional._linear_recurrence import linear_recurrence
from jaxnn.functional._masks import (
    causal_mask,
    combine_masks,
    local_mask,
    padding_mask,
    segment_mask,
)
from jaxnn.functional._mixture import expert_balance, mixture_of_experts
from jaxnn.functional._normalization import (
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
    unit_norm,
)
from jaxnn.functional._pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from jaxnn.functional._positions import (
    alibi_bias,
    alibi_slopes,
    fourier_features,
    rotary,
    sinusoidal,
)
from jaxnn.functional._quantization import nearest_code
from jaxnn.functional._recurrent import conv_lstm_step, gru_step, lstm_step, rnn_step
from jaxnn.functional._reparametrization import power_iteration, spectral_norm, weight_norm
from jaxnn.functional._resampling import pixel_shuffle, pixel_unshuffle, resize, upsample
from jaxnn.functional._segments import (
    gather,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from jaxnn.functional._tokens import token_log_probs
from jaxnn.functional._unfolding import fold, unfold

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "alibi_bias",
    "alibi_slopes",
    "alpha_dropout",
    "attend",
    "avg_pool",
    "batch_norm",
    "batch_statistics",
    "causal_mask",
    "center_crop",
    "combine_masks",
    "conv",
    "conv_lstm_step",
    "conv_transpose",
    "cutout",
    "dot_product_attention",
    "dropout",
    "einsum",
    "embed",
    "embed_bag",
    "expert_balance",
    "flatten",
    "fold",
    "fourier_features",
    "gather",
    "gaussian_dropout",
    "gaussian_noise",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_step",
    "instance_norm",
    "layer_norm",
    "linear",
    "linear_attention",
    "linear_general",
    "linear_recurrence",
    "local_mask",
    "local_response_norm",
    "lp_pool",
    "lstm_step",
    "max_pool",
    "maxout",
    "mixture_of_experts",
    "mixup",
    "nearest_code",
    "padding_mask",
    "pixel_shuffle",
    "pixel_unshuffle",
    "power_iteration",
    "prelu",
    "random_crop",
    "random_flip",
    "random_masking",
    "random_shift",
    "reshape",
    "resize",
    "rms_norm",
    "rnn_step",
    "rotary",
    "segment_mask",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sinusoidal",
    "spatial_dropout",
    "spectral_norm",
    "stochastic_depth",
    "token_log_probs",
    "unfold",
    "unit_norm",
    "upsample",
    "weight_norm",
]
