"""Attention: masks, precision, conventions, keywords, and what bit users elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once, quick_first

f = nn.functional
attend = f.dot_product_attention


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heads(queries=4, keys=4, n=2, kv_n=2, features=8, dtype=jnp.float32):
    """Queries, keys and values."""
    shapes = (queries, n), (keys, kv_n), (keys, kv_n)
    return [jnp.asarray(normal(i, 2, *s, features), dtype) for i, s in enumerate(shapes)]


# Nothing to attend to

FULLY_MASKED = {
    "mask": {"mask": jnp.array([[False] * 4, [True] * 4, [True] * 4, [True] * 4])[None, None]},
    "bias": {"bias": jnp.array([[-jnp.inf] * 4, *[[0.0] * 4] * 3])[None, None]},
    "offset": {"is_causal": True, "query_offset": -1},
    "window": {"window": 0, "query_offset": 4},
}


@quick_first(2)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("mask", "bfloat16"),
        pytest.param("mask", "float16", marks=pytest.mark.slow),
        pytest.param("bias", "bfloat16", marks=pytest.mark.slow),
        *((kind, "float32") for kind in FULLY_MASKED),
    ],
)
def test_fully_masked_query_gives_zeros_and_zero_gradients(kind, dtype):
    """Not the mean of the values (jax.nn), not NaN (torch)."""
    arguments, options = heads(dtype=dtype), FULLY_MASKED[kind]

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(functools.partial(attend, **options), *arguments)
        of_first = pullback(jnp.zeros_like(y).at[:, 0].set(1))
        tangent = jax.jvp(functools.partial(attend, **options), arguments, arguments)[1]
        return y, of_first, pullback(jnp.ones_like(y)), tangent

    y, of_first, gradients, tangent = derived(*arguments)
    for zeros in (y[:, 0], tangent[:, 0], *of_first):
        np.testing.assert_array_equal(zeros, jnp.zeros_like(zeros))
    for finite in (y, tangent, *gradients):
        assert jnp.isfinite(finite).all()


HIDDEN = {  # which keys of four are hidden from each of four queries
    "causal": ({"is_causal": True}, np.triu(np.ones((4, 4), bool), 1)),
    "window": ({"window": (1, 0)}, ~(np.tri(4, dtype=bool) & ~np.tri(4, k=-2, dtype=bool))),
    "mask": ({"mask": jnp.array([True, True, True, False])[None, None, None]}, [[0, 0, 0, 1]] * 4),
    "bias": ({"bias": jnp.array([0, 0, 0, -jnp.inf])[None, None, None]}, [[0, 0, 0, 1]] * 4),
    "empty row": ({"mask": jnp.array([False, True, True, True])[None, None, :, None]}, None),
}


@each_value_once
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kv_heads", [2, 1])
@pytest.mark.parametrize("case", HIDDEN)
def test_what_is_hidden_has_no_effect_on_values_and_gradients(case, kv_heads, bad):
    options, hidden = HIDDEN[case]
    query, key, value = heads(kv_n=kv_heads)
    if hidden is None:  # a query that sees nothing
        holed = query.at[:, 0].set(bad), key, value
        rows = slice(1, None)
    else:
        holed = query, key.at[:, 3].set(bad), value.at[:, 3].set(bad)
        rows = slice(0, int(np.sum(np.asarray(hidden)[:, 3])))

    @fast_jit
    def derived(query, key, value):
        def seen(query, key, value):
            return attend(query, key, value, **options)[:, rows]

        y, pullback = jax.vjp(seen, query, key, value)
        return y, pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)))

    y, gradients = derived(*holed)
    expected, of_sound = derived(query, key, value)
    np.testing.assert_array_equal(y, expected)
    for got, wanted in zip(gradients, of_sound, strict=True):
        assert np.all(np.isfinite(got))
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_hidden_biases_have_no_effect(bad):
    """Neither those of hidden keys nor those of a query that sees nothing."""
    mask = jnp.ones((1, 1, 4, 4), bool).at[:, :, 0].set(False).at[:, :, 2, 1].set(False)
    bias = jnp.asarray(normal(3, 1, 2, 4, 4))
    weights = normal(4, 2, 4, 2, 8)

    @fast_jit
    def derived(bias):
        def total(query, key, value, bias):
            return jnp.vdot(attend(query, key, value, mask=mask, bias=bias), weights)

        return jax.grad(total, (0, 1, 2, 3))(*heads(), bias)

    for got, expected in zip(derived(jnp.where(mask, bias, bad)), derived(bias), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_hidden_memory_does_not_reach_the_gradient_of_the_kernels(dtype):
    layer, x = nn.attention(2), jnp.asarray(normal(0, 2, 3, 4), dtype)
    memory = jnp.asarray(normal(1, 2, 5, 4), dtype)
    mask = f.padding_mask(jnp.array([3, 0]), 5)
    params, _ = layer.init(jax.random.key(0), x, memory=memory)

    @fast_jit
    def derived(memory):
        def total(params, memory):
            y, _ = layer.apply(params, {}, x, memory=memory, mask=mask)
            return jnp.sum(jnp.sin(y.astype(jnp.float32)))

        return jax.value_and_grad(total, (0, 1))(params, memory)

    seen = mask[:, 0, 0, :, None]
    expected = derived(memory)
    jax.tree.map(np.testing.assert_array_equal, derived(jnp.where(seen, memory, np.nan)), expected)
    np.testing.assert_array_equal(jnp.where(seen, 0, expected[1][1]), 0)


def test_what_is_seen_and_not_finite_is_not_hidden():
    query, key, value = heads()
    for holed in ((key.at[:, 2].set(jnp.nan), value), (key, value.at[:, 2].set(jnp.nan))):
        y = attend(query, *holed, is_causal=True)
        assert np.isnan(y).all(axis=(0, 2, 3)).tolist() == [False, False, True, True]


def test_where_the_queries_are_must_be_told():
    query, key, value = heads(1, 8)
    message = "query_offset=7 if they are the last ones, 0 if they are the first"
    for call in (
        lambda: attend(query, key, value, is_causal=True),
        lambda: attend(query, key, value, window=2),
        lambda: f.causal_mask(1, 8),
        lambda: f.local_mask(1, 2, 8),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    last = attend(query, key, value, is_causal=True, query_offset=7)
    np.testing.assert_array_equal(last, attend(query, key, value))
    attend(query, key, value)  # without a mask there is nothing to tell


def test_second_derivatives_of_a_fully_masked_query_are_finite():
    query, key, value = heads()

    def total(query):
        return jnp.sum(jnp.sin(attend(query, key, value, **FULLY_MASKED["mask"])))

    product = fast_jit(lambda q, v: jax.jvp(jax.grad(total), (q,), (v,))[1])(query, query)
    assert jnp.isfinite(product).all()
    np.testing.assert_array_equal(product[:, 0], 0)


def test_a_sequence_of_length_0_gives_the_bias_of_the_output():
    layer = nn.attention(2)
    x = normal(0, 2, 3, 4)
    params, _ = layer.init(jax.random.key(0), x)
    params["out"]["bias"] = jnp.arange(4.0)
    mask = f.padding_mask(jnp.array([0, 3]), 3)
    y, _ = fast_jit(layer.apply)(params, {}, x, mask=mask)
    np.testing.assert_array_equal(y[0], np.broadcast_to(np.arange(4), (3, 4)))


# Precision


@pytest.mark.parametrize(("dtype", "size"), [("float16", 200), ("float32", 2e4)])
def test_extreme_logits(dtype, size):
    """Products that no float16 holds; the softmax picks the largest."""
    arguments = heads(dtype=dtype)
    query, key = (size * a for a in arguments[:2])

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(attend, *arguments)
        return y, pullback(y)

    y, gradients = derived(query, key, arguments[2])
    assert all(jnp.isfinite(a).all() for a in (y, *gradients))
    products = jnp.einsum("bqhd,bkhd->bhqk", *(a.astype(jnp.float32) for a in (query, key)))
    chosen = jax.nn.one_hot(products.argmax(-1), 4)
    expected = jnp.einsum("bhqk,bkhd->bqhd", chosen, arguments[2].astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)


@pytest.mark.parametrize("large", [-jnp.inf, -1e30, -1e9])
def test_large_negative_biases_are_masks(large):
    mask = np.random.default_rng(0).random((2, 1, 4, 4)) < 0.5
    mask[..., 0] = True
    bias = jnp.where(mask, 0.0, large)
    masked, biased = fast_jit(lambda *a: (attend(*a, mask=mask), attend(*a, bias=bias)))(*heads())
    np.testing.assert_allclose(biased, masked, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_logits_and_softmax_are_float32(dtype):
    query, key, value = heads(keys=256, features=64, dtype=dtype)
    options = {"bias": 4 * normal(5, 1, 2, 4, 256), "is_causal": True, "query_offset": 250}
    run = fast_jit(functools.partial(attend, **options))
    y = run(query, key, value)
    assert y.dtype == query.dtype
    exact = run(*(a.astype(jnp.float32) for a in (query, key, value)))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=2 * eps)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtype_of_the_query_decides(dtype, x64):
    query, key, value = (
        jnp.asarray(a, d) for a, d in zip(heads(), (dtype, "float64", "float16"), strict=True)
    )
    bias = jnp.ones((1, 1, 4, 4), "float64")
    run = functools.partial(attend, bias=bias, scale=np.float64(2))
    assert jax.eval_shape(run, query, key, value).dtype == query.dtype
    assert jax.eval_shape(attend, *[jnp.ones((1, 2, 1, 2), jnp.int32)] * 3).dtype == jnp.float64


# Conventions


@pytest.mark.slow  # `tests/test_gradients.py` has NumPy's
@pytest.mark.parametrize(
    ("own", "options", "kv_heads"),
    [
        ({"is_causal": True}, {"is_causal": True}, 4),
        ({"window": 1}, {"local_window_size": 1}, 2),
        ({"window": (2, 0), "scale": 0.5}, {"local_window_size": (2, 0), "scale": 0.5}, 1),
    ],
    ids=["is_causal", "window", "window_pair"],
)
def test_agrees_with_jax(own, options, kv_heads):
    arguments = heads(4, 6, 4, kv_heads)
    theirs = functools.partial(jax.nn.dot_product_attention, **options)
    ours = functools.partial(attend, query_offset=0, **own)
    y, expected = fast_jit(lambda *a: (ours(*a), theirs(*a)))(*arguments)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_query_offset_is_the_position_of_the_first_query():
    query, key, value = heads(6, 6)
    options = {"is_causal": True, "window": 2}

    @fast_jit
    def both_ways(offset):
        last = attend(query[:, 4:], key, value, query_offset=offset, **options)
        return last, attend(query, key, value, **options)[:, 4:]

    np.testing.assert_allclose(*both_ways(4), atol=1e-6)


def test_consecutive_query_heads_share_a_key():
    query, key, value = heads(n=4, kv_n=2)
    repeated = [np.repeat(a, 2, axis=2) for a in (key, value)]
    both = fast_jit(lambda: (attend(query, key, value), attend(query, *repeated)))()
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)


def test_vmap_and_further_batch_axes():
    arguments = [np.stack([a, 2 * a]) for a in heads()]
    mask = normal(0, 2, 2, 1, 4, 4) > 0

    def run(query, key, value, mask):
        return attend(query, key, value, mask=mask, is_causal=True)

    both = fast_jit(lambda *a: (jax.vmap(run)(*a), run(*a)))(*arguments, mask)
    np.testing.assert_allclose(*both, atol=1e-6)


# Masks


def test_causal_and_local_masks_agree_with_the_arguments():
    options = {"is_causal": True, "window": (1, 3), "query_offset": 1}
    mask = f.combine_masks(
        f.causal_mask(4, 5, query_offset=1), f.local_mask(4, (1, 3), 5, query_offset=1)
    )
    both = fast_jit(lambda *a: (attend(*a, mask=mask), attend(*a, **options)))(*heads(4, 5))
    np.testing.assert_array_equal(*both)


def test_packed_sequences_attend_as_if_alone():
    x = normal(0, 1, 5, 4)
    segments = jnp.array([[0, 0, 0, 1, 1]])
    layer = nn.attention(2, is_causal=True, positions=nn.rotary())
    params, _ = layer.init(jax.random.key(0), x)

    @fast_jit
    def both_ways(x):
        packed, _ = layer.apply(params, {}, x, mask=f.segment_mask(segments))
        alone = [layer.apply(params, {}, part)[0] for part in (x[:, :3], x[:, 3:])]
        return packed, jnp.concatenate(alone, axis=1)

    packed, alone = both_ways(x)
    np.testing.assert_allclose(packed, alone, rtol=1e-4, atol=1e-5)


def test_no_masks_combine_to_none():
    assert f.combine_masks(None, None) is None
    assert f.combine_masks() is None


def test_padding_mask_counts_in_int32():
    """256 keys are more than an uint8 counts."""
    assert f.padding_mask(np.array([3], np.uint8), 300).sum() == 3


# Weights


def test_weights_are_of_what_is_seen():
    """Zeros for a query that sees nothing, NaN where it sees a key that is NaN."""
    query, key, value = heads(kv_n=1)
    mask = FULLY_MASKED["mask"]["mask"].at[..., 1, 3].set(False)
    y, weights = attend(query, key.at[:, 3].set(jnp.nan), value, mask=mask, return_weights=True)
    assert y.shape == query.shape
    assert weights.shape == (2, 2, 4, 4)
    np.testing.assert_array_equal(weights[..., 0, :], 0)
    np.testing.assert_allclose(weights[..., 1, :].sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(weights[..., 1, 3], 0)
    assert np.isnan(weights[..., 2, :]).all()
    empty = attend(query, key[:, :0], value[:, :0], return_weights=True)
    assert [a.shape for a in empty] == [query.shape, (2, 2, 4, 0)]


def test_weights_of_a_decoder_are_over_its_cache():
    x = normal(0, 1, 4, 4)
    layer = nn.attention(2, is_causal=True, return_weights=True, use_sinks=True)
    decoder = nn.attention(2, is_causal=True, return_weights=True, use_sinks=True, cache_length=4)
    params, cache = decoder.init(jax.random.key(0), x)
    params["sinks"] = jnp.array([0.5, -1.0])

    @fast_jit
    def run(params, cache):
        _, cache = decoder.apply(params, cache, x[:, :2])
        two, cache = decoder.apply(params, cache, x[:, 2:])
        return layer.apply(params, {}, x)[0], two, decoder.apply(params, cache, x[:, :1])[0]

    (y, weights), (last, last_weights), beyond = run(params, cache)
    np.testing.assert_allclose(last, y[:, 2:], atol=1e-6)
    np.testing.assert_allclose(last_weights, weights[..., 2:, :], atol=1e-6)
    assert all(np.isnan(a).all() for a in beyond)


# Dropout


def test_dropout_drops_weights_and_keeps_their_mean():
    query, key, _ = heads(1, 1000, 1, 1)
    value = jnp.ones((2, 1000, 1, 1))

    @fast_jit
    @jax.vmap
    def drop(seed):
        options = {"dropout_rate": 0.25, "dropout_key": jax.random.key(seed)}
        return attend(0 * query, key, value, **options)

    ys = drop(np.arange(50))
    np.testing.assert_allclose(ys.mean(), 1, atol=0.02)
    assert ys.std() > 0.005


def test_dropout_of_everything_gives_zeros():
    options = {"dropout_rate": 1.0, "dropout_key": jax.random.key(0)}
    y = fast_jit(functools.partial(attend, **options))(*heads())
    np.testing.assert_array_equal(y, 0)


def test_the_layer_drops_in_training_alone():
    layer = nn.attention(2, dropout_rate=0.5)
    x = normal(0, 1, 3, 4)
    params, _ = layer.init(jax.random.key(0), x)

    @fast_jit
    def run(params):
        key = jax.random.key(1)
        evaluated, _ = layer.apply(params, {}, x, key=key)
        dropped, _ = layer.apply(params, {}, x, key=key, train=True)
        return nn.attention(2).apply(params, {}, x)[0], evaluated, dropped

    plain, evaluated, dropped = run(params)
    np.testing.assert_array_equal(evaluated, plain)
    assert np.abs(dropped - plain).max() > 1e-3


# The layer


def test_parameters_of_the_layer():
    layer = nn.attention(4, num_kv_heads=2, head_dim=3, out_features=5, qk_norm=nn.rms_norm())
    x = jax.ShapeDtypeStruct((2, 3, 7), jnp.bfloat16)
    memory = jax.ShapeDtypeStruct((2, 4, 6), jnp.bfloat16)
    init = functools.partial(layer.init, memory=memory)
    params, state = jax.eval_shape(init, jax.random.key(0), x)
    assert state == {}
    assert jax.tree.map(jnp.shape, params) == {
        "query": {"kernel": (7, 12), "bias": (12,)},
        "key": {"kernel": (6, 6), "bias": (6,)},
        "value": {"kernel": (6, 6), "bias": (6,)},
        "out": {"kernel": (12, 5), "bias": (5,)},
        "query_norm": {"scale": (3,)},
        "key_norm": {"scale": (3,)},
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_without_positions_the_order_of_the_memory_does_not_matter():
    x, memory = normal(0, 1, 2, 4), normal(1, 1, 5, 4)
    layer = nn.attention(2)
    params, _ = layer.init(jax.random.key(0), x)
    apply = fast_jit(lambda memory: layer.apply(params, {}, x, memory=memory)[0])
    np.testing.assert_allclose(apply(memory[:, ::-1]), apply(memory), atol=1e-5)


def test_a_causal_layer_does_not_see_the_future():
    x = normal(0, 1, 5, 4)
    layer = nn.attention(2, is_causal=True, positions=nn.alibi())
    params, _ = layer.init(jax.random.key(0), x)
    seen = fast_jit(jax.jacobian(lambda x: layer.apply(params, {}, x)[0].sum((0, 2))))(x)
    depends = np.abs(seen).sum((1, 3)) > 0
    np.testing.assert_array_equal(depends, np.tri(5, dtype=bool))


def decode(f, x, *, memory, mask=None):
    """Cross-attention as part of a model."""
    return x + f.cross(f.norm(x), memory=memory, mask=mask)


def test_memory_and_mask_pass_through_combinators():
    x, memory = normal(0, 2, 3, 4), normal(1, 2, 5, 6)
    mask = f.padding_mask(jnp.array([2, 5]), 5)
    block = nn.compose(decode, norm=nn.layer_norm(), cross=nn.attention(2))
    model = nn.residual(nn.remat(block))
    params, state = model.init(jax.random.key(0), x, memory=memory)
    assert params["layer"]["cross"]["key"]["kernel"].shape == (6, 4)

    @fast_jit
    def run(memory):
        return model.apply(params, state, x, memory=memory, mask=mask)[0]

    changed = run(np.where(np.arange(5)[:, None] < 2, memory, 7.0))
    np.testing.assert_array_equal(changed[0], run(memory)[0])  # what is masked is not seen
    assert np.abs(changed[1] - run(memory)[1]).max() > 1e-3


@pytest.mark.slow
def test_stack_and_mixed_precision_take_a_mask():
    x = normal(0, 2, 3, 4)
    mask = f.padding_mask(jnp.array([2, 3]), 3)
    plain = nn.stack(nn.residual(nn.attention(2)), 2)
    params, state = plain.init(jax.random.key(0), x)

    @fast_jit
    def both_ways(params):
        layers = nn.mixed_precision(plain), plain
        return [layer.apply(params, state, x, mask=mask)[0] for layer in layers]

    low, high = both_ways(params)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, high, atol=0.05)


def low_rank(features, **options):
    """A projection with a trainable correction."""
    return nn.lora(nn.dense(features, **options), 2)


def spectral(features, **options):
    """A projection with state."""
    return nn.spectral_norm(nn.dense(features, **options))


def test_dense_makes_the_projections():
    x = normal(0, 1, 3, 4)
    layer = nn.attention(2, dense=low_rank, use_bias=False)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert params["value"]["layer"].keys() == {"kernel"}
    assert params["value"].keys() > {"layer"}
    assert state == {}

    layer = nn.attention(2, dense=spectral)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert state.keys() == {"query", "key", "value", "out"}
    train = functools.partial(layer.apply, train=True)
    assert jax.eval_shape(train, params, state, x)[1] == state


# Errors

Q = jnp.ones((2, 3, 4, 8))
X = jnp.ones((2, 3, 4))


def layer_apply(layer, x=X, **keywords):
    """Initialise a layer and run it with keywords, abstractly."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0), X)
    return jax.eval_shape(functools.partial(layer.apply, **keywords), params, state, x)


