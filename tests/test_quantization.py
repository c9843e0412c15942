"""Vector quantisation: the nearest codes, their averages, and the straight-through gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import quantization
from tests.test_errors_layers import check as check_error

ones = jnp.ones
nearest_code = nn.functional.nearest_code


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def codebook(codes, features):
    """A state with counts that differ."""
    return {"embedding": normal(7, codes, features), "count": np.abs(normal(8, codes)) + 0.1}


# Nearest codes


@pytest.mark.parametrize(
    ("dtype", "offset", "step"),
    [("float32", 0.0, 1.0), ("float32", 1448.0, 0.05), ("bfloat16", 1448.0, 8.0)],
)
def test_nearest_codes_far_from_the_origin(dtype, offset, step):
    x = jnp.asarray(offset + step * np.round(normal(0, 50, 3)), dtype)
    codes = (offset + step * normal(1, 9, 3)).astype(np.float32)
    wanted = quantization.nearest_code(np.asarray(x, np.float64), codes.astype(np.float64))
    np.testing.assert_array_equal(nearest_code(x, codes), wanted)


def test_first_of_equally_near_codes():
    codes = jnp.array([[1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(nearest_code(jnp.array([[0.0], [2.0], [-3.0]]), codes), [0, 0, 1])


def test_nan_stays_nan():
    y, _ = nn.vector_quantizer(4).apply({}, codebook(4, 2), jnp.array([[np.nan, 0.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(np.isnan(y), [[True, False], [False, False]])


# The moving codes


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_steps_of_the_averages(decay):
    layer = nn.vector_quantizer(4, decay=decay)
    state = codebook(4, 3)
    expected = state["embedding"].astype(np.float64), state["count"].astype(np.float64)
    train = fast_jit(functools.partial(layer.apply, train=True))
    for step in range(3):
        x = normal(step, 2, 30, 3)
        y, state = train({}, state, x)
        before = expected[0]
        np.testing.assert_allclose(y, before[quantization.nearest_code(x, before)], atol=1e-5)
        expected = quantization.moving_codes(x, *expected, decay)
        np.testing.assert_allclose(state["embedding"], expected[0], atol=1e-5)
        np.testing.assert_allclose(state["count"], expected[1], rtol=1e-5)


def test_code_that_is_nearest_to_none_stays():
    layer = nn.vector_quantizer(2, decay=0.5)
    start = {"embedding": jnp.array([[0.0], [100.0]]), "count": jnp.ones(2)}

    def step(state, _):
        return layer.apply({}, state, jnp.array([[1.0]]), train=True)[::-1]

    state, _ = fast_jit(lambda state: jax.lax.scan(step, state, length=200))(start)
    np.testing.assert_allclose(state["embedding"], [[1.0], [100.0]], rtol=1e-6)
    np.testing.assert_array_equal(state["count"] < 1e-30, [False, True])


def test_evaluation_uses_the_codes_as_they_are():
    state, x = codebook(4, 3), normal(0, 6, 3)
    y, same = nn.vector_quantizer(4).apply({}, state, x)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    np.testing.assert_array_equal(y, state["embedding"][nearest_code(x, state["embedding"])])


def test_output_is_the_code_bit_for_bit():
    state, x = codebook(4, 3), 1e6 * normal(0, 6, 3)
    y, _ = nn.vector_quantizer(4).apply({}, state, x)
    assert set(np.asarray(y).ravel()) <= set(state["embedding"].ravel())


def test_gradient_passes_straight_through_and_into_no_code():
    layer, x, state = nn.vector_quantizer(4), normal(0, 6, 3), codebook(4, 3)

    def total(embedding, x):
        given = state | {"embedding": embedding}
        y, new_state = layer.apply({}, given, x, train=True)
        return jnp.sum(jnp.sin(y)), (y, new_state)

    def moved(x):
        return jnp.sum(layer.apply({}, state, x, train=True)[1]["embedding"])

    @fast_jit
    def gradients(x):
        (dembedding, dx), (y, _) = jax.grad(total, (0, 1), has_aux=True)(state["embedding"], x)
        return dembedding, dx, jnp.cos(y), jax.grad(moved)(x)

    dembedding, dx, expected, dmoved = gradients(x)
    np.testing.assert_allclose(dx, expected, rtol=1e-6)
    np.testing.assert_array_equal(dembedding, 0)
    np.testing.assert_array_equal(dmoved, 0)


def test_codes_over_mapped_parts_follow_the_whole_batch():
    x, state = normal(0, 3, 8, 2), codebook(5, 2)
    spread = nn.vector_quantizer(5, axis_name="parts")

    @fast_jit
    def both(x):
        mapped = jax.vmap(lambda x: spread.apply({}, state, x, train=True), axis_name="parts")(x)
        return mapped, nn.vector_quantizer(5).apply({}, state, x.reshape(24, 2), train=True)

    (y, parts), (whole_y, whole) = both(x)
    np.testing.assert_array_equal(y.reshape(24, 2), whole_y)
    for name, leaf in whole.items():
        np.testing.assert_allclose(parts[name], np.stack([leaf] * 3), rtol=1e-5)


def test_counts_of_many_vectors_in_low_precision():
    x = jnp.ones((5000, 1), jnp.bfloat16)
    state = {"embedding": jnp.zeros((1, 1)), "count": jnp.ones(1)}
    _, state = nn.vector_quantizer(1, decay=0.5).apply({}, state, x, train=True)
    np.testing.assert_allclose(state["count"], [2500.5])
    np.testing.assert_allclose(state["embedding"], [[2500 / 2500.5]], rtol=1e-6)


@pytest.mark.slow
def test_autoencoder_finds_the_clusters():
    def forward(f, x):
        h = f.encode(x)
        q = f.quantize(h)
        return f.decode(q), nn.losses.squared_error(h, jax.lax.stop_gradient(q)).mean()

    corners = np.array([[4, 4], [4, -4], [-4, 4], [-4, -4]], np.float32)
    x = np.tile(corners, (8, 1)) + 0.1 * normal(0, 32, 2)
    model = nn.compose(
        forward,
        encode=nn.dense(2, kernel_init=nn.initializers.identity()),
        quantize=nn.vector_quantizer(
            4, decay=0.9, embedding_init=lambda key, shape, dtype: jnp.asarray(corners / 8, dtype)
        ),
        decode=nn.dense(2),
    )
    params, state = fast_jit(model.init)(jax.random.key(3), x)

    def loss(params, state):
        (y, commitment), state = model.apply(params, state, x, train=True)
        return nn.losses.squared_error(y, x).mean() + 0.25 * commitment, state

    @fast_jit
    def train(params, state):
        def step(carry, _):
            params, state = carry
            (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state)
            return (jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient), state), value

        return jax.lax.scan(step, (params, state), length=150)

    _, losses = train(params, state)
    assert losses[0] > 5
    assert losses[-1] < 0.05


# Errors

BAD_CALLS = {
    "nearest_code_codes": (
        lambda: nearest_code(ones(3), ones(3)),
        ValueError,
        ("nearest_code: codes has shape (3,)", "expected shape (codes, features)"),
    ),
    "nearest_code_features": (
        lambda: nearest_code(ones((4, 3)), ones((5, 2))),
        ValueError,
        ("nearest_code: x has shape (4, 3)", "expected 2 features", "(5, 2)"),
    ),
    "codes": (
        lambda: nn.vector_quantizer(0),
        ValueError,
        ("vector_quantizer: num_embeddings is 0", "at least 1"),
    ),
    "decay": (
        lambda: nn.vector_quantizer(4, decay=1.5),
        ValueError,
        ("vector_quantizer: decay is 1.5", "in [0, 1]"),
    ),
    "scalar": (
        lambda: nn.vector_quantizer(4).init(jax.random.key(0), 1.0),
        ValueError,
        ("vector_quantizer: x is a scalar", "expected shape (..., features)"),
    ),
    "key": (
        lambda: nn.vector_quantizer(4).init(0, ones(3)),
        TypeError,
        ("vector_quantizer: key is int",),
    ),
    "state": (
        lambda: nn.vector_quantizer(4).apply({}, {}, ones(3)),
        ValueError,
        ("vector_quantizer: state has []", "expected 'embedding' and 'count' as made by init"),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    check_error(*case)
