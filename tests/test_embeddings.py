"""Embeddings: torch's numbers, ids outside of the table, tied weights, dtypes and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

f = nn.functional
TABLE = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def gradient_of(function, table):
    """Value of a function of the table, and gradient of the sum of its sine."""
    y, pullback = jax.vjp(function, table)
    return y, pullback(jnp.cos(y))[0]


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_embed_is_that_of_torch(torch, shape):
    ids = np.random.default_rng(1).integers(0, 5, shape)
    y, gradient = fast_jit(lambda t: gradient_of(lambda t: f.embed(ids, t), t))(TABLE)
    table = torch.tensor(TABLE, requires_grad=True)
    expected = torch.nn.functional.embedding(torch.tensor(ids), table)
    expected.sin().sum().backward()
    np.testing.assert_array_equal(y, expected.detach())
    np.testing.assert_allclose(gradient, table.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_and_padding_are_those_of_torch(torch, mode):
    ids = np.array([[3, 1, 3], [2, 2, 2], [0, 2, 4]])
    weights = np.random.default_rng(1).standard_normal(ids.shape).astype(np.float32)
    weights = weights if mode == "sum" else None

    def ours(table):
        rows = f.embed(ids, table, padding_idx=2).sum(1)
        return f.embed_bag(ids, table, weights, mode=mode, padding_idx=2) + rows

    y, gradient = fast_jit(lambda t: gradient_of(ours, t))(TABLE)
    table = torch.tensor(TABLE, requires_grad=True)
    expected = torch.nn.functional.embedding_bag(
        torch.tensor(ids),
        table,
        mode=mode,
        padding_idx=2,
        per_sample_weights=None if weights is None else torch.tensor(weights),
    )
    expected = expected + torch.nn.functional.embedding(torch.tensor(ids), table, 2).sum(1)
    expected.sin().sum().backward()
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, table.grad, rtol=1e-5, atol=1e-6)


def test_padding_of_bags_may_be_nan():
    table, weights = TABLE.copy(), np.ones((2, 2), np.float32)
    table[2] = weights[0, 1] = np.nan
    ids = np.array([[0, 2], [1, 3]])

    def total(table, weights):
        return f.embed_bag(ids, table, weights, mode="sum", padding_idx=2).sum()

    of_table, of_weights = jax.grad(total, (0, 1))(table, weights)
    np.testing.assert_array_equal(of_table, np.ones((5, 3)) * [[1], [1], [0], [1], [0]])
    np.testing.assert_allclose(of_weights, [[TABLE[0].sum(), 0], TABLE[[1, 3]].sum(1)], rtol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bag_of_nothing_is_0(mode):
    bags = f.embed_bag(np.zeros((2, 0), int), TABLE, mode=mode)
    np.testing.assert_array_equal(bags, np.zeros((2, 3)))


def test_table_of_integers_becomes_floating():
    ids, table = np.array([0, 1, 7]), np.array([[1], [2]])
    np.testing.assert_array_equal(f.embed(ids, table), [[1], [2], [np.nan]])
    np.testing.assert_array_equal(f.embed_bag(ids[:2], table), [1.5])


def test_row_of_padding_gets_no_gradient():
    ids = jnp.array([2, 1, 2, 1])
    y, pullback = jax.vjp(lambda t: f.embed(ids, t, padding_idx=2), TABLE)
    np.testing.assert_array_equal(y, TABLE[[2, 1, 2, 1]])
    (gradient,) = pullback(jnp.ones((4, 3)))
    np.testing.assert_array_equal(gradient, [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [0] * 3])


def test_row_of_padding_is_0_at_first():
    for make in (nn.embedding, nn.embedding_bag):
        params, _ = make(5, 3, padding_idx=2).init(jax.random.key(0), jnp.array([1]))
        np.testing.assert_array_equal(np.any(params["embedding"], 1), [1, 1, 0, 1, 1])


def test_tied_model_is_that_of_torch(torch):
    def forward(g, ids):
        return g.embed(g.body(g.embed(ids)), attend=True)

    model = nn.compose(forward, embed=nn.embedding(5, 3), body=nn.dense(3))
    ids = np.array([[0, 4, 4], [2, 1, 0]])
    rng = np.random.default_rng(2)
    kernel, bias = (rng.standard_normal(s).astype(np.float32) for s in ((3, 3), (3,)))
    params = {"embed": {"embedding": TABLE}, "body": {"kernel": kernel, "bias": bias}}

    def loss(params):
        return jnp.sin(model.apply(params, {}, ids)[0]).sum()

    value, gradients = fast_jit(jax.value_and_grad(loss))(params)
    table, body = torch.tensor(TABLE, requires_grad=True), torch.nn.Linear(3, 3)
    body.weight.data, body.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
    h = body(torch.nn.functional.embedding(torch.tensor(ids), table))
    expected = torch.nn.functional.linear(h, table).sin().sum()
    expected.backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradients["embed"]["embedding"], table.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients["body"]["bias"], body.bias.grad, rtol=1e-4, atol=1e-5)


# Ids outside of the table


@pytest.mark.parametrize("wrap", [lambda g: g, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("bad", [-1, -5, -6, 5, 2**31 - 1, -(2**31)])
def test_id_outside_of_the_table_gives_nan(bad, wrap):
    y = wrap(f.embed)(jnp.array([bad, 4, 0]), TABLE)
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1:], TABLE[[4, 0]])


def test_id_outside_of_the_table_leaves_the_gradient_of_the_rows():
    ids = jnp.array([-1, 5, 1, 1])
    gradient = jax.grad(lambda t: jnp.sum(f.embed(ids, t)[2:]))(TABLE)
    np.testing.assert_array_equal(gradient, [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [0] * 3])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32"])
def test_narrow_ids_and_a_large_table(dtype):
    table = jnp.arange(600.0).reshape(300, 2)
    ids = jnp.array([0, 1, 127], dtype)
    np.testing.assert_array_equal(f.embed(ids, table), table[jnp.array([0, 1, 127])])
    if dtype != "uint32":
        last = jnp.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
        known = (last >= 0) & (last.astype(int) < 300)
        np.testing.assert_array_equal(~np.isnan(f.embed(last, table)).any(1), known)


# Dtypes


def test_output_is_in_the_dtype_of_the_table():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        assert f.embed(jnp.array([1]), TABLE.astype(dtype)).dtype == dtype
        assert f.attend(jnp.ones((2, 3), dtype), TABLE).dtype == dtype


def test_mixed_precision_embeds_in_its_dtype():
    model = nn.mixed_precision(nn.embedding(5, 3), output_dtype=jnp.bfloat16)
    params, state = model.init(jax.random.key(0), jnp.array([1]))
    assert params["embedding"].dtype == jnp.float32
    assert model.apply(params, state, jnp.array([1]))[0].dtype == jnp.bfloat16


def test_init_may_see_features_first():
    def decoder(g, h):
        return g.embed(h, attend=True)

    model = nn.compose(decoder, embed=nn.embedding(5, 3))
    params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    assert params["embed"]["embedding"].shape == (5, 3)
    assert model.apply(params, state, jnp.ones((2, 3)))[0].shape == (2, 5)


def test_default_table_has_variance_1():
    params, _ = nn.embedding(100, 200).init(jax.random.key(0), jnp.array([0]))
    np.testing.assert_allclose(np.std(params["embedding"]), 1, rtol=0.02)


def test_vmap_over_tables_and_ids():
    tables, ids = np.stack([TABLE, -TABLE]), np.array([[1, 2], [3, -1]])
    y = jax.vmap(f.embed)(ids, tables)
    np.testing.assert_array_equal(y, [f.embed(i, t) for i, t in zip(ids, tables, strict=True)])


# Errors

BAD_CALLS = {
    "padding_idx": (
        lambda: nn.embedding(5, 3, padding_idx=-1),
        ValueError,
        "embedding: padding_idx is -1, expected at least 0 and less than 5",
    ),
    "bag_mode": (lambda: nn.embedding_bag(5, 3, mode="min"), ValueError, "mode is 'min'"),
    "bag_weights": (
        lambda: f.embed_bag(jnp.ones((2, 3), int), TABLE, jnp.ones((2, 3))),
        ValueError,
        "embed_bag: weights are given for mode 'mean', expected 'sum'",
    ),
    "complex_bag": (
        lambda: f.embed_bag(jnp.ones((2, 3), int), TABLE.astype(complex), mode="max"),
        TypeError,
        "embed_bag: embedding has dtype complex64, expected a real dtype",
    ),
    "float_ids": (
        lambda: f.embed(jnp.ones(2), TABLE),
        TypeError,
        "embed: ids have dtype float32, expected integers",
    ),
    "bool_ids": (lambda: f.embed(jnp.array([True]), TABLE), TypeError, "ids have dtype bool"),
    "layer_float_ids": (
        lambda: nn.embedding(5, 3).apply({"embedding": TABLE}, {}, jnp.ones(2)),
        TypeError,
        "embed: ids have dtype float32",
    ),
    "table": (lambda: f.embed(0, TABLE[0]), ValueError, r"embed: embedding has shape \(3,\)"),
    "attend_features": (
        lambda: f.attend(jnp.ones((2, 5)), TABLE),
        ValueError,
        r"attend: x has shape \(2, 5\), expected 3 features .* of shape \(5, 3\)",
    ),
    "vocabulary": (lambda: nn.embedding(0, 3), ValueError, "embedding: num_embeddings is 0"),
    "features": (lambda: nn.embedding(5, 3.0), TypeError, "embedding: features is 3.0"),
    "key": (lambda: nn.embedding(5, 3).init(0, jnp.array([1])), TypeError, "embedding: key is int"),
}


@pytest.mark.parametrize(("call", "exception", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(call, exception, message):
    with pytest.raises(exception, match=message):
        call()
