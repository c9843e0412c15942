"""Weight and spectral normalisation: against torch, at their edges, around other layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import reparametrization
from tests.parameters import quick_first
from tests.test_errors_layers import check as check_error
from tests.test_torch_parity import compare, normal

f = nn.functional
ones = jnp.ones


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def largest_singular_value(kernel):
    """Of the kernel as a matrix (inputs, outputs)."""
    return np.linalg.norm(np.asarray(kernel).reshape(-1, kernel.shape[-1]), 2)


# Against torch


@pytest.mark.parametrize(
    ("shape", "dim", "axis"),
    [((4, 3), 0, 0), ((4, 3), 1, -1), ((3, 2, 2, 4), 0, 0), ((3, 2, 2), None, ())],
)
def test_weight_norm_of_an_array(torch, shape, dim, axis):
    kernel = normal(0, *shape)
    module = torch.nn.Linear(1, 1)
    module.weight = torch.nn.Parameter(torch.tensor(kernel))
    parametrization = torch.nn.utils.parametrizations.weight_norm(module, dim=dim).parametrizations

    def ours(kernel, scale):
        return f.weight_norm(kernel, scale, axis=axis)

    def theirs(kernel, scale):
        return parametrization.weight[0](scale.reshape(their_shape), kernel)

    their_shape = parametrization.weight.original0.shape
    scale = normal(1, *(shape[a] for a in ([axis] if isinstance(axis, int) else axis)))
    compare(ours, theirs, (kernel, np.asarray(scale, np.float32)), torch)


def test_weight_norm_of_a_dense_layer(torch):
    layer = nn.weight_norm(nn.dense(3))
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3))
    x, kernel, scale, bias = normal(0, 5, 4), normal(1, 4, 3), normal(2, 3), normal(3, 3)

    def ours(x, kernel, scale, bias):
        params = {"layer": {"kernel": kernel, "bias": bias}, "scale": {"kernel": scale}}
        return layer.apply(params, {}, x)[0]

    def theirs(x, kernel, scale, bias):
        weight = module.parametrizations.weight[0](scale[:, None], kernel.T)
        return torch.nn.functional.linear(x, weight, bias)

    compare(ours, theirs, (x, kernel, scale, bias), torch)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_spectral_norm_of_a_dense_layer(torch, n_steps):
    layer = nn.spectral_norm(nn.dense(3), n_steps=n_steps)
    linear = torch.nn.Linear(4, 3)
    module = torch.nn.utils.parametrizations.spectral_norm(linear, n_power_iterations=n_steps)
    theirs = module.parametrizations.weight
    x, kernel, bias = normal(0, 5, 4), normal(1, 4, 3), normal(2, 3)
    theirs.original.data, module.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
    u, v = theirs[0]._v.numpy().copy(), theirs[0]._u.numpy().copy()
    state = {"u": {"kernel": u}, "v": {"kernel": v}}
    params = {"layer": {"kernel": kernel, "bias": bias}}

    def loss(params, state, x, train):
        y, state = layer.apply(params, state, x, train=train)
        return jnp.sum(jnp.sin(y)), state

    gradient = fast_jit(jax.value_and_grad(loss, (0, 2), has_aux=True), static_argnums=3)
    for train in (True, True, False):
        module.train(train).zero_grad()
        given = torch.tensor(x, requires_grad=True)
        expected = torch.sin(module(given)).sum()
        expected.backward()
        (value, state), (dparams, dx) = gradient(params, state, x, train)
        np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
        dkernel, dbias = dparams["layer"]["kernel"], dparams["layer"]["bias"]
        np.testing.assert_allclose(dkernel.T, theirs.original.grad, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dbias, module.bias.grad, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dx, given.grad, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state["u"]["kernel"], theirs[0]._v, atol=1e-6)
        np.testing.assert_allclose(state["v"]["kernel"], theirs[0]._u, atol=1e-6)


@pytest.mark.parametrize(("dim", "shape"), [(0, (3, 2, 2, 2)), (1, (2, 3, 2))])
def test_spectral_norm_of_a_kernel_of_many_axes(torch, dim, shape):
    module = torch.nn.Linear(1, 1)
    kernel = normal(0, *shape)
    module.weight = torch.nn.Parameter(torch.tensor(kernel))
    module = torch.nn.utils.parametrizations.spectral_norm(module, dim=dim)
    theirs = module.parametrizations.weight[0]
    u, v = theirs._v.numpy().copy(), theirs._u.numpy().copy()

    def ours(kernel):
        vectors = f.power_iteration(jax.lax.stop_gradient(kernel), u, v, axis=dim)
        return f.spectral_norm(kernel, *vectors, axis=dim)

    compare(ours, theirs, (kernel,), torch)


# Weight norm


@pytest.mark.parametrize(
    "layer",
    [nn.dense(3), nn.serial(hidden=nn.dense(3), norm=nn.batch_norm(), out=nn.dense(2))],
    ids=["dense", "serial"],
)
def test_weight_norm_changes_nothing_at_first(layer):
    x = normal(0, 5, 4)
    wrapped = nn.weight_norm(layer)

    @fast_jit
    def both(key):
        params, state = wrapped.init(key, x)
        inside = params["layer"], state.get("layer", {})
        return wrapped.apply(params, state, x)[0], layer.apply(*inside, x)[0]

    np.testing.assert_allclose(*both(jax.random.key(0)), atol=1e-6)


def test_weight_norm_separates_length_and_direction():
    kernel, scale = normal(0, 5, 3), normal(1, 3)
    w, pullback = jax.vjp(f.weight_norm, kernel, scale)
    np.testing.assert_allclose(np.linalg.norm(w, axis=0), np.abs(scale), rtol=1e-6)
    np.testing.assert_allclose(f.weight_norm(7 * kernel, scale), w, rtol=1e-5)
    dkernel, _ = pullback(normal(2, 5, 3))
    np.testing.assert_allclose(np.sum(kernel * dkernel, 0), 0, atol=1e-5)


def test_weight_norm_of_an_output_of_zeros():
    kernel, dw = np.array([[0.0, 3.0], [0.0, 4.0]], np.float32), normal(0, 2, 2)
    scale = np.array([2.0, 5.0], np.float32)
    w, pullback = jax.vjp(f.weight_norm, kernel, scale)
    np.testing.assert_allclose(w, [[0, 3], [0, 4]], rtol=1e-6)
    expected = reparametrization.weight_norm(kernel, scale)[1](dw)
    for gradient, wanted in zip(pullback(dw), expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


def test_gradient_of_the_initial_lengths_is_finite_at_zero():
    def total_length(value):
        layer = nn.dense(2, kernel_init=lambda key, shape, dtype: jnp.full(shape, value, dtype))
        params, _ = nn.weight_norm(layer).init(jax.random.key(0), ones((1, 4)))
        return jnp.sum(params["scale"]["kernel"])

    assert jax.value_and_grad(total_length)(0.0) == (0, 0)
    np.testing.assert_allclose(jax.value_and_grad(total_length)(3.0), (12, 4), rtol=1e-6)


# Spectral norm


def test_sigma_converges_to_the_largest_singular_value():
    kernel = normal(0, 2, 3, 4)
    u, v = normal(1, 6), normal(2, 4)
    u, v = f.power_iteration(kernel, u, v, n_steps=200)
    np.testing.assert_allclose((np.linalg.norm(u), np.linalg.norm(v)), 1, rtol=1e-6)
    sigma = largest_singular_value(kernel)
    np.testing.assert_allclose(u @ kernel.reshape(6, 4) @ v, sigma, rtol=1e-6)
    np.testing.assert_allclose(f.spectral_norm(kernel, u, v), kernel / sigma, rtol=1e-5)
    np.testing.assert_allclose(np.abs(v), np.abs(np.linalg.svd(kernel.reshape(6, 4))[2][0]), 1e-3)


@pytest.mark.slow
def test_one_step_at_each_call_in_training_follows_a_kernel_that_moves():
    layer = nn.spectral_norm(nn.dense(6, use_bias=False))
    params, state = layer.init(jax.random.key(0), ones((1, 6)))

    @fast_jit
    def run(params, state):
        def step(carry, change):
            params, state = carry
            y, state = layer.apply(params, state, jnp.eye(6), train=True)
            params = {"layer": {"kernel": params["layer"]["kernel"] + 0.001 * change}}
            return (params, state), y

        return jax.lax.scan(step, (params, state), normal(0, 300, 6, 6))

    _, kernels = run(params, state)
    assert largest_singular_value(params["layer"]["kernel"]) > 1.2
    np.testing.assert_allclose([largest_singular_value(w) for w in kernels[-5:]], 1, atol=0.01)


def test_vectors_begin_with_15_steps_and_length_1():
    layer = nn.spectral_norm(nn.serial(nn.dense(8), nn.dense(3)))
    params, state = fast_jit(layer.init)(jax.random.key(0), ones((1, 16)))
    assert set(state) == {"u", "v"}
    for path, (inputs, outputs) in {"0/kernel": (16, 8), "1/kernel": (8, 3)}.items():
        kernel = params["layer"][int(path[0])]["kernel"]
        u, v = state["u"][path], state["v"][path]
        assert (u.shape, v.shape) == ((inputs,), (outputs,))
        np.testing.assert_allclose((np.linalg.norm(u), np.linalg.norm(v)), 1, rtol=1e-6)
        np.testing.assert_allclose(u @ kernel @ v, largest_singular_value(kernel), rtol=0.02)


def test_training_and_evaluation_of_the_vectors():
    layer = nn.spectral_norm(nn.dense(3, use_bias=False))
    kernel = normal(0, 4, 3)
    params = {"layer": {"kernel": kernel}}
    state = {"u": {"kernel": normal(1, 4)}, "v": {"kernel": normal(2, 3)}}
    y, same = layer.apply(params, state, np.eye(4, dtype=np.float32))
    jax.tree.map(np.testing.assert_array_equal, same, state)
    sigma = state["u"]["kernel"] @ kernel @ state["v"]["kernel"]
    np.testing.assert_allclose(y, kernel / sigma, rtol=1e-5)
    y, moved = layer.apply(params, state, np.eye(4, dtype=np.float32), train=True)
    (u, v), _ = reparametrization.power_iteration(kernel, state["u"]["kernel"], np.zeros(3))
    np.testing.assert_allclose(moved["u"]["kernel"], u, rtol=1e-5)
    np.testing.assert_allclose(moved["v"]["kernel"], v, rtol=1e-5)
    np.testing.assert_allclose(y, kernel / (u @ kernel @ v), rtol=1e-5)


def test_spectral_norm_of_a_kernel_of_zeros():
    layer = nn.spectral_norm(nn.dense(3, kernel_init=nn.initializers.zeros))
    x = normal(0, 5, 4)
    params, state = layer.init(jax.random.key(0), x)

    def loss(params):
        y, new_state = layer.apply(params, state, x, train=True)
        return jnp.sum(jnp.exp(y)), (y, new_state)

    gradient, (y, new_state) = fast_jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_allclose(gradient["layer"]["kernel"], np.tile(x.sum(0), (3, 1)).T, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, new_state, state)
    # A kernel that is no longer zero finds its vectors, for they were kept.
    kernel = normal(1, 4, 3)
    (u, v) = f.power_iteration(kernel, state["u"]["kernel"], state["v"]["kernel"], n_steps=200)
    np.testing.assert_allclose(u @ kernel @ v, largest_singular_value(kernel), rtol=1e-5)


# Around other layers


def masked_dense():
    """A layer whose init and apply take a further keyword."""
    dense = nn.dense(3)

    def init(key, x, offset=None):
        params, state = dense.init(key, x)
        return params | {"offset": jnp.asarray(0.0 if offset is None else offset)}, state

    def apply(params, state, x, *, key=None, train=False, mask=None):
        y, state = dense.apply(params, state, x)
        return y if mask is None else jnp.where(mask, y, 0), state

    return nn.Layer(init, apply)


WRAPPERS = pytest.mark.parametrize("wrapper", [nn.weight_norm, nn.spectral_norm])


@WRAPPERS
def test_keywords_of_the_layer_are_passed_on(wrapper):
    layer = wrapper(masked_dense())
    x = normal(0, 2, 4)
    params, state = layer.init(jax.random.key(0), x, offset=5.0)
    assert params["layer"]["offset"] == 5
    y, _ = layer.apply(params, state, x, mask=jnp.array([[True], [False]]))
    np.testing.assert_array_equal(y[1], 0)
    assert np.all(y[0] != 0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
        layer.apply(params, state, x, masks=None)


@quick_first(1)
@WRAPPERS
def test_state_and_randomness_of_the_layer(wrapper):
    layer = wrapper(nn.serial(nn.dense(8), nn.batch_norm(), nn.dropout(0.5)))
    x = normal(0, 5, 4)
    params, state = fast_jit(layer.init)(jax.random.key(0), x)
    train = fast_jit(functools.partial(layer.apply, train=True))
    y, new_state = train(params, state, x, key=jax.random.key(1))
    assert np.any(np.asarray(y) == 0)
    assert np.any(new_state["layer"]["1"]["mean"] != state["layer"]["1"]["mean"])
    with pytest.raises(ValueError, match="needs a key") as error:
        layer.apply(params, state, x, train=True)
    assert "in layer 'layer/2'" in error.value.__notes__


@WRAPPERS
@pytest.mark.parametrize(
    "where",
    ["1/*", ("1/kernel",), lambda path, leaf: path == "1/kernel"],
    ids=["glob", "tuple", "predicate"],
)
def test_where_chooses_the_kernels(wrapper, where):
    model = nn.serial(nn.dense(3), nn.dense(2, use_bias=False))
    init = wrapper(model, where=where).init
    params, state = jax.eval_shape(init, jax.random.key(0), ones((1, 4)))
    made = params["scale"] if wrapper is nn.weight_norm else state["u"]
    assert list(made) == ["1/kernel"]


def test_both_around_one_layer_in_a_stack():
    x = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    both = nn.spectral_norm(nn.weight_norm(nn.dense(4)), where="layer/kernel")
    model = nn.stack(nn.residual(both), 3)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    assert params["layer"]["layer"]["scale"]["kernel"].shape == (3, 4)
    assert state["layer"]["u"]["layer/kernel"].shape == (3, 4)
    train = functools.partial(model.apply, train=True)
    assert jax.eval_shape(train, params, state, x) == (x, state)


@WRAPPERS
def test_norms_of_low_precision_are_taken_in_float32(wrapper):
    # In bfloat16 a sum of 4096 ones stops at 256.
    layer = wrapper(nn.dense(1, use_bias=False, kernel_init=nn.initializers.ones))
    x = np.full((1, 4096), 0.01, np.float32)
    params, state = fast_jit(layer.init)(jax.random.key(0), x)

    def run(dtype):
        given = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
        return fast_jit(functools.partial(layer.apply, train=True))(given[0], state, given[1])

    (low, low_state), (high, _) = map(run, ("bfloat16", "float32"))
    assert low.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(low_state)} <= {jnp.dtype("float32")}
    np.testing.assert_allclose(low.astype(jnp.float32), high, rtol=0.02)


# Second derivatives, against central differences of the hand-derived gradients


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("weight_norm", ((4, 3), (3,))), ("spectral_norm", ((4, 3), (4,), (3,)))],
)
def test_second_derivatives(name, shapes, x64):
    rng = np.random.default_rng(0)
    point, direction = (tuple(rng.standard_normal(s) for s in shapes) for _ in range(2))
    dy = rng.standard_normal(shapes[0])

    def gradients(*point):
        return jax.vjp(getattr(f, name), *point)[1](dy)

    got = fast_jit(lambda *point: jax.jvp(gradients, point, direction)[1])(*point)

    def expected_gradients(t):
        moved = (a + t * d for a, d in zip(point, direction, strict=True))
        return getattr(reparametrization, name)(*moved)[1](dy)

    ahead, behind = expected_gradients(1e-5), expected_gradients(-1e-5)
    for g, a, b in zip(got, ahead, behind, strict=True):
        np.testing.assert_allclose(g, (a - b) / 2e-5, rtol=1e-6, atol=1e-6)


# Errors


def made(layer):
    """A layer's params and state."""
    return layer.init(jax.random.key(0), ones((1, 4)))


