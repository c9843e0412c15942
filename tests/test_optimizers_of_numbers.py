"""Parameters that are numbers of Python, complex, or integers, which have no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests import optimizer_wrapper_cases as wrappers
from tests.compiling import fast_jit
from tests.optimizer_cases import DISTINCT_CASES
from tests.parameters import quick_first

O = nn.optimizers  # noqa: E741

FLOATS = {"bias": 1.0, "kernel": -2.0}
MIXED = {"bias": jnp.arange(2), "kernel": jnp.ones((2, 2))}
OF_MIXED = jax.grad(lambda params: jnp.sum(params["kernel"]), allow_int=True)(MIXED)

MADE = {case.name: case.make(O, case.rate) for case in DISTINCT_CASES}
MADE |= {case.name: wrappers.ours_of(case) for case in wrappers.CASES}
# Those that leave the integer out.
WITHOUT_BIAS = {name for name in MADE if name.startswith(("partition", "masked", "freeze"))}


def keywords(params, gradients):
    return {
        "value": jnp.float32(1),
        "grad": gradients,
        "value_fn": lambda p: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(p)),
    }


@quick_first(30)
@pytest.mark.parametrize("name", MADE)
def test_floats_of_python_are_arrays_without_axes(name):
    optimizer = MADE[name]

    def step(params):
        gradients = jax.tree.map(lambda p: 0.5 * p, params)
        state = optimizer.init(params)
        updates, _ = optimizer.update(gradients, state, params, **keywords(params, gradients))
        return O.apply_updates(params, updates)

    of_arrays = step(jax.tree.map(jnp.asarray, FLOATS))
    jax.tree.map(np.testing.assert_array_equal, step(FLOATS), of_arrays)


def test_a_line_search_that_finds_nothing_gives_back_a_gradient_of_floats():
    optimizer = O.lbfgs(0.1)
    extra = {"value": 1.0, "grad": FLOATS, "value_fn": lambda params: 0.0}
    _, state = optimizer.update(FLOATS, optimizer.init(FLOATS), FLOATS, **extra)
    of_arrays = jax.tree.map(jnp.asarray, FLOATS)
    extra["grad"] = of_arrays
    _, right = optimizer.update(of_arrays, optimizer.init(of_arrays), of_arrays, **extra)
    jax.tree.map(np.testing.assert_array_equal, state, right)


@pytest.mark.parametrize("name", sorted(MADE.keys() - WITHOUT_BIAS))
def test_the_gradient_of_an_integer_is_refused_by_its_path(name):
    optimizer = MADE[name]
    with pytest.raises(TypeError, match="the gradient at 'bias' has dtype float0, "):
        optimizer.update(OF_MIXED, optimizer.init(MIXED), MIXED, **keywords(MIXED, OF_MIXED))


@pytest.mark.parametrize(
    "optimizer",
    [O.partition({"bias": O.freeze(), "*": O.sgd(0.5)}), O.masked(O.sgd(0.5), "kernel")],
    ids=["partition", "masked"],
)
def test_integers_that_are_left_out_stay(optimizer):
    updates, _ = optimizer.update(OF_MIXED, optimizer.init(MIXED), MIXED)
    moved = O.apply_updates(MIXED, updates)
    np.testing.assert_array_equal(moved["bias"], [0, 1])
    np.testing.assert_array_equal(moved["kernel"], 0.5)


# Complex numbers

TURN = np.exp(0.8j)
REFUSE_COMPLEX = {name for name in MADE if name.startswith(("rprop", "sophia", "keep_params"))}
OF_INTEREST = ("adam", "adopt", "clip-sgd", "sam", "muon", "prodigy", "scale_by_lion-smooth")


def path(optimizer, turn):
    """Some steps down `½ |turn* w - (0.3, 1)|²`."""
    target = {"bias": jnp.array([turn * 0.3]), "kernel": jnp.array([[turn]])}

    def value_fn(params):
        distances = jax.tree.map(lambda p, t: jnp.sum(jnp.abs(p - t) ** 2), params, target)
        return 0.5 * sum(jax.tree.leaves(distances))

    params = {"bias": jnp.array([turn * 2.0]), "kernel": jnp.array([[turn * -1.5]])}
    state, walked = optimizer.init(params), []
    update = fast_jit(lambda *args: optimizer.update(*args, **keywords_of(args, value_fn)))
    for _ in range(3):
        grads = jax.tree.map(jnp.subtract, params, target)  # whose conjugate is that of jax.grad
        updates, state = update(grads, state, params)
        params = O.apply_updates(params, updates)
        walked.append(jnp.concatenate([params["bias"], params["kernel"][0]]))
    return np.array(walked)


def keywords_of(args, value_fn):
    return {"value": value_fn(args[2]), "grad": args[0], "value_fn": value_fn}


@quick_first(2)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in OF_INTEREST else pytest.mark.slow)
        for name in sorted(MADE.keys() - REFUSE_COMPLEX)
    ],
)
def test_a_complex_path_is_the_real_one_turned(name):
    real, turned = path(MADE[name], 1.0), path(MADE[name], TURN)
    np.testing.assert_allclose(turned, TURN * real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSE_COMPLEX))
def test_what_has_no_meaning_for_complex_numbers_is_refused(name):
    with pytest.raises(TypeError, match=r"complex.*expected (a )?real"):
        path(MADE[name], TURN)


def test_lbfgs_and_its_line_search_take_complex_numbers():
    for optimizer in (O.lbfgs(), O.chain(O.sgd(1.0), O.scale_by_zoom_linesearch(10))):
        np.testing.assert_allclose(path(optimizer, TURN), TURN * path(optimizer, 1.0), rtol=1e-4)


def test_value_and_grad_from_state_is_downhill():
    w = jnp.array([1 + 2j])
    optimizer = O.lbfgs()
    value_and_grad = O.value_and_grad_from_state(lambda w: jnp.sum(jnp.abs(w) ** 2))
    np.testing.assert_allclose(value_and_grad(w, state=optimizer.init(w))[1], 2 * w, rtol=1e-6)


def test_an_integer_is_not_moved_by_a_part_of_one():
    with pytest.raises(TypeError, match="params has a leaf of dtype int32 and updates one of fl"):
        O.apply_updates({"w": 1}, {"w": -0.1})
