"""Transformers: against torch, with masks, with a memory, and decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

WIDTH, HEADS, HIDDEN = 8, 2, 12


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def block(**options):
    """A small block."""
    attention = nn.attention(HEADS, is_causal=options.pop("is_causal", False))
    mlp = nn.serial(nn.dense(HIDDEN), nn.relu, nn.dense(WIDTH))
    return nn.transformer_block(attention, mlp, **options)


def drawn(layer, x, **keywords):
    """Random parameters, biases and scales included."""
    params, _ = jax.eval_shape(functools.partial(layer.init, **keywords), jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: (0.4 * rng.standard_normal(leaf.shape)).astype(np.float32), params
    )


# torch


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def torch_names(params):
    """Parameters by torch's names."""
    names = {}

    def affine(name, p):
        names[f"{name}.weight"] = p["kernel"].T if "kernel" in p else p["scale"]
        names[f"{name}.bias"] = p["bias"]

    def attention(name, p):
        three = [p["query"], p["key"], p["value"]]
        names[f"{name}.in_proj_weight"] = np.concatenate([q["kernel"].T for q in three])
        names[f"{name}.in_proj_bias"] = np.concatenate([q["bias"] for q in three])
        affine(f"{name}.out_proj", p["out"])

    attention("self_attn", params["attention"])
    affine("linear1", params["mlp"][0])
    affine("linear2", params["mlp"][2])
    norms = ["attention_norm", "mlp_norm"]
    if "cross_attention" in params:
        attention("multihead_attn", params["cross_attention"])
        norms.insert(1, "cross_attention_norm")
    for i, norm in enumerate(norms, 1):
        affine(f"norm{i}", params[norm])
    return names


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("with_memory", [False, True], ids=["encoder", "decoder"])
def test_torch_parity(torch, norm_first, with_memory):
    x, memory = normal(0, 3, 5, WIDTH), normal(1, 3, 7, WIDTH)
    lengths, memory_lengths = np.array([5, 2, 4]), np.array([7, 3, 1])
    cross = nn.attention(HEADS) if with_memory else None
    layer = block(is_causal=with_memory, norm_first=norm_first, cross_attention=cross)
    keywords = {"memory": memory} if with_memory else {}
    params = drawn(layer, x, **keywords)

    kind = torch.nn.TransformerDecoderLayer if with_memory else torch.nn.TransformerEncoderLayer
    module = kind(WIDTH, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=norm_first)
    named = {name: torch.tensor(np.array(p)) for name, p in torch_names(params).items()}
    module.load_state_dict(named)

    masks = {"mask": nn.functional.padding_mask(lengths, 5)}
    of_torch = {"src_key_padding_mask": torch.tensor(np.arange(5) >= lengths[:, None])}
    inputs = (x,)
    if with_memory:
        masks["memory_mask"] = nn.functional.padding_mask(memory_lengths, 7)
        of_torch = {
            "tgt_mask": torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
            "tgt_key_padding_mask": of_torch["src_key_padding_mask"],
            "memory_key_padding_mask": torch.tensor(np.arange(7) >= memory_lengths[:, None]),
        }
        inputs = (x, memory)

    def ours(params, *inputs):
        keywords = dict(zip(("memory",), inputs[1:], strict=False)) | masks
        return layer.apply(params, {}, inputs[0], **keywords)[0]

    @fast_jit
    def derived(params, *inputs):
        y, pullback = jax.vjp(ours, params, *inputs)
        return y, pullback(jnp.cos(y))

    y, (gradients, *input_gradients) = derived(params, *inputs)
    tensors = [torch.tensor(a, requires_grad=True) for a in inputs]
    expected = module(*tensors, **of_torch)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=1e-5)
    expected.backward(torch.cos(expected.detach()))
    for gradient, tensor in zip(input_gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-5, atol=2e-5)
    for name, gradient in torch_names(gradients).items():
        grad = module.get_parameter(name).grad
        np.testing.assert_allclose(gradient, grad, rtol=1e-4, atol=3e-5, err_msg=name)


# Keywords


