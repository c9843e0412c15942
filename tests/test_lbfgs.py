"""L-BFGS and its line search: against NumPy, optax and scipy, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests import optimizer_wrapper_cases as cases
from tests.compiling import fast_jit
from tests.numpy_reference import optimizer_wrappers as reference
from tests.optimizer_wrapper_cases import random_tree, signature, usual_promotion

O = nn.optimizers  # noqa: E741


# Paths

STEPS = 30
ROWS = {
    "default": (lambda o: o.lbfgs(), reference.lbfgs()),
    "short-memory-unscaled": (
        lambda o: o.lbfgs(memory_size=3, scale_init_precond=False),
        reference.lbfgs(3, scale_init_precond=False),
    ),
    "without-line-search": (
        lambda o: o.lbfgs(0.05, memory_size=4, linesearch=None),
        reference.lbfgs(4, learning_rate=0.05),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        "default",
        pytest.param("short-memory-unscaled", marks=pytest.mark.slow),
        pytest.param("without-line-search", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("x64")
def test_the_path_is_that_of_numpy_and_optax(name, monkeypatch):
    optax = pytest.importorskip("optax")
    monkeypatch.setattr(cases, "STEPS", STEPS)
    make, in_numpy = ROWS[name]
    ours, _ = cases.trajectory_in_jax(make(O), passes_extra=True)
    with usual_promotion():
        theirs, _ = cases.trajectory_in_jax(make(optax), passes_extra=True)
    expected, _ = cases.trajectory_in_numpy(in_numpy)
    for leaf, path in ours.items():
        np.testing.assert_allclose(path, expected[leaf], rtol=1e-8, atol=1e-8)
        if name == "without-line-search":  # optax keeps the pairs of negative curvature
            path, theirs[leaf] = path[0], theirs[leaf][0]
        np.testing.assert_allclose(path, theirs[leaf], rtol=1e-9, atol=1e-9)


# The line search


def quartic(w, a, b, c):
    return a * w**4 + b * w**3 + c * w**2 - w


def searched(search, function, w, direction):
    """The step size that `search` finds from w along a direction, and how it went."""
    value, grad = jax.value_and_grad(function)(w)
    _, state = search.update(
        direction, search.init(w), w, value=value, grad=grad, value_fn=function
    )
    return state


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_steps_of_every_size_are_those_of_numpy_and_optax():
    optax = pytest.importorskip("optax")
    rng = np.random.default_rng(0)
    n = 200
    a, b, c = 0.1 + rng.random(n), rng.standard_normal(n), rng.standard_normal(n)
    sizes = 10.0 ** rng.uniform(-4, 4, n)  # of the direction, so that it must grow or shrink

    def all_steps(search):
        def one(a, b, c, size):
            def function(w):
                return quartic(w, a, b, c)

            return searched(search, function, jnp.zeros(()), size)

        return fast_jit(jax.vmap(one))(a, b, c, sizes)

    ours = all_steps(O.scale_by_zoom_linesearch(20, initial_guess_strategy="one"))
    with usual_promotion():
        theirs = all_steps(optax.scale_by_zoom_linesearch(20, initial_guess_strategy="one"))
    np.testing.assert_allclose(ours.learning_rate, theirs.learning_rate, rtol=1e-9)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-9)
    np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.info.num_linesearch_steps, theirs.info.num_linesearch_steps)

    for i in range(n):

        def along(step, i=i):
            w = step * sizes[i]
            slope = 4 * a[i] * w**3 + 3 * b[i] * w**2 + 2 * c[i] * w - 1
            return quartic(w, a[i], b[i], c[i]), slope * sizes[i]

        step = reference.scale_by_zoom_linesearch(along, 20)
        np.testing.assert_allclose(ours.learning_rate[i], step, rtol=1e-8)
        # and what that promises
        (value_0, slope_0), (value, slope) = along(0.0), along(float(ours.learning_rate[i]))
        assert value <= value_0 + 1e-4 * step * slope_0
        assert abs(slope) <= 0.9 * abs(slope_0)
    tries = np.asarray(ours.info.num_linesearch_steps)
    assert tries.min() == 1
    assert tries.max() > 8


def test_a_step_out_of_the_domain_is_shortened():
    state = searched(O.scale_by_zoom_linesearch(30), lambda w: w - jnp.log(w), 3.0, -1000.0)
    assert 0 < 3 - 1000 * state.learning_rate < 3
    assert np.isfinite(state.value)


def test_no_step_where_there_is_no_finite_value():
    state = searched(
        O.scale_by_zoom_linesearch(5), lambda w: jnp.where(w == 0, w, jnp.nan), 0.0, 1.0
    )
    assert state.learning_rate == 0
    assert state.value == 0


def test_the_most_points_and_the_largest_step_are_kept_to():
    few = searched(O.scale_by_zoom_linesearch(3), lambda w: -w, 0.0, 1.0)
    assert few.info.num_linesearch_steps == 3
    assert few.learning_rate == 4
    near = searched(O.scale_by_zoom_linesearch(20, max_learning_rate=3.0), lambda w: -w, 0.0, 1.0)
    assert near.learning_rate == 3


def test_the_curvature_can_be_left_out():
    def function(w):
        return (w - 1) ** 2

    strict = searched(O.scale_by_zoom_linesearch(20, curv_rtol=0.1), function, 0.0, 0.01)
    loose = searched(O.scale_by_zoom_linesearch(20, curv_rtol=jnp.inf), function, 0.0, 0.01)
    assert loose.learning_rate == 1
    assert abs(strict.learning_rate * 0.01 - 1) <= 0.1


def test_the_guess_may_be_the_last_step():
    def function(w):
        return jnp.sum(w**2) / 2

    def tries(strategy):
        search = O.scale_by_zoom_linesearch(20, initial_guess_strategy=strategy)
        w = jnp.array([1.0])
        state = search.init(w)._replace(learning_rate=jnp.float32(128.0))
        _, state = search.update(-w / 100, state, w, value=0.5, grad=w, value_fn=function)
        return state.info.num_linesearch_steps

    kept, one = fast_jit(lambda: (tries("keep"), tries("one")))()
    assert kept == 1
    assert one > 1


def test_verbose_says_how_it_went(capsys):
    searched(O.scale_by_zoom_linesearch(5, verbose=True), lambda w: w**2, 1.0, -1.0)
    jax.effects_barrier()
    assert "line search: 1 points, step 1.0" in capsys.readouterr().out


def test_keywords_of_the_function_are_passed_to_it():
    search = O.scale_by_zoom_linesearch(20, initial_guess_strategy="one")

    def function(w, target):
        return (w - target) ** 2

    w = jnp.ones(())
    _, state = search.update(
        *(-2 * w, search.init(w), w),
        value=function(w, -1.0),
        grad=4 * w,
        value_fn=function,
        target=-1.0,
        unheard_of=0.0,
    )
    assert state.value == 0


# Minima


def rosenbrock(w):
    return jnp.sum(100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2)


def regression_data():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 6)) * np.logspace(-0.5, 0.5, 6)
    y = x @ rng.standard_normal(6) + 0.3 * rng.standard_normal(40)
    return x, y


def least_squares(w):
    x, y = regression_data()
    return jnp.mean((x @ w - y) ** 2)


def logistic(w):
    x, y = regression_data()
    return jnp.mean(jnp.log1p(jnp.exp(-jnp.where(y > 0, 1, -1) * (x @ w)))) + 1e-3 * jnp.sum(w**2)


FUNCTIONS = {
    "rosenbrock": (rosenbrock, np.array([-1.2, 1.0]), 45),
    "rosenbrock-8": (rosenbrock, np.full(8, -0.5), 80),
    "least-squares": (least_squares, np.zeros(6), 40),
    "logistic": (logistic, np.zeros(6), 40),
}


def minimised(function, w, steps, optimizer=None):
    """The documented loop."""
    optimizer = O.lbfgs() if optimizer is None else optimizer
    value_and_grad = O.value_and_grad_from_state(function)

    def step(carry, _):
        w, state = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = optimizer.update(grad, state, w, value=value, grad=grad, value_fn=function)
        return (O.apply_updates(w, updates), state), value

    start = jnp.asarray(w)
    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)


@pytest.mark.parametrize(
    "name",
    [
        "rosenbrock",
        pytest.param("logistic", marks=pytest.mark.slow),
        pytest.param("rosenbrock-8", marks=pytest.mark.slow),
        pytest.param("least-squares", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("x64")
def test_minima(name):
    optimize = pytest.importorskip("scipy.optimize")
    function, start, steps = FUNCTIONS[name]
    (w, _), values = fast_jit(lambda: minimised(function, start, steps))()
    assert np.linalg.norm(jax.grad(function)(w)) < 1e-8
    assert (np.diff(values) <= 1e-12).all()
    value_and_grad = fast_jit(jax.value_and_grad(function))
    theirs = optimize.minimize(
        lambda w: [np.asarray(leaf) for leaf in value_and_grad(w)],
        start,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-10, "maxiter": 500},
    )
    np.testing.assert_allclose(w, theirs.x, rtol=1e-6, atol=1e-6)
    assert function(w) <= theirs.fun + 1e-12


def test_the_loop_costs_what_the_line_search_does():
    calls = []

    def counted(w):
        jax.debug.callback(lambda: calls.append(1))
        return rosenbrock(w)

    def tried(w):
        (_, state), _ = minimised(counted, w, 5)
        return state[2].info.num_linesearch_steps

    last = fast_jit(tried)(jnp.array([-1.2, 1.0]))
    jax.effects_barrier()
    assert 5 < len(calls) < 30
    calls.clear()
    optimizer = O.lbfgs()

    @fast_jit
    def step(w, state):
        value, grad = O.value_and_grad_from_state(counted)(w, state=state)
        return optimizer.update(grad, state, w, value=value, grad=grad, value_fn=counted)

    w = jnp.array([-1.2, 1.0])
    tries = 0
    state = optimizer.init(w)
    for _ in range(3):
        updates, state = step(w, state)
        w = O.apply_updates(w, updates)
        tries += int(state[2].info.num_linesearch_steps)
    jax.effects_barrier()
    assert len(calls) == 1 + tries
    assert last >= 1


def test_many_starts_at_once():
    starts = jnp.array([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0]])
    together = fast_jit(jax.vmap(lambda w: minimised(rosenbrock, w, 60)[0][0]))(starts)
    np.testing.assert_allclose(together, 1, atol=2e-3)


def test_complex_parameters():
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((5, 3)) + 1j * rng.standard_normal((5, 3)), jnp.complex64)
    b = jnp.asarray(rng.standard_normal(5) + 1j * rng.standard_normal(5), jnp.complex64)

    def function(z):
        return jnp.sum(jnp.abs(a @ z - b) ** 2)

    optimizer = O.lbfgs()

    @fast_jit
    def step(z, state):
        value, grad = jax.value_and_grad(function)(z)
        updates, state = optimizer.update(
            grad.conj(), state, z, value=value, grad=grad.conj(), value_fn=function
        )
        return O.apply_updates(z, updates), state

    z = jnp.zeros(3, jnp.complex64)
    state = optimizer.init(z)
    for _ in range(20):
        z, state = step(z, state)
    np.testing.assert_allclose(z, np.linalg.lstsq(a, b)[0], atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "complex64"])
@pytest.mark.usefixtures("x64")
def test_shapes_and_dtypes_stay(dtype):
    optimizer = O.lbfgs()
    params = jax.eval_shape(lambda: random_tree(0, dtype))
    state = optimizer.init(params)

    def update(grads, state, params):
        return optimizer.update(grads, state, params, **cases.extras(params, grads))

    updates, new_state = jax.eval_shape(update, params, state, params)
    assert signature(updates) == signature(params)
    assert signature(new_state) == signature(state)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)


def test_pairs_of_negative_curvature_are_left_out():
    optimizer = O.scale_by_lbfgs()
    w = jnp.array([1.0, 2.0])
    state, update = optimizer.init(w), fast_jit(optimizer.update)
    for _ in range(4):
        grads = -w  # of a function that is concave
        updates, state = update(grads, state, w)
        assert jnp.vdot(updates, grads) > 0
        w = w - updates
    assert (state.weights_memory == 0).all()


# Together with others


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_in_optax_and_with_parts_of_optax():
    optax = pytest.importorskip("optax")
    start = np.array([-1.2, 1.0])
    wrapped = [optax.GradientTransformationExtraArgs(*t) for t in (O.lbfgs(), O.identity())]
    with usual_promotion():
        in_optax = fast_jit(lambda: minimised(rosenbrock, start, 12, optax.chain(*wrapped)))()
        search = optax.scale_by_zoom_linesearch(20, initial_guess_strategy="one")
        with_optax = fast_jit(
            lambda: minimised(rosenbrock, start, 12, O.lbfgs(linesearch=search))
        )()
    ours = fast_jit(lambda: minimised(rosenbrock, start, 12))()
    for theirs in (in_optax, with_optax):
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-8)


MODEL = nn.dense(1)


def train(**kwargs):
    return nn.training_run(MODEL, loss=nn.losses.squared_error, **kwargs)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_in_a_training_run_it_solves_least_squares():
    x, y = regression_data()
    data = (jnp.asarray(x), jnp.asarray(y)[:, None])
    run = train(optimizer=O.lbfgs(), epochs=40, record=("learning_rate", "gradient_norm"))
    params, _, history = fast_jit(run)(jax.random.key(0), data)
    with_ones = np.concatenate([x, np.ones((len(x), 1))], 1)
    solution = np.linalg.lstsq(with_ones, y)[0]
    np.testing.assert_allclose(params["kernel"][:, 0], solution[:-1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(params["bias"], solution[-1:], rtol=1e-8, atol=1e-8)
    assert history["learning_rate"][0] == 1
    assert history["gradient_norm"][-1] < 1e-6


@pytest.mark.slow
def test_a_part_of_the_params_by_lbfgs_in_fit():
    x, y = regression_data()
    result = nn.fit(
        MODEL,
        (np.float32(x), np.float32(y)[:, None]),
        loss=nn.losses.squared_error,
        optimizer=O.partition({"kernel": O.lbfgs(), "*": O.freeze()}),
        key=jax.random.key(0),
        epochs=25,
        progress=False,
    )
    solution = np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(result.params["kernel"][:, 0], solution, rtol=1e-2, atol=1e-2)
    assert result.params["bias"] == 0


@pytest.mark.slow
def test_optax_lbfgs_in_train_step():
    optax = pytest.importorskip("optax")

    def walk(optimizer):
        def loss_fn(params, state, batch, key):
            return rosenbrock(params) * batch, (state, {})

        step = nn.train_step(loss_fn, optimizer)
        start = nn.train_state(jnp.array([-1.2, 1.0]), {}, optimizer, jax.random.key(0))
        return fast_jit(lambda: jax.lax.scan(step, start, jnp.ones(6))[1])()["loss"]

    with usual_promotion():
        theirs = walk(optax.lbfgs())
    np.testing.assert_allclose(walk(O.lbfgs()), theirs, rtol=1e-4)


# Errors


def update(optimizer, params=(), **extra):
    w = jnp.ones(2)
    return optimizer.update(w, optimizer.init(w), w if params == () else params, **extra)


SEARCH = O.scale_by_zoom_linesearch
TREE = {"w": jnp.ones(2)}
WRONG = {
    "memory": (lambda: O.lbfgs(memory_size=0), ValueError, ["scale_by_lbfgs: memory_size", "0"]),
    "memory-kind": (lambda: O.lbfgs(memory_size=2.0), TypeError, ["memory_size", "integer"]),
    "rate": (lambda: O.lbfgs(-1.0), ValueError, ["learning_rate", "-1.0"]),
    "search": (lambda: O.lbfgs(linesearch=20), TypeError, ["lbfgs: linesearch is 20"]),
    "params": (lambda: update(O.scale_by_lbfgs(), None), ValueError, ["params is None"]),
    "search-params": (lambda: update(SEARCH(5), None), ValueError, ["params is None"]),
    "no-function": (
        lambda: update(O.lbfgs(), value=1.0, grad=jnp.ones(2)),
        ValueError,
        ["scale_by_zoom_linesearch: value_fn is None", "value_fn=f"],
    ),
    "points": (lambda: SEARCH(0), ValueError, ["max_linesearch_steps", "0", ">= 1"]),
    "growth": (lambda: SEARCH(5, increase_factor=0.5), ValueError, ["increase_factor", "0.5"]),
    "slope": (lambda: SEARCH(5, slope_rtol=-1.0), ValueError, ["slope_rtol", "-1.0"]),
    "guess": (
        lambda: SEARCH(5, initial_guess_strategy="two"),
        ValueError,
        ["initial_guess_strategy is 'two'", "'one' or 'keep'"],
    ),
    "structure": (
        lambda: O.scale_by_lbfgs().update({}, O.scale_by_lbfgs().init(TREE), TREE),
        ValueError,
        ["scale_by_lbfgs: updates", "lacks 'w'"],
    ),
    "state": (
        lambda: O.value_and_grad_from_state(rosenbrock)(jnp.ones(2), state=()),
        ValueError,
        ["value_and_grad_from_state: state has 0 line searches"],
    ),
}


@pytest.mark.parametrize(("call", "error", "fragments"), WRONG.values(), ids=WRONG)
def test_wrong_input(call, error, fragments):
    with pytest.raises(error) as raised:
        call()
    missing = [fragment for fragment in fragments if fragment not in str(raised.value)]
    assert not missing, f"{missing} not in {str(raised.value)!r}"
