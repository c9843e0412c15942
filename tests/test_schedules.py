"""Schedules against the NumPy reference and optax, for every kind of count and argument."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import schedules as reference
from tests.optimizer_cases import usual_promotion
from tests.parameters import each_value_once, quick_first
from tests.schedule_cases import ROWS, STATIC

COUNTS = [*range(50), 1000, 10**6, 2**24 + 1, 2**31 - 1]
FEW_COUNTS = [0, 3, 12, 25, 40]
OURS_ALONE = {"inverse_sqrt_schedule", "step_decay", "warmup_stable_decay_schedule"}

every_row = pytest.mark.parametrize(("name", "arguments"), ROWS)
every_computed_row = pytest.mark.parametrize(("name", "arguments"), ROWS[1:])


@pytest.fixture(scope="module")
def optax():
    """The optax package."""
    return pytest.importorskip("optax")


def counts_for(arguments):
    """The growing one overflows at large counts in the references."""
    return COUNTS[:50] if arguments.get("decay_rate", 0) > 1 else COUNTS


def ours(name, arguments):
    return getattr(nn.schedules, name)(**arguments)


def at_all(schedule, counts):
    """The values of a schedule at many counts, in one program."""
    return fast_jit(jax.vmap(lambda count: jnp.asarray(schedule(count))))(jnp.array(counts))


def expected(name, arguments, counts):
    schedule = getattr(reference, name)(**arguments)
    return np.array([schedule(count) for count in counts])


def assert_values(values, name, arguments, counts):
    """To rounding in the default float."""
    exact = jax.config.jax_enable_x64
    rtol, atol = (1e-12, 1e-15) if exact else (1e-5, 1e-6)
    np.testing.assert_allclose(values, expected(name, arguments, counts), rtol=rtol, atol=atol)
    assert jnp.result_type(values[-1]) == jnp.result_type(float)


@each_value_once
@every_row
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_numpy(name, arguments, x64):
    counts = counts_for(arguments)
    with jax.enable_x64(x64):
        assert_values(at_all(ours(name, arguments), counts), name, arguments, counts)


def test_the_table_has_every_schedule():
    assert {name for name, _ in ROWS} == {*nn.schedules.__all__} - {"join_schedules"}


# optax


@pytest.mark.slow  # the references of NumPy are those of optax
@pytest.mark.parametrize(("name", "arguments"), [row for row in ROWS if row[0] not in OURS_ALONE])
def test_optax(optax, name, arguments, x64):
    counts = counts_for(arguments)
    schedule = getattr(optax.schedules, name)(**arguments)
    with usual_promotion():  # op by op: when fused, a root in optax may be that of less than 0
        theirs = jax.vmap(lambda count: jnp.asarray(schedule(count)))(jnp.array(counts))
    np.testing.assert_allclose(
        at_all(ours(name, arguments), counts), theirs, rtol=1e-12, atol=1e-15
    )


def test_the_parameters_are_those_of_optax(optax):
    shared = set(nn.schedules.__all__) & set(vars(optax.schedules))
    assert set(nn.schedules.__all__) - shared == OURS_ALONE
    for name in shared:
        signatures = [
            [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(nn.schedules, name), getattr(optax.schedules, name))
        ]
        assert signatures[0] == signatures[1], name


def test_a_warm_up_of_no_steps_begins_at_the_peak(optax):
    for schedule in (
        nn.schedules.warmup_cosine_decay_schedule(0.1, 0.5, 0, 10),
        nn.schedules.warmup_constant_schedule(0.1, 0.5, 0),
    ):
        np.testing.assert_allclose(schedule(0), 0.5, rtol=1e-6)
    assert optax.schedules.warmup_constant_schedule(0.1, 0.5, 0)(5) == 0.1


# torch


def test_step_decay_is_that_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.3)
    rates = []
    for _ in range(30):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    values = at_all(nn.schedules.step_decay(0.4, 7, 0.3), range(30))
    np.testing.assert_allclose(values, rates, rtol=1e-6)


def test_noam():
    """The formula of the paper, at updates counted from 1."""
    width, warmup = 64, 20
    schedule = nn.schedules.inverse_sqrt_schedule(0.0, (width * warmup) ** -0.5, warmup)
    updates = np.arange(1.0, 100.0)
    paper = width**-0.5 * np.minimum(updates**-0.5, updates * warmup**-1.5)
    np.testing.assert_allclose(at_all(schedule, updates), paper, rtol=1e-6)


# Joining


def test_joined_schedules_against_numpy_and_optax(optax, x64):
    def parts(module):
        return [
            module.linear_schedule(0.1, 0.5, 10),
            module.constant_schedule(0.5),
            module.cosine_decay_schedule(0.5, 15),
        ]

    joined = nn.schedules.join_schedules(parts(nn.schedules), [10, 20])
    values = at_all(joined, COUNTS)
    by_hand = reference.join_schedules(parts(reference), [10, 20])
    np.testing.assert_allclose(values, [by_hand(c) for c in COUNTS], rtol=1e-12, atol=1e-15)
    theirs = optax.schedules.join_schedules(parts(optax.schedules), [10, 20])
    with usual_promotion():
        np.testing.assert_allclose(values, at_all(theirs, COUNTS), rtol=1e-12, atol=1e-15)


def test_joined_boundaries_may_be_traced():
    def at(boundary, count):
        line = nn.schedules.linear_schedule(1.0, 0.0, 10)
        return nn.schedules.join_schedules([lambda count: 2.0, line], [boundary])(count)

    values = fast_jit(jax.vmap(at, (0, None)))(jnp.array([5, 10, 20]), jnp.int32(15))
    np.testing.assert_allclose(values, [0.0, 0.5, 2.0])


def test_a_schedule_is_not_asked_about_counts_before_it_begins():
    """A square root of a negative count would be NaN, and its gradient too, though not chosen."""
    joined = nn.schedules.join_schedules(
        [nn.schedules.constant_schedule(1.0), lambda count: jnp.sqrt(jnp.asarray(count, float))],
        [10],
    )
    slope = jax.grad(lambda scale: scale * joined(3))(2.0)
    assert slope == 1


# Counts

KINDS = {
    "int": int,
    "float": float,
    "numpy-int": np.int64,
    "numpy-float32": np.float32,
    "uint8": lambda count: jnp.asarray(count, jnp.uint8),
    "float32": lambda count: jnp.asarray(count, jnp.float32),
    "bfloat16": lambda count: jnp.asarray(count, jnp.bfloat16),
}


@quick_first(12)
@every_row
def test_kinds_of_counts(name, arguments):
    schedule = ours(name, arguments)
    for kind in KINDS.values():
        assert_values([schedule(kind(25))], name, arguments, [25])


@quick_first(12)
@every_computed_row
def test_arrays_of_counts(name, arguments):
    counts = jnp.array([[0, 3, 12], [25, 31, 40]])
    values = ours(name, arguments)(counts)
    assert values.shape == counts.shape
    assert_values(values.reshape(-1), name, arguments, counts.reshape(-1).tolist())


LARGE = 2**30 + 1  # no float32


def test_large_counts_are_exact():
    """One step more is one step more where float32 has only every 128th integer."""
    assert np.float32(LARGE) == LARGE - 1
    line = nn.schedules.linear_schedule(0.0, 4.0, 4, transition_begin=LARGE)
    stair = nn.schedules.piecewise_constant_schedule(0.0 + 1, {LARGE: 2.0})
    joined = nn.schedules.join_schedules([lambda count: -1.0, line], [LARGE - 1])
    around = jnp.arange(LARGE - 2, LARGE + 4)
    np.testing.assert_array_equal(line(around), [0, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(stair(around), [1, 1, 2, 2, 2, 2])
    shifted = nn.schedules.linear_schedule(0.0, 4.0, 4)
    joined = nn.schedules.join_schedules([lambda count: -1.0, shifted], [LARGE])
    np.testing.assert_array_equal(joined(around), [-1, -1, 0, 1, 2, 3])


BILLION = 10**9
STEPS = ("steps", "step_size", "transition_begin")


def prolonged(arguments):
    """The same with a billion steps for each."""
    longer = {
        name: value * BILLION if name.endswith(STEPS) else value
        for name, value in arguments.items()
    }
    if scales := arguments.get("boundaries_and_scales"):
        longer["boundaries_and_scales"] = {BILLION * at: scale for at, scale in scales.items()}
    if cycles := arguments.get("cosine_kwargs"):
        longer["cosine_kwargs"] = [prolonged(cycle) for cycle in cycles]
    return longer


@quick_first(12)
@every_row
def test_more_steps_than_32_bits_hold(name, arguments):
    arguments = prolonged(arguments)
    schedule = ours(name, arguments)
    counts = [count * BILLION for count in FEW_COUNTS]
    assert_values([schedule(count) for count in counts], name, arguments, counts)
    counts = [0, BILLION, 2**31 - 1]
    assert_values([schedule(jnp.int32(count)) for count in counts], name, arguments, counts)
    counts = [3 * BILLION, 2**32 - 1]
    assert_values([schedule(jnp.uint32(count)) for count in counts], name, arguments, counts)


def test_large_counts_of_the_host_are_exact():
    line = nn.schedules.linear_schedule(0.0, 4.0, 4, transition_begin=10**15)
    assert [float(line(10**15 + t)) for t in (-1, 1, 3, 10**6)] == [0, 1, 3, 4]
    assert float(line(jnp.int32(2**31 - 1))) == 0
    unsigned = nn.schedules.linear_schedule(0.0, 4.0, 4, transition_begin=2**31 + 1)
    assert [float(unsigned(jnp.uint32(2**31 + 1 + t))) for t in (-2, 0, 1, 5)] == [0, 0, 1, 4]
    assert unsigned(jnp.int32(2**31 - 1)) == 0
    joined = nn.schedules.join_schedules([lambda count: -1.0, lambda count: -count], [10])
    assert [float(joined(count)) for count in (9, jnp.int32(12), 13)] == [-1, -2, -3]


@pytest.mark.parametrize("period", [3, 7, 49])
def test_stairs_are_exact_at_each_step(period):
    schedule = nn.schedules.exponential_decay(1.0, period, 0.5, staircase=True)
    counts = np.arange(100 * period)
    np.testing.assert_array_equal(at_all(schedule, counts), 0.5 ** (counts // period))


# Arguments


def numbers_of(arguments):
    return {name: value for name, value in arguments.items() if name not in STATIC}


@quick_first(12)
@every_row
def test_traced_arguments(name, arguments):
    static = {name: value for name, value in arguments.items() if name in STATIC}
    traced = jax.tree.map(jnp.asarray, numbers_of(arguments))

    @fast_jit
    def at(given, counts):
        return jax.vmap(lambda count: jnp.asarray(ours(name, {**given, **static})(count)))(counts)

    assert_values(at(traced, jnp.array(FEW_COUNTS)), name, arguments, FEW_COUNTS)


@pytest.mark.parametrize("name", ["exponential_decay", "sgdr_schedule"])
def test_numbers_of_steps_may_be_floats(name):
    arguments = dict(ROWS)[name]
    floats = jax.tree.map(float, arguments)
    values = [ours(name, floats)(count) for count in FEW_COUNTS]
    assert_values(values, name, arguments, FEW_COUNTS)


def test_arguments_that_are_arrays_made_outside_jit():
    rate, steps = jnp.float32(0.4), jnp.int32(7)
    value = jax.jit(lambda count: nn.schedules.step_decay(rate, steps, 0.5)(count))(8)
    np.testing.assert_allclose(value, 0.2)


@pytest.mark.slow
@every_computed_row
def test_derivatives_in_the_arguments_are_finite(name, arguments):
    def is_float(value):
        return isinstance(value, float)

    leaves, tree = jax.tree.flatten(numbers_of(arguments))
    static = {name: value for name, value in arguments.items() if name in STATIC}

    @fast_jit
    @jax.jacrev
    def slopes(floats):
        given = iter(floats)
        filled = tree.unflatten([next(given) if is_float(leaf) else leaf for leaf in leaves])
        schedule = ours(name, {**filled, **static})
        return jnp.stack([schedule(count) for count in (0, 5, 10, 40)])

    for slope in slopes([leaf for leaf in leaves if is_float(leaf)]):
        assert np.isfinite(slope).all()


def test_a_sweep_over_schedules():
    def last(peak, warmup):
        return nn.schedules.warmup_cosine_decay_schedule(0.0, peak, warmup, 20)(15)

    values = fast_jit(jax.vmap(last))(jnp.array([1.0, 2.0, 3.0]), jnp.array([0, 10, 19]))
    half = [(1 + math.cos(math.pi * part)) / 2 for part in (15 / 20, 5 / 10)]
    np.testing.assert_allclose(values, [half[0], 2 * half[1], 3 * 15 / 19], rtol=1e-6)


def test_a_peak_of_zero_keeps_the_end_value():
    schedule = nn.schedules.warmup_cosine_decay_schedule(0.0, 0.0, 5, 10, end_value=0.3)
    np.testing.assert_allclose([schedule(5), schedule(10)], [0.0, 0.3], atol=1e-7)


BAD = [
    ("linear_schedule", (0.1, 0.2, 0), ["transition_steps is 0", "positive"]),
    ("linear_schedule", (0.1, 0.2, 5, -1), ["transition_begin is -1", ">= 0"]),
    ("polynomial_schedule", (0.1, 0.2, 2, 0), ["transition_steps is 0", "positive"]),
    ("polynomial_schedule", (0.1, 0.2, 2, 5, -1), ["transition_begin is -1", ">= 0"]),
    ("cosine_decay_schedule", (0.1, 0), ["decay_steps is 0", "positive"]),
    ("cosine_decay_schedule", (0.1, -5), ["decay_steps is -5", "positive"]),
    ("exponential_decay", (0.1, 0, 0.5), ["transition_steps is 0", "positive"]),
    ("exponential_decay", (0.1, 10, 0.0), ["decay_rate is 0", "more than 0"]),
    ("exponential_decay", (0.1, 10, -0.5), ["decay_rate is -0.5", "more than 0"]),
    ("exponential_decay", (0.1, 10, 0.5, -1), ["transition_begin is -1", ">= 0"]),
    ("step_decay", (0.1, 0), ["step_size is 0", "positive"]),
    ("step_decay", (0.1, 5, 0.0), ["decay_rate is 0", "more than 0"]),
    ("piecewise_constant_schedule", (0.1, {5: -1.0}), ["boundaries_and_scales[5] is -1.0"]),
    ("piecewise_interpolate_schedule", ("cubic", 0.1), ["'cubic'", "'linear' or 'cosine'"]),
    ("piecewise_interpolate_schedule", ("linear", 0.1, {5: -1.0}), ["scales[5] is -1.0"]),
    ("linear_onecycle_schedule", (0, 0.1), ["transition_steps is 0", "positive"]),
    ("cosine_onecycle_schedule", (0, 0.1), ["transition_steps is 0", "positive"]),
    ("warmup_constant_schedule", (0.0, 0.1, -1), ["warmup_steps is -1", ">= 0"]),
    ("warmup_cosine_decay_schedule", (0.0, 0.1, -1, 10), ["warmup_steps is -1", ">= 0"]),
    ("warmup_cosine_decay_schedule", (0.0, 0.1, 10, 10), ["decay_steps", "warmup_steps"]),
    ("warmup_exponential_decay_schedule", (0.0, 0.1, -1, 5, 0.5), ["warmup_steps is -1"]),
    ("inverse_sqrt_schedule", (0.0, 0.1, 0), ["warmup_steps is 0", "positive"]),
    ("warmup_stable_decay_schedule", (0.0, 0.1, 1, -1, 1), ["stable_steps is -1", ">= 0"]),
    ("warmup_stable_decay_schedule", (0.0, 0.1, 1, 1, 0), ["decay_steps is 0", "positive"]),
    ("warmup_stable_decay_schedule", (0.0, 0.1, 1, 1, 1, 0.0, "square"), ["'square'", "'sqrt'"]),
    ("join_schedules", ([len], [5]), ["1 schedules and 1 boundaries"]),
    ("sgdr_schedule", ([],), ["cosine_kwargs is empty"]),
]


@pytest.mark.parametrize(("name", "args", "fragments"), BAD)
def test_bad_input(name, args, fragments):
    with pytest.raises(ValueError, match=name) as error:
        getattr(nn.schedules, name)(*args)
    assert all(fragment in str(error.value) for fragment in fragments)
