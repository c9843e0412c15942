"""Optimizers: pairs of pure functions, by optax's protocol and with its names and arguments.

An optax transformation can be given wherever an `Optimizer` is expected, and ours inside
`optax.chain`. Moments are kept in float32 or wider; updates come back in the gradient's dtype.
"""

from jaxnn.optimizers.adam import adam, adamw, scale_by_adam
from jaxnn.optimizers.base import Optimizer, apply_updates, chain, identity
from jaxnn.optimizers.clipping import clip, clip_by_global_norm, global_norm
from jaxnn.optimizers.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from jaxnn.optimizers.scaling import scale, scale_by_learning_rate, scale_by_schedule
from jaxnn.optimizers.sgd import sgd, trace
from jaxnn.optimizers.weight_decay import add_decayed_weights

__all__ = [
    "Optimizer",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "global_norm",
    "identity",
    "rmsprop",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_rms",
    "scale_by_schedule",
    "scale_by_stddev",
    "sgd",
    "trace",
]
