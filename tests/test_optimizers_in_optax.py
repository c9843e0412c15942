"""jaxnn's optimizers inside optax, and optax's transformations inside jaxnn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.paths import leaf_paths
from tests.compiling import fast_jit
from tests.optimizer_cases import (
    CASES,
    as_parameters,
    every_distinct_case,
    few_cases,
    kernels,
    usual_promotion,
)
from tests.parameters import quick_first

optax = pytest.importorskip("optax")

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.3, -0.4])}
TARGET = {"kernel": np.zeros((2, 2)), "bias": np.ones(2)}


@pytest.fixture(autouse=True)
def _float64_and_promotion_of_optax(x64):
    with usual_promotion():
        yield


def descend(optimizer, steps=4):
    """The params after some steps down `½ |params - TARGET|²`, and the state."""

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(jnp.subtract, params, TARGET)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_same_descent(one, other):
    ours, theirs = descend(one)[0], descend(other)[0]
    for name in PARAMS:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-12)
        assert not np.allclose(ours[name], PARAMS[name])


# Each row: the same wrapper of optax around ours and around optax's own.
WRAPPERS = {
    "chain": lambda o: optax.chain(optax.clip(0.5), o.adam(0.1)),
    "chain-with-params": lambda o: optax.chain(o.adamw(0.1, weight_decay=0.2, mask=kernels)),
    "named_chain": lambda o: optax.named_chain(("trace", o.trace(0.9)), ("rate", o.scale(-0.1))),
    "multi_transform": lambda o: optax.multi_transform(
        {"fast": o.sgd(0.1, 0.9), "slow": o.adam(0.01)}, {"kernel": "fast", "bias": "slow"}
    ),
    "MultiSteps": lambda o: optax.MultiSteps(o.rmsprop(0.1), every_k_schedule=2),
    "masked": lambda o: optax.chain(
        optax.masked(o.add_decayed_weights(0.2, mask=kernels), {"kernel": True, "bias": False}),
        o.sgd(0.1),
    ),
    "flatten": lambda o: optax.flatten(o.adam(0.1)),
    "apply_if_finite": lambda o: optax.apply_if_finite(o.adam(0.1), 3),
    "inject_hyperparams-sgd": lambda o: optax.inject_hyperparams(o.sgd)(0.1, momentum=0.9),
    "inject_hyperparams-rmsprop": lambda o: optax.inject_hyperparams(o.rmsprop)(0.1, decay=0.8),
    "inject_hyperparams-adam": lambda o: optax.inject_hyperparams(o.adam)(0.1, b1=0.8),
    "inject_hyperparams-schedule": lambda o: optax.inject_hyperparams(o.adam)(
        optax.cosine_decay_schedule(0.1, 5)
    ),
    "inject_hyperparams-adamw": lambda o: optax.inject_hyperparams(o.adamw, static_args=("mask",))(
        0.1, weight_decay=0.2, mask=kernels
    ),
    "schedule-of-optax": lambda o: o.sgd(optax.linear_schedule(0.1, 0.0, 10), 0.9),
    "schedule-of-jaxnn": lambda o: o.adam(nn.schedules.cosine_decay_schedule(0.1, 10)),
}


@quick_first(4)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_ours_inside_optax(wrap):
    assert_same_descent(wrap(nn.optimizers), wrap(optax))


@quick_first(3)
@few_cases
def test_every_optimizer_in_chain_multi_transform_and_inject_hyperparams(case):
    injected = optax.inject_hyperparams(
        lambda learning_rate: case.make(nn.optimizers, learning_rate)
    )
    of_kernels = optax.multi_transform(
        {"ours": injected(case.rate), "none": optax.set_to_zero()},
        {"kernel": "ours", "bias": "none"},
    )
    wrapped, bare = optax.chain(optax.clip(0.5), of_kernels), case.make(nn.optimizers, case.rate)
    params, state = PARAMS, wrapped.init(PARAMS)
    kernel = {"kernel": jnp.asarray(PARAMS["kernel"])}
    bare_state = bare.init(kernel)

    @fast_jit
    def both(params, state, kernel, bare_state):
        clipped = {"kernel": jnp.clip(kernel["kernel"], -0.5, 0.5)}
        return wrapped.update(params, state, params), bare.update(clipped, bare_state, kernel)

    for _ in range(3):
        (updates, state), (bare_updates, bare_state) = both(params, state, kernel, bare_state)
        np.testing.assert_allclose(updates["kernel"], bare_updates["kernel"], rtol=1e-12)
        params = optax.apply_updates(params, updates)
        kernel = optax.apply_updates(kernel, bare_updates)
    np.testing.assert_array_equal(params["bias"], PARAMS["bias"])
    assert (params["kernel"] != PARAMS["kernel"]).all()


@quick_first(10)
@every_distinct_case
def test_every_optimizer_in_multi_steps(case):
    optimizer = optax.MultiSteps(case.make(nn.optimizers, case.rate), every_k_schedule=2)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)


def test_an_injected_learning_rate_can_be_set():
    optimizer = optax.inject_hyperparams(nn.optimizers.adam)(0.1)
    state = optimizer.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.0)
    updates, _ = jax.jit(optimizer.update)(PARAMS, state, PARAMS)
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


# Each row: parts that only optax has, in our chain and in optax's.
CHAINED = {
    "transformations": lambda o: o.chain(
        optax.clip_by_block_rms(0.5), optax.scale_by_lion(), o.scale_by_learning_rate(0.1)
    ),
    "chain-in-chain": lambda o: o.chain(o.clip(0.3), optax.chain(o.trace(0.5), optax.scale(-0.1))),
    "multi_transform": lambda o: o.chain(
        optax.multi_transform(
            {"a": optax.scale_by_adam(), "b": optax.set_to_zero()}, {"kernel": "a", "bias": "b"}
        ),
        o.add_decayed_weights(0.1, mask=True) if o is nn.optimizers else o.add_decayed_weights(0.1),
        o.scale(-0.1),
    ),
}


@pytest.mark.parametrize("chained", CHAINED.values(), ids=CHAINED)
def test_optax_inside_our_chain(chained):
    assert_same_descent(chained(nn.optimizers), chained(optax))


def test_extra_keywords_reach_the_transformation_that_wants_them():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
    optimizer = nn.optimizers.chain(nn.optimizers.sgd(1.0), plateau)
    state = optimizer.init(PARAMS)
    for _ in range(4):
        updates, state = optimizer.update(PARAMS, state, PARAMS, value=jnp.float32(7.0))
    assert state[1].scale < 1
    np.testing.assert_allclose(updates["bias"], -state[1].scale * PARAMS["bias"])


# Those that need more than gradients and params

DEMANDING = {
    "reduce_on_plateau": lambda: nn.optimizers.reduce_on_plateau(patience=1),
    "scale_by_zoom_linesearch": lambda: nn.optimizers.scale_by_zoom_linesearch(5),
    "scale_by_backtracking_linesearch": lambda: nn.optimizers.scale_by_backtracking_linesearch(5),
    "lbfgs": nn.optimizers.lbfgs,
    "sophia": lambda: nn.optimizers.sophia(0.1),
    "sam": lambda: nn.optimizers.sam(nn.optimizers.sgd(0.1), opaque_mode=True),
}
AROUND = {
    "chain": lambda inner: optax.chain(optax.scale(1.0), inner),
    "multi_transform": lambda inner: optax.multi_transform({"all": inner}, lambda params: "all"),
    "MultiSteps": lambda inner: optax.MultiSteps(inner, every_k_schedule=1),
}


def objective(params):
    return 0.5 * sum(jnp.sum((params[name] - TARGET[name]) ** 2) for name in PARAMS)


def updated(optimizer):
    value, grad = jax.value_and_grad(objective)(PARAMS)
    keywords = {"value": value, "grad": grad, "value_fn": objective}
    return optimizer.update(grad, optimizer.init(PARAMS), PARAMS, **keywords)[0]


@quick_first(2)
@pytest.mark.parametrize("make", DEMANDING.values(), ids=DEMANDING)
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(wrap, id=name, marks=[] if name == "MultiSteps" else [pytest.mark.slow])
        for name, wrap in AROUND.items()
    ],
)
def test_keywords_reach_ours_as_transformations_with_extra_args(make, wrap):
    optimizer = make()
    wrapped = wrap(optax.GradientTransformationExtraArgs(*optimizer))
    expected = updated(optimizer)
    with jax.debug_key_reuse(False):  # MultiSteps computes with a state that it then drops
        updates = updated(wrapped)
    for name, update in updates.items():
        np.testing.assert_allclose(update, expected[name], rtol=1e-12)
        assert (update != 0).all()
    how = r"expected .*update\(.*optax\.GradientTransformationExtraArgs\(\*optimizer\)"
    with pytest.raises(ValueError, match=how):
        updated(wrap(optimizer))


# In `nn.train_step`


def train(optimizer):
    def loss_fn(params, state, batch, key):
        errors = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), params, batch)
        return sum(jax.tree.leaves(errors)), (state, {})

    step = jax.jit(nn.train_step(loss_fn, optimizer))
    now = nn.train_state(PARAMS, {}, optimizer, jax.random.key(0))
    for _ in range(3):
        now, _ = step(now, TARGET)
    return now


@pytest.mark.parametrize("constructor", ["sgd", "adam", "rmsprop"])
def test_train_step_takes_an_optimizer_of_optax(constructor):
    ours = train(getattr(nn.optimizers, constructor)(0.1))
    theirs = train(getattr(optax, constructor)(0.1))
    for name in PARAMS:
        np.testing.assert_allclose(ours.params[name], theirs.params[name], rtol=1e-10)


def test_train_step_gives_the_loss_to_those_that_want_it():
    plateau = optax.contrib.reduce_on_plateau(patience=1)
    now = train(optax.chain(optax.sgd(0.0), plateau))
    expected = sum(float(jnp.sum((PARAMS[name] - TARGET[name]) ** 2)) for name in PARAMS)
    np.testing.assert_allclose(now.opt_state[1].best_value, expected, rtol=1e-6)


# States

# optax has no such transformation, or one more, or a mask around a state.
OTHER_STATES = {"sgd-averaged", "sgd-averaged-nesterov", "adamw-scheduled-decay"}
OTHER_STATES |= {"adadelta-no-rate"}
OWN_STATES = [c for c in CASES if c.in_optax and c.name not in OTHER_STATES]


@pytest.mark.parametrize("case", as_parameters(OWN_STATES))
@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "schedule"])
def test_states_have_the_fields_of_optax(case, schedule):
    if schedule and not case.schedules:
        return
    rate = optax.constant_schedule(0.1) if schedule else 0.1
    ours = case.make(nn.optimizers, rate).init(PARAMS)
    theirs = (case.optax or case.make)(optax, rate).init(PARAMS)
    assert leaf_paths(ours) == leaf_paths(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


def test_tools_of_optax_find_the_fields():
    _, state = descend(nn.optimizers.adam(0.1), steps=3)
    assert optax.tree_utils.tree_get(state, "count") == 3
    assert set(optax.tree_utils.tree_get(state, "mu")) == set(PARAMS)
