"""Optimizers: pairs of pure functions, by optax's protocol and with its names and arguments.

An optax transformation can be given wherever an `Optimizer` is expected, and ours inside
`optax.chain`. Moments are kept in float32 or wider; updates come back in the gradient's dtype.

In update rules, w are the parameters, g the gradients and u the updates. A hyperparameter that is
a traced array cannot be checked; all others are, when the optimizer is made. The states are named
tuples with the names and fields of optax's.
"""

from jaxnn.optimizers._accumulation import (
    MultiStepsState,
    accumulate,
    skip_large_updates,
    skip_not_finite,
)
from jaxnn.optimizers._adabelief import ScaleByBeliefState, adabelief, scale_by_belief
from jaxnn.optimizers._adadelta import ScaleByAdaDeltaState, adadelta, scale_by_adadelta
from jaxnn.optimizers._adafactor import FactoredState, adafactor, scale_by_factored_rms
from jaxnn.optimizers._adagrad import ScaleByRssState, adagrad, scale_by_rss
from jaxnn.optimizers._adam import ScaleByAdamState, adam, adamw, nadam, nadamw, scale_by_adam
from jaxnn.optimizers._adamax import adamax, adamaxw, scale_by_adamax
from jaxnn.optimizers._adan import ScaleByAdanState, adan, scale_by_adan
from jaxnn.optimizers._ademamix import ScaleByAdemamixState, ademamix, scale_by_ademamix
from jaxnn.optimizers._adopt import adopt, scale_by_adopt
from jaxnn.optimizers._amsgrad import ScaleByAmsgradState, amsgrad, scale_by_amsgrad
from jaxnn.optimizers._averaging import EmaState, ParamsEmaState, ema, evaluation_params, params_ema
from jaxnn.optimizers._backtracking import (
    BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch,
)
from jaxnn.optimizers._base import (
    EmptyState,
    Optimizer,
    apply_updates,
    chain,
    identity,
    named_chain,
)
from jaxnn.optimizers._block_rms import clip_by_block_rms, scale_by_param_block_rms
from jaxnn.optimizers._by_path import (
    MaskedNode,
    MaskedState,
    PartitionState,
    freeze,
    masked,
    partition,
    set_to_zero,
)
from jaxnn.optimizers._clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_global_norm,
    global_norm,
    unitwise_norm,
)
from jaxnn.optimizers._constraining import keep_params_nonnegative
from jaxnn.optimizers._finite import ApplyIfFiniteState, ZeroNansState, apply_if_finite, zero_nans
from jaxnn.optimizers._injection import (
    InjectStatefulHyperparamsState,
    WrappedScheduleState,
    inject_hyperparams,
)
from jaxnn.optimizers._lbfgs import ScaleByLBFGSState, lbfgs, scale_by_lbfgs
from jaxnn.optimizers._line_search import (
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
    scale_by_zoom_linesearch,
    value_and_grad_from_state,
)
from jaxnn.optimizers._lion import ScaleByLionState, lion, scale_by_lion, scale_by_sign, sign_sgd
from jaxnn.optimizers._lookahead import LookaheadState, lookahead
from jaxnn.optimizers._loss_scaling import LossScaleState, dynamic_loss_scale, loss_scale
from jaxnn.optimizers._map_params import map_params
from jaxnn.optimizers._muon import MuonDimensionNumbers, MuonState, muon, scale_by_muon
from jaxnn.optimizers._mup import mup_initial_params, scale_by_mup
from jaxnn.optimizers._narrow import (
    MasterWeightsState,
    StochasticRoundingState,
    master_weights,
    stochastic_rounding,
)
from jaxnn.optimizers._noise import AddNoiseState, add_noise
from jaxnn.optimizers._normalizing import centralize, normalize, normalize_by_update_norm
from jaxnn.optimizers._novograd import ScaleByNovogradState, novograd, scale_by_novograd
from jaxnn.optimizers._plateau import ReduceLROnPlateauState, reduce_on_plateau
from jaxnn.optimizers._prodigy import ProdigyState, prodigy
from jaxnn.optimizers._projections import (
    project_params,
    projection_box,
    projection_l1_ball,
    projection_l2_ball,
    projection_linf_ball,
    projection_non_negative,
    projection_simplex,
)
from jaxnn.optimizers._radam import radam, scale_by_radam
from jaxnn.optimizers._rmsprop import (
    ScaleByRmsState,
    ScaleByRmsWithCountState,
    ScaleByRStdDevState,
    ScaleByRStdDevWithCountState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)
