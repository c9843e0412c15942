"""The parts of states that are like the parameters, found by `map_params` and by optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxnn as nn
from jaxnn._core.paths import leaf_paths
from jaxnn.optimizers._map_params import is_masked
from tests import optimizer_wrapper_cases as wrappers
from tests.optimizer_cases import DISTINCT_CASES

O = nn.optimizers  # noqa: E741

PARAMS = {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}
NAMES = {"bias": "bias", "kernel": "kernel"}

MADE = {case.name: case.make(O, case.rate) for case in DISTINCT_CASES}
MADE |= {case.name: wrappers.ours_of(case) for case in wrappers.CASES}
MADE |= {
    "lbfgs": O.lbfgs(),
    "two-parts": O.partition({"ker*": O.adam(0.1), "*": O.sgd(0.1, 0.9)}),
    "all": O.partition({"*": O.adam(0.1)}),
    "masked-in-chain": O.chain(O.masked(O.trace(0.9), "bias"), O.adamw(0.1, weight_decay=0.1)),
    "add_noise": O.add_noise(0.1, 0.5, jax.random.key(0)),
}
every_optimizer = pytest.mark.parametrize("name", MADE)


def states(optimizer):
    return jax.eval_shape(optimizer.init, PARAMS)


def expected(state):
    """By the ends of paths."""
    ends = [path.split("/")[-1] for path in leaf_paths(state)]
    return [end if end in NAMES else "other" for end in ends]


@every_optimizer
def test_every_optimizer(name):
    optimizer, state = MADE[name], states(MADE[name])
    named = O.map_params(
        optimizer, lambda leaf, name: name, state, NAMES, transform_non_params=lambda _: "other"
    )
    assert jax.tree.structure(named) == jax.tree.structure(state)
    assert jax.tree.leaves(named) == expected(state)


@every_optimizer
def test_optax_finds_the_same(name):
    optax = pytest.importorskip("optax")
    optimizer, state = MADE[name], states(MADE[name])
    named = optax.tree.map_params(
        optimizer,
        lambda leaf, name: leaf if is_masked(leaf) else name,
        state,
        NAMES,
        transform_non_params=lambda _: "other",
        is_leaf=is_masked,
    )
    assert jax.tree.leaves(named) == expected(state)


def test_other_leaves_stay():
    optimizer = O.chain(O.masked(O.trace(0.9), "bias"), O.adam(lambda count: 0.1))
    state = optimizer.init(PARAMS)
    doubled = O.map_params(optimizer, lambda leaf: leaf + 2, state)
    assert doubled[1][0].count == 0
    np.testing.assert_array_equal(doubled[1][0].mu["kernel"], np.full((3, 2), 2))
    assert is_masked(doubled[0].inner_state.trace["kernel"])


def test_ours_in_optax_and_optax_in_ours():
    optax = pytest.importorskip("optax")
    for optimizer in (
        optax.chain(O.masked(O.trace(0.9), "bias"), O.adam(0.1)),
        O.partition({"bias": optax.adam(0.1), "*": O.freeze()}),
    ):
        state = states(optimizer)
        named = O.map_params(
            optimizer, lambda leaf, name: name, state, NAMES, transform_non_params=lambda _: "other"
        )
        assert jax.tree.leaves(named) == expected(state)


def test_a_state_is_put_where_its_parameters_are():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    of_params = {
        "bias": NamedSharding(mesh, PartitionSpec()),
        "kernel": NamedSharding(mesh, PartitionSpec("data")),
    }
    optimizer = O.partition({"kernel": O.adam(0.1), "*": O.sgd(0.1, 0.9)})
    shardings = O.map_params(
        optimizer,
        lambda leaf, sharding: sharding,
        states(optimizer),
        of_params,
        transform_non_params=lambda leaf: NamedSharding(mesh, PartitionSpec()),
    )
    state = jax.jit(optimizer.init, out_shardings=shardings)(PARAMS)
    moments = state.inner_states["kernel"].inner_state[0]
    assert moments.mu["kernel"].sharding.spec == PartitionSpec("data")
    assert moments.count.sharding.spec == PartitionSpec()


def test_what_is_no_optimizer_or_of_another_is_refused():
    with pytest.raises(TypeError, match="map_params: optimizer is 3"):
        O.map_params(3, lambda leaf: leaf, ())
    with pytest.raises(ValueError, match=r"Expected|structure"):
        O.map_params(O.adam(0.1), lambda leaf: leaf, O.sgd(0.1, 0.9).init(PARAMS))