def test_padding_does_not_reach_what_is_not_padded():
    layer = nn.stack(block(), 2)
    x = normal(0, 2, 5, WIDTH)
    params = drawn(layer, x)
    mask = nn.functional.padding_mask(np.array([5, 3]), 5)
    y, _ = fast_jit(layer.apply)(params, {}, x, mask=mask)
    short, _ = fast_jit(layer.apply)(params, {}, x[1:, :3])
    np.testing.assert_allclose(y[1, :3], short[0], rtol=1e-5, atol=1e-5)


def test_attention_weights_are_left_to_capture():
    plain, looked_at = (
        nn.transformer_block(nn.attention(2, return_weights=wanted), nn.feed_forward(8))
        for wanted in (False, True)
    )
    x = normal(0, 2, 5, WIDTH)
    params = drawn(plain, x)
    assert jax.tree.structure(drawn(looked_at, x)) == jax.tree.structure(params)
    y, _, seen = nn.capture(looked_at, params, {}, x, where="attention")
    np.testing.assert_allclose(y, fast_jit(plain.apply)(params, {}, x)[0], rtol=1e-5, atol=1e-5)
    _, weights = seen["attention"]
    assert weights.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_causal_blocks_do_not_see_what_comes():
    layer = nn.stack(block(is_causal=True), 2)
    x = normal(0, 1, 6, WIDTH)
    params = drawn(layer, x)
    changed = np.concatenate([x[:, :4], x[:, 4:] + 1], axis=1)
    before, after = (layer.apply(params, {}, v)[0] for v in (x, changed))
    np.testing.assert_allclose(before[:, :4], after[:, :4], rtol=1e-5, atol=1e-6)
    assert not np.allclose(before[:, 4:], after[:, 4:])


def encoder_decoder():
    """A translator: both sides are sequences of vectors."""

    def forward(f, x, *, source, source_mask=None):
        memory = f.encoder(source, mask=source_mask)
        return f.decoder(x, memory=memory, memory_mask=source_mask)

    encoder = nn.stack(block(), 2)
    decoder = nn.stack(nn.remat(block(is_causal=True, cross_attention=nn.attention(HEADS))), 2)
    return nn.compose(forward, encoder=encoder, decoder=decoder)


SOURCE = np.pad(normal(0, 4, 6, 3), ((0, 0), (0, 0), (0, WIDTH - 3)))
SEEN = nn.functional.padding_mask(np.array([6, 2, 3, 1]), 6)


def translated(model, state, params, source):
    return model.apply(params, state, normal(1, 4, 5, WIDTH), source=source, source_mask=SEEN)[0]


def test_encoder_decoder_with_masks_sees_its_source(key):
    model = encoder_decoder()
    params, state = fast_jit(model.init)(key, normal(1, 4, 5, WIDTH), source=SOURCE)
    assert params["decoder"]["cross_attention"]["key"]["kernel"].shape == (2, WIDTH, WIDTH)
    run = fast_jit(functools.partial(translated, model, state, params))
    y = run(SOURCE)
    beyond = SOURCE + 9 * ~np.asarray(SEEN).reshape(4, 6, 1)
    np.testing.assert_allclose(run(beyond), y, rtol=1e-4, atol=1e-5)
    assert not np.allclose(run(SOURCE + 1), y)


@pytest.mark.slow
def test_encoder_decoder_with_masks_learns_from_its_source(key):
    model = encoder_decoder()
    params, state = fast_jit(model.init)(key, normal(1, 4, 5, WIDTH), source=SOURCE)

    @fast_jit
    @jax.grad
    def gradient(params):
        return jnp.sum(translated(model, state, params, SOURCE) ** 2)

    leaves = jax.tree.leaves(gradient(params)["encoder"]["mlp"])
    assert all(bool(jnp.any(g != 0)) for g in leaves)


def test_a_memory_is_needed_where_it_is_attended_to(key):
    layer = block(cross_attention=nn.attention(HEADS))
    with pytest.raises(TypeError, match="memory"):
        layer.init(key, normal(0, 2, 5, WIDTH))
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory'"):
        block().init(key, normal(0, 2, 5, WIDTH), memory=normal(1, 2, 5, WIDTH))


