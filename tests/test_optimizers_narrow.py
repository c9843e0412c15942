"""Parameters of fewer than 32 bits: small updates land, and on average exactly."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.checks import warn_of_narrow_params
from tests import optimizer_wrapper_cases as wrappers
from tests.compiling import fast_jit
from tests.numpy_reference import optimizer_wrappers as reference
from tests.numpy_reference.optimizer_wrappers import Problem, each
from tests.optimizer_cases.case import of_numpy

O = nn.optimizers  # noqa: E741

RATE, STEPS = 1e-4, 1000
WEIGHTS = {"kernel": [[1.5, -1.25], [3.0, 2.0]], "bias": [1.75, -2.5]}
GRADIENTS = {"kernel": [[1.0, -0.5], [0.75, 1.5]], "bias": [0.5, 1.0]}
RULES = ["sgd", "adam", "adabelief", "lion", "nadam", "rmsprop", "yogi"]
WRAPPERS = ["accumulate", "lookahead", "params_ema", "schedule_free"]
QUICK = ("adam", "sgd", "lookahead")
OTHERS = tuple(name for name in RULES + WRAPPERS if name not in QUICK)


def of(dtype, tree):
    """A dict of lists as arrays."""
    return {path: jnp.asarray(leaf, dtype) for path, leaf in tree.items()}


def rows():
    """Optimizers and their references by name."""
    for name in RULES:
        yield name, getattr(O, name)(RATE), each(of_numpy(name)(RATE))
    for row in wrappers.CASES:
        if row.name in WRAPPERS:
            yield row.name, row.make(O, RATE), row.numpy(RATE)


def after(optimizer, weights, gradients, steps=STEPS):
    """The weights after some steps along the same gradients, and the state."""

    def step(now, _):
        weights, state = now
        updates, state = optimizer.update(gradients, state, weights)
        return (O.apply_updates(weights, updates), state), None

    return jax.lax.scan(step, (weights, optimizer.init(weights)), length=steps)[0]


@pytest.mark.parametrize("names", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=len)
def test_a_thousand_small_steps_are_lost_or_land(names):
    """Of float64 in NumPy by master weights, of the beginning without; averages too."""

    @fast_jit
    def run(weights, gradients):
        def of_one(optimizer):
            plain, _ = after(optimizer, weights, gradients)
            kept, state = after(O.master_weights(optimizer), weights, gradients)
            return plain, kept, state.master, O.evaluation_params(state, kept)

        return {name: of_one(optimizer) for name, optimizer, _ in rows() if name in names}

    in_jax = run(of("bfloat16", WEIGHTS), of("bfloat16", GRADIENTS))
    weights = {path: np.array(leaf) for path, leaf in WEIGHTS.items()}
    problem = Problem(lambda w: 0.0, lambda w: {p: np.array(g) for p, g in GRADIENTS.items()})

    def rounded(x):
        return x.astype(jnp.bfloat16).astype(np.float64)

    for name, _, inner in rows():
        if name not in names:
            continue
        plain, kept, master, better = in_jax[name]
        visited, states = reference.walk(
            reference.master_weights(inner, rounded), problem, weights, STEPS
        )
        average = states[-1]["inner"]
        average = average.get("average", average.get("slow", states[-1]["master"]))
        for path, first in weights.items():
            np.testing.assert_array_equal(np.asarray(plain[path], float), first, err_msg=name)
            np.testing.assert_allclose(master[path], states[-1]["master"][path], rtol=1e-4)
            np.testing.assert_array_equal(kept[path], master[path].astype(jnp.bfloat16))
            unit = np.abs(first) / 128
            assert (np.abs(np.asarray(kept[path], float) - visited[-1][path]) <= unit).all(), name
            assert (np.abs(np.asarray(better[path], float) - average[path]) <= unit).all(), name
            assert (np.abs(master[path] - first) > unit / 4).all(), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_params_are_the_rounded_copies_exactly(dtype):
    """Large steps, through zero and to other magnitudes; what is wide moves as it would alone."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-3, 3, (20, 2000))
    gradients = jnp.asarray(size * rng.choice([-1, 1], size.shape), dtype)
    optimizer = O.master_weights(O.partition({"count": O.freeze(), "*": O.sgd(1.0)}))

    @fast_jit
    def run(gradients):
        params = {"narrow": gradients[0], "wide": jnp.ones(3), "count": jnp.arange(3)}

        def step(now, g):
            params, state = now
            zeros = np.zeros(3, jax.dtypes.float0)
            grads = {"narrow": g, "wide": jnp.ones(3), "count": zeros}
            updates, state = optimizer.update(grads, state, params)
            params = O.apply_updates(params, updates)
            return (params, state), (params["narrow"], state.master["narrow"])

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)

    (params, state), (narrow, master) = run(gradients)
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(narrow, master.astype(dtype))
    np.testing.assert_allclose(params["wide"], 1 - 20.0, rtol=1e-6)
    np.testing.assert_array_equal(params["count"], [0, 1, 2])
    assert state.master["wide"] == state.master["count"] == O.MaskedNode()


