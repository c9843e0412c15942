"""The family of dropout: what is dropped, the statistics it promises, rates 0 and 1, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import quick_first

pytestmark = pytest.mark.usefixtures("keys_are_used_once")

f = nn.functional
N = 200_000
FAMILY = {
    "spatial_dropout": f.spatial_dropout,
    "stochastic_depth": f.stochastic_depth,
    "alpha_dropout": f.alpha_dropout,
    "gaussian_noise": f.gaussian_noise,
    "gaussian_dropout": f.gaussian_dropout,
}
each = pytest.mark.parametrize("name", FAMILY)


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def key(seed=0):
    """A key that no other call has used."""
    return jax.random.key(seed)


# What is dropped


def test_spatial_dropout_drops_channels_of_examples():
    y = np.asarray(f.spatial_dropout(key(), jnp.ones((50, 3, 4, 40)), 0.25))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    masks = y[:, 0, 0] != 0
    np.testing.assert_allclose(masks.mean(), 0.75, atol=0.05)
    assert len({row.tobytes() for row in masks}) == 50  # another mask for each example
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)


def test_elements_are_dropped_together_along_broadcast_dims():
    x = jnp.ones((4, 5, 6, 3))
    y = f.dropout(key(), x, 0.5, broadcast_dims=(1, -2))
    np.testing.assert_array_equal(y, f.spatial_dropout(key(), x, 0.5))
    layer = nn.dropout(0.5, broadcast_dims=1)
    y, _ = layer.apply({}, {}, x, key=key(), train=True)
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1], y.shape))
    assert (y[:, :, :1] != y).any()
    assert layer == nn.dropout(0.5, broadcast_dims=1)
    with pytest.raises(ValueError, match="dropout: broadcast_dims: axis 4 is out of range"):
        f.dropout(key(), x, 0.5, broadcast_dims=4)


def test_spatial_dropout_without_spatial_axes_is_dropout():
    x = jnp.ones((30, 20))
    np.testing.assert_array_equal(f.spatial_dropout(key(), x, 0.5), f.dropout(key(), x, 0.5))


def test_stochastic_depth_drops_examples():
    y = np.asarray(f.stochastic_depth(key(), jnp.ones((2000, 2, 3)), 0.2))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    np.testing.assert_allclose(np.mean(y[:, 0, 0] == 0), 0.2, atol=0.03)
    np.testing.assert_allclose(np.unique(y), [0, 1.25])


def test_stochastic_depth_leaves_out_a_branch():
    block = nn.residual(nn.serial(nn.dense(3), nn.stochastic_depth(0.5)))
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    params, state = block.init(key(), x)
    y, _ = block.apply(params, state, x, key=key(1), train=True)
    branch, _ = nn.dense(3).apply(params["layer"][0], {}, x)
    left_out = np.all(y == x, axis=1)
    assert 5 < left_out.sum() < 35
    np.testing.assert_allclose(y[~left_out], (x + 2 * branch)[~left_out], rtol=1e-5, atol=1e-5)


# Statistics


def test_dropout_drops_each_element_at_the_rate_and_on_its_own():
    """Mean and variance, and no element tells of another; within five standard errors."""
    shape = (999, 1001)  # two elements share a random word, and one of a row is left over
    draw = fast_jit(lambda key, rate: f.dropout(key, jnp.ones(shape), rate))
    error = 5 / np.sqrt(np.prod(shape))
    for rate in (0.0001, 0.1, 1 / 3, 0.9):
        y = np.float64(draw(key(), np.float32(rate)))
        odds = rate / (1 - rate)
        np.testing.assert_allclose(y.mean(), 1, atol=error * np.sqrt(odds))
        dropped = y == 0
        deviation = np.sqrt(rate * (1 - rate))
        np.testing.assert_allclose(dropped.mean(), rate, atol=error * deviation)
        np.testing.assert_allclose(
            y.var(), odds, atol=error * deviation * abs(1 - 2 * rate) / (1 - rate) ** 2
        )
        centered = (dropped - rate) / deviation
        for row, column in ((0, 1), (1, 0), (0, 500), (0, 501), (0, 502), (1, 501)):
            others = np.roll(centered, (row, column), (0, 1))
            assert abs((centered * others).mean()) < error * (1 + 1 / deviation), (row, column)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    x = jax.random.normal(key(), N)
    y = np.asarray(f.alpha_dropout(key(1), x, rate))
    np.testing.assert_allclose([y.mean(), y.var()], [0, 1], atol=0.02)


def test_alpha_dropout_keeps_a_deep_selu_network_normalised():
    layers = [layer for _ in range(8) for layer in (nn.dense(300), nn.selu, nn.alpha_dropout(0.1))]
    model = nn.serial(*layers)
    x = jax.random.normal(key(), (300, 300))
    params, state = model.init(key(1), x)
    y, _ = fast_jit(lambda x: model.apply(params, state, x, key=key(2), train=True))(x)
    np.testing.assert_allclose([y.mean(), y.var()], [0, 1], atol=0.15)


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_alpha_dropout_is_that_of_torch(torch, rate):
    x = np.full(1000, 0.7, np.float32)
    expected = torch.nn.functional.alpha_dropout(torch.tensor(x), rate, training=True).numpy()
    y = np.asarray(f.alpha_dropout(key(), x, rate))
    np.testing.assert_allclose(np.unique(y), np.unique(expected), rtol=1e-6)
    assert abs(np.mean(y == y.min()) - rate) < 0.06  # the lower value is that of the dropped


def test_gaussian_noise_has_its_standard_deviation():
    y = np.asarray(f.gaussian_noise(key(), jnp.full(N, 3.0), 0.5))
    np.testing.assert_allclose([y.mean(), y.std()], [3, 0.5], rtol=0.01)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_gaussian_dropout_has_mean_and_variance_of_dropout(rate):
    x = jnp.full(N, 2.0)
    noisy, dropped = (g(key(), x, rate) for g in (f.gaussian_dropout, f.dropout))
    np.testing.assert_allclose(noisy.mean(), 2, rtol=0.02)
    np.testing.assert_allclose(noisy.var(), dropped.var(), rtol=0.03)
    np.testing.assert_allclose(noisy.var(), 4 * rate / (1 - rate), rtol=0.03)


@quick_first(2)
@each
def test_bfloat16_draws_what_float32_draws(name):
    x = jnp.ones((100, 300), jnp.bfloat16)
    narrow, wide = (FAMILY[name](key(), x, 0.001) for x in (x, x.astype(jnp.float32)))
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, rtol=0.01)


# Rates


@pytest.mark.parametrize("name", ["spatial_dropout", "stochastic_depth", "alpha_dropout"])
def test_rate_1_gives_zeros_and_finite_gradients(name):
    x = jnp.array([[1.0, -2.0], [3.0, 4.0]])

    def drop(x):
        return FAMILY[name](key(), x, 1.0)

    np.testing.assert_array_equal(drop(x), 0)
    np.testing.assert_array_equal(jax.grad(lambda x: drop(x).sum())(x), 0)


@each
def test_amount_0_is_the_identity(name):
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    np.testing.assert_allclose(FAMILY[name](key(), x, 0.0), x, rtol=1e-6)


@quick_first(2)
@each
def test_gradient_in_the_amount_is_finite(name):
    def total(amount):
        return FAMILY[name](key(), jnp.ones((5, 3)), amount).sum()

    amounts = jnp.array([0.0, 0.3, 0.999 if name == "gaussian_dropout" else 1.0])
    assert np.isfinite(fast_jit(jax.vmap(jax.grad(total)))(amounts)).all()


def test_derivative_of_gaussian_noise_in_stddev_is_the_noise():
    y, tangent = jax.jvp(lambda s: f.gaussian_noise(key(), jnp.zeros(5), s), (2.0,), (1.0,))
    np.testing.assert_allclose(y, 2 * tangent, rtol=1e-6)


@quick_first(2)
@each
def test_amount_may_be_traced(name):
    x = jnp.ones((20, 30))

    @fast_jit
    @jax.vmap
    def by_layer(amount):
        layer = getattr(nn, name)(amount)
        return layer.apply({}, {}, x, key=key(), train=True)[0]

    for amount, y in zip((0.1, 0.5), by_layer(jnp.array([0.1, 0.5])), strict=True):
        np.testing.assert_allclose(y, FAMILY[name](key(), x, amount), rtol=1e-5, atol=1e-6)


def test_amount_of_a_wider_dtype_does_not_widen(x64):
    for function in FAMILY.values():
        assert function(key(), jnp.ones((4, 3), jnp.float32), jnp.float64(0.5)).dtype == jnp.float32


def test_alpha_dropout_at_infinity_in_the_dropped():
    y = f.alpha_dropout(key(), jnp.full(100, jnp.inf), 0.5)
    assert np.isfinite(y).any()  # the dropped are those of any other x
    assert not np.isnan(y).any()


# Keys and errors


@each
def test_evaluation_with_a_key_is_the_identity(name):
    x = jnp.arange(6).reshape(2, 3)
    y, _ = getattr(nn, name)(0.9).apply({}, {}, x, key=key(), train=False)
    assert y is x


@each
def test_training_without_a_key_names_the_layer(name):
    with pytest.raises(ValueError, match=rf"{name}\(0\.5\): training is random and needs a key"):
        getattr(nn, name)(0.5).apply({}, {}, jnp.ones((2, 3)), train=True)


@each
def test_raw_key_is_refused(name):
    with pytest.raises(TypeError, match=f"{name}: key is int, expected a typed PRNG key"):
        FAMILY[name](0, jnp.ones((2, 3)), 0.5)


ONES = np.ones((2, 3), np.float32)
BAD_CALLS = {
    "rate_high": (lambda: nn.spatial_dropout(1.5), r"spatial_dropout: rate is 1.5, .*in \[0, 1\]"),
    "rate_low": (lambda: nn.stochastic_depth(-0.1), r"stochastic_depth: rate is -0.1"),
    "rate_nan": (lambda: nn.alpha_dropout(np.nan), r"alpha_dropout: rate is nan"),
    "rate_1": (lambda: nn.gaussian_dropout(1.0), r"gaussian_dropout: rate is 1.0, .*in \[0, 1\)"),
    "stddev": (lambda: nn.gaussian_noise(-1.0), r"gaussian_noise: stddev is -1.0, .*>= 0"),
    "rate_of_function": (lambda: f.spatial_dropout(key(), ONES, 2), r"spatial_dropout: rate is 2"),
    "rate_1_of_function": (lambda: f.gaussian_dropout(key(), ONES, 1), r"rate is 1, .*in \[0, 1\)"),
    "no_channels": (
        lambda: f.spatial_dropout(key(), ONES[0], 0.5),
        r"spatial_dropout: x has shape \(3,\), expected shape \(batch, \*spatial, channels\)",
    ),
    "no_batch": (lambda: f.stochastic_depth(key(), 1.0, 0.5), r"stochastic_depth: x is a scalar"),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
