"""Decoding with a cache of keys and values gives what the full forward pass gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import quick_first

TIME, FEATURES = 6, 8


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attend(cached, **options):
    """Attention over the past, or its decoding form."""
    return nn.attention(2, is_causal=True, cache_length=TIME if cached else None, **options)


def decoder_block(cached):
    """Attention in the combinators that models are made of."""

    def forward(f, x):
        return x + f.attend(f.norm(x))

    block = nn.compose(forward, norm=nn.layer_norm(), attend=attend(cached, positions=nn.rotary()))
    return nn.serial(
        positions=nn.learned_positions(TIME, cached=cached),
        blocks=nn.stack(nn.residual(nn.serial(nn.remat(block), nn.tanh)), 2),
        out=nn.dense(3),
    )


def spectral(features, **options):
    """A projection with state of its own."""
    return nn.spectral_norm(nn.dense(features, **options))


MODELS = {
    "rotary": functools.partial(attend, positions=nn.rotary()),
    "alibi_window": functools.partial(attend, positions=nn.alibi(), window=(2, 0)),
    "one_kv_head_part_rotary": functools.partial(
        attend,
        num_kv_heads=1,
        head_dim=4,
        out_features=3,
        positions=nn.rotary(base=50.0, fraction=0.5, interleaved=True),
    ),
    "qk_norm_rotary": functools.partial(attend, qk_norm=nn.rms_norm(), positions=nn.rotary()),
    "learned": lambda cached: nn.serial(nn.learned_positions(TIME, cached=cached), attend(cached)),
    "sinusoidal": lambda cached: nn.serial(nn.sinusoidal_positions(cached=cached), attend(cached)),
    "block": decoder_block,
    "state_in_dense": functools.partial(attend, dense=spectral),
}


SLOW = ("learned", "state_in_dense")  # positions are learned in "block" as well


def parameters(model, x, seed=0):
    """Normal parameters of a model, biases included."""
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten([normal(seed + i, *leaf.shape) for i, leaf in enumerate(leaves)])


def decode(decoder, params, cache, x, prefill=0):
    """The outputs, the first `prefill` at once and then one by one, under scan, and the cache."""

    def step(cache, x_t):
        y, cache = decoder.apply(params, cache, x_t[..., None, :])
        return cache, y[..., 0, :]

    first = []
    if prefill:
        y, cache = decoder.apply(params, cache, x[..., :prefill, :])
        first = [y]
    cache, y = jax.lax.scan(step, cache, jnp.moveaxis(jnp.asarray(x[..., prefill:, :]), -2, 0))
    return jnp.concatenate([*first, jnp.moveaxis(y, 0, -2)], axis=-2), cache


@quick_first(3)
@pytest.mark.parametrize(
    ("name", "prefill"),
    [
        ("rotary", 0),
        *((name, 3) for name in MODELS if name not in SLOW),
        *(pytest.param(name, 3, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, 0, marks=pytest.mark.slow) for name in MODELS if name != "rotary"),
    ],
)
def test_decoding_is_the_full_forward_pass(name, prefill):
    model, decoder = MODELS[name](cached=False), MODELS[name](cached=True)
    x = normal(1, 2, TIME, FEATURES)
    params = parameters(model, x)

    @fast_jit
    def both_ways(params, x):
        _, state = model.init(jax.random.key(0), x)
        _, cache = decoder.init(jax.random.key(0), x)
        y, _ = model.apply(params, state, x)
        return y, decode(decoder, params, cache, x, prefill)[0]

    y, decoded = both_ways(params, x)
    largest = max(1.0, np.max(np.abs(y)))
    np.testing.assert_allclose(decoded, y, rtol=1e-5, atol=1e-6 * largest + 1e-5)


def test_the_decoding_form_has_the_same_parameters():
    x = normal(0, 2, TIME, FEATURES)
    both = [attend(cached, qk_norm=nn.rms_norm()) for cached in (False, True)]
    params = [layer.init(jax.random.key(0), x)[0] for layer in both]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_gradients_flow_through_the_cache():
    model, decoder = (attend(cached, positions=nn.rotary()) for cached in (False, True))
    x = normal(1, 1, TIME, FEATURES)
    params = parameters(model, x)

    @fast_jit
    def gradients(params, x):
        _, cache = decoder.init(jax.random.key(0), x)

        def full(params, x):
            return jnp.sum(jnp.sin(model.apply(params, {}, x)[0]))

        def decoded(params, x):
            return jnp.sum(jnp.sin(decode(decoder, params, cache, x)[0]))

        return [jax.grad(f, (0, 1))(params, x) for f in (full, decoded)]

    of_full, of_decoded = map(jax.tree.leaves, gradients(params, x))
    for got, wanted in zip(of_decoded, of_full, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_one_program_serves_all_positions():
    decoder = attend(True, positions=nn.rotary())
    x = normal(0, 1, TIME, FEATURES)
    params, cache = decoder.init(jax.random.key(0), x)
    traces = []

    @jax.jit
    def step(cache, x_t):
        traces.append(x_t.shape)
        return decoder.apply(params, cache, x_t)

    for t in range(TIME):
        y, cache = step(cache, x[:, t : t + 1])
    assert np.isfinite(y).all()
    assert traces == [(1, 1, FEATURES)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_cache_keeps_its_dtype_and_shape(dtype):
    decoder = attend(True, num_kv_heads=1, positions=nn.rotary())
    x = jnp.asarray(normal(0, 2, TIME, FEATURES), dtype)
    params, cache = decoder.init(jax.random.key(0), x)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), cache["cache"])
    assert shapes == {
        "key": ((2, TIME, 1, 4), x.dtype),
        "value": ((2, TIME, 1, 4), x.dtype),
        "position": ((), jnp.int32),
    }
    y, state = jax.eval_shape(functools.partial(decode, decoder), params, cache, x)
    assert y.dtype == x.dtype
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state["cache"]) == shapes


@pytest.mark.slow
def test_bfloat16_decoding_agrees_with_float32():
    decoder = attend(True, positions=nn.rotary())
    x = jnp.asarray(normal(1, 1, TIME, FEATURES), jnp.bfloat16)
    params = parameters(decoder, x)

    @fast_jit
    def decoded(x):
        _, cache = decoder.init(jax.random.key(0), x)
        return decode(decoder, params, cache, x)[0].astype(jnp.float32)

    low, high = decoded(x), decoded(x.astype(jnp.float32))
    np.testing.assert_allclose(low, high, atol=0.03 * np.abs(high).max())


def test_a_float32_cache_serves_a_layer_that_computes_in_bfloat16():
    decoder = nn.mixed_precision(attend(True))
    x = normal(0, 1, TIME, FEATURES)
    params, cache = decoder.init(jax.random.key(0), x)
    y, state = jax.eval_shape(functools.partial(decode, decoder), params, cache, x)
    assert y.dtype == state["cache"]["key"].dtype == jnp.float32


@pytest.mark.parametrize("batch", [(), pytest.param((2, 3), marks=pytest.mark.slow)], ids=str)
def test_any_batch_axes(batch):
    model, decoder = (attend(cached, positions=nn.alibi()) for cached in (False, True))
    x = normal(1, *batch, 4, FEATURES)
    params = parameters(model, x)

    @fast_jit
    def both_ways(x):
        _, cache = decoder.init(jax.random.key(0), x)
        return model.apply(params, {}, x)[0], decode(decoder, params, cache, x, 2)[0]

    y, decoded = both_ways(x)
    assert y.shape == x.shape
    np.testing.assert_allclose(decoded, y, rtol=1e-5, atol=1e-5)


def test_masks_are_over_the_keys_of_the_cache():
    """A prompt padded on its left decodes as the prompt alone, where only distances count."""
    decoder = attend(True, positions=nn.rotary())
    x = normal(1, 1, TIME, FEATURES)
    params = parameters(decoder, x)
    mask = (jnp.arange(TIME) >= 2).reshape(1, 1, 1, TIME)

    @fast_jit
    def both_ways(x):
        _, cache = decoder.init(jax.random.key(0), x)
        alone, _ = decoder.apply(params, cache, x[:, 2:])
        first, cache = decoder.apply(params, cache, x[:, :5], mask=mask)
        bias = jnp.ones((1, 1, 1, TIME))
        last, _ = decoder.apply(params, cache, x[:, 5:], mask=mask, bias=bias)
        return alone, jnp.concatenate([first[:, 2:], last], axis=1)

    alone, padded = both_ways(x)
    np.testing.assert_allclose(padded, alone, rtol=1e-4, atol=1e-4)


# The end of the cache


@pytest.mark.parametrize(
    "decoder", [attend(True), nn.learned_positions(TIME, cached=True)], ids=["cache", "learned"]
)
def test_elements_past_the_end_give_nan(decoder):
    x = normal(0, 1, TIME + 2, FEATURES)
    params, cache = decoder.init(jax.random.key(0), x[:, :1])
    y, _ = fast_jit(lambda cache, x: decode(decoder, params, cache, x, TIME - 1))(cache, x)
    assert np.isfinite(y[:, :TIME]).all()
    assert np.isnan(y[:, TIME:]).all()


def test_sinusoidal_positions_have_no_end():
    layer = nn.sinusoidal_positions(cached=True)
    state = {"position": jnp.int32(100_000)}
    y, state = layer.apply({}, state, jnp.zeros((1, 2, 4)))
    expected = [np.sin(100_001.0), np.cos(100_001.0)]
    np.testing.assert_allclose(y[0, 1, :2], expected, atol=1e-2)
    assert state["position"] == 100_002


BAD_CALLS = {
    "not_causal": (
        lambda: nn.attention(2, cache_length=4),
        ("attention: cache_length is 4", "expected None without is_causal=True"),
    ),
    "zero": (lambda: attend_n(0), ("attention: cache_length is 0", "at least 1")),
    "memory": (
        lambda: attend_n(4).init(
            jax.random.key(0), jnp.ones((1, 2, 4)), memory=jnp.ones((1, 2, 4))
        ),
        ("attention: memory is given", "expected none with a cache_length"),
    ),
    "too_long": (
        lambda: attend_n(4).init(jax.random.key(0), jnp.ones((1, 5, 4))),
        ("attention: x has 5 elements", "at most cache_length, 4"),
    ),
    "no_state": (
        lambda: attend_n(4).apply(
            nn.attention(2).init(jax.random.key(0), jnp.ones((1, 1, 4)))[0], {}, jnp.ones((1, 1, 4))
        ),
        ("attention: state has []", "expected 'cache' as made by init"),
    ),
    "positions_state": (
        lambda: nn.sinusoidal_positions(cached=True).apply({}, {}, jnp.ones((1, 1, 4))),
        ("sinusoidal_positions: state has []", "expected 'position' as made by init"),
    ),
}


def attend_n(length):
    """A decoder of a length."""
    return nn.attention(2, is_causal=True, cache_length=length)


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    call, fragments = case
    with pytest.raises(ValueError, match="expected") as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)
