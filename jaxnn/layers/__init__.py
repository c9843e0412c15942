"""Constructors of layers: each is an initialisation plus a call of its function."""

from jaxnn.layers.activations import prelu
from jaxnn.layers.attention import attention
from jaxnn.layers.batch_normalization import batch_norm
from jaxnn.layers.convolution import conv, conv_transpose
from jaxnn.layers.dense import dense, dense_general, flatten, maxout, reshape
from jaxnn.layers.depthwise_convolution import depthwise_conv, separable_conv
from jaxnn.layers.dropout import (
    alpha_dropout,
    dropout,
    gaussian_dropout,
    gaussian_noise,
    spatial_dropout,
    stochastic_depth,
)
from jaxnn.layers.embeddings import embedding
from jaxnn.layers.equations import einsum
from jaxnn.layers.normalization import (
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
    unit_norm,
)
from jaxnn.layers.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from jaxnn.layers.positions import (
    Positions,
    alibi,
    learned_positions,
    rotary,
    sinusoidal_positions,
)
from jaxnn.layers.quantization import vector_quantizer
from jaxnn.layers.recurrent import conv_lstm_cell, gru_cell, lstm_cell, rnn_cell
from jaxnn.layers.resampling import pixel_shuffle, pixel_unshuffle, upsample

__all__ = [
    "Positions",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "alibi",
    "alpha_dropout",
    "attention",
    "avg_pool",
    "batch_norm",
    "conv",
    "conv_lstm_cell",
    "conv_transpose",
    "dense",
    "dense_general",
    "depthwise_conv",
    "dropout",
    "einsum",
    "embedding",
    "flatten",
    "gaussian_dropout",
    "gaussian_noise",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "instance_norm",
    "layer_norm",
    "learned_positions",
    "local_response_norm",
    "lp_pool",
    "lstm_cell",
    "max_pool",
    "maxout",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "reshape",
    "rms_norm",
    "rnn_cell",
    "rotary",
    "separable_conv",
    "sinusoidal_positions",
    "spatial_dropout",
    "stochastic_depth",
    "unit_norm",
    "upsample",
    "vector_quantizer",
]
