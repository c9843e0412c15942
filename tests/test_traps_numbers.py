"""One test for each trap of what layers compute: complex, narrow and empty arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once, quick_first
from tests.table import LAYERS, cases

narrow = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
# Where a rounded sum would show in bfloat16 first.
mostly_bfloat16 = pytest.mark.parametrize(
    "dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
)


def complex_normal(seed, shape):
    """Complex numbers with a mean, and an imaginary part that varies more than the real one."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 2j * rng.standard_normal(shape) + (3 - 1j)


# Complex numbers: the variance is that of |x - mean|, and real


def standardized(x, axes, epsilon=1e-5):
    """Normalised over `axes`, in NumPy."""
    centered = x - x.mean(axes, keepdims=True)
    variance = (centered.real**2 + centered.imag**2).mean(axes, keepdims=True)
    return centered / np.sqrt(variance + epsilon)


def local_response(x):
    """The formula, one channel at a time."""
    n, square = x.shape[-1], np.abs(x) ** 2
    sums = [square[..., max(c - 1, 0) : c + 2].sum(-1) for c in range(n)]
    return x / (1 + 0.5 / 3 * np.stack(sums, -1)) ** 0.75


GROUPS = (4, 6, 2, 4)

COMPLEX_NORMS = {
    "layer_norm": (nn.layer_norm(), lambda x: standardized(x, -1)),
    "layer_norm_axes": (nn.layer_norm(axis=(1, 2)), lambda x: standardized(x, (1, 2))),
    "rms_norm": (
        nn.rms_norm(),
        lambda x: x / np.sqrt((np.abs(x) ** 2).mean(-1, keepdims=True) + 1e-6),
    ),
    "group_norm": (
        nn.group_norm(2),
        lambda x: standardized(x.reshape(GROUPS), (1, 3)).reshape(x.shape),
    ),
    "instance_norm": (nn.instance_norm(), lambda x: standardized(x, 1)),
    "batch_norm": (nn.batch_norm(), lambda x: standardized(x, (0, 1))),
    "unit_norm": (nn.unit_norm(), lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)),
    "local_response_norm": (nn.local_response_norm(3, alpha=0.5), local_response),
}


@quick_first(3)
@pytest.mark.parametrize("name", COMPLEX_NORMS)
def test_norms_of_complex_numbers(name):
    layer, reference = COMPLEX_NORMS[name]
    x = complex_normal(0, (4, 6, 8))
    params, state = layer.init(jax.random.key(0), x.astype(np.complex64))
    y, _ = layer.apply(params, state, x.astype(np.complex64), train=True)
    assert y.dtype == jnp.complex64
    np.testing.assert_allclose(y, reference(x), rtol=1e-4, atol=1e-5)


def test_running_variance_of_complex_numbers_is_real():
    x = complex_normal(0, (50, 3))
    layer = nn.batch_norm(decay=0.0)
    params, state = layer.init(jax.random.key(0), x.astype(np.complex64))
    assert state["var"].dtype == jnp.float32
    _, state = layer.apply(params, state, x.astype(np.complex64), train=True)
    np.testing.assert_allclose(state["mean"], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state["var"], np.var(x, 0, ddof=1), rtol=1e-5)  # real, by NumPy


def test_complex_running_variance_is_refused():
    with pytest.raises(TypeError, match=r"batch_norm: var has dtype complex64, expected a real"):
        nn.functional.batch_norm(jnp.ones((2, 3)), jnp.zeros(3), jnp.ones(3, jnp.complex64))


def test_weight_norm_of_a_complex_kernel_has_real_lengths():
    x = complex_normal(0, (1, 5)).astype(np.complex64)
    dense = nn.dense(3)
    layer = nn.weight_norm(dense)
    params, state = layer.init(jax.random.key(0), x)
    kernel = np.asarray(params["layer"]["kernel"])
    np.testing.assert_allclose(params["scale"]["kernel"], np.linalg.norm(kernel, axis=0), rtol=1e-6)
    expected = dense.apply(params["layer"], {}, x)[0]
    np.testing.assert_allclose(layer.apply(params, state, x)[0], expected, rtol=1e-5)


