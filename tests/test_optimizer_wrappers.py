"""Transformations and wrappers of optimizers: their paths, and what holds for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.paths import leaf_paths
from tests import optimizer_wrapper_cases as cases
from tests.compiling import fast_jit
from tests.numpy_reference import optimizer_wrappers as reference
from tests.optimizer_wrapper_cases import (
    CASES,
    assert_trees_close,
    initial_weights,
    random_tree,
    signature,
)
from tests.parameters import each_value_once

O = nn.optimizers  # noqa: E741
DTYPES = [
    pytest.param("float16", marks=pytest.mark.slow),
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    pytest.param("complex128", marks=pytest.mark.slow),
]
NEEDS_ORDER = {"keep_params_nonnegative", "project_params"}  # of the params


def ids_and_marks(rows):
    return [
        pytest.param(row, id=row.name, marks=pytest.mark.slow if row.slow else ()) for row in rows
    ]


every_case = pytest.mark.parametrize("case", ids_and_marks(CASES))


# Paths


@pytest.fixture(scope="module", params=ids_and_marks(CASES))
def case(request):
    """A row of the table; the tests of one row run together."""
    return request.param


@pytest.fixture(scope="module")
def ours(case):
    with jax.enable_x64(True):
        return cases.trajectory_in_jax(cases.ours_of(case), case.passes_extra)


@pytest.fixture(scope="module")
def in_numpy(case):
    return cases.trajectory_in_numpy(cases.numpy_of(case))


def assert_same_path(ours, theirs, tolerance):
    for name in initial_weights():
        assert ours[name].dtype == np.float64
        np.testing.assert_allclose(ours[name], theirs[name], rtol=tolerance, atol=tolerance)
    assert np.abs(ours["kernel"][:, -1] - initial_weights()["kernel"]).max() > 0.1


def test_numpy(ours, in_numpy):
    assert_same_path(ours[0], in_numpy[0], 1e-10)


def averages_in(state):
    """The average that the state of a reference has, or of each part of a partition."""
    if not isinstance(state, dict):
        return {}
    average = state.get("average", state.get("slow"))
    if average is not None:
        return average
    return {p: w for part in state.values() for p, w in averages_in(part).items()}


def test_averages_are_those_of_numpy(case, ours, in_numpy):
    path, state = ours
    last = {name: leaf[:, -1] for name, leaf in path.items()}
    with jax.enable_x64(True):
        params = jax.vmap(O.evaluation_params)(state, jax.tree.map(jnp.asarray, last))
    for i, reference_state in enumerate(in_numpy[1]):
        averages = averages_in(reference_state)
        for name, leaf in params.items():
            if name in averages:
                np.testing.assert_allclose(leaf[i], averages[name], rtol=1e-10, atol=1e-10)
            else:
                np.testing.assert_array_equal(leaf[i], last[name][i])


NOT_AS_IN_OPTAX = {
    "reduce_on_plateau": "where losses are negative, its margin makes every value better (#1767)"
}


@pytest.mark.slow  # the references of NumPy are those of optax
@pytest.mark.parametrize(
    "case",
    ids_and_marks([c for c in CASES if c.optax is not None]),
    indirect=True,
    scope="module",
)
def test_optax(case, ours):
    optax = pytest.importorskip("optax")
    if case.name in NOT_AS_IN_OPTAX:
        pytest.skip(NOT_AS_IN_OPTAX[case.name])
    with jax.enable_x64(True), cases.usual_promotion():
        theirs, _ = cases.trajectory_in_jax(cases.optax_of(case, optax), case.passes_extra)
    assert_same_path(ours[0], theirs, case.optax_tolerance)


DO_NOT_CHANGE_THE_PATH = {"params_ema", "params_ema-schedule", "apply_if_finite"}


@pytest.mark.slow
def test_the_rows_say_something():
    plain = [
        cases.trajectory_in_numpy(one(cases.rate_of(CASES[0], cases.reference_schedules)))[0]
        for one in (cases.sgd, cases.adam)
    ]
    for row in CASES:
        if row.slow or row.name in DO_NOT_CHANGE_THE_PATH:
            continue
        path, _ = cases.trajectory_in_numpy(cases.numpy_of(row._replace(rate=0.02)))
        for other in plain:
            assert not np.allclose(path["bias"], other["bias"], atol=1e-3), row.name


# What holds for each


def two_updates(optimizer, dtype=jnp.float32):
    params = random_tree(0, dtype)
    state = optimizer.init(params)
    for seed in (1, 2):
        grads = random_tree(seed, dtype)
        updates, state = optimizer.update(grads, state, params, **cases.extras(params, grads))
    return updates


@each_value_once
@every_case
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("x64")
def test_shapes_and_dtypes_stay(case, dtype):
    if case.name in NEEDS_ORDER and dtype.startswith("complex"):
        return
    optimizer = cases.ours_of(case)
    params = jax.eval_shape(lambda: random_tree(0, dtype))
    state = jax.eval_shape(optimizer.init, params)

    def update(grads, state, params):
        return optimizer.update(grads, state, params, **cases.extras(params, grads))

    updates, new_state = jax.eval_shape(update, params, state, params)
    assert signature(new_state) == signature(state)
    assert signature(updates) == signature(params)
    better = jax.eval_shape(O.evaluation_params, state, params)
    assert signature(better) == signature(params)
    for path, leaf in zip(leaf_paths(state), jax.tree.leaves(state), strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert jnp.finfo(leaf.dtype).bits >= 32, path


@every_case
def test_updates_have_the_dtype_of_the_gradients(case):
    optimizer = cases.ours_of(case)
    params, grads = (jax.eval_shape(lambda d=d: random_tree(0, d)) for d in ("float32", "bfloat16"))
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(
        lambda g, s, p: optimizer.update(g, s, p, **cases.extras(p, g)), grads, state, params
    )
    assert signature(updates) == signature(grads)
    assert signature(new_state) == signature(state)


@every_case
def test_init_takes_shapes(case):
    optimizer = cases.ours_of(case)
    from_shapes = optimizer.init(jax.eval_shape(lambda: random_tree(0)))
    assert_trees_close(from_shapes, optimizer.init(random_tree(0)), rtol=0, atol=0)


@every_case
def test_no_buffer_is_shared_so_that_all_can_be_donated(case):
    params = random_tree(0)
    leaves = jax.tree.leaves((params, cases.ours_of(case).init(params)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_zero_gradients_give_finite_updates():
    @fast_jit
    def all_updates():
        params = random_tree(0, jnp.float16)
        zeros = jax.tree.map(jnp.zeros_like, params)

        def two(optimizer):
            state = optimizer.init(params)
            for _ in range(2):
                updates, state = optimizer.update(
                    zeros, state, params, **cases.extras(params, zeros)
                )
            return updates

        return {case.name: two(cases.ours_of(case)) for case in CASES if not case.slow}

    for name, updates in all_updates().items():
        for leaf in jax.tree.leaves(updates):
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), name


VMAPPED = ["accumulate", "lookahead", "params_ema", "schedule_free_adamw", "sam-opaque"]


def test_vmap_over_learning_rates_equals_a_loop():
    def every(rate):
        rows = [case for case in CASES if case.name in VMAPPED]
        return {case.name: two_updates(case.make(O, rate)) for case in rows}

    rates = jnp.array([0.1, 0.02, 0.0])
    one = fast_jit(every)
    one_by_one = [one(rate) for rate in rates]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert_trees_close(fast_jit(jax.vmap(every))(rates), stacked, atol=1e-6)
    for name in VMAPPED:
        assert not np.allclose(stacked[name]["kernel"][0], stacked[name]["kernel"][1]) or (
            name == "accumulate"
        )


# Each constructor with its hyperparameters, in the order of the arguments after the inner one.
INNER = O.sgd(0.1)
HYPERPARAMETERS = {
    "ema": (O.ema, {"decay": 0.8}),
    "params_ema": (lambda **h: O.params_ema(INNER, **h), {"decay": 0.8}),
    "accumulate": (lambda **h: O.accumulate(INNER, **h), {"every": 2.0}),
    "lookahead": (
        lambda **h: O.lookahead(INNER, **h),
        {"sync_period": 2.0, "slow_step_size": 0.5},
    ),
    "schedule_free": (
        lambda **h: O.schedule_free(INNER, **h),
        {"learning_rate": 0.1, "b1": 0.8, "weight_lr_power": 2.0},
    ),
    "schedule_free_sgd": (
        O.schedule_free_sgd,
        {"learning_rate": 0.1, "b1": 0.8, "weight_decay": 0.1, "weight_lr_power": 2.0},
    ),
    "schedule_free_adamw": (
        O.schedule_free_adamw,
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "sam": (lambda **h: O.sam(INNER, **h), {"rho": 0.3}),
    "apply_if_finite": (lambda **h: O.apply_if_finite(INNER, **h), {"max_consecutive_errors": 2.0}),
    "inject_hyperparams": (
        lambda **h: O.inject_hyperparams(O.adam)(**h),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3},
    ),
    "reduce_on_plateau": (
        O.reduce_on_plateau,
        {
            "factor": 0.5,
            "patience": 1.0,
            "rtol": 0.1,
            "atol": 0.1,
            "cooldown": 1.0,
            "accumulation_size": 1.0,
            "min_scale": 0.1,
        },
    ),
    "adaptive_grad_clip": (O.adaptive_grad_clip, {"clipping": 0.1, "eps": 1e-3}),
    "normalize_by_update_norm": (
        O.normalize_by_update_norm,
        {"scale_factor": 0.5, "eps": 1e-3},
    ),
    "add_noise": (
        lambda **h: O.add_noise(**h, key=jax.random.key(0)),
        {"eta": 0.1, "gamma": 0.5},
    ),
    "lbfgs": (O.lbfgs, {"learning_rate": 0.5}),
    "scale_by_backtracking_linesearch": (
        O.scale_by_backtracking_linesearch,
        {
            "max_backtracking_steps": 5.0,
            "slope_rtol": 1e-4,
            "decrease_factor": 0.8,
            "increase_factor": 1.5,
            "max_learning_rate": 1.0,
            "atol": 0.0,
            "rtol": 0.0,
        },
    ),
    "scale_by_zoom_linesearch": (
        O.scale_by_zoom_linesearch,
        {
            "max_linesearch_steps": 5.0,
            "max_learning_rate": 10.0,
            "tol": 0.0,
            "increase_factor": 2.0,
            "slope_rtol": 1e-4,
            "curv_rtol": 0.9,
            "approx_dec_rtol": 1e-6,
            "stepsize_precision": 1e-5,
        },
    ),
}

SLOW_TO_COMPILE = {
    "lbfgs",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
}  # see test_lbfgs.py

every_constructor = pytest.mark.parametrize("constructor", HYPERPARAMETERS)


@each_value_once
@every_constructor
@pytest.mark.parametrize(
    ("given", "dtype"),
    [("float64", "bfloat16"), ("float32", "bfloat16"), ("bfloat16", "float64")],
)
@pytest.mark.usefixtures("x64")
def test_traced_hyperparameters_of_any_dtype_do_not_promote(constructor, given, dtype):
    make, numbers = HYPERPARAMETERS[constructor]
    arrays = {name: jax.ShapeDtypeStruct((), given) for name in numbers}
    updates = jax.eval_shape(lambda hyper: two_updates(make(**hyper), dtype), arrays)
    assert signature(updates) == signature(jax.eval_shape(lambda: random_tree(0, dtype)))


def test_traced_hyperparameters_equal_numbers():
    rows = {name: row for name, row in HYPERPARAMETERS.items() if name not in SLOW_TO_COMPILE}

    def all_updates(given):
        return {name: two_updates(make(**given[name])) for name, (make, _) in rows.items()}

    numbers = {name: numbers for name, (_, numbers) in rows.items()}
    known = fast_jit(lambda: all_updates(numbers))()
    assert_trees_close(fast_jit(all_updates)(numbers), known, atol=1e-6)


@every_case
def test_extra_keywords_are_ignored_or_used(case):
    optimizer = cases.ours_of(case)
    params = jax.eval_shape(lambda: random_tree(0))
    state = jax.eval_shape(optimizer.init, params)

    def update(grads, state, params):
        return optimizer.update(grads, state, params, **cases.extras(params, grads), unheard_of=1)

    updates, _ = jax.eval_shape(update, params, state, params)
    assert signature(updates) == signature(params)


def test_no_step_compiles_twice():
    optimizer = O.chain(
        O.accumulate(O.lookahead(O.adam(0.1), 2, 0.5), 2),
        O.apply_if_finite(O.inject_hyperparams(O.sgd)(0.1), 3),
    )
    traces = []

    @fast_jit
    def step(params, state):
        traces.append(1)
        updates, state = optimizer.update(params, state, params)
        return O.apply_updates(params, updates), state

    params = random_tree(0)
    step(*step(params, optimizer.init(params)))
    assert len(traces) == 1


# accumulate


def run(optimizer, gradients, params=None, **extra):
    """All updates and states by some gradients, in one compiled loop."""
    params = jnp.zeros_like(gradients[0]) if params is None else params

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params, **extra)
        return (O.apply_updates(params, updates), state), (updates, state)

    return fast_jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1])()


def test_accumulate_does_not_run_the_optimizer_in_between():
    calls = []

    def update(updates, state, params=None, **extra):
        jax.debug.callback(lambda: calls.append(1))
        return updates, state + 1

    inner = O.Optimizer(lambda params: jnp.zeros((), jnp.int32), update)
    updates, states = run(O.accumulate(inner, 3), jnp.arange(8.0)[:, None])
    jax.effects_barrier()
    assert len(calls) == 2
    assert states.inner_opt_state.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert updates[:, 0].tolist() == [0, 0, 1, 0, 0, 4, 0, 0]


def test_accumulated_means_are_those_of_one_large_batch():
    x, y = random_tree(3)["kernel"], jnp.arange(3.0)

    def gradient(w, x, y):
        return jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)

    w = jnp.ones(2)
    one_by_one = jnp.stack([gradient(w, x[i : i + 1], y[i : i + 1]) for i in range(3)])
    updates, _ = run(O.accumulate(O.sgd(1.0), 3), one_by_one)
    np.testing.assert_allclose(updates[-1], -gradient(w, x, y), rtol=1e-6)


def test_a_mean_of_bf16_gradients_is_kept_in_float32():
    gradients = jnp.ones((300, 1), jnp.bfloat16).at[0].set(256.0)
    updates, states = run(O.accumulate(O.scale(1.0), 300, use_grad_mean=False), gradients)
    assert states.acc_grads.dtype == jnp.float32
    assert updates.dtype == jnp.bfloat16
    assert float(updates[-1, 0]) == float(jnp.bfloat16(256 + 299))


def test_skipped_gradients_count_for_nothing():
    gradients = jnp.array([1.0, jnp.nan, 3.0, jnp.inf, jnp.nan, 5.0, 7.0])[:, None]
    optimizer = O.accumulate(O.scale(1.0), 2, should_skip_update_fn=O.skip_not_finite)
    updates, states = run(optimizer, gradients)
    assert updates[:, 0].tolist() == [0, 0, 2, 0, 0, 0, 6]
    assert states.mini_step.tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert states.skip_state["num_not_finite"].tolist() == [0, 1, 0, 1, 1, 0, 0]
    kept, _ = run(O.accumulate(O.scale(1.0), 2), gradients)
    assert np.isnan(kept[1]).all()


def test_schedules_within_accumulate_count_updates():
    optimizer = O.accumulate(O.scale_by_schedule(lambda count: count + 1), 2)
    updates, _ = run(optimizer, jnp.ones((6, 1)))
    assert updates[:, 0].tolist() == [0, 1, 0, 2, 0, 3]


# apply_if_finite


def test_apply_if_finite_ignores_and_gives_up_as_numpy():
    bad, good = [np.nan], [np.inf]
    sequence = [1.0, *bad, 2.0, *bad, *good, *bad, *bad, 3.0, *bad]
    gradients = np.array(sequence)[:, None]
    updates, states = run(O.apply_if_finite(O.scale(1.0), 2), jnp.asarray(gradients, jnp.float32))

    as_they_are = reference.TreeReference(lambda w: {}, lambda g, state, w, problem: (g, state))
    guarded = reference.apply_if_finite(as_they_are, 2)
    state = guarded.init({"w": np.zeros(1)})
    for update, g in zip(updates, gradients, strict=True):
        delta, state = guarded.update({"w": g}, state, {"w": np.zeros(1)}, None)
        np.testing.assert_array_equal(update, delta["w"])
    assert states.notfinite_count.tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 1]
    assert states.total_notfinite.tolist() == [0, 1, 1, 2, 3, 4, 5, 5, 6]
    assert states.last_finite.tolist() == [True, False, True, *[False] * 4, True, False]


def test_one_bad_leaf_stops_all():
    grads = {"a": jnp.ones(2), "b": jnp.array([1.0, jnp.inf])}
    optimizer = O.apply_if_finite(O.adam(0.1), 3)
    updates, state = fast_jit(optimizer.update)(grads, optimizer.init(grads))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    assert state.inner_state[0].count == 0


# inject_hyperparams


def test_injected_hyperparameters_can_be_changed_and_are_seen():
    optimizer = O.inject_hyperparams(O.adamw, static_args="mask")(
        learning_rate=nn.schedules.cosine_decay_schedule(1.0, 4), weight_decay=0.5, mask=True
    )
    params = {"w": jnp.full(1, 2.0)}
    state = optimizer.init(params)
    assert set(state.hyperparams) == {
        *("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay")
    }
    update = fast_jit(optimizer.update)
    zeros = {"w": jnp.zeros(1)}
    updates, state = update(zeros, state, params)
    np.testing.assert_allclose(updates["w"], -1.0)  # 1 * 0.5 * 2
    state.hyperparams["weight_decay"] = jnp.float32(0.25)
    updates, state = update(zeros, state, params)
    rate = nn.schedules.cosine_decay_schedule(1.0, 4)(1)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], rate, rtol=1e-6)
    np.testing.assert_allclose(updates["w"], -rate * 0.25 * 2, rtol=1e-6)


def test_injected_hyperparameters_are_float32_for_low_precision():
    optimizer = O.inject_hyperparams(O.adam)(1e-3, b2=0.999)
    state = optimizer.init(jnp.ones(2, jnp.bfloat16))
    assert all(value.dtype == jnp.float32 for value in state.hyperparams.values())
    assert state.hyperparams["b2"] < 1


def test_an_injected_constructor_has_a_name_and_checks_its_arguments():
    constructor = O.inject_hyperparams(O.sgd)
    assert constructor.__name__ == "inject_hyperparams(sgd)"
    with pytest.raises(TypeError, match="learning_rate"):
        constructor()


# reduce_on_plateau


def test_reduce_on_plateau_is_that_of_torch():
    lr_scheduler = pytest.importorskip("torch").optim.lr_scheduler
    torch = pytest.importorskip("torch")
    losses = 1 / np.sqrt(1 + np.arange(80.0)) + 0.05 * np.random.default_rng(0).standard_normal(80)

    weights = [torch.zeros(1, requires_grad=True)]
    theirs = torch.optim.SGD(weights, 1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.5, patience=3, threshold=0.01, cooldown=2, min_lr=0.01
    )
    expected = []
    for loss in losses:
        scheduler.step(loss)
        expected.append(theirs.param_groups[0]["lr"])

    ours = O.reduce_on_plateau(0.5, patience=4, rtol=0.01, cooldown=2, min_scale=0.01)

    def step(state, loss):
        updates, state = ours.update(jnp.ones(()), state, value=loss)
        return state, updates

    start = ours.init(jnp.ones(()))
    _, scales = fast_jit(lambda: jax.lax.scan(step, start, jnp.asarray(losses, jnp.float32)))()
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert 0.01 in expected


def test_a_loss_that_is_nan_is_no_improvement():
    optimizer = O.reduce_on_plateau(0.5, patience=2)
    state = optimizer.init(jnp.ones(1))
    for loss in (1.0, float("nan"), float("nan")):
        _, state = optimizer.update(jnp.ones(1), state, value=loss)
    assert state.scale == 0.5
    assert state.best_value == 1.0


# add_noise


def test_noise_has_the_variance_it_should_at_each_step():
    optimizer = O.add_noise(0.25, 0.55, jax.random.key(1))
    updates, _ = run(optimizer, jnp.full((3, 40_000), 7.0))
    for t, noisy in enumerate(updates, start=1):
        assert float(jnp.mean(noisy)) == pytest.approx(7, abs=0.01)
        assert float(jnp.var(noisy)) == pytest.approx(0.25 / t**0.55, rel=0.03)
    assert abs(np.corrcoef(updates[0], updates[1])[0, 1]) < 0.02


def test_noise_differs_by_leaf_and_key_and_follows_from_the_key():
    zeros = {"a": jnp.zeros(1000), "b": jnp.zeros(1000)}

    @fast_jit
    def noise(seed):
        optimizer = O.add_noise(1.0, 0.0, jax.random.key(seed))
        return optimizer.update(zeros, optimizer.init(zeros))[0]

    one, again, other = noise(0), noise(0), noise(1)
    assert (one["a"] == again["a"]).all()
    for x, y in [(one["a"], one["b"]), (one["a"], other["a"])]:
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.15


def test_complex_noise_has_both_parts():
    zeros = jnp.zeros(20_000, jnp.complex64)
    optimizer = O.add_noise(4.0, 0.0, jax.random.key(0))
    noise, _ = fast_jit(optimizer.update)(zeros, optimizer.init(zeros))
    assert float(jnp.mean(jnp.abs(noise) ** 2)) == pytest.approx(4, rel=0.05)
    assert float(jnp.var(noise.real)) == pytest.approx(float(jnp.var(noise.imag)), rel=0.1)


# sam


def saddle(w):
    return jnp.sum(w**4) / 4 - jnp.sum(w**2) / 2 + w[0] * w[1]


SAM_OPTIONS = [
    {"sync_period": 3, "reset_state": reset, "opaque_mode": opaque}
    for reset in (True, False)
    for opaque in (True, False)
]


def test_sam_with_an_ascent_that_has_a_state_is_that_of_optax():
    optax = pytest.importorskip("optax")

    def walk(sam):
        def step(carry, _):
            w, state = carry
            updates, state = sam.update(
                *(jax.grad(saddle)(w), state, w), grad_fn=lambda w, i: jax.grad(saddle)(w)
            )
            w = O.apply_updates(w, updates)
            return (w, state), w

        start = jnp.array([0.3, -0.7, 1.1])
        return jax.lax.scan(step, (start, sam.init(start)), length=12)[1]

    def all_walks(library):
        up = library.chain(library.normalize(), library.sgd(0.1, 0.9))
        return [walk(library.sam(library.sgd(0.1, 0.8), up, **o)) for o in SAM_OPTIONS]

    with cases.usual_promotion():
        ours, theirs = fast_jit(lambda: (all_walks(O), all_walks(cases.Optax(optax))))()
    assert_trees_close(ours, theirs)
    assert not any(np.allclose(ours[0], other) for other in ours[1:])


def test_the_usual_ascent_of_sam_is_a_step_of_length_rho():
    w = jnp.array([0.3, -0.7, 1.1])
    grads = jax.grad(saddle)(w)
    ascents = [O.sam(O.sgd(0.1), rho=0.2), O.sam(O.sgd(0.1), O.chain(O.normalize(), O.sgd(0.2)))]
    for sam in ascents:
        updates, _ = sam.update(grads, sam.init(w), w)
        np.testing.assert_allclose(updates, 0.2 * grads / jnp.linalg.norm(grads), rtol=1e-5)


def test_sam_takes_one_call_where_it_is_given_a_function():
    w = jnp.array([0.3, -0.7, 1.1])
    grads = jax.grad(saddle)(w)
    expected = -0.1 * jax.grad(saddle)(w + 0.2 * grads / jnp.linalg.norm(grads))
    sam = O.sam(O.sgd(0.1), rho=0.2)
    state = sam.init(w)
    by_value, _ = sam.update(grads, state, w, value_fn=saddle)
    np.testing.assert_allclose(by_value, expected, rtol=1e-5)
    by_gradient, _ = sam.update(grads, state, w, grad_fn=lambda w, i: jax.grad(saddle)(w))
    np.testing.assert_allclose(by_gradient, expected, rtol=1e-5)
    upwards, _ = sam.update(grads, state, w)
    np.testing.assert_allclose(upwards, 0.2 * grads / jnp.linalg.norm(grads), rtol=1e-5)


def test_sam_of_period_one_is_the_optimizer():
    w = jnp.array([0.3, -0.7, 1.1])
    sam = O.sam(O.sgd(0.1), sync_period=1)
    for extra in ({}, {"value_fn": saddle}):
        updates, _ = sam.update(2 * w, sam.init(w), w, **extra)
        np.testing.assert_allclose(updates, -0.2 * w, rtol=1e-6)


def test_sam_averages_its_gradients_over_devices():
    targets = jnp.array([[1.0], [3.0]])
    sam = O.sam(O.sgd(1.0), rho=0.5, batch_axis_name="devices")

    def update(target):
        def loss(w):
            return jnp.sum((w - target) ** 2) / 2

        w = jnp.zeros(1)
        grads = jax.lax.pmean(jax.grad(loss)(w), "devices")
        return sam.update(grads, sam.init(w), w, value_fn=loss)[0]

    updates = jax.vmap(update, axis_name="devices")(targets)
    np.testing.assert_allclose(updates, [[2.5], [2.5]])


# Averages of parameters


def test_evaluation_params_are_found_in_chains_partitions_and_wrappers():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1), "empty": ()}
    grads = {"a": jnp.ones(1), "b": jnp.ones(1), "empty": ()}
    averaged = O.params_ema(O.sgd(1.0), 0.5)
    optimizer = O.apply_if_finite(
        O.chain(O.clip(9.0), O.partition({"a": averaged, "*": O.sgd(1.0)})), 1
    )
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
        params = O.apply_updates(params, updates)
    better = O.evaluation_params(state, params)
    assert params == {"a": -2, "b": -2, "empty": ()}
    np.testing.assert_allclose(better["a"], -5 / 3, rtol=1e-6)
    np.testing.assert_allclose(better["b"], -2)


def test_evaluation_params_before_the_first_step_are_the_params():
    params = random_tree(0)
    for optimizer in (
        O.params_ema(O.sgd(0.1)),
        O.lookahead(O.sgd(0.1), 5, 0.5),
        O.schedule_free_adamw(),
        O.sgd(0.1),
    ):
        better = O.evaluation_params(optimizer.init(params), params)
        assert_trees_close(better, params, rtol=0, atol=0)


def test_the_plain_mean_of_all_params():
    optimizer = O.params_ema(O.sgd(1.0), lambda count: count / (count + 1))
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal((20, 3)), jnp.float32)
    _, states = run(optimizer, gradients)
    visited = -np.cumsum(gradients, axis=0)
    np.testing.assert_allclose(states.ema[-1], visited.mean(0), rtol=1e-5)


def test_an_average_of_bf16_params_is_not_rounded():
    w = jnp.ones(1, jnp.bfloat16)
    optimizer = O.params_ema(O.scale(0.0), 0.999)
    _, states = run(optimizer, jnp.ones((1000, 1), jnp.bfloat16), w)
    np.testing.assert_allclose(states.ema, 1.0, rtol=1e-6)
    assert O.evaluation_params(jax.tree.map(lambda leaf: leaf[-1], states), w).dtype == w.dtype


def test_schedule_free_eval_params_finds_its_state():
    params = random_tree(0)
    optimizer = O.chain(O.clip(1.0), O.schedule_free_sgd(0.1))
    updates, state = optimizer.update(random_tree(1), optimizer.init(params), params)
    moved = O.apply_updates(params, updates)
    x = O.schedule_free_eval_params(state, moved)
    assert_trees_close(x, state[1].z, atol=1e-6)  # after one step


def test_schedule_free_weight_decay_leaves_out_biases():
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for make in (O.schedule_free_sgd, O.schedule_free_adamw):
        optimizer = make(0.1, weight_decay=0.5)
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-5)
        assert updates["bias"] == 0


# Together with optax

IN_OPTAX = {
    "MultiSteps": lambda o, optax: optax.MultiSteps(o.chain(o.ema(0.8), o.sgd(0.1)), 2),
    "masked": lambda o, optax: optax.masked(o.centralize(), {"kernel": True, "bias": False}),
    "apply_if_finite": lambda o, optax: optax.apply_if_finite(o.schedule_free_adamw(0.1), 2),
    "inject": lambda o, optax: optax.inject_hyperparams(o.schedule_free_sgd)(0.1, b1=0.8),
    "multi_transform": lambda o, optax: optax.multi_transform(
        {"a": o.apply_if_finite(o.adam(0.1), 2), "b": o.normalize_by_update_norm()},
        {"kernel": "a", "bias": "b"},
    ),
}
AROUND_OPTAX = {
    "accumulate": lambda o: O.accumulate(o.adam(0.1), 2),
    "apply_if_finite": lambda o: O.apply_if_finite(o.chain(o.clip(1.0), o.sgd(0.1, 0.9)), 2),
    "lookahead": lambda o: O.lookahead(o.adam(0.1), 2, 0.5),
    "params_ema": lambda o: O.params_ema(o.rmsprop(0.1)),
    "sam": lambda o: O.sam(o.adam(0.1)),
    "schedule_free": lambda o: O.schedule_free(o.sgd(0.1), 0.1),
    "inject_hyperparams": lambda o: O.inject_hyperparams(o.adam)(0.1),
}


def test_ours_in_optax_and_around_it():
    optax = pytest.importorskip("optax")
    library = cases.Optax(optax)

    def all_updates(inner):
        made = {name: make(inner, optax) for name, make in IN_OPTAX.items()}
        made |= {f"around-{name}": make(inner) for name, make in AROUND_OPTAX.items()}
        return {name: two_updates(O.chain(one)) for name, one in made.items()}

    with cases.usual_promotion():
        ours, theirs = fast_jit(lambda: (all_updates(O), all_updates(library)))()
    assert_trees_close(ours, theirs, rtol=1e-4, atol=1e-6)


# Errors


def update(optimizer, updates=None, params=(), **extra):
    tree = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    return optimizer.update(
        tree if updates is None else updates,
        optimizer.init(tree),
        tree if params == () else params,
        **extra,
    )


SHORT = {"kernel": jnp.ones((2, 2))}
INNER_NAMES = {
    "accumulate: optimizer": lambda o: O.accumulate(o, 2),
    "apply_if_finite: inner": lambda o: O.apply_if_finite(o, 2),
    "lookahead: fast_optimizer": lambda o: O.lookahead(o, 2, 0.5),
    "masked: inner": lambda o: O.masked(o, True),
    "params_ema: optimizer": O.params_ema,
    "partition: transforms['*']": lambda o: O.partition({"*": o}),
    "sam: optimizer": O.sam,
    "sam: adv_optimizer": lambda o: O.sam(O.sgd(0.1), o),
    "schedule_free: base_optimizer": lambda o: O.schedule_free(o, 0.1),
}
WRONG_VALUE = {
    "accumulate-every": (lambda: O.accumulate(INNER, 0), ["accumulate: every", "0", ">= 1"]),
    "finite": (lambda: O.apply_if_finite(INNER, -1), ["max_consecutive_errors", "-1", ">= 0"]),
    "lookahead-period": (lambda: O.lookahead(INNER, 0, 0.5), ["sync_period", "0", ">= 1"]),
    "lookahead-step": (lambda: O.lookahead(INNER, 5, -0.5), ["slow_step_size", "-0.5", ">= 0"]),
    "ema": (lambda: O.ema(1.5), ["ema: decay", "1.5", "[0, 1]"]),
    "params_ema": (lambda: O.params_ema(INNER, 1.5), ["params_ema: decay", "1.5", "[0, 1]"]),
    "schedule_free-b1": (lambda: O.schedule_free(INNER, 0.1, 0.0), ["schedule_free: b1", "0.0"]),
    "schedule_free_sgd-b1": (lambda: O.schedule_free_sgd(0.1, b1=2), ["schedule_free_sgd: b1"]),
    "schedule_free_adamw-b1": (lambda: O.schedule_free_adamw(0.1, b1=2), ["adamw: b1", "2"]),
    "schedule_free-warmup": (lambda: O.schedule_free_sgd(0.1, 0), ["warmup_steps", "0", "1"]),
    "schedule_free-rate": (lambda: O.schedule_free_sgd(-1.0, 5), ["learning_rate", "-1.0"]),
    "schedule_free-eval": (
        lambda: O.schedule_free_eval_params(O.sgd(0.1).init({}), {}),
        ["schedule_free_eval_params: state", "tuple"],
    ),
    "sam-rho": (lambda: O.sam(INNER, rho=-1.0), ["sam: rho", "-1.0", ">= 0"]),
    "sam-period": (lambda: O.sam(INNER, sync_period=0), ["sam: sync_period", "0", "1"]),
    "sam-opaque": (lambda: update(O.sam(INNER, opaque_mode=True)), ["value_fn", "grad_fn"]),
    "plateau-factor": (lambda: O.reduce_on_plateau(1.0), ["factor", "1.0", "between 0 and 1"]),
    "plateau-patience": (lambda: O.reduce_on_plateau(patience=0), ["patience", "0", ">= 1"]),
    "plateau-rtol": (lambda: O.reduce_on_plateau(rtol=2.0), ["rtol", "2.0", "[0, 1]"]),
    "plateau-value": (lambda: update(O.reduce_on_plateau()), ["value is None", "value=loss"]),
    "agc": (lambda: O.adaptive_grad_clip(-0.1), ["adaptive_grad_clip: clipping", "-0.1"]),
    "unitwise": (lambda: O.unitwise_norm(jnp.ones((2,) * 6)), ["unitwise_norm", "axis is None"]),
    "unitwise-axis": (lambda: O.unitwise_norm(jnp.ones(3), 1), ["unitwise_norm: axis 1"]),
    "normalize": (lambda: O.normalize_by_update_norm(eps=-1.0), ["eps", "-1.0"]),
    "noise": (lambda: O.add_noise(-1.0, 0.5, jax.random.key(0)), ["add_noise: eta", "-1.0"]),
    "inject-static": (
        lambda: O.inject_hyperparams(O.sgd, static_args="mask"),
        ["static_args", "'mask'", "momentum"],
    ),
    "accumulate-structure": (lambda: update(O.accumulate(INNER, 2), SHORT), ["lacks 'bias'"]),
    "lookahead-structure": (lambda: update(O.lookahead(INNER, 2, 0.5), SHORT), ["lacks 'bias'"]),
    "ema-structure": (lambda: update(O.ema(0.5), SHORT), ["ema: updates", "lacks 'bias'"]),
    "schedule_free-structure": (
        lambda: update(O.schedule_free_sgd(0.1), SHORT),
        ["schedule_free", "lacks 'bias'"],
    ),
} | {
    f"{name}-no-params": (lambda make=make: update(make(), params=None), ["params is None"])
    for name, make in {
        "lookahead": lambda: O.lookahead(INNER, 2, 0.5),
        "params_ema": lambda: O.params_ema(INNER),
        "schedule_free": lambda: O.schedule_free_sgd(0.1),
        "sam": lambda: O.sam(INNER),
        "adaptive_grad_clip": lambda: O.adaptive_grad_clip(0.1),
        "project_params": lambda: O.project_params(O.projection_simplex),
        "keep_params_nonnegative": O.keep_params_nonnegative,
    }.items()
}


@pytest.mark.parametrize(("call", "fragments"), WRONG_VALUE.values(), ids=WRONG_VALUE)
def test_wrong_values(call, fragments):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    missing = [fragment for fragment in fragments if fragment not in str(error.value)]
    assert not missing, f"{missing} not in {str(error.value)!r}"


@pytest.mark.parametrize(("name", "make"), INNER_NAMES.items(), ids=INNER_NAMES)
def test_what_is_wrapped_is_an_optimizer(name, make):
    with pytest.raises(TypeError) as error:
        make(O.adam)
    assert name in str(error.value)
    assert "expected an Optimizer" in str(error.value)


@pytest.mark.parametrize("key", [0, np.zeros(2, np.uint32)])
def test_noise_takes_a_typed_key(key):
    with pytest.raises(TypeError, match=r"add_noise: key .* jax\.random\.key"):
        O.add_noise(0.1, 0.5, key)


# Single rules


SHAPES_AND_AXES = [
    *(((), None), ((3,), None), ((3, 2), None), ((1, 3), None), ((3, 2, 2), None)),
    *(((2, 2, 3, 2), None), ((2, 1, 2, 3, 2), None), ((2, 3, 2), (0, 2)), ((2, 3), -1)),
]


def test_unitwise_norm():
    optax = pytest.importorskip("optax")
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape) for shape, _ in SHAPES_AND_AXES]
    axes = [axis for _, axis in SHAPES_AND_AXES]

    def norms(function):
        arrays = [jnp.asarray(x, jnp.float32) for x in given]
        return [function(x, axis) for x, axis in zip(arrays, axes, strict=True)]

    of = O.unitwise_norm, optax.transforms.unitwise_norm
    for ours, theirs, x, axis in zip(
        *fast_jit(lambda: [norms(f) for f in of])(), given, axes, strict=True
    ):
        expected = reference.unitwise_norm(x, axis)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
        np.testing.assert_allclose(theirs, expected, rtol=1e-6)


def test_clipped_and_normalized_zeros_are_zeros_with_a_derivative():
    zeros, ones = jnp.zeros((2, 2)), jnp.ones((2, 2))
    rules = (O.normalize(), O.normalize_by_update_norm(), O.adaptive_grad_clip(0.1))

    def all_rules(g):
        return [rule.update(g, (), ones)[0] for rule in rules]

    values, slopes = fast_jit(lambda: jax.jvp(all_rules, (zeros,), (ones,)))()
    assert all((value == 0).all() for value in values)
    assert np.isfinite(slopes).all()


def test_params_stay_nonnegative_in_low_precision():
    w = jnp.array([0.1, 1e-3, 3.0, 0.0], jnp.bfloat16)
    last = O.keep_params_nonnegative()
    updates, _ = last.update(jnp.full(4, -1.0, jnp.bfloat16), last.init(w), w)
    assert O.apply_updates(w, updates).tolist() == [0, 0, 2, 0]


def test_the_state_of_each_has_the_fields_of_optax():
    optax = pytest.importorskip("optax")
    params = jax.tree.map(np.asarray, random_tree(0))
    extra_fields = {"lookahead", "lookahead-reset"}
    for case in CASES:
        if case.optax is cases.AS_OURS and case.name not in extra_fields:
            with cases.usual_promotion():
                theirs = cases.optax_of(case, optax).init(jax.tree.map(jnp.asarray, params))
            ours = cases.ours_of(case).init(params)
            assert sorted(leaf_paths(ours)) == sorted(leaf_paths(theirs)), case.name
