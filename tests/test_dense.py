"""Affine maps of several axes, reshaping, and the networks made of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import quick_first

f = nn.functional


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare(torch, ours, theirs, *arguments):
    """Value and gradients of the sum of the sine in all arguments."""

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jnp.cos(y))

    y, gradients = derived(*arguments)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    expected = theirs(*tensors)
    expected.sin().sum().backward()
    np.testing.assert_allclose(y, expected.detach(), 1e-5, 1e-5)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, 1e-4, 1e-5)


def normal_params(layer, *shape):
    """Normal parameters, biases included, for inputs of a shape."""
    x = jax.ShapeDtypeStruct(shape, np.float32)
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten([normal(i, *leaf.shape) for i, leaf in enumerate(leaves)])


# torch


@pytest.mark.parametrize(
    ("axis", "kernel", "equation"),
    [
        (-1, (4, 2, 3), "abcd,dxy->abcxy"),
        ((1, 3), (3, 4, 2), "abcd,bdx->acx"),
        ((-1, 0), (2, 4, 5), "abcd,adx->bcx"),  # the kernel's axes are in the order of x's
    ],
)
def test_linear_general_is_that_of_torch(torch, axis, kernel, equation):
    bias = kernel[len(np.atleast_1d(axis)) :]

    def theirs(x, kernel, bias):
        return torch.einsum(equation, x, kernel) + bias

    def ours(x, kernel, bias):
        return f.linear_general(x, kernel, bias, axis=axis)

    compare(torch, ours, theirs, normal(0, 2, 3, 2, 4), normal(1, *kernel), normal(2, *bias))


def test_einsum_is_that_of_torch(torch):
    equation = "...nd,ndf->n...f"

    def theirs(x, kernel, bias):
        return torch.einsum(equation, x, kernel) + bias[:, None, None]

    def ours(x, kernel, bias):
        return f.einsum(equation, x, kernel, bias)

    compare(torch, ours, theirs, normal(0, 2, 3, 4, 5), normal(1, 4, 5, 2), normal(2, 4, 2))


PRODUCTS = "...d,dhk->...hk", "b...hk,hkd->bd...", "...hdk,kqh->q...d", "abc,cb->a", "...d,d->..."
OTHERS = "...nd,ndf->n...f", "...d,d->...d", "abc,bd->ad", "aac,cd->ad", "a...,b->b...a"


@pytest.mark.parametrize("equation", [*PRODUCTS, *OTHERS])
def test_einsum_is_that_of_numpy(equation):
    size = dict(zip("abcdfhknq", range(2, 11), strict=True))
    operands, of_y = equation.split("->")
    of_x, of_kernel = operands.split(",")
    features = "".join(a for a in of_y if a in of_kernel)

    def shape(letters):
        before, dots, after = letters.partition("...")
        return *(size[a] for a in before), *((4, 1, 3) if dots else ()), *(size[a] for a in after)

    x, kernel, bias = (normal(i, *shape(a)) for i, a in enumerate((of_x, of_kernel, features)))
    expected = np.einsum(equation, x, kernel)
    everywhere = np.einsum(f"{of_y},{features}->{of_y}", np.ones_like(expected), bias)
    np.testing.assert_allclose(f.einsum(equation, x, kernel), expected, 1e-4, 1e-5)
    y = f.einsum(equation, x, kernel, bias)
    np.testing.assert_allclose(y, expected + everywhere, 1e-4, 1e-5)
    if equation in PRODUCTS:
        program = str(jax.make_jaxpr(functools.partial(f.einsum, equation))(x, kernel))
        assert "dimension_numbers=(([1], [0]), ([], []))" in program


def test_maxout_is_that_of_torch(torch):
    def theirs(x, kernel, bias):
        return (torch.einsum("bi,ikf->bkf", x, kernel) + bias).amax(1)

    compare(torch, f.maxout, theirs, normal(0, 7, 3), normal(1, 3, 4, 5), normal(2, 4, 5))


@pytest.mark.parametrize("name", ["mlp", "mlp_activated", "feed_forward"])
def test_blocks_are_those_of_torch(torch, name):
    relu, gelu = torch.nn.ReLU(), torch.nn.GELU(approximate="tanh")
    layer, modules = {
        "mlp": (nn.mlp([5, 4, 2]), [(3, 5), relu, (5, 4), relu, (4, 2)]),
        "mlp_activated": (nn.mlp([5, 4], activate_final=True), [(3, 5), relu, (5, 4), relu]),
        "feed_forward": (nn.feed_forward(6), [(3, 6), gelu, (6, 3)]),
    }[name]
    params = normal_params(layer, 2, 3)
    theirs = torch.nn.Sequential(
        *(torch.nn.Linear(*m) if isinstance(m, tuple) else m for m in modules)
    )
    linears = [module for module in theirs if isinstance(module, torch.nn.Linear)]
    of_dense = [child for child in params.values() if child]
    for child, module in zip(of_dense, linears, strict=True):
        module.weight.data = torch.tensor(child["kernel"].T.copy())
        module.bias.data = torch.tensor(child["bias"])
    compare(torch, lambda x: layer.apply(params, {}, x)[0], theirs, normal(9, 6, 3))


# Initialisation


@quick_first(2)
@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [
        (nn.dense_general((8, 50)), (1, 400), 400),
        (nn.dense_general(400, axis=(-2, -1)), (1, 8, 50), 400),
        (nn.maxout(100, 4), (1, 400), 400),
        (nn.einsum("bd,dhk->bhk", {"h": 8, "k": 50}), (1, 400), 400),
        (nn.einsum("bhk,hkd->bd", {"d": 400}), (1, 8, 50), 400),
        (nn.einsum("bnd,ndf->bnf", {"f": 100}), (1, 4, 400), 400),
    ],
    ids=["split", "join", "maxout", "einsum_split", "einsum_join", "einsum_shared"],
)
def test_variance_of_the_kernel_is_one_over_its_inputs(layer, shape, fan_in):
    params, _ = layer.init(jax.random.key(0), jnp.zeros(shape))
    np.testing.assert_allclose(np.var(params["kernel"]) * fan_in, 1, rtol=0.05)
    np.testing.assert_array_equal(params["bias"], 0)


def test_einsum_draws_another_kernel_for_each_shared_index():
    layer = nn.einsum("bnd,ndf->bnf", {"f": 3}, kernel_init=nn.initializers.orthogonal())
    params, _ = layer.init(jax.random.key(0), jnp.zeros((1, 2, 3)))
    a, b = params["kernel"]
    assert not np.allclose(a, b)
    np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-5)


# What they compute


def test_equal_pieces_give_the_gradient_to_the_first():
    x, kernel = jnp.ones(1), jnp.ones((1, 3, 1))
    gradient = jax.grad(lambda kernel: f.maxout(x, kernel).sum())(kernel)
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0])


def test_maxout_of_opposites_is_the_absolute_value():
    kernel = jnp.array([[[1.0], [-1.0]]])
    np.testing.assert_array_equal(f.maxout(jnp.array([[-2.0], [3.0]]), kernel), [[2], [3]])


def test_einsum_without_features_scales():
    layer = nn.einsum("...d,d->...d", use_bias=False)
    params, state = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    assert params["kernel"].shape == (3,)
    y, _ = layer.apply({"kernel": jnp.array([1.0, 2.0, 3.0])}, state, jnp.ones((2, 3)))
    np.testing.assert_array_equal(y, [[1, 2, 3]] * 2)


def test_reshape_keeps_the_batch():
    x = jnp.arange(24).reshape(2, 12)
    for shape, expected in (((3, 4), (2, 3, 4)), ((-1, 2), (2, 6, 2)), ([-1], (2, 12))):
        y = f.reshape(x, shape)
        assert y.shape == expected
        np.testing.assert_array_equal(y.ravel(), x.ravel())
    assert f.reshape(jnp.zeros((0, 6)), (-1, 2)).shape == (0, 3, 2)
    assert f.reshape(jnp.zeros(5), (1, 1)).shape == (5, 1, 1)
    assert f.reshape(jnp.zeros((5, 1)), ()).shape == (5,)


def test_mlp_names_and_dropout():
    model = nn.mlp((4, 4, 2), activation=nn.prelu(), dropout_rate=0.5)
    x = jax.ShapeDtypeStruct((1, 3), np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    hidden = [f"{name}_{i}" for i in (0, 1) for name in ("dense", "activation", "dropout")]
    assert params.keys() == {*hidden, "dense_2"}
    assert params["activation_1"].keys() == {"scale"}
    with pytest.raises(ValueError, match="needs a key"):
        jax.eval_shape(functools.partial(model.apply, train=True), params, state, x)


@pytest.mark.parametrize("model", [nn.mlp((4, 2)), nn.feed_forward(4)])
def test_blocks_without_dropout_need_no_key(model):
    x = jax.ShapeDtypeStruct((1, 3), np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    jax.eval_shape(functools.partial(model.apply, train=True), params, state, x)


def test_dropout_rate_of_blocks_may_be_traced():
    x = jnp.ones((2, 3))

    @fast_jit
    def run(rate):
        outputs = []
        for model in (nn.mlp((4, 2), dropout_rate=rate), nn.feed_forward(4, dropout_rate=rate)):
            params, state = model.init(jax.random.key(0), x)
            outputs.append(model.apply(params, state, x, key=jax.random.key(1), train=True)[0])
        return outputs

    for y in run(1.0):
        np.testing.assert_array_equal(y, 0)  # of the zeros the biases are left, which begin at 0


@pytest.mark.parametrize("activation", [nn.swiglu, nn.geglu, nn.reglu, nn.glu])
def test_gated_feed_forward_halves_the_hidden_features(activation):
    model = nn.feed_forward(8, activation, use_bias=False)
    params, _ = model.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 3), np.float32))
    assert jax.tree.map(jnp.shape, params) == {
        "hidden": {"kernel": (3, 8)},
        "activation": {},
        "out": {"kernel": (4, 3)},
    }


def test_feed_forward_with_another_dense():
    asked = []

    def spectral_dense(features, *, use_bias):
        asked.append((features, use_bias))
        return nn.spectral_norm(nn.dense(features, use_bias=use_bias))

    model = nn.feed_forward(8, dense=spectral_dense)
    x = jax.ShapeDtypeStruct((2, 3), np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(asked) == {(8, True), (3, True)}
    y, new_state = jax.eval_shape(functools.partial(model.apply, train=True), params, state, x)
    assert y == x
    assert new_state == state
    assert state.keys() == {"hidden", "out"}


# Errors

X = np.ones((2, 3), np.float32)
BAD_CALLS = {
    "kernel": (
        lambda: f.linear_general(X, np.ones((2, 3)), axis=-1),
        ValueError,
        r"linear_general: kernel has shape \(2, 3\), expected \(3,\) first, .* shape \(2, 3\)",
    ),
    "bias": (
        lambda: f.linear_general(X, np.ones((3, 4)), np.ones(3)),
        ValueError,
        r"linear_general: bias has shape \(3,\), expected shape \(4,\)",
    ),
    "axis": (
        lambda: nn.dense_general(2, axis=2).init(jax.random.key(0), X),
        ValueError,
        "dense_general: axis 2 is out of range",
    ),
    "features": (lambda: nn.dense_general((2, 0)), ValueError, "dense_general: features is 0"),
    "features_float": (lambda: nn.dense_general(2.0), TypeError, "dense_general: features is 2.0"),
    "equation_form": (
        lambda: nn.einsum("ab,bc"),
        ValueError,
        "einsum: equation is 'ab,bc', expect",
    ),
    "equation_letter": (lambda: nn.einsum("ab,bc->ab"), ValueError, "each letter of the kernel"),
    "equation_output": (lambda: nn.einsum("ab,b->abz"), ValueError, "of y in x or the kernel"),
    "equation_dots": (lambda: nn.einsum("ab,...b->a..."), ValueError, "expected the form"),
    "equation_twice": (lambda: nn.einsum("ab,bb->ab"), ValueError, "the kernel has a letter twice"),
    "einsum_axes": (
        lambda: nn.einsum("abc,cd->abd", {"d": 2}).init(jax.random.key(0), X),
        ValueError,
        r"einsum: x has shape \(2, 3\), expected axes as in 'abc'",
    ),
    "einsum_missing": (
        lambda: nn.einsum("ab,bc->ac").init(jax.random.key(0), X),
        ValueError,
        r"einsum: sizes is \{\} and x gives \{'a': 2, 'b': 3\}, expected one size for each letter",
    ),
    "einsum_differs": (
        lambda: nn.einsum("ab,bc->ac", {"b": 4, "c": 2}).init(jax.random.key(0), X),
        ValueError,
        r"einsum: sizes is \{'b': 4, 'c': 2\}",
    ),
    "einsum_size": (lambda: nn.einsum("ab,bc->ac", {"c": 0}), ValueError, "einsum: 'c' is 0"),
    "einsum_kernel": (
        lambda: f.einsum("ab,bc->ac", X, np.ones((2, 2))),
        ValueError,
        r"einsum: kernel has shape \(2, 2\) and x \(2, 3\), expected shapes that fit .*'ab,bc->ac'",
    ),
    "einsum_bias": (
        lambda: f.einsum("ab,bc->ac", X, np.ones((3, 2)), np.ones(3)),
        ValueError,
        r"einsum: bias has shape \(3,\), expected shape \(2,\)",
    ),
    "maxout_kernel": (
        lambda: f.maxout(X, np.ones((3, 2))),
        ValueError,
        r"maxout: kernel has shape \(3, 2\), expected shape \(in, num_pieces, features\)",
    ),
    "maxout_pieces": (lambda: nn.maxout(2, 0), ValueError, "maxout: num_pieces is 0"),
    "reshape": (
        lambda: f.reshape(X, (2, 2)),
        ValueError,
        r"reshape: x has shape \(2, 3\) and shape is \(2, 2\), expected 3 elements",
    ),
    "reshape_left": (lambda: f.reshape(X, (2, -1)), ValueError, r"shape is \(2, -1\), expected 3"),
    "reshape_twice": (lambda: f.reshape(X, (-1, -1)), ValueError, "-1 at most once"),
    "reshape_scalar": (lambda: f.reshape(1.0, (1,)), ValueError, "reshape: x is a scalar"),
    "mlp_empty": (lambda: nn.mlp([]), ValueError, "mlp: features is empty"),
    "mlp_features": (lambda: nn.mlp([4, 0]), ValueError, "mlp: features is 0"),
    "mlp_rate": (lambda: nn.mlp([4, 2], dropout_rate=2.0), ValueError, "mlp: dropout_rate is 2.0"),
    "feed_forward_hidden": (
        lambda: nn.feed_forward(0),
        ValueError,
        "feed_forward: hidden_features is 0",
    ),
    "feed_forward_scalar": (
        lambda: nn.feed_forward(4).init(jax.random.key(0), 1.0),
        ValueError,
        r"feed_forward: x has shape \(\), expected shape \(..., features\)",
    ),
    "feed_forward_activation": (
        lambda: nn.feed_forward(4, nn.prelu).init(jax.random.key(0), X),
        TypeError,
        "feed_forward: activation is the constructor prelu",
    ),
}


@pytest.mark.parametrize(("call", "exception", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(call, exception, message):
    with pytest.raises(exception, match=message):
        call()
