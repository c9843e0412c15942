"""Which of the bad values are good ones, and for what.

An annotation says most of it: True for a flag, None where it is allowed. For the rest there is a
table by the name of the parameter, whatever it is of, and one of exceptions.
"""

import inspect
import types
import typing

from jaxnn.typing import Arrays
from tests.bad_values.outcomes import VALUES

EVERYTHING = " ".join(VALUES)
ARRAYS = "-1 0 1.5 nan True [] empty"
TREES = f"None {{}} {ARRAYS}"
AT_LEAST_0 = "0 1.5"
NUMBERS = "-1 0 1.5"
STEPS = "1.5 10**30"


def _for(values, names):
    return dict.fromkeys(names.split(), values)


BY_PARAMETER = {
    **_for("-1 0", "ignore_index label query_offset"),
    **_for("-1 0 []", "broadcast_dims"),
    **_for(
        "0",
        "adam_b1 adam_b2 b1 b2 b3 beta beta3 blank_id cooldown decay dropout_rate "
        "end_token label_smoothing max_consecutive_errors min_p momentum padding pct_start "
        "print_win_rate_every_n_steps rate rho rtol sparsity vjp_order window",
    ),
    **_for(
        "1.5",
        "base beta_fast beta_slow decay_rate div_factor final_div_factor high "
        "high_frequency_factor increase_factor initial k low_frequency_factor "
        "max_shard_size max_step_size minimum norm_degree p power repetition_penalty "
        "temperature",
    ),
    **_for(
        AT_LEAST_0,
        "adam_eps_root adam_learning_rate adam_weight_decay alpha approx_dec_rtol atol "
        "capacity_factor clip_threshold clipping clipping_threshold consistent_rms "
        "curv_rtol delta eps eps_root epsilon every_seconds estim_lr0 estim_lr_coef eta "
        "eta_minus eta_plus exponent gamma initial_accumulator_value initial_scale "
        "l1_strength l2_strength learning_rate max_delta max_learning_rate max_norm "
        "min_delta min_norm min_scale min_step_size slope_rtol slow_step_size smooth "
        "smooth_beta stable_steps stddev stepsize_precision strength threshold "
        "time_limit tol transition_begin trust_coefficient warmup_steps weight_decay "
        "weight_decay_rate",
    ),
    **_for(
        NUMBERS,
        "decay_offset end_value forget_bias gain init_value length_penalty margin param peak_value "
        "scale scale_factor scale_offset step_offset step_size value weight_lr_power",
    ),
    **_for(STEPS, "decay_steps transition_steps"),
    **_for("[]", "axis_name callbacks constraints histograms ignore record"),
    **_for("{}", "boundaries_and_scales convert keywords metadata metrics rename"),
    **_for("0", "padding_idx"),
    **_for("constructor", "dense"),
    **_for("'abc'", "best checkpoint directory"),
}