@pytest.mark.parametrize("name", ["attention", "mlp", "cross_attention", "norm", "dropout"])
def test_what_is_no_layer_is_refused(name):
    parts = {"attention": nn.attention(2), "mlp": nn.dense(4), name: 3}
    with pytest.raises(TypeError, match=f"transformer_block: {name} is 3"):
        nn.transformer_block(parts.pop("attention"), parts.pop("mlp"), **parts)


# Decoding


def language_model(cache_length=None, **options):
    """Tokens to logits, with everything that keeps something while it decodes."""
    cached = cache_length is not None
    attention = nn.attention(
        4,
        num_kv_heads=2,
        is_causal=True,
        positions=nn.rotary(),
        cache_length=cache_length,
        **options,
    )
    block = nn.transformer_block(
        attention,
        nn.mixture_of_experts(nn.dense(WIDTH), 3),
        norm=nn.rms_norm(),
        dropout=nn.dropout(0.5),
    )
    return nn.serial(
        embed=nn.embedding(11, WIDTH),
        positions=nn.learned_positions(16, cached=cached),
        blocks=nn.stack(nn.residual(block), 2),
        norm=nn.layer_norm(),
        logits=nn.dense(11),
    )


TOKENS = np.random.default_rng(2).integers(0, 11, (2, 9))


def trained_a_little():
    """Parameters away from the initial ones, biases included."""
    model = language_model()
    params = drawn(model, TOKENS)
    return params, model


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"window": (3, 0), "qk_norm": nn.rms_norm()}],
)
def test_decoding_token_by_token_is_the_full_forward_pass(options):
    model = language_model(**options)
    params = drawn(model, TOKENS)
    state = fast_jit(model.init)(jax.random.key(0), TOKENS)[1]
    expected, _ = fast_jit(model.apply)(params, state, TOKENS)
    cell = nn.autoregressive(language_model(cache_length=9, **options))
    carry = fast_jit(lambda: cell.initial_carry(params, (2,), jnp.float32))()
    traces = []

    @fast_jit
    def step(carry, tokens):
        traces.append(1)
        return cell.step(params, carry, tokens)

    for t in range(9):
        carry, logits = step(carry, TOKENS[:, t])
        np.testing.assert_allclose(logits, expected[:, t], rtol=1e-4, atol=1e-5)
    assert len(traces) == 1
    assert np.isnan(step(carry, TOKENS[:, 0])[1]).all()  # there is no room for a tenth


@pytest.mark.slow
def test_generate_takes_the_likeliest_token_of_the_full_forward_pass():
    params, model = trained_a_little()
    state = fast_jit(model.init)(jax.random.key(0), TOKENS)[1]
    cell = nn.autoregressive(language_model(cache_length=12))
    new = nn.generate(cell, params, TOKENS[:, :4], length=5)
    everything = np.concatenate([TOKENS[:, :4], new], axis=1)
    logits, _ = fast_jit(model.apply)(params, state, everything)
    np.testing.assert_array_equal(jnp.argmax(logits[:, 3:-1], -1), new)


def test_decoding_in_bfloat16_keeps_the_dtypes_of_the_carry():
    params, _ = trained_a_little()
    cell = nn.autoregressive(nn.mixed_precision(language_model(cache_length=4), "bfloat16"))
    carry = fast_jit(lambda: cell.initial_carry(params, (2,), jnp.bfloat16))()
    new, logits = jax.eval_shape(cell.step, params, carry, TOKENS[:, 0])
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(carry)]
    assert [leaf.dtype for leaf in jax.tree.leaves(new)] == dtypes
    assert set(dtypes) == {jnp.dtype("int32"), jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


# Training


@pytest.mark.slow
def test_a_decoder_learns_to_copy(key):
    """Each token is that of two steps before: one head has to look there."""
    rng = np.random.default_rng(3)
    first = rng.integers(0, 11, (64, 2))
    tokens = np.tile(first, (1, 6))
    model = language_model()
    data = tokens[:, :-1], tokens[:, 1:]
    result = nn.fit(
        model,
        data,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adam(1e-2),
        key=key,
        epochs=15,
        batch_size=16,
    )
    loss = result.history["loss"]
    assert loss[-1] < 0.75 * loss[0]
