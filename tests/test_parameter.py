"""A layer that is a parameter, by itself and in a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

SCALE = np.array([0.5, -2.0, 3.0], np.float32)


def scaled(f, x):
    return x * jnp.broadcast_to(f.scale().astype(x.dtype), x.shape)


def test_its_gradient_is_that_of_what_it_is_used_for(key):
    model = nn.compose(scaled, scale=nn.parameter((3,), nn.initializers.normal(1.0)))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    params, state = model.init(key, x)
    assert params["scale"].shape == (3,)
    assert params["scale"].dtype == jnp.float32
    assert np.ptp(params["scale"]) > 0

    def loss(params, x):
        y, new_state = model.apply(params, state, x)
        assert new_state == state == {}
        return (y**2).sum() / 2

    gradient, dx = jax.jit(jax.grad(loss, argnums=(0, 1)))({"scale": jnp.array(SCALE)}, x)
    # y = x s, dy = y: ds = sum x dy, dx = s dy.
    x64, s64 = x.astype(np.float64), SCALE.astype(np.float64)
    np.testing.assert_allclose(gradient["scale"], (x64 * x64 * s64).sum(0), rtol=1e-5)
    np.testing.assert_allclose(dx, x64 * s64 * s64, rtol=1e-5)


def test_its_dtype_is_what_it_was_told(key, x64):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.complex64):
        layer = nn.parameter((), nn.initializers.ones, dtype=dtype)
        params, state = layer.init(key, jnp.zeros(3, jnp.float64))
        assert params.dtype == dtype
        assert layer.apply(params, state, None) == (1, {})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.parameter(3), TypeError, "shape is 3, expected a sequence"),
        (lambda: nn.parameter("3"), TypeError, "shape is '3', expected a sequence"),
        (lambda: nn.parameter((0,)), ValueError, "shape is 0, expected"),
        (lambda: nn.parameter((3,), 0.0), TypeError, "init is 0.0, expected an initializer"),
        (lambda: nn.parameter((3,), dtype=int), ValueError, "dtype is .*, expected a floating"),
        (
            lambda: nn.parameter((3,)).apply(jnp.zeros(2), {}, None),
            ValueError,
            r"params has shape \(2,\), expected shape \(3,\)",
        ),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=f"parameter: {message}"):
        make()