def test_params_that_were_changed_are_taken_as_they_are():
    optimizer = O.master_weights(O.sgd(1e-4))
    w, g = jnp.full(2, 1.5, jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
    _, state = after(optimizer, w, g, 3)
    _, state = optimizer.update(g, state, jnp.array([1.5, 4.0], jnp.bfloat16))
    np.testing.assert_allclose(state.master, [1.5 - 4e-4, 4 - 1e-4], rtol=1e-6)


def test_the_function_of_the_params_is_that_of_narrow_ones():
    """A line search evaluates the network in the dtype that it has."""
    w = jnp.array([3.0, -2.0], jnp.bfloat16)
    seen = []

    def value_fn(w):
        seen.append(w.dtype)
        return jnp.sum(jnp.square(w.astype(jnp.float32)))

    optimizer = O.master_weights(O.lbfgs())
    value, grad = jax.value_and_grad(value_fn)(w)
    keywords = {"value": value, "grad": grad, "value_fn": value_fn}
    updates, _ = optimizer.update(grad, optimizer.init(w), w, **keywords)
    assert set(seen) == {w.dtype}
    assert value_fn(O.apply_updates(w, updates)) < value


AROUND = {
    "accumulate": lambda inner: O.accumulate(inner, 2),
    "apply_if_finite": lambda inner: O.apply_if_finite(inner, 2),
    "dynamic_loss_scale": lambda inner: O.dynamic_loss_scale(inner, 1.0),
    "partition": lambda inner: O.partition({"bias": inner, "*": inner}),
    "params_ema": O.params_ema,
}


def test_wrappers_take_them_inside():
    """Nothing is lost by what is around them, and they do not break its programs."""
    key = jax.random.key(0)
    inner = {
        "master": O.master_weights(O.sgd(RATE)),
        "rounding": O.chain(O.sgd(RATE), O.stochastic_rounding(key)),
    }

    @fast_jit
    def run(weights, gradients):
        return {
            (name, kind): after(around(one), weights, gradients)[0]
            for name, around in AROUND.items()
            for kind, one in inner.items()
        }

    for (name, kind), got in run(of("bfloat16", WEIGHTS), of("bfloat16", GRADIENTS)).items():
        steps = STEPS / 2 if name == "accumulate" else STEPS
        for path, w in WEIGHTS.items():
            exact = np.array(w) - steps * RATE * np.array(GRADIENTS[path])
            # In units of the last place of 2: a half by rounding, by chance a few more.
            units = np.abs(np.asarray(got[path], float) - exact) * 64
            assert (units <= (1 if kind == "master" else 16)).all(), (name, kind)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_stochastic_rounding_gives_neighbours_and_the_right_mean(dtype):
    """By NumPy in float64, over many keys; what a param holds exactly is never rounded."""
    rng, n = np.random.default_rng(1), 2000
    w = np.array([1.5, -1.5, 0.0, 100.0, -0.3, 2.0, 1.0]).astype(dtype)
    u = (np.abs(w.astype(float)) * rng.uniform(-0.02, 0.02, w.shape)).astype(np.float32)
    u[2], u[5], u[6] = 0.3, 0.0, -0.5

    @fast_jit
    @jax.vmap
    def rounded(seed):
        optimizer = O.stochastic_rounding(jax.random.key(seed))
        updates, _ = optimizer.update(u, optimizer.init(w), w)
        return O.apply_updates(jnp.asarray(w), updates)

    got = np.asarray(rounded(np.arange(n))).astype(float)
    exact = w.astype(float) + u.astype(float)
    nearest = exact.astype(dtype)
    away = np.where(exact > nearest.astype(float), np.inf, -np.inf)
    largest = float(jnp.finfo(dtype).max)
    beyond = np.nextafter(nearest, np.clip(away, -largest, largest).astype(dtype)).astype(float)
    nearest = nearest.astype(float)
    assert ((got == nearest) | (got == beyond)).all()
    np.testing.assert_array_equal(got[:, 5:], np.broadcast_to([2.0, 0.5], (n, 2)))
    error = np.abs(beyond - nearest) / np.sqrt(n)
    assert (np.abs(got.mean(0) - exact) <= 3 * error).all()


def test_stochastic_rounding_keeps_the_largest_number_and_what_is_not_finite():
    largest = float(jnp.finfo(jnp.float16).max)
    w = jnp.array([largest, jnp.inf, jnp.nan, -largest], jnp.float16)
    optimizer = O.stochastic_rounding(jax.random.key(0))
    updates, _ = optimizer.update(jnp.array([1.0, 1.0, 1.0, -1.0]), optimizer.init(w), w)
    np.testing.assert_array_equal(O.apply_updates(w, updates), w)


def test_each_step_and_leaf_draws_anew():
    optimizer = O.stochastic_rounding(jax.random.key(0))
    w = {"a": jnp.ones(64, jnp.bfloat16), "b": jnp.ones(64, jnp.bfloat16)}
    u = jax.tree.map(lambda leaf: jnp.full(64, 4e-3), w)
    first, state = optimizer.update(u, optimizer.init(w), w)
    second, _ = optimizer.update(u, state, w)
    drawn = [tuple(move[name].tolist()) for move in (first, second) for name in ("a", "b")]
    assert len(set(drawn)) == 4


# Training

X = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
MODEL = nn.dense(1)
KEPT = {
    "master": lambda: O.master_weights(O.adam(1e-4)),
    "rounding": lambda: O.chain(O.adam(1e-4), O.stochastic_rounding(jax.random.key(1))),
}


def narrow_params():
    params, _ = MODEL.init(jax.random.key(0), X)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)


