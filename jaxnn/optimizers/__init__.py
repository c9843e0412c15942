"""Optimizers: pairs of pure functions, by optax's protocol and with its names and arguments.

An optax transformation can be given wherever an `Optimizer` is expected, and ours inside
`optax.chain`. Moments are kept in float32 or wider; updates come back in the gradient's dtype.

In update rules, w are the parameters, g the gradients and u the updates. A hyperparameter that is
a traced array cannot be checked; all others are, when the optimizer is made. The states are named
tuples with the names and fields of optax's.
"""

from jaxnn.optimizers._accumulation import accumulate, skip_not_finite
from jaxnn.optimizers._adabelief import adabelief, scale_by_belief
from jaxnn.optimizers._adadelta import adadelta, scale_by_adadelta
from jaxnn.optimizers._adafactor import adafactor, scale_by_factored_rms
from jaxnn.optimizers._adagrad import adagrad, scale_by_rss
from jaxnn.optimizers._adam import adam, adamw, nadam, nadamw, scale_by_adam
from jaxnn.optimizers._adamax import adamax, adamaxw, scale_by_adamax
from jaxnn.optimizers._adan import adan, scale_by_adan
from jaxnn.optimizers._ademamix import ademamix, scale_by_ademamix
from jaxnn.optimizers._adopt import adopt, scale_by_adopt
from jaxnn.optimizers._amsgrad import amsgrad, scale_by_amsgrad
from jaxnn.optimizers._averaging import ema, evaluation_params, params_ema
from jaxnn.optimizers._base import Optimizer, apply_updates, chain, identity
from jaxnn.optimizers._block_rms import clip_by_block_rms, scale_by_param_block_rms
from jaxnn.optimizers._by_path import freeze, masked, partition, set_to_zero
from jaxnn.optimizers._clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_global_norm,
    global_norm,
    unitwise_norm,
)
from jaxnn.optimizers._constraining import keep_params_nonnegative
from jaxnn.optimizers._finite import apply_if_finite
from jaxnn.optimizers._injection import inject_hyperparams
from jaxnn.optimizers._lbfgs import lbfgs, scale_by_lbfgs
from jaxnn.optimizers._line_search import scale_by_zoom_linesearch, value_and_grad_from_state
from jaxnn.optimizers._lion import lion, scale_by_lion, scale_by_sign, sign_sgd
from jaxnn.optimizers._lookahead import lookahead
from jaxnn.optimizers._loss_scaling import dynamic_loss_scale, loss_scale
from jaxnn.optimizers._muon import MuonDimensionNumbers, muon, scale_by_muon
from jaxnn.optimizers._noise import add_noise
from jaxnn.optimizers._normalizing import centralize, normalize, normalize_by_update_norm
from jaxnn.optimizers._novograd import novograd, scale_by_novograd
from jaxnn.optimizers._plateau import reduce_on_plateau
from jaxnn.optimizers._prodigy import prodigy
from jaxnn.optimizers._radam import radam, scale_by_radam
from jaxnn.optimizers._rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from jaxnn.optimizers._rprop import rprop, scale_by_rprop
from jaxnn.optimizers._sam import sam
from jaxnn.optimizers._scaling import scale, scale_by_learning_rate, scale_by_schedule
from jaxnn.optimizers._schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from jaxnn.optimizers._sgd import sgd, trace
from jaxnn.optimizers._sophia import hutchinson_estimator_diag_hessian, scale_by_sophia, sophia
from jaxnn.optimizers._trust_ratio import lamb, lars, scale_by_trust_ratio
from jaxnn.optimizers._weight_decay import add_decayed_weights
from jaxnn.optimizers._yogi import scale_by_yogi, yogi

__all__ = [
    "MuonDimensionNumbers",
    "Optimizer",
    "accumulate",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "ademamix",
    "adopt",
    "amsgrad",
    "apply_if_finite",
    "apply_updates",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "dynamic_loss_scale",
    "ema",
    "evaluation_params",
    "freeze",
    "global_norm",
    "hutchinson_estimator_diag_hessian",
    "identity",
    "inject_hyperparams",
    "keep_params_nonnegative",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "lookahead",
    "loss_scale",
    "masked",
    "muon",
    "nadam",
    "nadamw",
    "normalize",
    "normalize_by_update_norm",
    "novograd",
    "params_ema",
    "partition",
    "prodigy",
    "radam",
    "reduce_on_plateau",
    "rmsprop",
    "rprop",
    "sam",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_factored_rms",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_novograd",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_sign",
    "scale_by_sophia",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "scale_by_zoom_linesearch",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "set_to_zero",
    "sgd",
    "sign_sgd",
    "skip_not_finite",
    "sophia",
    "trace",
    "unitwise_norm",
    "value_and_grad_from_state",
    "yogi",
]