BAD_CALLS = {
    "weight_norm_scale": (
        lambda: f.weight_norm(ones((4, 3)), ones(4)),
        ValueError,
        ("weight_norm: scale has shape (4,)", "expected shape (3,)"),
    ),
    "weight_norm_axis": (
        lambda: f.weight_norm(ones((4, 3)), ones(4), axis=2),
        ValueError,
        ("weight_norm: axis 2 is out of range", "2 axes"),
    ),
    "spectral_norm_u": (
        lambda: f.spectral_norm(ones((4, 3)), ones(3), ones(3)),
        ValueError,
        ("spectral_norm: u has shape (3,)", "expected shape (4,)"),
    ),
    "power_iteration_v": (
        lambda: f.power_iteration(ones((2, 2, 3)), ones(4), ones(4)),
        ValueError,
        ("power_iteration: v has shape (4,)", "expected shape (3,)"),
    ),
    "power_iteration_steps": (
        lambda: f.power_iteration(ones((4, 3)), ones(4), ones(3), n_steps=0),
        ValueError,
        ("power_iteration: n_steps is 0", "at least 1"),
    ),
    "spectral_norm_steps": (
        lambda: nn.spectral_norm(nn.dense(3), n_steps=1.5),
        TypeError,
        ("spectral_norm: n_steps is 1.5", "expected an integer"),
    ),
    "weight_norm_constructor": (
        lambda: nn.weight_norm(nn.dense),
        TypeError,
        ("weight_norm: layer is the constructor dense",),
    ),
    "spectral_norm_number": (
        lambda: nn.spectral_norm(3),
        TypeError,
        ("spectral_norm: layer is 3", "expected a Layer"),
    ),
    "weight_norm_without_kernel": (
        lambda: made(nn.weight_norm(nn.layer_norm())),
        ValueError,
        ("weight_norm: where: 'kernel' and '*/kernel' match no path", "bias", "scale"),
    ),
    "weight_norm_nothing_chosen": (
        lambda: made(nn.weight_norm(nn.dense(3), where=lambda path, leaf: False)),
        ValueError,
        ("weight_norm: where chooses no parameter", "['bias', 'kernel']"),
    ),
    "spectral_norm_of_a_bias": (
        lambda: made(nn.spectral_norm(nn.dense(3), where="*")),
        ValueError,
        ("spectral_norm: where chooses 'bias' of shape (3,)", "two axes or more"),
    ),
    "spectral_norm_of_lengths": (
        lambda: made(nn.spectral_norm(nn.weight_norm(nn.dense(3)))),
        ValueError,
        ("spectral_norm: where chooses 'scale/kernel' of shape (3,)",),
    ),
    "weight_norm_params": (
        lambda: nn.weight_norm(nn.dense(3)).apply(made(nn.dense(3))[0], {}, ones((1, 4))),
        ValueError,
        ("weight_norm: params has entries for ['bias', 'kernel']", "['layer', 'scale']"),
    ),
    "spectral_norm_params": (
        lambda: nn.spectral_norm(nn.dense(3)).apply(made(nn.dense(3))[0], {}, ones((1, 4))),
        ValueError,
        ("spectral_norm: params has entries for ['bias', 'kernel']", "['layer']"),
    ),
    "spectral_norm_state": (
        lambda: nn.spectral_norm(nn.dense(3)).apply(
            {"layer": made(nn.dense(3))[0]}, {}, ones((1, 4))
        ),
        ValueError,
        ("spectral_norm: state has []", "expected 'u' and 'v' as made by init"),
    ),
    "weight_norm_key": (
        lambda: nn.weight_norm(nn.dense(3)).init(0, ones((1, 4))),
        TypeError,
        ("weight_norm: key is int", "jax.random.key(seed)"),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    check_error(*case)