BAD_CALLS = {
    "query_rank": (
        lambda: attend(Q[0, 0], Q[0, 0], Q[0, 0]),
        ValueError,
        ("dot_product_attention: query has shape (4, 8)", "(..., sequence, heads, features)"),
    ),
    "key_rank": (lambda: attend(Q, Q[0], Q), ValueError, ("key has shape (3, 4, 8)",)),
    "key_heads": (
        lambda: attend(Q, Q[:, :, :3], Q[:, :, :3]),
        ValueError,
        ("query has shape (2, 3, 4, 8) and key (2, 3, 3, 8)", "a multiple of the key's"),
    ),
    "key_features": (lambda: attend(Q, Q[..., :7], Q), ValueError, ("key (2, 3, 4, 7)",)),
    "value": (
        lambda: attend(Q, Q, Q[:, :2]),
        ValueError,
        ("value has shape (2, 2, 4, 8), expected (2, 3, 4) before its features",),
    ),
    "mask_integers": (
        lambda: attend(Q, Q, Q, mask=jnp.ones((2, 4, 3, 3), jnp.int32)),
        TypeError,
        ("dot_product_attention: mask has dtype int32", "expected bool (True: attend)"),
    ),
    "mask_rank": (
        lambda: attend(Q, Q, Q, mask=jnp.ones((3, 3), bool)),
        ValueError,
        ("mask has shape (3, 3), expected (2, 4, 3, 3) (batch, heads, queries, keys)",),
    ),
    "bias_shape": (
        lambda: attend(Q, Q, Q, bias=jnp.ones((2, 2, 3, 3))),
        ValueError,
        ("bias has shape (2, 2, 3, 3), expected (2, 4, 3, 3)", "or 1"),
    ),
    "window_float": (lambda: attend(Q, Q, Q, window=1.5), TypeError, ("window is 1.5",)),
    "window_negative": (
        lambda: attend(Q, Q, Q, window=(1, -1)),
        ValueError,
        ("dot_product_attention: window is (1, -1), expected at least 0",),
    ),
    "offset_float": (
        lambda: attend(Q, Q, Q, is_causal=True, query_offset=1.0),
        TypeError,
        ("query_offset has dtype float32, expected integers",),
    ),
    "offset_array": (
        lambda: attend(Q, Q, Q, query_offset=jnp.arange(2)),
        ValueError,
        ("query_offset has shape (2,), expected no axes",),
    ),
    "dropout_without_key": (
        lambda: attend(Q, Q, Q, dropout_rate=0.5),
        ValueError,
        ("dropout_rate is 0.5, expected a dropout_key with it",),
    ),
    "dropout_key": (
        lambda: attend(Q, Q, Q, dropout_rate=0.5, dropout_key=0),
        TypeError,
        ("key is int", "jax.random.key(seed)"),
    ),
    "weights_in_blocks": (
        lambda: attend(Q, Q, Q, return_weights=True, implementation="nested"),
        ValueError,
        ("dot_product_attention: implementation is 'nested', expected 'whole' or None",),
    ),
    "layer_weights_in_blocks": (
        lambda: nn.attention(2, return_weights=True, implementation="unrolled"),
        ValueError,
        ("attention: implementation is 'unrolled', expected 'whole' or None",),
    ),
    "causal_mask": (
        lambda: f.causal_mask(0),
        ValueError,
        ("causal_mask: query_length is 0", "at least 1"),
    ),
    "local_mask": (
        lambda: f.local_mask(3, (1, 2, 3)),
        TypeError,
        ("local_mask: window is (1, 2, 3), expected an integer or a pair of integers",),
    ),
    "padding_mask_dtype": (
        lambda: f.padding_mask(jnp.ones(2), 3),
        TypeError,
        ("padding_mask: lengths has dtype float32, expected integers",),
    ),
    "padding_mask_shape": (
        lambda: f.padding_mask(3, 3),
        ValueError,
        ("padding_mask: lengths has shape (), expected 1 axis",),
    ),
    "segment_mask": (
        lambda: f.segment_mask(jnp.zeros((2, 3), int), jnp.zeros((1, 3), int)),
        ValueError,
        ("query_segment_ids has shape (2, 3) and key_segment_ids (1, 3)", "the same batch"),
    ),
    "combine_dtype": (
        lambda: f.combine_masks(jnp.ones((1, 1)), None),
        TypeError,
        ("combine_masks: masks[0] has dtype float32, expected bool",),
    ),
    "combine_rank": (
        lambda: f.combine_masks(jnp.ones((1, 1), bool), jnp.ones(1, bool)),
        ValueError,
        ("combine_masks: masks have shapes [(1, 1), (1,)], expected the same rank",),
    ),
    "combine_shapes": (
        lambda: f.combine_masks(jnp.ones((1, 2), bool), jnp.ones((1, 3), bool)),
        ValueError,
        ("combine_masks: masks have shapes [(1, 2), (1, 3)]", "broadcast"),
    ),
    # the layer
    "num_heads": (lambda: nn.attention(0), ValueError, ("attention: num_heads is 0",)),
    "num_kv_heads": (
        lambda: nn.attention(4, num_kv_heads=3),
        ValueError,
        ("attention: num_kv_heads is 3, expected a divisor of num_heads, 4",),
    ),
    "features": (
        lambda: nn.attention(3).init(jax.random.key(0), X),
        ValueError,
        ("attention: x has 4 features, expected a multiple of num_heads, 3",),
    ),
    "uncalled_positions": (
        lambda: nn.attention(2, positions=nn.rotary),
        TypeError,
        ("attention: positions is the constructor rotary", "call it, rotary(...)"),
    ),
    "positions": (
        lambda: nn.attention(2, positions="rotary"),
        TypeError,
        ("attention: positions is 'rotary', expected Positions",),
    ),
    "called_dense": (
        lambda: nn.attention(2, dense=nn.dense(8)),
        TypeError,
        ("attention: dense is dense(8), expected a constructor as nn.dense",),
    ),
    "uncalled_norm": (
        lambda: nn.attention(2, qk_norm=nn.layer_norm),
        TypeError,
        ("attention: qk_norm is the constructor layer_norm",),
    ),
    "dropout_rate": (
        lambda: nn.attention(2, dropout_rate=2.0),
        ValueError,
        ("attention: dropout_rate is 2.0", "in [0, 1]"),
    ),
    "layer_window": (
        lambda: nn.attention(2, window=-1),
        ValueError,
        ("attention: window is -1, expected at least 0",),
    ),
    "rank": (
        lambda: nn.attention(2).init(jax.random.key(0), jnp.ones(4)),
        ValueError,
        ("attention: x has shape (4,), expected shape (..., time, features)",),
    ),
    "memory_batch": (
        lambda: layer_apply(nn.attention(2), memory=jnp.ones((1, 3, 4))),
        ValueError,
        ("attention: memory has shape (1, 3, 4)", "the batch axes of x, (2,)"),
    ),
    "key": (lambda: nn.attention(2).init(0, X), TypeError, ("attention: key is int",)),
    "training_without_key": (
        lambda: layer_apply(nn.attention(2, dropout_rate=0.1), train=True),
        ValueError,
        ("attention(2, dropout_rate=0.1): training is random and needs a key",),
    ),
    "features_of_a_child": (
        lambda: layer_apply(nn.attention(2, head_dim=2), jnp.ones((2, 3, 6))),
        ValueError,
        ("linear: x has shape (2, 3, 6), expected 4 features",),
    ),
    "unknown_keyword": (
        lambda: layer_apply(nn.attention(2), length=3),
        TypeError,
        ("attention(2)", "length"),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    call, exception, fragments = case
    with pytest.raises(exception) as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)


def test_an_error_in_a_projection_carries_its_path():
    with pytest.raises(ValueError, match="linear") as error:
        layer_apply(nn.serial(nn.attention(2, head_dim=2)), jnp.ones((2, 3, 6)))
    assert "in layer '0/query'" in error.value.__notes__
