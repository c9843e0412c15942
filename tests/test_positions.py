"""Positions: what rotations, waves, biases and learned vectors promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

f = nn.functional
rotary = fast_jit(f.rotary, static_argnames=("fraction", "interleaved"))
sinusoidal = fast_jit(f.sinusoidal, static_argnames="features")


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Rotary


def test_rotary_interleaved_is_a_product_of_complex_numbers():
    """As the paper and the code of Llama have it."""
    x, positions = normal(0, 2, 5, 3, 8), np.arange(5) + 7
    frequencies = 500.0 ** (-np.arange(0, 8, 2) / 8)
    turns = np.exp(1j * np.outer(positions, frequencies))[:, None, :]
    expected = x.reshape(2, 5, 3, 4, 2).view(np.float32).astype(np.float64)
    expected = (expected[..., 0] + 1j * expected[..., 1]) * turns
    expected = np.stack([expected.real, expected.imag], -1).reshape(x.shape)
    y = rotary(x, positions, base=500.0, interleaved=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_rotary_conventions_differ_by_a_permutation_of_the_features():
    x, positions = normal(0, 5, 2, 6), np.arange(5)
    evens_first = np.array([0, 2, 4, 1, 3, 5])
    interleaved = rotary(x, positions, interleaved=True)
    halves = rotary(x[..., evens_first], positions)
    np.testing.assert_allclose(halves, interleaved[..., evens_first], atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
def test_products_of_rotated_vectors_depend_on_distances_alone(interleaved):
    query, key = normal(0, 4, 1, 8), normal(1, 4, 1, 8)

    @fast_jit
    def products(start):
        positions = start + jnp.arange(4)
        q, k = (f.rotary(x, positions, interleaved=interleaved) for x in (query, key))
        return jnp.einsum("qhd,khd->qk", q, k)

    np.testing.assert_allclose(products(0), products(1000), rtol=1e-3, atol=1e-3)
    unrotated = np.einsum("qhd,khd->qk", query, key)
    np.testing.assert_allclose(np.diag(products(0)), np.diag(unrotated), rtol=1e-4, atol=1e-5)


def test_each_base_has_its_own_rotation():
    """No table of angles is kept from one call to the next, and the base may be traced."""
    x, positions = normal(0, 5, 1, 4), np.arange(5)
    bases = (1e4, 1e2, 1e4)
    first, other, again = fast_jit(lambda: [f.rotary(x, positions, base=b) for b in bases])()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(rotary(x, positions, base=jnp.float32(1e2)), other, atol=1e-6)


def test_rotary_leaves_the_rest_of_the_features():
    x = normal(0, 5, 2, 8)
    y = rotary(x, np.arange(5), fraction=0.5)
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    np.testing.assert_allclose(y[..., :4], rotary(x[..., :4], np.arange(5)), atol=1e-6)


def test_rotary_takes_positions_by_example():
    x = normal(0, 2, 3, 1, 4)
    positions = np.array([[0, 1, 2], [5, 6, 7]])
    y = rotary(x, positions)
    for got, example, at in zip(y, x, positions, strict=True):
        np.testing.assert_allclose(got, rotary(example, at), atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_angles_are_float32(dtype):
    """bfloat16 cannot tell position 1000 from 1001, nor float16 their angles."""
    x = jnp.ones((2, 1, 4), dtype)
    y = rotary(x, jnp.array([1000, 1001]))
    assert y.dtype == x.dtype
    expected = rotary(x.astype(jnp.float32), jnp.array([1000, 1001]))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)
    table, _ = fast_jit(nn.sinusoidal_positions().apply)({}, {}, jnp.zeros((1001, 2), dtype))
    np.testing.assert_allclose(table[1000, 0].astype(jnp.float32), np.sin(1000.0), atol=0.01)


# Waves


def test_sinusoidal_is_the_formula_of_the_paper():
    y = sinusoidal(jnp.arange(50), features=6)
    for i in range(3):
        angles = np.arange(50) / 10000 ** (2 * i / 6)
        np.testing.assert_allclose(y[:, 2 * i], np.sin(angles), atol=1e-5)
        np.testing.assert_allclose(y[:, 2 * i + 1], np.cos(angles), atol=1e-5)


def test_sinusoidal_of_times_has_a_derivative():
    slope = fast_jit(jax.grad(lambda t: f.sinusoidal(t, 2)[0]))(0.3)
    np.testing.assert_allclose(slope, np.cos(0.3), rtol=1e-6)


# ALiBi


def test_alibi_slopes_are_those_of_the_paper():
    np.testing.assert_allclose(f.alibi_slopes(8), 2.0 ** -np.arange(1, 9))
    np.testing.assert_allclose(f.alibi_slopes(1), [2.0**-8])
    twelve = [*(2.0 ** -np.arange(1, 9)), *(2.0 ** -np.array([0.5, 1.5, 2.5, 3.5]))]
    np.testing.assert_allclose(f.alibi_slopes(12), twelve, rtol=1e-6)


def test_alibi_bias_has_derivative_0_at_distance_0():
    positions = jnp.zeros(1)
    gradient = fast_jit(jax.grad(lambda p: f.alibi_bias(jnp.ones(2), p, positions).sum()))(
        positions
    )
    np.testing.assert_array_equal(gradient, 0)


# Learned


def test_learned_positions_of_a_shorter_sequence():
    layer = nn.learned_positions(5)
    params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 3), jnp.float32))
    assert params["embedding"].shape == (5, 3)
    y, _ = layer.apply(params, {}, jnp.zeros((2, 4, 3)))
    np.testing.assert_array_equal(y, np.stack([params["embedding"][:4]] * 2))


ANEW = np.array([[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]])  # texts packed in one row


def test_sinusoids_of_given_positions():
    x, apply = normal(0, 2, 5, 4), fast_jit(nn.sinusoidal_positions().apply)
    table, _ = apply({}, {}, np.zeros((2, 5, 4), np.float32))
    y, _ = apply({}, {}, x, positions=ANEW)
    np.testing.assert_allclose(y, x + np.asarray(table)[0, ANEW], rtol=1e-5)


def test_learned_vectors_of_given_positions():
    layer, x, table = nn.learned_positions(5), normal(0, 2, 5, 4), normal(1, 5, 4)

    def half_of_squares(params, positions):
        y, _ = layer.apply(params, {}, x, positions=positions)
        return (y**2).sum() / 2, y

    run = fast_jit(jax.value_and_grad(half_of_squares, has_aux=True))
    for positions in (ANEW, ANEW[:1]):  # of each example, and of all
        (_, y), gradient = run({"embedding": table}, positions)
        np.testing.assert_allclose(y, x + table[positions], rtol=1e-6)
        expected = np.zeros((5, 4))
        np.add.at(expected, np.broadcast_to(positions, (2, 5)), np.float64(y))
        np.testing.assert_allclose(gradient["embedding"], expected, rtol=1e-5)
    (_, y), _ = run({"embedding": table}, ANEW + 3)
    np.testing.assert_array_equal(np.isnan(y[..., 0]), ANEW + 3 > 4)


@pytest.mark.parametrize(
    ("positions", "error", "text"),
    [
        (np.zeros((2, 5), np.float32), TypeError, "learned_positions: positions have dtype float"),
        (ANEW[0], ValueError, r"positions have shape \(5,\), expected .* \(2, 5\)"),
        (ANEW[:, :4], ValueError, r"positions have shape \(2, 4\)"),
    ],
)
def test_positions_that_do_not_fit(positions, error, text):
    with pytest.raises(error, match=text):
        nn.learned_positions(5).apply(
            {"embedding": ANEW.T}, {}, np.ones((2, 5, 2)), positions=positions
        )


def test_what_is_decoded_has_positions_of_its_own():
    layer, state = nn.sinusoidal_positions(cached=True), {"position": np.int32(0)}
    with pytest.raises(ValueError, match="positions are given, expected none with cached=True"):
        layer.apply({}, state, np.ones((2, 5, 2), np.float32), positions=ANEW)


@pytest.mark.parametrize(
    "layer",
    [nn.sinusoidal_positions(cached=True), nn.learned_positions(8, cached=True)],
    ids=["sinusoidal", "learned"],
)
def test_cached_positions_go_on_where_they_were(layer):
    x = jnp.zeros((2, 6, 4))
    params, state = layer.init(jax.random.key(0), x)

    @fast_jit
    def both_ways(state):
        whole, last = layer.apply(params, state, x)
        first, state = layer.apply(params, state, x[:, :4])
        second, state = layer.apply(params, state, x[:, 4:])
        return whole, jnp.concatenate([first, second], 1), last, state

    whole, parts, last, state = both_ways(state)
    np.testing.assert_array_equal(parts, whole)
    assert last == state == {"position": 6}
    assert state["position"].dtype == jnp.int32


# Errors and repr

X = jnp.ones((3, 2, 4))
BAD_CALLS = {
    "rotary_rank": (
        lambda: f.rotary(jnp.ones((3, 4)), jnp.arange(3)),
        ("rotary: x has shape (3, 4)", "(..., time, num_heads, head_dim)"),
    ),
    "rotary_positions": (
        lambda: f.rotary(X, jnp.arange(2)),
        ("rotary: x has shape (3, 2, 4) and positions (2,)",),
    ),
    "rotary_fraction": (
        lambda: f.rotary(X, jnp.arange(3), fraction=0.75),
        ("rotary: fraction 0.75 of 4 features is 3", "an even number"),
    ),
    "rotary_fraction_range": (lambda: nn.rotary(fraction=1.5), ("rotary: fraction is 1.5",)),
    "rotary_base": (lambda: nn.rotary(base=-1.0), ("rotary: base is -1.0",)),
    "sinusoidal_odd": (
        lambda: f.sinusoidal(jnp.arange(3), 3),
        ("sinusoidal: features is 3", "an even number"),
    ),
    "sinusoidal_layer_rank": (
        lambda: nn.sinusoidal_positions().apply({}, {}, jnp.ones(4)),
        ("sinusoidal_positions: x has shape (4,)", "(..., time, features)"),
    ),
    "sinusoidal_layer_base": (
        lambda: nn.sinusoidal_positions(base=0.0),
        ("sinusoidal_positions: base is 0.0",),
    ),
    "alibi_slopes": (lambda: f.alibi_slopes(0), ("alibi_slopes: num_heads is 0", "at least 1")),
    "alibi_bias": (
        lambda: f.alibi_bias(jnp.ones(2), jnp.arange(3), jnp.ones((3, 1))),
        ("alibi_bias: key_positions has shape (3, 1)", "expected one axis"),
    ),
    "learned_init": (
        lambda: nn.learned_positions(2).init(jax.random.key(0), jnp.ones((3, 4))),
        ("learned_positions: x has 3 elements in time",),
    ),
    "learned_too_long": (
        lambda: nn.learned_positions(2).apply(
            {"embedding": jnp.ones((2, 4))}, {}, jnp.ones((3, 4))
        ),
        ("learned_positions: x has 3 elements in time", "at most max_length, 2"),
    ),
    "learned_none": (lambda: nn.learned_positions(0), ("learned_positions: max_length is 0",)),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    call, fragments = case
    with pytest.raises(ValueError, match="expected") as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)


def test_schemes_read_as_the_call_that_made_them():
    assert repr(nn.rotary(base=100.0)) == "rotary(base=100.0)"
    assert repr(nn.alibi()) == "alibi()"
    assert "normal" in repr(nn.Positions(rotate=normal))
