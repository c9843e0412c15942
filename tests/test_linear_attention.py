"""Linear attention: chunks, masks, memory, and decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.functional import _linear_attention
from tests.compiling import fast_jit

f = nn.functional
attend = f.linear_attention


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heads(time=5):
    """Four heads that share two keys."""
    return normal(0, 2, time, 4, 3), normal(1, 2, time, 2, 3), normal(2, 2, time, 2, 3)


def quadratic(query, key, value, mask):
    """The same by the whole matrix of weights, in float64."""
    query, key, value = (a.astype(np.float64) for a in (query, key, value))
    phi_q, phi_k = (np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))) for a in (query, key))
    phi_k, value = np.repeat(phi_k, 2, axis=2), np.repeat(value, 2, axis=2)
    weights = np.einsum("bqhf,bkhf->bhqk", phi_q, phi_k) * np.tri(query.shape[1]) * mask
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhv->bqhv", weights, value)


def test_chunks_change_nothing(monkeypatch):
    """Values, gradients and last sums by chunks of 2 and of all 5, which 2 does not divide."""
    mask = f.padding_mask(np.array([5, 3]), 5)

    def run(query, key, value, sums):
        def of(*a):
            return attend(*a[:3], sums=a[3], mask=mask, is_causal=True, return_sums=True)

        both, pullback = jax.vjp(of, query, key, value, sums)
        return both, pullback(jax.tree.map(jnp.cos, both))

    arguments = *heads(), np.abs(normal(3, 2, 2, 3, 4))
    whole = fast_jit(run)(*arguments)
    monkeypatch.setattr(_linear_attention, "CHUNK", 2)
    in_chunks = fast_jit(lambda *a: run(*a))(*arguments)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), in_chunks, whole
    )
    y = fast_jit(lambda *a: attend(*a, mask=mask, is_causal=True))(*heads())
    np.testing.assert_allclose(y, quadratic(*heads(), np.asarray(mask)), rtol=1e-5, atol=1e-6)


def test_memory_does_not_grow_with_length_times_features_squared():
    length, features = 2048, 64
    x = jax.ShapeDtypeStruct((1, length, 1, features), jnp.float32)

    def loss(q, k, v):
        return jnp.sum(attend(q, k, v, is_causal=True) ** 2)

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
    size = compiled.memory_analysis().temp_size_in_bytes
    assert size < 4 * length * features**2 / 3


def test_what_does_not_count_has_no_effect():
    query, key, value = heads()
    mask = f.padding_mask(np.array([5, 0]), 5)

    @fast_jit
    def gradients(key, value):
        def loss(*a):
            return jnp.sum(attend(*a, mask=mask, is_causal=True) ** 2)

        return attend(query, key, value, mask=mask), jax.grad(loss, (0, 1, 2))(query, key, value)

    y, grads = gradients(key, value)
    np.testing.assert_array_equal(y[1], 0)
    bad = (np.where(np.arange(2).reshape(2, 1, 1, 1) == 1, np.nan, a) for a in (key, value))
    jax.tree.map(np.testing.assert_array_equal, gradients(*bad), (y, grads))
    for gradient in grads:
        np.testing.assert_array_equal(gradient[1], 0)


def test_large_negative_features_are_exact():
    """By elu(x) + 1, e^-20 is 0 in float32."""
    query, key, value = np.array([[0, 0], [-20, -21], [0, 1]], np.float32).reshape(3, 1, 2, 1, 1)
    y = fast_jit(attend)(query, key, value)
    np.testing.assert_allclose(np.ravel(y), 1 / (1 + np.e), rtol=1e-5)


def test_decoding_is_the_full_forward_pass():
    x = normal(0, 2, 5, 4)
    layer = nn.linear_attention(2, is_causal=True)
    params, _ = layer.init(jax.random.key(0), x)
    decoder = nn.linear_attention(2, is_causal=True, cached=True)
    cell = nn.recurrent(nn.autoregressive(decoder, features=(4,)))

    @fast_jit
    def run(params, x):
        _, sums = decoder.init(jax.random.key(0), x)
        prefilled, sums = decoder.apply(params, sums, x[:, :3])
        rest, _ = decoder.apply(params, sums, x[:, 3:])
        by_element, _ = cell.apply(params, {}, x)
        return layer.apply(params, {}, x)[0], jnp.concatenate([prefilled, rest], 1), by_element

    y, *decoded = run(params, x)
    for got in decoded:
        np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-5)


def test_sums_are_carried_in_float32():
    """In bfloat16, 1 added to 256 is 256."""
    decoder = nn.linear_attention(2, is_causal=True, cached=True)
    model = nn.serial(nn.embedding(5, 4), decoder)
    cell = nn.autoregressive(model)
    params = cell.init(jax.random.key(0), jnp.int32(0))
    carry = cell.initial_carry(params, (3,), jnp.bfloat16)
    assert jax.tree.map(lambda a: (a.shape, a.dtype.name), carry) == {
        "1": {"sums": ((3, 2, 2, 3), "float32")}
    }


X = jnp.ones((2, 3, 2, 4))


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (lambda: attend(X, X[:, :, :0], X), ValueError, r"query has shape \(2, 3, 2, 4\), key"),
        (lambda: attend(X, X, X[:, :2]), ValueError, r"value \(2, 2, 2, 4\), expected"),
        (lambda: attend(X[:, :2], X, X, is_causal=True), ValueError, "2 queries and 3 keys"),
        (
            lambda: attend(X, X, X, mask=jnp.ones((2, 2, 1, 3), bool)),
            ValueError,
            r"mask has shape \(2, 2, 1, 3\), expected \(2, 1, 1, 3\)",
        ),
        (lambda: attend(X, X, X, mask=jnp.ones((2, 1, 1, 3))), TypeError, "mask has dtype"),
        (lambda: attend(X, X, X, sums=X), ValueError, r"sums has shape .* \(2, 2, 4, 5\)"),
        (lambda: nn.linear_attention(2, cached=True), ValueError, "without is_causal=True"),
        (
            lambda: nn.linear_attention(3).init(jax.random.key(0), X),
            ValueError,
            "linear_attention: x has 4 features, expected a multiple of num_heads, 3",
        ),
        (
            lambda: nn.linear_attention(2).init(jax.random.key(0), jnp.ones(4)),
            ValueError,
            r"x has shape \(4,\), expected shape \(..., time, features\)",
        ),
        (
            lambda: nn.autoregressive(nn.linear_attention(2), features=(4,)).step(
                {}, {}, X[:, 0, 0]
            ),
            ValueError,
            "linear_attention without cached=True sees one element",
        ),
    ],
)
def test_bad_input(call, exception, message):
    with pytest.raises(exception, match=message):
        call()
