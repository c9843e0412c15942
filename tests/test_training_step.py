"""`train_step`: one pure step for one's own loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

pytestmark = pytest.mark.usefixtures("keys_are_used_once")


def noisy_loss(params, state, batch, key):
    """A loss with noise, a state that counts and a metric."""
    noise = jax.random.normal(key, ())
    loss = jnp.sum((params["w"] - batch) ** 2) + noise * jnp.sum(params["w"])
    return loss, ({"calls": state["calls"] + 1}, {"noise": noise})


def start(optimizer, seed=0):
    params, state = {"w": jnp.array([1.0, 2.0])}, {"calls": jnp.zeros(())}
    return nn.train_state(params, state, optimizer, jax.random.key(seed))


def test_a_step_is_gradient_update_and_next_state():
    optimizer = nn.optimizers.sgd(0.1)
    before = start(optimizer)
    after, metrics = nn.train_step(noisy_loss, optimizer)(before, jnp.zeros(2))
    gradient = 2 * before.params["w"] + metrics["noise"]
    np.testing.assert_allclose(after.params["w"], before.params["w"] - 0.1 * gradient, rtol=1e-6)
    assert after.state["calls"] == 1
    assert after.step == 1
    assert (
        metrics["loss"]
        == noisy_loss(before.params, before.state, jnp.zeros(2), jax.random.fold_in(before.key, 0))[
            0
        ]
    )


def test_each_step_has_its_own_noise_and_the_run_is_reproducible():
    optimizer = nn.optimizers.adam(0.1)
    step = jax.jit(nn.train_step(noisy_loss, optimizer))

    def run():
        return jax.lax.scan(step, start(optimizer), jnp.zeros((5, 2)))

    (last, metrics), (again, _) = run(), run()
    assert len(set(metrics["noise"].tolist())) == 5
    assert (last.params["w"] == again.params["w"]).all()


def test_a_donated_step_gives_its_memory_away():
    optimizer = nn.optimizers.adam(0.1)
    step = jax.jit(nn.train_step(noisy_loss, optimizer), donate_argnums=0)
    before = start(optimizer)
    after, _ = step(before, jnp.zeros(2))
    assert before.params["w"].is_deleted()
    assert not after.params["w"].is_deleted()


def keeping_params():
    """An optimizer whose state is made of the params themselves."""
    sgd = nn.optimizers.sgd(0.1)
    return nn.optimizers.Optimizer(
        lambda params: {"first": params, "again": params},
        lambda grads, state, params=None: (sgd.update(grads, sgd.init(params))[0], state),
    )


@pytest.mark.parametrize("make", [lambda: nn.optimizers.adam(0.1), keeping_params])
def test_a_donated_step_leaves_what_the_caller_gave(make):
    params, state, key = {"w": jnp.array([1.0, 2.0])}, {"calls": jnp.zeros(())}, jax.random.key(0)
    now = nn.train_state(params, state, make(), key)
    step = jax.jit(nn.train_step(noisy_loss, make()), donate_argnums=0)
    for _ in range(2):
        now, _ = step(now, jnp.zeros(2))
    assert jax.random.bits(key) == jax.random.bits(jax.random.key(0))
    np.testing.assert_array_equal(params["w"], [1.0, 2.0])
    assert state["calls"] == 0
    assert now.state["calls"] == 2


def test_value_and_gradient_reach_the_optimizer():
    def update(grads, state, params=None, *, value, grad, **extra):
        return jax.tree.map(lambda g: -value * g, grad), state

    optimizer = nn.optimizers.Optimizer(lambda params: (), update)
    before = start(optimizer)
    after, metrics = nn.train_step(noisy_loss, optimizer)(before, jnp.zeros(2))
    gradient = 2 * before.params["w"] + metrics["noise"]
    expected = before.params["w"] - metrics["loss"] * gradient
    np.testing.assert_allclose(after.params["w"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.train_step(noisy_loss, "sgd"), TypeError, "train_step: optimizer is 'sgd'"),
        (
            lambda: nn.train_state({}, {}, nn.optimizers.sgd, jax.random.key(0)),
            TypeError,
            "train_state: optimizer is the constructor sgd, expected an Optimizer",
        ),
        (
            lambda: nn.train_state({}, {}, nn.optimizers.sgd(0.1), 0),
            TypeError,
            r"train_state: key is int, expected a typed PRNG key as made by jax.random.key",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