from jaxnn.optimizers._rprop import ScaleByRpropState, rprop, scale_by_rprop
from jaxnn.optimizers._sam import SAMState, sam
from jaxnn.optimizers._scaling import (
    ScaleByScheduleState,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from jaxnn.optimizers._schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from jaxnn.optimizers._sgd import TraceState, sgd, trace
from jaxnn.optimizers._soap import ScaleBySoapState, scale_by_soap, soap
from jaxnn.optimizers._sophia import (
    HutchinsonState,
    SophiaState,
    hutchinson_estimator_diag_hessian,
    scale_by_sophia,
    sophia,
)
from jaxnn.optimizers._states import get_state, set_state
from jaxnn.optimizers._targets import incremental_update, periodic_update
from jaxnn.optimizers._trust_ratio import lamb, lars, scale_by_trust_ratio
from jaxnn.optimizers._weight_decay import WeightDecaySchedule, add_decayed_weights
from jaxnn.optimizers._yogi import scale_by_yogi, yogi

__all__ = [
    "AddNoiseState",
    "ApplyIfFiniteState",
    "BacktrackingLinesearchInfo",
    "EmaState",
    "EmptyState",
    "FactoredState",
    "HutchinsonState",
    "InjectStatefulHyperparamsState",
    "LookaheadState",
    "LossScaleState",
    "MaskedNode",
    "MaskedState",
    "MasterWeightsState",
    "MultiStepsState",
    "MuonDimensionNumbers",
    "MuonState",
    "Optimizer",
    "ParamsEmaState",
    "PartitionState",
    "ProdigyState",
    "ReduceLROnPlateauState",
    "SAMState",
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByAdanState",
    "ScaleByAdemamixState",
    "ScaleByAmsgradState",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByBeliefState",
    "ScaleByLBFGSState",
    "ScaleByLionState",
    "ScaleByNovogradState",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRpropState",
    "ScaleByRssState",
    "ScaleByScheduleState",
    "ScaleBySoapState",
    "ScaleByZoomLinesearchState",
    "ScheduleFreeState",
    "SophiaState",
    "StochasticRoundingState",
    "TraceState",
    "WeightDecaySchedule",
    "WrappedScheduleState",
    "ZeroNansState",
    "ZoomLinesearchInfo",
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
    "get_state",
    "global_norm",
    "hutchinson_estimator_diag_hessian",
    "identity",
    "incremental_update",
    "inject_hyperparams",
    "keep_params_nonnegative",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "lookahead",
    "loss_scale",
    "map_params",
    "masked",
    "master_weights",
    "muon",
    "mup_initial_params",
    "nadam",
    "nadamw",
    "named_chain",
    "normalize",
    "normalize_by_update_norm",
    "novograd",
    "params_ema",
    "partition",
    "periodic_update",
    "prodigy",
    "project_params",
    "projection_box",
    "projection_l1_ball",
    "projection_l2_ball",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
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
    "scale_by_backtracking_linesearch",
    "scale_by_belief",
    "scale_by_factored_rms",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_mup",
    "scale_by_novograd",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_sign",
    "scale_by_soap",
    "scale_by_sophia",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "scale_by_zoom_linesearch",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "set_state",
    "set_to_zero",
    "sgd",
    "sign_sgd",
    "skip_large_updates",
    "skip_not_finite",
    "soap",
    "sophia",
    "stochastic_rounding",
    "trace",
    "unitwise_norm",
    "value_and_grad_from_state",
    "yogi",
    "zero_nans",
]