def test_spectral_norm_of_a_complex_kernel():
    kernel = complex_normal(0, (5, 3))
    u, v = complex_normal(1, 5), complex_normal(2, 3)
    narrow = (array.astype(np.complex64) for array in (kernel, u, v))
    kernel_32, u, v = narrow
    u, v = nn.functional.power_iteration(kernel_32, u, v, n_steps=100)
    w = nn.functional.spectral_norm(kernel_32, u, v)
    np.testing.assert_allclose(w, kernel / np.linalg.norm(kernel, 2), rtol=1e-4)


def test_dropout_of_complex_numbers():
    x = complex_normal(0, 1000).astype(np.complex64)
    y = np.asarray(nn.functional.dropout(jax.random.key(0), x, 0.5))
    assert 400 < (y == 0).sum() < 600
    np.testing.assert_allclose(y[y != 0], 2 * x[y != 0], rtol=1e-6)


COMPLEX = jnp.ones((2, 4, 2, 2), jnp.complex64)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: nn.functional.dot_product_attention(x, x, x), "query"),
        (lambda x: nn.functional.dot_product_attention(x.real, x, x.real), "key"),
        (lambda x: nn.functional.dot_product_attention(x.real, x.real, x), "value"),
        (lambda x: nn.functional.rotary(x, jnp.arange(4)), "x"),
        (lambda x: nn.functional.sinusoidal(x, 4), "positions"),
        (lambda x: nn.functional.prelu(x, 0.5), "x"),
        (lambda x: nn.functional.maxout(x, jnp.ones((2, 2, 2))), "x"),
        (lambda x: nn.functional.alpha_dropout(KEY, x, 0.5), "x"),
        (lambda x: nn.functional.gaussian_dropout(KEY, x, 0.5), "x"),
        (lambda x: nn.functional.nearest_code(x, jnp.ones((3, 2))), "x"),
        (lambda x: nn.functional.expert_balance(x[0, 0]), "logits"),
        (lambda x: nn.functional.mixture_of_experts(x[0, 0], x[0, 0], lambda s: s), "logits"),
        (lambda x: nn.functional.max_pool(x, (2, 2)), "x"),
    ],
)
def test_complex_numbers_are_refused_where_they_have_no_order(call, name):
    with pytest.raises(TypeError, match=rf"\w+: {name} has dtype complex64, expected a real dtype"):
        call(COMPLEX)


# Long sums in few bits: in bfloat16, 1 added to 256 is 256, in float16 to 2048


@narrow
def test_gradient_of_an_embedding_for_a_frequent_token(dtype):
    table = jnp.ones((3, 2), dtype)
    ids = jnp.zeros(3000, jnp.int32).at[0].set(2)

    def total(table):
        return jnp.sum(nn.functional.embed(ids, table).astype(jnp.float32))

    expected = np.asarray(jnp.asarray([2999.0, 0, 1], dtype))[:, None].repeat(2, 1)
    np.testing.assert_array_equal(jax.grad(total)(table), expected)
    tangent = jax.jvp(lambda t: nn.functional.embed(ids, t), (table,), (2 * table,))[1]
    np.testing.assert_array_equal(tangent.astype(np.float32), 2)


@narrow
def test_gradient_of_an_embedding_in_mixed_precision(dtype):
    layer = nn.mixed_precision(nn.embedding(3, 2), dtype)
    ids = jnp.zeros(1000, jnp.int32)
    params, state = layer.init(jax.random.key(0), ids)
    gradient = jax.grad(lambda p: jnp.sum(layer.apply(p, state, ids)[0]))(params)
    np.testing.assert_array_equal(gradient["embedding"], [[1000, 1000], [0, 0], [0, 0]])


@narrow
def test_embedding_is_the_row_itself_bit_for_bit(dtype):
    table = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), dtype)
    rows = nn.functional.embed(jnp.array([4, 0, 9]), table)
    np.testing.assert_array_equal(rows[:2], table[jnp.array([4, 0])])
    assert np.isnan(rows[2].astype(np.float32)).all()


