"""jaxnn: neural networks as pure functions in JAX."""

from jaxnn import (
    _activations,
    callbacks,
    functional,
    initializers,
    losses,
    metrics,
    optimizers,
    plot,
    regularizers,
    schedules,
    typing,
)
from jaxnn._activations import *  # noqa: F403
from jaxnn._combinators.chains import parallel, residual, serial
from jaxnn._combinators.composition import compose
from jaxnn._combinators.copies import ensemble, stack
from jaxnn._combinators.deferral import deferred
from jaxnn._combinators.freezing import freeze_params, frozen, unfreeze_params
from jaxnn._combinators.reparametrization import spectral_norm, weight_norm
from jaxnn._combinators.sharded import pinned
from jaxnn._combinators.weight_quantization import (
    dequantize_params,
    quantization_aware,
    quantize_params,
    quantized,
)
from jaxnn._combinators.wrappers import mixed_precision, remat
from jaxnn._core.capture import capture
from jaxnn._core.layer import Cell, Layer, elementwise, pure, stateless
from jaxnn._core.sharding import fsdp, sharding
from jaxnn._core.summary import summary
from jaxnn._diagnosis.curves import diagnose_history
from jaxnn._diagnosis.diagnose import diagnose
from jaxnn._diagnosis.findings import Diagnosis, Finding
from jaxnn._files.deployment import export
from jaxnn._files.exporting import export_params
from jaxnn._files.exporting_adapters import export_lora
from jaxnn._files.importing import import_params
from jaxnn._files.importing_adapters import import_lora
from jaxnn._files.partial import PartialLoad, load_partial
from jaxnn._files.saving import load, save, saved_metadata
from jaxnn._layers.activations import prelu
from jaxnn._layers.attention import attention
from jaxnn._layers.augmentation import (
    cutout,
    frequency_masking,
    random_crop,
    random_flip,
    random_shift,
    time_masking,
)
from jaxnn._layers.batch_normalization import batch_norm
from jaxnn._layers.convolution import conv, conv_transpose
from jaxnn._layers.dense import dense, dense_general, flatten, maxout, reshape
from jaxnn._layers.depthwise_convolution import depthwise_conv, separable_conv
from jaxnn._layers.dropout import (
    alpha_dropout,
    dropout,
    gaussian_dropout,
    gaussian_noise,
    spatial_dropout,
    stochastic_depth,
)
from jaxnn._layers.embeddings import embedding, embedding_bag
from jaxnn._layers.equations import einsum
from jaxnn._layers.linear_attention import linear_attention
from jaxnn._layers.linear_recurrence import lru_cell
from jaxnn._layers.normalization import (
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
    unit_norm,
)
from jaxnn._layers.parameter import parameter
from jaxnn._layers.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from jaxnn._layers.positions import (
    Positions,
    alibi,
    fourier_features,
    learned_positions,
    rotary,
    sinusoidal_positions,
)
from jaxnn._layers.quantization import vector_quantizer
from jaxnn._layers.recurrent import conv_lstm_cell, gru_cell, lstm_cell, rnn_cell
from jaxnn._layers.resampling import pixel_shuffle, pixel_unshuffle, resize, upsample
from jaxnn._layers.rotary_scaling import llama3_scaling, yarn_scaling
from jaxnn._layers.unfolding import fold, unfold
from jaxnn._networks.autoregressive import autoregressive
from jaxnn._networks.beam_search import beam_search
from jaxnn._networks.generation import generate, stream
from jaxnn._networks.lora import lora, merge_lora
from jaxnn._networks.mixture import mixture_of_experts
from jaxnn._networks.mlp import feed_forward, mlp
from jaxnn._networks.recurrent import bidirectional, recurrent, stacked_cell
from jaxnn._networks.sampling import sampling
from jaxnn._networks.squeeze_excite import squeeze_excite
from jaxnn._networks.transformer import transformer_block
from jaxnn._training.batch_statistics import update_batch_norm
from jaxnn._training.best import early_stopping
from jaxnn._training.calibration import temperature_scaling
from jaxnn._training.data.balancing import balanced_weights
from jaxnn._training.data.packing import bucket_by_length, pack
from jaxnn._training.data.padding import pad_to
from jaxnn._training.data.splitting import split
from jaxnn._training.evaluation import evaluate, predict
from jaxnn._training.fit import FitResult, fit
from jaxnn._training.folds import cross_validate
from jaxnn._training.host.options import checkpoints
from jaxnn._training.spread import predict_averaged, predict_with_spread
from jaxnn._training.step import TrainState, train_state, train_step
from jaxnn._training.sweeps.sweep import SweepResult, log_uniform, sweep
from jaxnn._training.training_run import training_run

