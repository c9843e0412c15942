"""Differentiating through training: by optimizers, at zero gradients too, and by whole runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.optimizer_cases import DISTINCT_CASES, usual_promotion

FAST = {"adam", "adafactor", "lamb", "sgd-momentum"}
PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.0, 1.0])}


def after_two_steps(optimizer, params, strength):
    """A number that depends on all params after two steps with gradients `strength * params`."""
    state = optimizer.init(params)
    for _ in range(2):
        gradients = jax.tree.map(lambda p: strength * p, params)
        updates, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.name in FAST else [pytest.mark.slow])
        for case in DISTINCT_CASES
    ],
)
def test_meta_gradients_are_finite_at_zero_gradients(case):
    """As of params that a loss does not depend on, by whatever makes it depend on them."""

    @fast_jit
    @jax.grad
    def meta_gradient(given):
        rate, strength, params = given
        return after_two_steps(case.make(nn.optimizers, rate), params, strength)

    slopes = meta_gradient((case.rate, 0.0, PARAMS))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes)), slopes


@pytest.mark.slow
def test_those_of_optax_are_not():
    """Why the above is worth a test: the slope of a square root at 0."""
    optax = pytest.importorskip("optax")
    with usual_promotion():
        assert np.isnan(jax.grad(lambda s: after_two_steps(optax.adam(0.1), PARAMS, s))(0.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [nn.optimizers.adam, lambda rate: nn.optimizers.sgd(rate, momentum=0.9)]
)
def test_the_derivative_of_a_run_by_its_rate_agrees_with_differences(make, x64):
    x = np.linspace(-1, 1, 12)[:, None]
    train = nn.training_run(
        nn.mlp([4, 1], activation=nn.tanh),
        loss=nn.losses.squared_error,
        optimizer=make,
        epochs=3,
        batch_size=4,
    )

    def last_loss(rate):
        return train(jax.random.key(0), (x, np.sin(3 * x)), rate)[2]["loss"][-1]

    slope, step = fast_jit(jax.grad(last_loss))(0.05), 1e-6
    value = fast_jit(last_loss)
    difference = (value(0.05 + step) - value(0.05 - step)) / (2 * step)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
