"""What holds for every optimizer as a pair of pure functions of any arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.paths import leaf_paths
from tests.compiling import fast_jit
from tests.optimizer_cases import every_case, every_distinct_case, few_cases, usual_promotion
from tests.optimizer_cases.adaptive import squares
from tests.parameters import each_value_once, quick_first

RATE = 0.02
DTYPES = [
    pytest.param("float16", marks=pytest.mark.slow),
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    pytest.param("complex128", marks=pytest.mark.slow),
]
NEED_PATHS = {"adamw-mask-glob", "adamw-mask-globs"}  # these find nothing in an empty tree
NEED_ORDER = ("clip-sgd", "adopt", "rprop", "sophia")  # which complex numbers have not
REMEMBERS_PARAMS = "prodigy"
# Where optax forgets a conjugate: it has g² for |g|², and G Gᵀ for G Gᴴ.
CONJUGATED = ("adadelta", "prodigy", "muon-schatten")

# Those of an accumulator that is real for complex gradients too.
REAL = {"nu", "nu_max", "n", "e_g", "e_x", "sum_of_squares", "exp_avg_sq", "v_row", "v_col"}

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def random_tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    tree = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if jnp.issubdtype(dtype, jnp.complexfloating):
        tree = {name: leaf + 1j * rng.standard_normal(leaf.shape) for name, leaf in tree.items()}
    return {name: jnp.asarray(leaf, dtype) for name, leaf in tree.items()}


def is_of(case, names):
    """Whether the case is of an optimizer among `names`."""
    return any(name in case.name for name in names)


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


@quick_first(3)
@few_cases
def test_vmap_over_learning_rates_equals_a_loop(case):
    def f(rate):
        return two_updates(case.make(nn.optimizers, rate))

    rates = jnp.array([0.1, 0.02, 0.0])
    one = fast_jit(f)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[one(rate) for rate in rates])
    assert_trees_close(fast_jit(jax.vmap(f))(rates), stacked)
    assert not np.allclose(stacked["kernel"][0], stacked["kernel"][1])


# Shapes and dtypes


@each_value_once
@every_case
@every_dtype
@pytest.mark.usefixtures("x64")
def test_shapes_and_dtypes_stay(case, dtype):
    if is_of(case, NEED_ORDER) and dtype.startswith("complex"):
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
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            assert leaf.dtype == jnp.int32
            assert path.split("/")[-1] in ("count", "count_m2", "t")
        else:
            assert jnp.finfo(leaf.dtype).bits == max(32, jnp.finfo(dtype).bits)
            assert not (jnp.iscomplexobj(leaf) and REAL & set(path.split("/")))


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


@each_value_once
@every_distinct_case
@pytest.mark.parametrize(
    "dtype", [jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.slow), jnp.float32]
)
def test_zero_gradients_give_finite_updates(case, dtype):
    optimizer = case.make(nn.optimizers, RATE)
    params = random_tree(0, dtype)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = optimizer.update(zeros, optimizer.init(params), params)
    for leaf in jax.tree.leaves(optimizer.update(updates, state, params)):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


# Those that need no more than a rate, and are without decay then.
# yogi is not among them: its mean begins at 1e-6.
PLAIN = ["sgd", "adam", "rmsprop", "adagrad", "adadelta", "amsgrad", "adamax", "nadam", "radam"]
PLAIN += ["adabelief", "adan", "adopt", "ademamix", "prodigy", "sign_sgd", "rprop", "lars", "lamb"]
PLAIN += ["novograd", "adafactor", "muon"]


@pytest.mark.parametrize("constructor", PLAIN)
def test_zero_gradients_move_nothing(constructor):
    optimizer = getattr(nn.optimizers, constructor)(RATE)
    params = random_tree(0)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


@pytest.mark.slow
@every_distinct_case
@pytest.mark.usefixtures("x64")
def test_complex_is_that_of_optax(case):
    optax = pytest.importorskip("optax")
    if is_of(case, NEED_ORDER + CONJUGATED) or not case.in_optax:
        return
    ours = two_updates(case.make(nn.optimizers, RATE), jnp.complex128)
    with usual_promotion():
        theirs = two_updates((case.optax or case.make)(optax, RATE), jnp.complex128)
    assert_trees_close(ours, theirs, rtol=1e-10)


def test_adam_divides_complex_gradients_by_their_absolute_value():
    g = jnp.array([3.0 + 4.0j, -2.0j])
    optimizer = nn.optimizers.scale_by_adam()
    update, state = optimizer.update(g, optimizer.init(g))
    np.testing.assert_allclose(update, [0.6 + 0.8j, -1j], rtol=1e-6)
    assert state.nu.dtype == jnp.float32


# Hyperparameters

# Every one of every constructor, with a value, in the order of the arguments.
ADAM = {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4}
HYPERPARAMETERS = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.8},
    "rmsprop": {
        "learning_rate": 0.1,
        "decay": 0.8,
        "eps": 1e-3,
        "initial_scale": 0.5,
        "momentum": 0.7,
    },
    "adam": ADAM,
    "adamw": {**ADAM, "weight_decay": 0.3},
    "scale_by_adam": {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4},
    "scale_by_rms": {"decay": 0.8, "eps": 1e-3, "initial_scale": 0.5},
    "scale_by_stddev": {"decay": 0.8, "eps": 1e-3, "initial_scale": 0.5},
    "scale_by_learning_rate": {"learning_rate": 0.1},
    "scale": {"step_size": 0.1},
    "adagrad": {"learning_rate": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3},
    "adadelta": {"learning_rate": 0.1, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.3},
    "amsgrad": ADAM,
    "nadam": ADAM,
    "nadamw": {**ADAM, "weight_decay": 0.3},
    "adamax": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3},
    "adamaxw": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.3},
    "radam": {**ADAM, "threshold": 1.5},
    "adabelief": ADAM,
    "yogi": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3},
    "adan": {**ADAM, "b3": 0.7, "weight_decay": 0.3},
    "adopt": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3},
    "ademamix": {**ADAM, "b3": 0.7, "alpha": 2.0, "weight_decay": 0.3},
    "prodigy": {
        "learning_rate": 0.1,
        "betas": (0.8, 0.9),
        "beta3": 0.7,
        "eps": 1e-3,
        "estim_lr0": 1e-2,
        "estim_lr_coef": 0.5,
        "weight_decay": 0.3,
    },
    "sophia": {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "gamma": 0.5,
        "clip_threshold": 2.0,
    },
    "sign_sgd": {"learning_rate": 0.1},
    "lion": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "weight_decay": 0.3},
    "rprop": {
        "learning_rate": 0.1,
        "eta_minus": 0.4,
        "eta_plus": 1.3,
        "min_step_size": 1e-3,
        "max_step_size": 0.5,
    },
    "lars": {
        "learning_rate": 0.1,
        "weight_decay": 0.3,
        "trust_coefficient": 0.1,
        "eps": 1e-3,
        "momentum": 0.8,
    },
    "lamb": {**ADAM, "weight_decay": 0.3},
    "novograd": {**ADAM, "weight_decay": 0.3},
    "adafactor": {
        "learning_rate": 0.1,
        "decay_rate": 0.7,
        "decay_offset": 0.5,
        "clipping_threshold": 0.5,
        "momentum": 0.8,
        "weight_decay_rate": 0.3,
        "eps": 1e-3,
    },
    "soap": {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.3,
    },
    "muon": {
        "learning_rate": 0.1,
        "ns_coeffs": (3.0, -4.0, 2.0),
        "beta": 0.8,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "adam_b1": 0.8,
        "adam_b2": 0.9,
        "adam_eps_root": 1e-4,
        "adam_learning_rate": 0.2,
        "consistent_rms": 0.2,
    },
    "scale_by_yogi": {
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "eps_root": 1e-4,
        "initial_accumulator_value": 0.1,
    },
    "scale_by_lion": {"b1": 0.8, "b2": 0.9},
    "scale_by_trust_ratio": {"min_norm": 0.5, "trust_coefficient": 0.1, "eps": 1e-3},
    "clip_by_block_rms": {"threshold": 0.5},
    "scale_by_param_block_rms": {"min_scale": 0.1},
    "trace": {"decay": 0.8},
    "clip": {"max_delta": 0.3},
    "clip_by_global_norm": {"max_norm": 0.3},
    "add_decayed_weights": {"weight_decay": 0.3},
}

# What else some need to be called with.
SETTINGS = {
    "adafactor": {"min_dim_size_to_factor": 2},
    "sophia": {"hessian_diagonal_fn": squares()},
}


def constructors(is_slow):
    """All as parameters of a test, some of them slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow if is_slow(name) else ())
        for name in HYPERPARAMETERS
    ]