def fitted(optimizer, **options):
    """Fit a line with params in bfloat16."""
    options = {"loss": nn.losses.squared_error, "epochs": 2, "batch_size": 8} | options
    key = jax.random.key(2)
    given = {"params": narrow_params(), "key": key, "progress": False}
    return nn.fit(MODEL, (X, 3 * X), optimizer=optimizer, **given, **options)


def test_fit_warns_of_params_whose_updates_are_lost():
    with pytest.warns(
        UserWarning, match=r"fit: params has .* bfloat16.*master_weights.*stochastic_r"
    ):
        fitted(O.adam(1e-4))


@pytest.mark.filterwarnings("error")
def test_fit_does_not_warn_of_narrow_params_that_are_frozen():
    warn = functools.partial(warn_of_narrow_params, "fit", stacklevel=1)
    params = {"trunk": jnp.ones(2, jnp.bfloat16), "head": jnp.ones(2)}
    frozen = O.partition({"trunk": O.freeze(), "head": O.adam(1e-3)})
    warn(params, frozen.init(params))
    for optimizer in (O.partition({"trunk": O.adam(1e-3), "head": O.freeze()}), O.sgd(0.1)):
        with pytest.warns(UserWarning, match="fit: params has 'trunk' in bfloat16"):
            warn(params, optimizer.init(params))


@pytest.mark.parametrize("kind", KEPT)
def test_fit_trains_narrow_params(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fitted(KEPT[kind](), epochs=50, checkpoint=tmp_path)
        again = fitted(KEPT[kind](), epochs=50, checkpoint=tmp_path, resume=True)
    assert result.params["kernel"].dtype == jnp.bfloat16
    assert result.history["loss"][-1] < result.history["loss"][0]
    np.testing.assert_array_equal(result.params["kernel"], again.params["kernel"])


def test_training_run_warns_as_well():
    def train(optimizer):
        run = nn.training_run(
            MODEL, loss=nn.losses.squared_error, optimizer=optimizer, epochs=1, batch_size=8
        )
        return jax.eval_shape(
            lambda params: run(jax.random.key(0), (X, X), params=params), narrow_params()
        )

    with pytest.warns(UserWarning, match=r"training_run: params has"):
        train(O.adam(1e-4))
    for make in KEPT.values():
        train(make())
