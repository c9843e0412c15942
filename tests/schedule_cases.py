"""Schedules by name, each with its arguments and with those that are not the defaults."""

DECAY = {"init_value": 0.4, "transition_steps": 7, "decay_rate": 0.5}
WARMUP = {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 10}
WARMUP_DECAY = {**WARMUP, "transition_steps": 7, "decay_rate": 0.5}
CYCLE = {**WARMUP, "decay_steps": 15}
STABLE = {**WARMUP, "stable_steps": 12, "decay_steps": 15}
NO_WARMUP = {"warmup_steps": 0}

ROWS = [
    ("constant_schedule", {"value": 0.3}),
    ("linear_schedule", {"init_value": 0.3, "end_value": 0.1, "transition_steps": 20}),
    (
        "linear_schedule",
        {"init_value": 0.1, "end_value": 0.7, "transition_steps": 1, "transition_begin": 12},
    ),
    (
        "polynomial_schedule",
        {"init_value": 0.3, "end_value": 0.1, "power": 2.0, "transition_steps": 20},
    ),
    (
        "polynomial_schedule",
        {
            "init_value": 0.1,
            "end_value": 0.3,
            "power": 0.5,
            "transition_steps": 20,
            "transition_begin": 5,
        },
    ),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 20}),
    (
        "cosine_decay_schedule",
        {"init_value": 0.3, "decay_steps": 20, "alpha": 0.2, "exponent": 1.7},
    ),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 1}),
    ("exponential_decay", DECAY),
    ("exponential_decay", {**DECAY, "transition_begin": 5, "staircase": True}),
    ("exponential_decay", {**DECAY, "transition_begin": 5, "end_value": 0.1}),
    ("exponential_decay", {**DECAY, "decay_rate": 1.5, "end_value": 1.0}),
    ("step_decay", {"init_value": 0.4, "step_size": 7}),
    ("step_decay", {"init_value": 0.4, "step_size": 1, "decay_rate": 0.9}),
    ("piecewise_constant_schedule", {"init_value": 0.3}),
    (
        "piecewise_constant_schedule",
        {"init_value": 0.3, "boundaries_and_scales": {20: 0.5, 10: 3.0, 30: 0.0}},
    ),
    ("piecewise_interpolate_schedule", {"interpolate_type": "linear", "init_value": 0.3}),
    (
        "piecewise_interpolate_schedule",
        {
            "interpolate_type": "linear",
            "init_value": 0.3,
            "boundaries_and_scales": {20: 0.5, 10: 3.0, 30: 0.0},
        },
    ),
    (
        "piecewise_interpolate_schedule",
        {
            "interpolate_type": "cosine",
            "init_value": 0.3,
            "boundaries_and_scales": {0: 2.0, 15: 0.2, 30: 2.0},
        },
    ),
    ("linear_onecycle_schedule", {"transition_steps": 30, "peak_value": 0.7}),
    (
        "linear_onecycle_schedule",
        {
            "transition_steps": 33,
            "peak_value": 0.7,
            "pct_start": 0.41,
            "pct_final": 0.77,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
    ),
    ("cosine_onecycle_schedule", {"transition_steps": 30, "peak_value": 0.7}),
    (
        "cosine_onecycle_schedule",
        {
            "transition_steps": 33,
            "peak_value": 0.7,
            "pct_start": 0.41,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
    ),
    ("warmup_constant_schedule", WARMUP),
    ("warmup_cosine_decay_schedule", {**WARMUP, "decay_steps": 30}),
    (
        "warmup_cosine_decay_schedule",
        {**WARMUP, "init_value": 0.6, "decay_steps": 30, "end_value": 0.05, "exponent": 2.0},
    ),
    ("warmup_cosine_decay_schedule", {**WARMUP, **NO_WARMUP, "decay_steps": 30}),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 1, "decay_steps": 2},
    ),
    ("warmup_exponential_decay_schedule", WARMUP_DECAY),
    (
        "warmup_exponential_decay_schedule",
        {**WARMUP_DECAY, "transition_begin": 4, "staircase": True, "end_value": 0.1},
    ),
    ("warmup_exponential_decay_schedule", {**WARMUP_DECAY, **NO_WARMUP}),
    ("inverse_sqrt_schedule", WARMUP),
    ("warmup_stable_decay_schedule", STABLE),
    ("warmup_stable_decay_schedule", {**STABLE, **NO_WARMUP, "shape": "cosine"}),
    ("warmup_stable_decay_schedule", {**STABLE, "end_value": 0.1, "shape": "sqrt"}),
    ("sgdr_schedule", {"cosine_kwargs": [CYCLE]}),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                CYCLE,
                {**CYCLE, "peak_value": 0.3, "end_value": 0.05},
                {**CYCLE, **NO_WARMUP, "exponent": 2.0},
            ]
        },
    ),
]
# Arguments that are not numbers.
STATIC = ("staircase", "interpolate_type", "shape")