# Of the transformations that optimizers are made of, the optimizers are tested always.
every_constructor = pytest.mark.parametrize(
    "constructor", constructors(lambda name: name.startswith("scale_by_"))
)
few_constructors = pytest.mark.parametrize(
    "constructor", constructors(lambda name: name not in ("sgd", "rmsprop", "adamw", "radam"))
)


def updates_with(constructor, hyperparameters, dtype=jnp.float32):
    optimizer = getattr(nn.optimizers, constructor)(
        **hyperparameters, **SETTINGS.get(constructor, {})
    )
    return two_updates(optimizer, dtype)


@few_constructors
def test_traced_hyperparameters_equal_numbers(constructor):
    numbers = HYPERPARAMETERS[constructor]
    traced = jax.jit(lambda given: updates_with(constructor, given))(numbers)
    assert_trees_close(traced, updates_with(constructor, numbers))


@quick_first(10)
@every_constructor
def test_hyperparameters_that_are_arrays(constructor):
    numbers = HYPERPARAMETERS[constructor]
    arrays = jax.tree.map(jnp.float32, numbers)
    assert_trees_close(updates_with(constructor, arrays), updates_with(constructor, numbers))
    made_inside = jax.eval_shape(lambda: updates_with(constructor, arrays))
    assert signature(made_inside) == signature(abstract_tree(jnp.float32))


