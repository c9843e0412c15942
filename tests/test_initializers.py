"""Initializers against their definitions, and against torch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once, quick_first

pytestmark = pytest.mark.usefixtures("keys_are_used_once")

init = nn.initializers


def draw(initializer, shape, dtype=jnp.float32, seed=0):
    """One array of an initializer."""
    return fast_jit(lambda key: initializer(key, shape, dtype))(jax.random.key(seed))


def abstract_draw(initializer, *arguments):
    """The shape and dtype of what an initializer makes."""
    return jax.eval_shape(lambda key: initializer(key, *arguments), jax.random.key(0))


# (initializer, shape, variance, bound of the values or None)
DISTRIBUTIONS = {
    "glorot_normal": (init.glorot_normal(), (300, 200), 2 / 500, None),
    "glorot_uniform": (init.glorot_uniform(), (300, 200), 2 / 500, (6 / 500) ** 0.5),
    "he_normal": (init.he_normal(), (300, 200), 2 / 300, None),
    "he_uniform": (init.he_uniform(), (300, 200), 2 / 300, (6 / 300) ** 0.5),
    "lecun_normal": (init.lecun_normal(), (300, 200), 1 / 300, None),
    "lecun_uniform": (init.lecun_uniform(), (300, 200), 1 / 300, (3 / 300) ** 0.5),
    "lecun_normal_of_a_convolution": (init.lecun_normal(), (3, 3, 20, 300), 1 / 180, None),
    "normal": (init.normal(0.3), (300, 200), 0.09, None),
    "uniform": (init.uniform(0.6), (300, 200), 0.03, None),
    "truncated_normal": (init.truncated_normal(0.5), (300, 200), 0.25 * 0.774, 1.0),
    "torch_uniform": (init.torch_uniform(), (300, 200), 1 / 900, 300**-0.5),
    "torch_uniform_of_a_convolution": (init.torch_uniform(), (3, 3, 20, 300), 1 / 540, 180**-0.5),
    "variance_scaling": (
        init.variance_scaling(3.0, "fan_out", "normal"),
        (300, 200),
        3 / 200,
        None,
    ),
}


@quick_first(7)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_variance_and_bound(name):
    initializer, shape, variance, bound = DISTRIBUTIONS[name]
    values = draw(initializer, shape)
    np.testing.assert_allclose(np.var(values), variance, rtol=0.05)
    if bound is not None:
        largest = np.abs(values).max()
        assert largest <= bound * 1.0001
        assert largest > 0.95 * bound


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_dtype(name):
    initializer, *_ = DISTRIBUTIONS[name]
    for dtype in (jnp.bfloat16, jnp.float32):
        assert abstract_draw(initializer, (3, 4, 5), dtype).dtype == dtype
    assert abstract_draw(initializer, (4, 5)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("initializer", "shape"),
    [(init.identity(2.0), (3, 4)), (init.dirac(), (3, 2, 2)), (init.sparse(0.5), (4, 3))],
    ids=["identity", "dirac", "sparse"],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_ours_have_the_dtype_asked_for(initializer, shape, dtype, x64):
    array = abstract_draw(initializer, shape, dtype)
    assert (array.shape, array.dtype) == (shape, jnp.dtype(dtype))


def test_constants():
    np.testing.assert_array_equal(draw(init.ones, (2, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(draw(init.zeros, (2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(draw(init.constant(0.5), (2, 3)), np.full((2, 3), 0.5))


def test_orthogonal_keeps_lengths():
    q = draw(init.orthogonal(), (5, 5))
    np.testing.assert_allclose(q.T @ q, np.eye(5), atol=1e-5)
    kernel = np.asarray(draw(init.delta_orthogonal(), (3, 2, 4)))
    np.testing.assert_array_equal(kernel[[0, 2]], 0)
    np.testing.assert_allclose(kernel[1] @ kernel[1].T, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("features", [2, 3, 5])
def test_identity_passes_inputs_through(features):
    layer = nn.dense(features, kernel_init=init.identity(2.0))
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x)
    passed = min(features, 3)
    np.testing.assert_array_equal(y[:, :passed], 2 * x[:, :passed])
    np.testing.assert_array_equal(y[:, passed:], 0)


@each_value_once
@pytest.mark.parametrize("spatial", [(3,), (3, 5), (1, 3, 3)])
@pytest.mark.parametrize("channels", [(2, 2), (2, 3), (3, 2)], ids=["same", "wider", "narrower"])
def test_dirac_passes_channels_through(spatial, channels):
    inputs, outputs = channels
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *(size + 2 for size in spatial), inputs)).astype(np.float32)
    kernel = draw(init.dirac(), (*spatial, inputs, outputs))
    axes = "DHW"[-len(spatial) :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    y = jax.lax.conv_general_dilated(x, kernel, (1,) * len(spatial), "SAME", None, None, layout)
    passed = min(channels)
    np.testing.assert_array_equal(y[..., :passed], x[..., :passed])
    np.testing.assert_array_equal(y[..., passed:], 0)


@quick_first(1)
@pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (0.5, 5), (0.51, 6), (1.0, 10)])
def test_sparse_has_the_same_number_of_zeros_in_each_output(sparsity, zeros):
    kernel = draw(init.sparse(sparsity, stddev=2.0), (10, 400))
    np.testing.assert_array_equal((kernel == 0).sum(0), zeros)
    if zeros < 10:
        np.testing.assert_allclose(np.std(kernel[kernel != 0]), 2, rtol=0.1)
    if 0 < zeros < 10:
        assert len(np.unique(np.asarray(kernel == 0), axis=1).T) > 20  # not the same places


GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": 2**0.5,
    "selu": 0.75,
    "leaky_relu": (2 / 1.0001) ** 0.5,
}


@pytest.mark.parametrize("name", GAINS)
def test_gain(name):
    np.testing.assert_allclose(init.calculate_gain(name), GAINS[name], rtol=1e-12)


def test_gain_of_leaky_relu_depends_on_its_slope():
    np.testing.assert_allclose(init.calculate_gain("leaky_relu", 1.0), 1)


def test_variances_and_gains_are_torchs():
    torch = pytest.importorskip("torch")
    for name in set(GAINS) - {"identity"}:  # which torch calls linear
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)

    theirs = torch.nn.Linear(300, 200).weight.detach().numpy().T
    ours = draw(init.torch_uniform(), theirs.shape)
    np.testing.assert_allclose(np.var(ours), np.var(theirs), rtol=0.05)
    np.testing.assert_allclose(np.abs(ours).max(), np.abs(theirs).max(), rtol=0.01)

    for spatial in ((3,), (4, 3)):
        kernel = torch.empty(3, 2, *spatial)  # (out, in, *spatial)
        theirs = np.moveaxis(torch.nn.init.dirac_(kernel).numpy(), (0, 1), (-1, -2))
        np.testing.assert_array_equal(draw(init.dirac(), (*spatial, 2, 3)), theirs)
