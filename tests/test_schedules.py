"""Schedules against the NumPy reference and optax, for every kind of count and argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import schedules as reference
from tests.optimizer_cases import usual_promotion

ROWS = [
    ("constant_schedule", {"value": 0.3}),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 20}),
    (
        "cosine_decay_schedule",
        {"init_value": 0.3, "decay_steps": 20, "alpha": 0.2, "exponent": 1.7},
    ),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 1}),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 10, "decay_steps": 30},
    ),
    (
        "warmup_cosine_decay_schedule",
        {
            "init_value": 0.6,
            "peak_value": 0.5,
            "warmup_steps": 10,
            "decay_steps": 30,
            "end_value": 0.05,
            "exponent": 2.0,
        },
    ),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 30},
    ),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 1, "decay_steps": 2},
    ),
    ("exponential_decay", {"init_value": 0.4, "transition_steps": 7, "decay_rate": 0.5}),
    (
        "exponential_decay",
        {
            "init_value": 0.4,
            "transition_steps": 7,
            "decay_rate": 0.5,
            "transition_begin": 5,
            "staircase": True,
        },
    ),
    (
        "exponential_decay",
        {
            "init_value": 0.4,
            "transition_steps": 7,
            "decay_rate": 0.5,
            "transition_begin": 5,
            "end_value": 0.1,
        },
    ),
    (
        "exponential_decay",
        {"init_value": 0.4, "transition_steps": 7, "decay_rate": 1.5, "end_value": 1.0},
    ),
]
COUNTS = [*range(45), 1000, 10**6, 2**31 - 1]
FLAGS = ("staircase",)

every_row = pytest.mark.parametrize(("name", "arguments"), ROWS)
every_computed_row = pytest.mark.parametrize(("name", "arguments"), ROWS[1:])


def counts_for(arguments):
    """The growing one overflows at large counts in the references."""
    return COUNTS[:45] if arguments.get("decay_rate", 0) > 1 else COUNTS


def ours(name, arguments):
    return getattr(nn.schedules, name)(**arguments)


def expected(name, arguments, counts):
    schedule = getattr(reference, name)(**arguments)
    return np.array([schedule(count) for count in counts])


def assert_values(values, name, arguments, counts):
    """To rounding in the default float."""
    exact = jax.config.jax_enable_x64
    rtol, atol = (1e-12, 1e-15) if exact else (1e-5, 1e-6)
    np.testing.assert_allclose(values, expected(name, arguments, counts), rtol=rtol, atol=atol)
    assert jnp.result_type(values[-1]) == jnp.result_type(float)


@every_row
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_numpy(name, arguments, x64):
    counts = counts_for(arguments)
    with jax.enable_x64(x64):
        assert_values([ours(name, arguments)(count) for count in counts], name, arguments, counts)


@every_row
def test_optax(name, arguments, x64):
    optax = pytest.importorskip("optax")
    schedule = ours(name, arguments)
    with usual_promotion():
        theirs = getattr(optax, name)(**arguments)
        for count in counts_for(arguments):
            np.testing.assert_allclose(schedule(count), theirs(count), rtol=1e-12, atol=1e-15)


KINDS = {
    "float": float,
    "numpy-int": np.int64,
    "numpy-float32": np.float32,
    "int32": lambda count: jnp.asarray(count, jnp.int32),
    "uint8": lambda count: jnp.asarray(count, jnp.uint8),
    "float32": lambda count: jnp.asarray(count, jnp.float32),
    "bfloat16": lambda count: jnp.asarray(count, jnp.bfloat16),
}


@every_row
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_kinds_of_counts(name, arguments, kind):
    counts = [0, 3, 12, 25, 40]
    values = [ours(name, arguments)(kind(count)) for count in counts]
    assert_values(values, name, arguments, counts)


@every_computed_row
def test_arrays_of_counts_traced_or_not(name, arguments):
    counts = jnp.array([[0, 3, 12], [25, 31, 40]])
    schedule = ours(name, arguments)
    for f in (schedule, jax.jit(schedule), jax.vmap(schedule), jax.jit(jax.vmap(schedule))):
        values = f(counts)
        assert values.shape == counts.shape
        assert_values(values.reshape(-1), name, arguments, counts.reshape(-1).tolist())


def traceable(arguments):
    return {name: value for name, value in arguments.items() if name not in FLAGS}


@every_row
@pytest.mark.parametrize("steps_dtype", [jnp.int32, jnp.float32])
def test_traced_arguments(name, arguments, steps_dtype):
    flags = {flag: arguments[flag] for flag in FLAGS if flag in arguments}
    traced = {
        argument: jnp.asarray(value, steps_dtype if isinstance(value, int) else jnp.float32)
        for argument, value in traceable(arguments).items()
    }

    @jax.jit
    def at(given, count):
        return ours(name, {**given, **flags})(count)

    counts = [0, 3, 12, 25, 40]
    values = [at(traced, jnp.int32(count)) for count in counts]
    assert_values(values, name, arguments, counts)


@every_row
def test_arguments_that_are_arrays_made_outside_jit(name, arguments):
    arrays = {
        argument: value if argument in FLAGS else jnp.asarray(value)
        for argument, value in arguments.items()
    }
    value = jax.jit(lambda count: ours(name, arrays)(count))(jnp.int32(3))
    assert_values([value], name, arguments, [3])


@every_computed_row
def test_derivatives_in_the_arguments_are_finite(name, arguments):
    numbers = {n: v for n, v in traceable(arguments).items() if isinstance(v, float)}

    @jax.jit
    @jax.grad
    def slopes(given, count):
        return ours(name, {**arguments, **given})(count)

    for count in (0, 5, 10, 40):
        for argument, slope in slopes(numbers, jnp.int32(count)).items():
            assert np.isfinite(slope), (argument, count)


def test_a_warm_up_of_no_steps_begins_at_the_peak():
    schedule = nn.schedules.warmup_cosine_decay_schedule(0.1, 0.5, 0, 10)
    np.testing.assert_allclose([schedule(0), schedule(10)], [0.5, 0.0], atol=1e-7)


def test_a_peak_of_zero_keeps_the_end_value():
    schedule = nn.schedules.warmup_cosine_decay_schedule(0.0, 0.0, 5, 10, end_value=0.3)
    np.testing.assert_allclose([schedule(5), schedule(10)], [0.0, 0.3], atol=1e-7)


BAD = [
    ("cosine_decay_schedule", (0.1, 0), ["decay_steps is 0", "positive"]),
    ("cosine_decay_schedule", (0.1, -5), ["decay_steps is -5", "positive"]),
    ("warmup_cosine_decay_schedule", (0.0, 0.1, -1, 10), ["warmup_steps is -1", ">= 0"]),
    ("warmup_cosine_decay_schedule", (0.0, 0.1, 10, 10), ["decay_steps", "warmup_steps"]),
    ("exponential_decay", (0.1, 0, 0.5), ["transition_steps is 0", "positive"]),
    ("exponential_decay", (0.1, 10, 0.0), ["decay_rate is 0", "more than 0"]),
    ("exponential_decay", (0.1, 10, -0.5), ["decay_rate is -0.5", "more than 0"]),
]


@pytest.mark.parametrize(("name", "args", "fragments"), BAD)
def test_bad_input(name, args, fragments):
    with pytest.raises(ValueError, match=name) as error:
        getattr(nn.schedules, name)(*args)
    assert all(fragment in str(error.value) for fragment in fragments)


def test_the_table_has_every_schedule():
    assert {name for name, _ in ROWS} == set(nn.schedules.__all__)