@each_value_once
@every_constructor
@pytest.mark.parametrize("given", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float32", pytest.param("float64", marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("x64")
def test_hyperparameters_of_any_dtype_do_not_promote(constructor, given, dtype):
    numbers = HYPERPARAMETERS[constructor]
    arrays = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), given), numbers)
    updates = jax.eval_shape(lambda hyper: updates_with(constructor, hyper, dtype), arrays)
    assert signature(updates) == signature(abstract_tree(dtype))


@few_constructors
def test_derivative_in_every_hyperparameter_is_finite(constructor):
    @jax.grad
    def slopes(given):
        return sum(jnp.sum(u) for u in updates_with(constructor, given).values())

    for path, slope in jax.tree.leaves_with_path(slopes(HYPERPARAMETERS[constructor])):
        assert np.isfinite(slope), path


# Buffers


@quick_first(3)
@few_cases
def test_params_and_state_can_be_donated_and_the_second_call_does_not_compile(case):
    optimizer = case.make(nn.optimizers, RATE)
    traces = []

    def step(params, state):
        traces.append(1)
        updates, state = optimizer.update(random_tree(1), state, params)
        return nn.optimizers.apply_updates(params, updates), state

    expected = step(*step(random_tree(0), optimizer.init(random_tree(0))))
    traces.clear()
    params = random_tree(0)
    state = optimizer.init(params)
    leaves = jax.tree.leaves((params, state))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    donating = jax.jit(step, donate_argnums=(0, 1))
    following = donating(params, state)
    assert all(leaf.is_deleted() for leaf in leaves)
    assert_trees_close(donating(*following), expected, rtol=1e-4)
    assert len(traces) == 1


# What is given instead of a dict of JAX arrays


@every_case
def test_init_takes_shapes(case):
    optimizer = case.make(nn.optimizers, RATE)
    if is_of(case, [REMEMBERS_PARAMS]):
        with pytest.raises(TypeError, match="init got shapes, expected arrays"):
            optimizer.init(abstract_tree(jnp.float32))
        return
    from_shapes = optimizer.init(abstract_tree(jnp.float32))
    assert_trees_close(from_shapes, optimizer.init(random_tree(0)))


@every_case
def test_an_empty_tree(case):
    if case.name in NEED_PATHS:
        return
    optimizer = case.make(nn.optimizers, RATE)
    updates, _ = optimizer.update({}, optimizer.init({}), {})
    assert nn.optimizers.apply_updates({}, updates) == {}


@quick_first(12)
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


@quick_first(12)
@every_case
def test_extra_keywords_are_ignored(case):
    optimizer = case.make(nn.optimizers, RATE)
    params = random_tree(0)
    state = optimizer.init(params)
    plain, _ = optimizer.update(params, state, params)
    extra, _ = optimizer.update(params, state, params, value=1.0, grad=params, key=None)
    assert_trees_close(extra, plain, rtol=0, atol=0)


@each_value_once
@every_case
@pytest.mark.parametrize("broken", [{"kernel": jnp.ones((3, 2))}, {"kernel": None, "bias": None}])
def test_structures_that_differ_are_refused_by_path(case, broken):
    optimizer = case.make(nn.optimizers, RATE)
    params = random_tree(0)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="'bias'"):
        nn.optimizers.apply_updates(params, optimizer.update(broken, state, params)[0])
