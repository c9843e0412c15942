"""What holds for every optimizer as a pair of pure functions of any arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.paths import leaf_paths
from tests.optimizer_cases import every_case, every_distinct_case, usual_promotion

RATE = 0.02
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
NEED_PATHS = {"adamw-mask-glob", "adamw-mask-globs"}  # these find nothing in an empty tree
NEEDS_ORDER = {"clip-sgd"}  # optax has no clip for complex numbers

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def random_tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    tree = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if jnp.issubdtype(dtype, jnp.complexfloating):
        tree = {name: leaf + 1j * rng.standard_normal(leaf.shape) for name, leaf in tree.items()}
    return {name: jnp.asarray(leaf, dtype) for name, leaf in tree.items()}


def abstract_tree(dtype):
    return jax.eval_shape(lambda: random_tree(0, dtype))


def two_updates(optimizer, dtype=jnp.float32):
    params = random_tree(0, dtype)
    state = optimizer.init(params)
    for seed in (1, 2):
        updates, state = optimizer.update(random_tree(seed, dtype), state, params)
    return updates


def signature(tree):
    """What a loop carry or a compiled function must find unchanged."""
    leaves = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves


def assert_trees_close(a, b, rtol=1e-5, atol=1e-7):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


# Transformations of JAX


@every_distinct_case
def test_jit_and_vmap_over_learning_rates_equal_a_loop(case):
    def f(rate):
        return two_updates(case.make(nn.optimizers, rate))

    rates = jnp.array([0.1, 0.02, 0.0])
    one_by_one = [f(rate) for rate in rates]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert_trees_close(jax.jit(jax.vmap(f))(rates), stacked)
    assert_trees_close(jax.jit(f)(rates[0]), one_by_one[0])
    assert not np.allclose(stacked["kernel"][0], stacked["kernel"][1])


@every_distinct_case
def test_the_second_call_does_not_compile_again(case):
    optimizer = case.make(nn.optimizers, RATE)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        updates, state = optimizer.update(params, state, params)
        return nn.optimizers.apply_updates(params, updates), state

    params = random_tree(0)
    params, state = step(params, optimizer.init(params))
    step(params, state)
    assert len(traces) == 1


# Shapes and dtypes


@every_case
@every_dtype
@pytest.mark.usefixtures("x64")
def test_shapes_and_dtypes_stay(case, dtype):
    if case.name in NEEDS_ORDER and dtype.startswith("complex"):
        return
    optimizer = case.make(nn.optimizers, RATE)
    params = abstract_tree(dtype)
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(optimizer.update, params, state, params)
    assert signature(new_state) == signature(state)
    assert signature(updates) == signature(params)
    moved = jax.eval_shape(nn.optimizers.apply_updates, params, updates)
    assert signature(moved) == signature(params)
    for path, leaf in zip(leaf_paths(state), jax.tree.leaves(state), strict=True):
        if path.endswith("count"):
            assert leaf.dtype == jnp.int32
        else:
            assert jnp.finfo(leaf.dtype).bits == max(32, jnp.finfo(dtype).bits)
            assert not (jnp.iscomplexobj(leaf) and "nu" in path.split("/"))


@every_case
def test_updates_have_the_dtype_of_the_gradients(case):
    optimizer = case.make(nn.optimizers, RATE)
    params, grads = abstract_tree(jnp.float32), abstract_tree(jnp.bfloat16)
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(optimizer.update, grads, state, params)
    assert signature(updates) == signature(grads)
    assert signature(new_state) == signature(state)
    moved = jax.eval_shape(nn.optimizers.apply_updates, params, updates)
    assert signature(moved) == signature(params)


@every_distinct_case
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_zero_gradients_give_finite_updates(case, dtype):
    optimizer = case.make(nn.optimizers, RATE)

    @jax.jit
    def update():
        params = random_tree(0, dtype)
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, state = optimizer.update(zeros, optimizer.init(params), params)
        return optimizer.update(updates, state, params)

    for leaf in jax.tree.leaves(update()):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.parametrize("constructor", ["sgd", "adam", "rmsprop"])
def test_zero_gradients_move_nothing(constructor):
    optimizer = getattr(nn.optimizers, constructor)(RATE)
    params = random_tree(0)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


@every_distinct_case
@pytest.mark.usefixtures("x64")
def test_complex_is_that_of_optax(case):
    optax = pytest.importorskip("optax")
    if case.name in NEEDS_ORDER:
        return
    ours = jax.jit(lambda: two_updates(case.make(nn.optimizers, RATE), jnp.complex128))()
    with usual_promotion():
        make = case.optax or case.make
        theirs = jax.jit(lambda: two_updates(make(optax, RATE), jnp.complex128))()
    assert_trees_close(ours, theirs, rtol=1e-10)


def test_adam_divides_complex_gradients_by_their_absolute_value():
    g = jnp.array([3.0 + 4.0j, -2.0j])
    optimizer = nn.optimizers.scale_by_adam()
    update, state = optimizer.update(g, optimizer.init(g))
    np.testing.assert_allclose(update, [0.6 + 0.8j, -1j], rtol=1e-6)
    assert state.nu.dtype == jnp.float32


# Hyperparameters

# Every one of every constructor, with a value, in the order of the arguments.
HYPERPARAMETERS = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.8},
    "rmsprop": {
        "learning_rate": 0.1,
        "decay": 0.8,
        "eps": 1e-3,
        "initial_scale": 0.5,
        "momentum": 0.7,
    },
    "adam": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4},
    "adamw": {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "eps_root": 1e-4,
        "weight_decay": 0.3,
    },
    "scale_by_adam": {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4},
    "scale_by_rms": {"decay": 0.8, "eps": 1e-3, "initial_scale": 0.5},
    "scale_by_stddev": {"decay": 0.8, "eps": 1e-3, "initial_scale": 0.5},
    "scale_by_learning_rate": {"learning_rate": 0.1},
    "scale": {"step_size": 0.1},
    "trace": {"decay": 0.8},
    "clip": {"max_delta": 0.3},
    "clip_by_global_norm": {"max_norm": 0.3},
    "add_decayed_weights": {"weight_decay": 0.3},
}

every_constructor = pytest.mark.parametrize("constructor", HYPERPARAMETERS)


def updates_with(constructor, hyperparameters, dtype=jnp.float32):
    return two_updates(getattr(nn.optimizers, constructor)(**hyperparameters), dtype)


@every_constructor
def test_traced_hyperparameters_equal_numbers(constructor):
    numbers = HYPERPARAMETERS[constructor]
    traced = jax.jit(lambda given: updates_with(constructor, given))(numbers)
    assert_trees_close(traced, updates_with(constructor, numbers))


@every_constructor
def test_hyperparameters_that_are_arrays_made_outside_jit(constructor):
    arrays = {name: jnp.float32(value) for name, value in HYPERPARAMETERS[constructor].items()}
    inside = jax.jit(lambda: updates_with(constructor, arrays))()
    assert_trees_close(inside, updates_with(constructor, arrays))


@every_constructor
@pytest.mark.parametrize("given", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.usefixtures("x64")
def test_hyperparameters_of_any_dtype_do_not_promote(constructor, given, dtype):
    numbers = HYPERPARAMETERS[constructor]
    arrays = {name: jax.ShapeDtypeStruct((), given) for name in numbers}
    updates = jax.eval_shape(lambda hyper: updates_with(constructor, hyper, dtype), arrays)
    assert signature(updates) == signature(abstract_tree(dtype))


@every_constructor
def test_derivative_in_every_hyperparameter_is_finite(constructor):
    @jax.jit
    @jax.grad
    def slopes(given):
        return sum(jnp.sum(u) for u in updates_with(constructor, given).values())

    for name, slope in slopes(HYPERPARAMETERS[constructor]).items():
        assert np.isfinite(slope), name


# Buffers


@pytest.mark.parametrize(
    "optimizer",
    [
        nn.optimizers.sgd(RATE, 0.9),
        nn.optimizers.adam(RATE),
        nn.optimizers.adamw(nn.schedules.constant_schedule(RATE), weight_decay=0.1),
        nn.optimizers.rmsprop(RATE, centered=True, momentum=0.9),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop"],
)
def test_params_and_state_can_be_donated(optimizer):
    def step(params, state):
        updates, state = optimizer.update(random_tree(1), state, params)
        return nn.optimizers.apply_updates(params, updates), state

    expected = step(*step(random_tree(0), optimizer.init(random_tree(0))))

    params = random_tree(0)
    state = optimizer.init(params)
    leaves = jax.tree.leaves((params, state))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    donating = jax.jit(step, donate_argnums=(0, 1))
    following = donating(params, state)
    assert all(leaf.is_deleted() for leaf in leaves)
    assert_trees_close(donating(*following), expected)


# What is given instead of a dict of JAX arrays


@every_case
def test_init_takes_shapes(case):
    optimizer = case.make(nn.optimizers, RATE)
    from_shapes = optimizer.init(abstract_tree(jnp.float32))
    assert_trees_close(from_shapes, optimizer.init(random_tree(0)))


@every_case
def test_an_empty_tree(case):
    if case.name in NEED_PATHS:
        return
    optimizer = case.make(nn.optimizers, RATE)
    updates, _ = optimizer.update({}, optimizer.init({}), {})
    assert nn.optimizers.apply_updates({}, updates) == {}


@every_case
def test_numpy_arrays(case):
    optimizer = case.make(nn.optimizers, RATE)
    params, grads = random_tree(0), random_tree(1)
    arrays = [jax.tree.map(np.asarray, tree) for tree in (params, grads)]
    updates, _ = optimizer.update(arrays[1], optimizer.init(arrays[0]), arrays[0])
    expected, _ = optimizer.update(grads, optimizer.init(params), params)
    assert_trees_close(updates, expected, rtol=0, atol=0)
    moved = nn.optimizers.apply_updates(arrays[0], updates)
    assert signature(moved) == signature(params)


def test_any_containers():
    params = [random_tree(0), (jnp.ones(2), jnp.float32(3.0))]
    optimizer = nn.optimizers.adamw(0.1, weight_decay=0.1)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


@every_case
def test_extra_keywords_are_ignored(case):
    optimizer = case.make(nn.optimizers, RATE)
    params = random_tree(0)
    state = optimizer.init(params)
    plain, _ = optimizer.update(params, state, params)
    extra, _ = optimizer.update(params, state, params, value=1.0, grad=params, key=None)
    assert_trees_close(extra, plain, rtol=0, atol=0)


@every_case
@pytest.mark.parametrize("broken", [{"kernel": jnp.ones((3, 2))}, {"kernel": None, "bias": None}])
def test_structures_that_differ_are_refused_by_path(case, broken):
    optimizer = case.make(nn.optimizers, RATE)
    params = random_tree(0)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="'bias'"):
        nn.optimizers.apply_updates(params, optimizer.update(broken, state, params)[0])