ONES = {
    "dense": (nn.dense(1), (3000, 1)),
    "dense_general": (nn.dense_general((1, 1)), (3000, 1)),
    "einsum": (nn.einsum("...nd,ndf->...nf", {"f": 1}), (3000, 1, 1)),
    "maxout": (nn.maxout(1, 1), (3000, 1)),
    "conv": (nn.conv(1, (1,)), (3, 1000, 1)),
    "conv_2d": (nn.conv(1, (1, 1)), (3, 50, 20, 1)),
    "conv_transpose": (nn.conv_transpose(1, (1,)), (3, 1000, 1)),
    "depthwise_conv": (nn.depthwise_conv((1,)), (3, 1000, 1)),
    "separable_conv": (nn.separable_conv(1, (1,)), (3, 1000, 1)),
    "layer_norm": (nn.layer_norm(), (3000, 1)),
    "batch_norm": (nn.batch_norm(), (3000, 1)),
    "learned_positions": (nn.learned_positions(1), (3000, 1, 1)),
    "recurrent": (nn.recurrent(nn.stacked_cell(nn.dense(1))), (1, 3000, 1)),
}


@quick_first(5)
@mostly_bfloat16
@pytest.mark.parametrize("name", ONES)
def test_gradient_that_is_a_sum_over_examples_and_positions(name, dtype):
    """The gradient of a bias, and of what is added like one, is the number of its uses: 3000."""
    layer, shape = ONES[name]
    x = jnp.ones(shape, dtype)
    params, state = layer.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def total(params):
        return jnp.sum(layer.apply(params, state, x)[0].astype(jnp.float32))

    gradient = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.grad(total)(params))
    }
    added = [g for path, g in gradient.items() if "bias" in path or "embedding" in path]
    assert added
    for leaf in added:
        np.testing.assert_array_equal(leaf, jnp.full(leaf.shape, 3000, dtype))


@narrow
def test_gradient_of_a_slope_is_summed_wide(dtype):
    x = jnp.full((3000, 1), -1, dtype)
    for slope in (jnp.ones((), dtype), jnp.ones(1, dtype)):
        total = jax.grad(lambda s: jnp.sum(nn.functional.prelu(x, s).astype(jnp.float32)))(slope)
        np.testing.assert_array_equal(total, jnp.full(slope.shape, -3000, dtype))


@quick_first(2)
@mostly_bfloat16
@pytest.mark.parametrize(
    "function",
    [
        lambda x: nn.functional.upsample(x, (1000,)),
        lambda x: nn.functional.adaptive_max_pool(x, (2000,)),
        lambda x: nn.functional.adaptive_avg_pool(x, (2000,)),
        lambda x: nn.functional.max_pool(x, (300,), strides=1, padding=299),
        lambda x: 1000 * nn.functional.avg_pool(x, (1000,), strides=1, padding=999),
    ],
    ids=["upsample", "adaptive_max", "adaptive_avg", "max", "avg"],
)
def test_gradient_of_an_element_with_hundreds_of_uses(function, dtype):
    x = jnp.asarray([[[1.0], [2.0]]], dtype)

    def total(x):
        return jnp.sum(function(x).astype(jnp.float32))

    wide = fast_jit(jax.grad(total))(x.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(jax.grad(total)(x), np.float32), wide, rtol=5e-3)
    assert np.max(wide) >= 300


@quick_first(1)
@mostly_bfloat16
@pytest.mark.parametrize("cell", [nn.gru_cell(2, reset_after=False), nn.lstm_cell(2)], ids=repr)
def test_gradient_over_many_steps_is_summed_wide(cell, dtype):
    layer = nn.recurrent(cell)
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (1, 2000, 3)), dtype)
    params, state = fast_jit(layer.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: (0.1 * np.asarray(leaf)).astype(dtype), params)

    def total(params, x):
        return 0.01 * jnp.sum(layer.apply(params, state, x)[0].astype(jnp.float32))

    wide = jax.tree.map(lambda leaf: leaf.astype(np.float32), (params, x))
    both = fast_jit(lambda *points: [jax.grad(total)(*point) for point in points])
    for got, expected in zip(*map(jax.tree.leaves, both((params, x), wide)), strict=True):
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(got.astype(np.float32) / scale, expected / scale, atol=0.01)