# By "callable.parameter", in place of the above; with "only", of the annotation too.
EXACT = {
    **_for(
        "",
        "losses.nll.ignore_index losses.softmax_cross_entropy.ignore_index "
        "upsample.scale functional.upsample.scale metrics.accuracy.threshold "
        "metrics.confusion_matrix.threshold metrics.f1.threshold metrics.iou.threshold "
        "metrics.matthews_correlation.threshold metrics.precision.threshold "
        "metrics.recall.threshold metrics.recall_at_k.k metrics.ndcg.k "
        "metrics.top_k_accuracy.k optimizers.reduce_on_plateau.factor "
        "optimizers.schedule_free.b1 optimizers.schedule_free_adamw.b1 "
        "optimizers.schedule_free_adamw.warmup_steps optimizers.schedule_free_sgd.b1 "
        "optimizers.schedule_free_sgd.warmup_steps",
    ),
    **_for(
        "only",
        "evaluate.loss fit.loss fit.resume metrics.confusion_matrix.classes metrics.f1.classes "
        "metrics.iou.classes metrics.matthews_correlation.classes metrics.precision.classes "
        "metrics.recall.classes optimizers.rmsprop.nesterov optimizers.sgd.averaged "
        "optimizers.sgd.nesterov spectral_norm.where training_run.loss weight_norm.where",
    ),
    **_for(
        "0",
        "random_shift.distance functional.random_shift.distance random_crop.padding "
        "functional.random_crop.padding functional.center_crop.padding time_masking.max_width "
        "frequency_masking.max_width functional.random_masking.max_width",
    ),
    **_for("0", "losses.sigmoid_focal_loss.alpha losses.smooth_labels.alpha summary.depth"),
    **_for(
        "1.5",
        "functional.unit_norm.epsilon llama3_scaling.factor yarn_scaling.factor "
        "losses.absolute_percentage_error.epsilon losses.linear_softmax_cross_entropy.soft_cap "
        "attention.soft_cap functional.dot_product_attention.soft_cap lru_cell.max_phase "
        "metrics.psnr.data_range optimizers.dynamic_loss_scale.factor unit_norm.epsilon",
    ),
    **_for(
        AT_LEAST_0,
        "attention.scale sampling.temperature losses.dice_loss.beta losses.dpo_loss.beta "
        "optimizers.sam.rho optimizers.adafactor.decay_rate "
        "optimizers.scale_by_factored_rms.decay_rate",
    ),
    **_for(
        NUMBERS,
        "functional.local_response_norm.beta local_response_norm.beta "
        "losses.poly_loss_cross_entropy.epsilon optimizers.add_noise.gamma "
        "schedules.cosine_decay_schedule.alpha",
    ),
    **_for(STEPS, "schedules.inverse_sqrt_schedule.warmup_steps schedules.step_decay.step_size"),
    **_for(
        "[]",
        "autoregressive.features dense_general.features freeze_params.path "
        "parameter.shape unfreeze_params.path quantize_params.path dequantize_params.path "
        "capture.where",
    ),
    **_for("{}", "attention.use_bias capture.add"),
    **_for(
        "None",
        "pad_to.sizes fit.params functional.combine_masks.masks load.like "
        "optimizers.muon.muon_weight_dimension_numbers optimizers.partition.param_labels "
        "optimizers.scale_by_muon.weight_dimension_numbers sweep.validation",
    ),
    **_for(
        "'abc' [] {}", "optimizers.adafactor.weight_decay_mask optimizers.schedule_free_sgd.mask"
    ),
    **_for("[] empty {}", "optimizers.inject_hyperparams.static_args"),
    **_for(
        EVERYTHING,  # of which there is none to be found, or which is not used
        "cross_validate.hyperparams "
        "optimizers.evaluation_params.opt_state optimizers.loss_scale.opt_state "
        "optimizers.skip_large_updates.gradient_step optimizers.skip_large_updates.params "
        "optimizers.skip_not_finite.gradient_step optimizers.skip_not_finite.params",
    ),
    "fsdp.axis": "'abc'",
    "sharding.batch": "only 'abc'",
    "sharding.params": "{}",
    "losses.cosine_embedding_loss.margin": "-1 0",
    "lora.where": "only None",
    **_for("only", "quantized.where quantization_aware.where quantize_params.where"),
    "optimizers.incremental_update.step_size": "0",
    "optimizers.periodic_update.steps": "0",
    "optimizers.scale_by_backtracking_linesearch.max_backtracking_steps": "0",
    "optimizers.scale_by_backtracking_linesearch.rtol": AT_LEAST_0,
    "optimizers.set_state.value": "",
    "optimizers.skip_large_updates.max_squared_norm": AT_LEAST_0,
    **_for(
        "1.5",
        "optimizers.projection_l1_ball.scale optimizers.projection_l2_ball.scale "
        "optimizers.projection_linf_ball.scale optimizers.projection_simplex.scale",
    ),
    "pad_to.batch": "empty",
    "lru_cell.min_radius": "0",
    "optimizers.skip_not_finite.updates": TREES,
    "optimizers.global_norm.tree": TREES,
    "save.tree": TREES,
    "export_lora.config": "{}",
    "export_lora.prefix": "'abc'",
    "schedules.warmup_cosine_decay_schedule.decay_steps": "10**30",
}

# Refused in the words of another argument, or of a file, which it does not fit.
OF_OTHERS = {
    **_for("0", "recurrent.time_axis bidirectional.time_axis"),
    **_for("0", "functional.linear_recurrence.time_axis"),
    **_for("-1 0 1.5 nan True empty", "export_params.state"),
    **_for("None -1 0 1.5 nan True [] {} empty", "quantize_params.params"),
    **_for("None [] {} empty", "import_params.like"),
    **_for("empty", "import_params.state"),
    **_for("{}", "import_params.path"),
    **_for("constructor", "optimizers.inject_hyperparams.inner_factory training_run.optimizer"),
}


def _members(annotation):
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def legal(call, name):
    """The values that are legal for a parameter: those that work, and those that may.

    Numbers, empty arrays and axes are of the right kind, and go with the other arguments or not.
    """
    parameter = inspect.signature(call.function).parameters[name]
    members = _members(parameter.annotation)
    is_array = complex in members
    given = EXACT.get(f"{call.name}.{name}", BY_PARAMETER.get(name, "") if not is_array else "")
    must, may = set(given.split()), set()
    if "only" not in must and parameter.kind is not parameter.VAR_POSITIONAL:
        must |= {"True"} if bool in members and not is_array else set()
        must |= {"None"} if type(None) in members else set()
    if is_array:
        may = set(ARRAYS.split())
    if Arrays in members:
        may = set(TREES.split())
    if name == "path":
        may = {"'abc'"}
    if name == "axis":
        may = {"-1", "0", "[]"}
    return must - {"only"}, may


def excused(call, name):
    """The values whose errors are taken as they are."""
    return set(OF_OTHERS.get(f"{call.name}.{name}", "").split())