__version__ = "0.1.0"

__all__ = [
    *_activations.__all__,
    "Cell",
    "Diagnosis",
    "Finding",
    "FitResult",
    "Layer",
    "PartialLoad",
    "Positions",
    "SweepResult",
    "TrainState",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "alibi",
    "alpha_dropout",
    "attention",
    "autoregressive",
    "avg_pool",
    "balanced_weights",
    "batch_norm",
    "beam_search",
    "bidirectional",
    "bucket_by_length",
    "callbacks",
    "capture",
    "checkpoints",
    "compose",
    "conv",
    "conv_lstm_cell",
    "conv_transpose",
    "cross_validate",
    "cutout",
    "deferred",
    "dense",
    "dense_general",
    "depthwise_conv",
    "dequantize_params",
    "diagnose",
    "diagnose_history",
    "dropout",
    "early_stopping",
    "einsum",
    "elementwise",
    "embedding",
    "embedding_bag",
    "ensemble",
    "evaluate",
    "export",
    "export_lora",
    "export_params",
    "feed_forward",
    "fit",
    "flatten",
    "fold",
    "fourier_features",
    "freeze_params",
    "frequency_masking",
    "frozen",
    "fsdp",
    "functional",
    "gaussian_dropout",
    "gaussian_noise",
    "generate",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "import_lora",
    "import_params",
    "initializers",
    "instance_norm",
    "layer_norm",
    "learned_positions",
    "linear_attention",
    "llama3_scaling",
    "load",
    "load_partial",
    "local_response_norm",
    "log_uniform",
    "lora",
    "losses",
    "lp_pool",
    "lru_cell",
    "lstm_cell",
    "max_pool",
    "maxout",
    "merge_lora",
    "metrics",
    "mixed_precision",
    "mixture_of_experts",
    "mlp",
    "optimizers",
    "pack",
    "pad_to",
    "parallel",
    "parameter",
    "pinned",
    "pixel_shuffle",
    "pixel_unshuffle",
    "plot",
    "predict",
    "predict_averaged",
    "predict_with_spread",
    "prelu",
    "pure",
    "quantization_aware",
    "quantize_params",
    "quantized",
    "random_crop",
    "random_flip",
    "random_shift",
    "recurrent",
    "regularizers",
    "remat",
    "reshape",
    "residual",
    "resize",
    "rms_norm",
    "rnn_cell",
    "rotary",
    "sampling",
    "save",
    "saved_metadata",
    "schedules",
    "separable_conv",
    "serial",
    "sharding",
    "sinusoidal_positions",
    "spatial_dropout",
    "spectral_norm",
    "split",
    "squeeze_excite",
    "stack",
    "stacked_cell",
    "stateless",
    "stochastic_depth",
    "stream",
    "summary",
    "sweep",
    "temperature_scaling",
    "time_masking",
    "train_state",
    "train_step",
    "training_run",
    "transformer_block",
    "typing",
    "unfold",
    "unfreeze_params",
    "unit_norm",
    "update_batch_norm",
    "upsample",
    "vector_quantizer",
    "weight_norm",
    "yarn_scaling",
]
