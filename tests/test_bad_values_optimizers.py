"""Every parameter of every optimizer, transformation and schedule, with values that are none."""

import contextlib
import inspect
import itertools
import typing

import jax
import pytest

import jaxnn as nn

O, S = nn.optimizers, nn.schedules  # noqa: E741

# What each parameter without a default gets while another one is tried.
NEEDED = {
    "learning_rate": 0.1,
    "weight_decay": 0.1,
    "decay": 0.9,
    "momentum": 0.9,
    "step_size": 2,
    "step_size_fn": S.constant_schedule(0.1),
    "max_delta": 1.0,
    "max_norm": 1.0,
    "clipping": 0.1,
    "threshold": 1.0,
    "eta": 0.1,
    "gamma": 0.5,
    "key": jax.random.key(0),
    "inner": O.sgd(0.1),
    "optimizer": O.sgd(0.1),
    "fast_optimizer": O.sgd(0.1),
    "base_optimizer": O.sgd(0.1),
    "inner_factory": O.sgd,
    "transforms": {"*": O.sgd(0.1)},
    "mask": "*",
    "every": 2,
    "sync_period": 2,
    "slow_step_size": 0.5,
    "max_backtracking_steps": 5,
    "projection": O.projection_simplex,
    "max_consecutive_errors": 2,
    "max_linesearch_steps": 5,
    "base_params": {},
    "value": 0.1,
    "init_value": 0.1,
    "end_value": 0.01,
    "peak_value": 0.5,
    "power": 2.0,
    "transition_steps": 10,
    "decay_steps": 10,
    "stable_steps": 5,
    "warmup_steps": 5,
    "decay_rate": 0.5,
    "interpolate_type": "linear",
    "schedules": [S.constant_schedule(0.1)],
    "boundaries": [],
    "cosine_kwargs": [{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}],
}
BAD = {
    "None": None,
    "text": "abc",
    "-1": -1,
    "nan": float("nan"),
    "inf": float("inf"),
    "True": True,
    "[]": [],
    "{}": {},
    "object": object(),
}
# Not made by a call, or of trees of arrays alone.
OTHER = {
    "MuonDimensionNumbers",
    "Optimizer",
    "apply_updates",
    "evaluation_params",
    "get_state",
    "global_norm",
    "incremental_update",
    "loss_scale",
    "map_params",
    "mup_initial_params",
    "periodic_update",
    *(name for name in O.__all__ if name.startswith("projection_")),
    "schedule_free_eval_params",
    "set_state",
    "skip_large_updates",
    "skip_not_finite",
    "unitwise_norm",
    "value_and_grad_from_state",
}
MAKERS = {
    name: getattr(module, name)
    for module in (O, S)
    for name in module.__all__
    if name not in OTHER and inspect.isfunction(getattr(module, name))
}


MASK = {"text", "[]", "{}", "True"}
ANY_SIGN = {"-1"}
# Besides None and True where the annotation says so.
LEGAL = {
    "base_params": {"-1", "nan", "inf", "True", "[]", "{}", "None"},
    "mask": MASK,
    "weight_decay_mask": MASK,
    "trust_ratio_mask": MASK,
    "axis": {"-1", "[]"},
    "batch_axis_name": {"text"},
    "static_args": {"[]", "{}"},
    "param_labels": {"[]", "{}", "None"},
    "weight_dimension_numbers": {"[]", "{}", "None"},
    "muon_weight_dimension_numbers": {"[]", "{}", "None"},
    "boundaries": {"[]"},
    "boundaries_and_scales": {"{}"},
    "max_delta": {"inf"},
    "max_norm": {"inf"},
    "curv_rtol": {"inf"},
    ("scale_by_backtracking_linesearch", "increase_factor"): {"inf"},
    "decay_offset": ANY_SIGN,
    "step_offset": ANY_SIGN,
    "scale_factor": ANY_SIGN,
    "weight_lr_power": ANY_SIGN,
    "value": ANY_SIGN,
    "init_value": ANY_SIGN,
    "peak_value": ANY_SIGN,
    "end_value": ANY_SIGN,
    ("cosine_decay_schedule", "alpha"): ANY_SIGN,
    ("add_noise", "gamma"): ANY_SIGN,
    ("scale", "step_size"): ANY_SIGN,
}


