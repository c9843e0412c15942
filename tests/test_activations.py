"""Activations that `jax.nn` has not: torch's numbers, extremes, kinks and distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once, quick_first

OWN = ("geglu", "hard_shrink", "quick_gelu", "reglu", "soft_shrink", "sparsemax", "squared_relu")
OWN = (*OWN, "swiglu")


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(*shape):
    """Normal numbers of standard deviation 3, and some at the kinks."""
    x = 3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x.flat[:6] = 0, 0.5, -0.5, 1, -1, 2
    return x


def compare(torch, ours, theirs, *arguments, tolerance=1e-5):
    """Value and gradients of the sum of the sine in all arguments."""

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jnp.cos(y))

    y, gradients = derived(*arguments)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    expected = theirs(*tensors)
    expected.sin().sum().backward()
    np.testing.assert_allclose(y, expected.detach(), tolerance, tolerance)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, tolerance, tolerance)


# torch


@pytest.mark.parametrize("threshold", [0.5, 2.0])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(nn.soft_shrink, "softshrink"), (nn.hard_shrink, "hardshrink")]
)
def test_shrinking_is_that_of_torch(torch, ours, theirs, threshold):
    theirs = getattr(torch.nn.functional, theirs)
    compare(torch, lambda x: ours(x, threshold), lambda x: theirs(x, threshold), normal(4, 10))


@pytest.mark.parametrize("slope", [np.full(1, 0.3), np.array([0.3, -0.2, 1.5])], ids=["1", "3"])
def test_prelu_is_that_of_torch(torch, slope):
    slope = slope.astype(np.float32)

    def ours(x, slope):
        return nn.functional.prelu(x, slope if slope.size > 1 else slope[0])

    def theirs(x, slope):  # torch's channels are the second axis
        return torch.nn.functional.prelu(x.movedim(-1, 1), slope).movedim(1, -1)

    compare(torch, ours, theirs, normal(2, 5, 3), slope)


def test_gated_units_are_those_of_torch(torch):
    functional = torch.nn.functional
    for ours, gate in (
        (nn.swiglu, functional.silu),
        (nn.reglu, functional.relu),
        (nn.geglu, lambda b: functional.gelu(b, approximate="tanh")),
        (lambda x: nn.geglu(x, approximate=False), functional.gelu),
    ):

        def theirs(x, gate=gate):
            a, b = x.chunk(2, -1)
            return a * gate(b)

        # The gelu of torch cancels to 0 from -5 on.
        compare(torch, ours, theirs, normal(5, 8), tolerance=3e-5)


def test_the_gate_is_the_second_half_as_in_glu():
    x = jnp.array([[1.0, 2.0, -jnp.inf, 30.0]])
    for gated in (nn.glu, nn.reglu):
        assert gated(x)[0, 0] == 0
    np.testing.assert_array_equal(nn.reglu(x.T, axis=0).T, nn.reglu(x))
    np.testing.assert_array_equal(nn.swiglu(x[:, 1::2]), [[60]])


def test_quick_gelu_and_squared_relu_are_those_of_torch(torch):
    compare(torch, nn.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x), normal(30))
    compare(torch, nn.squared_relu, lambda x: torch.relu(x) ** 2, normal(30))


# Extremes and dtypes


@each_value_once
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", OWN)
def test_extremes_of_narrow_dtypes_give_no_nan(name, dtype):
    largest = float(jnp.finfo(dtype).max)
    extremes = np.array([largest, 1000, 300, 40, 1, 1e-4, 0])
    x = jnp.asarray(np.stack([np.linspace(-1, 1, 14), np.append(extremes, -extremes)]), dtype)

    @fast_jit
    def derived(x):
        y, pullback = jax.vjp(getattr(nn, name), x)
        return y, pullback(jnp.ones_like(y))[0]

    # The halves of a gated unit are one moderate and one extreme.
    for halves in (x.ravel(), x[::-1].ravel()):
        y, gradient = derived(halves)
        assert y.dtype == gradient.dtype == dtype
        assert not np.isnan(y.astype(jnp.float32)).any()
        assert not np.isnan(gradient.astype(jnp.float32)).any()


@quick_first(3)
@pytest.mark.parametrize("name", OWN)
def test_nan_stays_nan(name):
    assert np.isnan(getattr(nn, name)(jnp.array([np.nan, np.nan]))).all()


@quick_first(3)
@pytest.mark.parametrize("name", OWN)
def test_integers_become_the_default_float(name):
    x = jnp.array([-2, 0, 1, 3])
    function = getattr(nn, name)
    np.testing.assert_array_equal(function(x), function(x.astype(jnp.float32)))


@pytest.mark.parametrize("shrink", [nn.soft_shrink, nn.hard_shrink])
def test_derivative_at_the_threshold_is_0(shrink):
    gradient = jax.vmap(jax.grad(shrink))(jnp.array([-0.5, 0.5]))
    np.testing.assert_array_equal(gradient, 0)


def test_threshold_may_be_traced_and_learned():
    gradient = fast_jit(jax.grad(lambda t: nn.soft_shrink(jnp.array([-2.0, 0.1, 3.0]), t).sum()))
    np.testing.assert_array_equal(gradient(0.5), 0)  # +1 for the negative, -1 for the positive
    y = fast_jit(jax.vmap(lambda t: nn.hard_shrink(jnp.arange(4.0), t)))(jnp.array([0.5, 2.0]))
    np.testing.assert_array_equal(y, [[0, 1, 2, 3], [0, 0, 0, 3]])


def test_threshold_of_a_wider_dtype_does_not_widen(x64):
    for shrink in (nn.soft_shrink, nn.hard_shrink):
        assert shrink(jnp.ones(3, jnp.float32), jnp.float64(0.5)).dtype == jnp.float32


# Sparsemax


def test_sparsemax_is_a_distribution_with_zeros():
    sparsemax = fast_jit(nn.sparsemax)
    x = normal(20, 7)
    y = np.asarray(sparsemax(x))
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)
    assert (y >= 0).all()
    assert (y == 0).any()
    np.testing.assert_allclose(sparsemax(x + 1000), y, atol=1e-3)
    np.testing.assert_allclose(sparsemax(y), y, atol=1e-6)  # it projects


def test_sparsemax_by_hand():
    x = [[0, 0, 0, 0], [1, 0, -5, -9], [0.5, 0, -1, -1], [-np.inf, 0.5, 0, -1], [1e30, 1e30, 0, 0]]
    y = [[0.25] * 4, [1, 0, 0, 0], [0.75, 0.25, 0, 0], [0, 0.75, 0.25, 0], [0.5, 0.5, 0, 0]]
    np.testing.assert_allclose(fast_jit(nn.sparsemax)(jnp.array(x)), y)
    np.testing.assert_array_equal(nn.sparsemax(jnp.array([3.0])), [1])


def test_jacobian_of_sparsemax_in_both_modes():
    x = jnp.array([1.0, 1.2, 0.9, -1.0])
    expected = np.zeros((4, 4))
    expected[:3, :3] = np.eye(3) - 1 / 3  # diag(s) - s s^T / |s|
    forward, reverse = fast_jit(lambda x: [j(nn.sparsemax)(x) for j in (jax.jacfwd, jax.jacrev)])(x)
    np.testing.assert_allclose(forward, expected, atol=1e-6)
    np.testing.assert_allclose(reverse, expected, atol=1e-6)


# Gumbel-softmax


def test_gumbel_softmax_draws_classes_by_their_probabilities(torch):
    p = np.array([0.1, 0.2, 0.7])
    logits = np.broadcast_to(np.log(p).astype(np.float32), (20_000, 3))
    ours = nn.gumbel_softmax(jax.random.key(0), logits, 0.5, hard=True)
    torch.manual_seed(0)
    theirs = torch.nn.functional.gumbel_softmax(torch.tensor(logits.copy()), 0.5, hard=True)
    np.testing.assert_allclose(ours.mean(0), p, atol=0.012)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.017)


def test_soft_gumbel_softmax_has_the_moments_of_torch(torch):
    logits = np.broadcast_to(np.array([0.0, 1.0, -1.0], np.float32), (20_000, 3))
    ours = nn.gumbel_softmax(jax.random.key(0), logits, 0.7)
    torch.manual_seed(0)
    theirs = torch.nn.functional.gumbel_softmax(torch.tensor(logits.copy()), 0.7).numpy()
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.012)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.012)


@pytest.mark.parametrize("axis", [-1, 0])
def test_hard_gumbel_softmax_is_one_hot_with_the_soft_gradient(axis):
    logits = normal(5, 4)

    @fast_jit
    def both(logits):
        def draw(logits, hard):
            return nn.gumbel_softmax(jax.random.key(0), logits, 0.7, hard=hard, axis=axis)

        pairs = [jax.vjp(lambda x, h=hard: draw(x, h), logits) for hard in (True, False)]
        return [(y, pullback(jnp.cos(logits))[0]) for y, pullback in pairs]

    (hard, hard_gradient), (soft, soft_gradient) = both(logits)
    np.testing.assert_array_equal(hard, soft == soft.max(axis, keepdims=True))
    np.testing.assert_allclose(soft.sum(axis), 1, rtol=1e-6)
    np.testing.assert_allclose(hard_gradient, soft_gradient, rtol=1e-6)
    assert np.abs(soft_gradient).max() > 0.01


def test_temperature_may_be_traced():
    def draw(temperature):
        return nn.gumbel_softmax(jax.random.key(0), jnp.zeros(5), temperature)

    cold, hot = fast_jit(jax.vmap(draw))(jnp.array([1e-3, 1e3]))
    np.testing.assert_allclose(cold.max(), 1, atol=1e-3)
    np.testing.assert_allclose(hot, 0.2, atol=1e-2)


def test_gumbel_softmax_of_excluded_classes():
    logits = jnp.array([0.0, -jnp.inf, 1.0])

    @fast_jit
    def derived(logits):
        y, pullback = jax.vjp(lambda x: nn.gumbel_softmax(jax.random.key(0), x, hard=True), logits)
        return y, pullback(jnp.arange(3.0))[0]

    y, gradient = derived(logits)
    assert y[1] == 0
    assert np.isfinite(gradient).all()


def test_gumbel_softmax_of_bfloat16_draws_in_float32():
    logits = jnp.zeros((3, 4), jnp.bfloat16)
    y = nn.gumbel_softmax(jax.random.key(0), logits)
    assert y.dtype == jnp.bfloat16
    wide = nn.gumbel_softmax(jax.random.key(0), logits.astype(jnp.float32))
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))


# PReLU


def test_slopes_of_prelu():
    x = jnp.ones((1, 4))
    for layer, shape in ((nn.prelu(), ()), (nn.prelu(per_channel=True), (4,))):
        params, _ = layer.init(jax.random.key(0), x)
        np.testing.assert_array_equal(params["scale"], np.full(shape, 0.25))


def test_prelu_in_a_network_has_slopes_for_each_place():
    model = nn.serial(nn.dense(4), nn.prelu(), nn.dense(3), nn.prelu(per_channel=True))
    params, _ = model.init(jax.random.key(0), jnp.ones((1, 2)))
    assert [params[i]["scale"].shape for i in (1, 3)] == [(), (3,)]


# Errors

X = np.ones((2, 3), np.float32)
BAD_CALLS = {
    "odd": (
        lambda: nn.swiglu(X),
        ValueError,
        r"swiglu: x has shape \(2, 3\), expected an even size along axis 1",
    ),
    "axis": (lambda: nn.geglu(X, 2), ValueError, "geglu: axis 2 is out of range"),
    "reglu": (lambda: nn.reglu(X, -1), ValueError, "reglu: x has shape"),
    "sparsemax_axis": (lambda: nn.sparsemax(X, 2), ValueError, "sparsemax: axis 2 is out of range"),
    "soft": (lambda: nn.soft_shrink(X, -1.0), ValueError, "soft_shrink: threshold is -1.0"),
    "hard": (lambda: nn.hard_shrink(X, -1.0), ValueError, "hard_shrink: threshold is -1.0"),
    "temperature": (
        lambda: nn.gumbel_softmax(jax.random.key(0), X, 0.0),
        ValueError,
        "gumbel_softmax: temperature is 0.0, expected a number greater than 0",
    ),
    "gumbel_axis": (
        lambda: nn.gumbel_softmax(jax.random.key(0), X, axis=2),
        ValueError,
        "gumbel_softmax: axis 2 is out of range",
    ),
    "key": (lambda: nn.gumbel_softmax(0, X), TypeError, "gumbel_softmax: key is int"),
    "slope": (
        lambda: nn.functional.prelu(X, np.ones(2)),
        ValueError,
        r"prelu: negative_slope has shape \(2,\) and x \(2, 3\), expected shape \(\) or",
    ),
    "scalar": (
        lambda: nn.prelu(per_channel=True).init(jax.random.key(0), 1.0),
        ValueError,
        "prelu: x is a scalar",
    ),
}


@pytest.mark.parametrize(("call", "exception", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(call, exception, message):
    with pytest.raises(exception, match=message):
        call()