# Positions


@each_value_once
@narrow
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: nn.functional.rotary(jnp.ones((1, 1, 2)), p), "positions"),
        (lambda p: nn.functional.sinusoidal(p, 4), "positions"),
        (lambda p: nn.functional.alibi_bias(jnp.ones(2), p, jnp.arange(3)), "query_positions"),
        (lambda p: nn.functional.alibi_bias(jnp.ones(2), jnp.arange(3), p), "key_positions"),
    ],
)
def test_positions_of_few_bits_are_refused(call, name, dtype):
    call(jnp.array([4097]))
    with pytest.raises(TypeError, match=rf"{name} has dtype {dtype}, which rounds them, expected"):
        call(jnp.array([4097]).astype(dtype))


# Nothing at all


def empty(shape):
    """Each shape with one of its axes empty."""
    return [(*shape[:axis], 0, *shape[axis + 1 :]) for axis in range(len(shape))]


@pytest.mark.parametrize("row", cases(LAYERS))
def test_empty_arrays_give_finite_results_or_an_error_in_words(row):
    layer = row.make()
    for shape in empty(row.shapes[0]):
        x = np.zeros(shape, np.float32 if row.vocabulary is None else np.int32)

        def run(x, layer=layer):
            params, state = layer.init(jax.random.key(0), x)
            return layer.apply(params, state, x, key=jax.random.key(1), train=True)

        try:
            made = jax.eval_shape(run, x)
        except ValueError as error:
            told = str(error)
            if "expected" not in told and "has no elements" not in told:
                raise
            continue
        if all(leaf.size == 0 for leaf in jax.tree.leaves(made)):
            continue
        y, state = fast_jit(run)(x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, state)))


def test_an_empty_batch_leaves_the_running_statistics():
    layer = nn.batch_norm()
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    params, state = layer.init(jax.random.key(0), x)
    _, state = layer.apply(params, state, x, train=True)
    y, after = layer.apply(params, state, x[:0], train=True)
    assert y.shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, after, state)

    spread = functools.partial(nn.batch_norm(axis_name="parts").apply, params, state, train=True)
    _, after = jax.vmap(spread, axis_name="parts")(np.zeros((2, 0, 3), np.float32))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), after, state)


@pytest.mark.parametrize(
    ("queries", "keys"), [((0, 3, 2, 4), (0, 5, 2, 4)), ((1, 0, 2, 4), (1, 5, 2, 4))]
)
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_of_nothing(queries, keys, is_causal):
    query, key = jnp.ones(queries), jnp.ones(keys)
    y = nn.functional.dot_product_attention(query, key, key, is_causal=is_causal)
    assert y.shape == queries


def test_attention_to_nothing_is_zero():
    query, key = jnp.ones((1, 3, 2, 4)), jnp.ones((1, 0, 2, 4))
    np.testing.assert_array_equal(nn.functional.dot_product_attention(query, key, key), 0)


def test_dense_of_no_features_is_its_bias():
    layer = nn.dense(2, bias_init=nn.initializers.ones)
    params, state = layer.init(jax.random.key(0), jnp.ones((3, 0)))
    np.testing.assert_array_equal(layer.apply(params, state, jnp.ones((3, 0)))[0], np.ones((3, 2)))


@pytest.mark.parametrize("pool", [nn.functional.global_max_pool, nn.functional.global_avg_pool])
def test_global_pooling_of_nothing_is_refused(pool):
    with pytest.raises(ValueError, match=r"x has shape \(2, 0, 3\), expected at least one element"):
        pool(jnp.ones((2, 0, 3)))
    assert pool(jnp.ones((0, 2, 3))).shape == (0, 3)
