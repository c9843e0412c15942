"""Parameters that are numbers of Python, and integers, which have no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests import optimizer_wrapper_cases as wrappers
from tests.optimizer_cases import DISTINCT_CASES

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


def test_an_integer_is_not_moved_by_a_part_of_one():
    with pytest.raises(TypeError, match="params has a leaf of dtype int32 and updates one of fl"):
        O.apply_updates({"w": 1}, {"w": -0.1})