def legal(function, parameter):
    """The names of those values that are legal."""
    accepted = LEGAL.get((function, parameter.name), LEGAL.get(parameter.name, set()))
    members = [parameter.annotation, *typing.get_args(parameter.annotation)]
    none, flag = type(None) in members, bool in members and parameter.name != "ns_coeffs"
    return accepted | ({"None"} if none else set()) | ({"True"} if flag else set())


def needed(make):
    """What `make` is called with, so that each flag may be True."""
    parameters = inspect.signature(make).parameters.values()
    given = [p for p in parameters if p.default is p.empty or p.name == "momentum"]
    return {p.name: NEEDED[p.name] for p in given if p.kind is not p.VAR_POSITIONAL}


@pytest.mark.parametrize("name", MAKERS)
def test_bad_values_are_refused_by_the_name_of_their_parameter(name):
    make = MAKERS[name]
    parameters = inspect.signature(make).parameters.values()
    for parameter, bad in itertools.product(parameters, BAD):
        value, is_legal = BAD[bad], bad in legal(name, parameter)
        with contextlib.nullcontext() if is_legal else refused(parameter.name):
            if parameter.kind is parameter.VAR_POSITIONAL:
                make(value)
            else:
                make(**{**needed(make), parameter.name: value})


def refused(parameter):
    return pytest.raises((TypeError, ValueError), match=parameter)


def test_most_calls_are_refused():
    """The table would say nothing if everything were legal."""
    counts = [
        len(BAD) - len(legal(name, parameter))
        for name, make in MAKERS.items()
        for parameter in inspect.signature(make).parameters.values()
    ]
    assert sum(counts) > 0.9 * len(BAD) * len(counts)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("accumulate", "every"),
        ("lookahead", "sync_period"),
        ("sam", "sync_period"),
        ("sophia", "update_interval"),
        ("sophia", "print_win_rate_every_n_steps"),
        ("reduce_on_plateau", "patience"),
        ("reduce_on_plateau", "cooldown"),
        ("reduce_on_plateau", "accumulation_size"),
        ("apply_if_finite", "max_consecutive_errors"),
        ("scale_by_zoom_linesearch", "max_linesearch_steps"),
        ("lbfgs", "memory_size"),
        ("muon", "ns_steps"),
        ("adafactor", "min_dim_size_to_factor"),
        ("schedule_free_sgd", "warmup_steps"),
    ],
)
def test_numbers_of_steps_are_whole(name, parameter):
    with pytest.raises((TypeError, ValueError), match=f"{parameter} is 1.5, expected an int"):
        MAKERS[name](**{**needed(MAKERS[name]), parameter: 1.5})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_schedules_that_begin_with_no_rate_are_refused(value):
    """At once, where their value is known without tracing."""
    for make in (O.sgd, O.adam, O.prodigy, O.lbfgs, O.schedule_free_sgd, O.add_decayed_weights):
        with pytest.raises((TypeError, ValueError), match=r"(learning_rate|weight_decay)\(0\) is "):
            make(lambda count: value)


def test_traced_rates_and_schedules_pass():
    def step(rate):
        optimizer = O.chain(O.sgd(rate), O.sgd(lambda count: rate), O.accumulate(O.sgd(rate), 1))
        return optimizer.update(1.0, optimizer.init(1.0))[0]

    assert jax.jit(step)(-2.0) == 8


def test_the_smallest_step_of_rprop_is_at_most_the_largest():
    with pytest.raises(ValueError, match=r"min_step_size is 2\.0, expected at most"):
        O.rprop(0.1, min_step_size=2.0, max_step_size=1.0)
