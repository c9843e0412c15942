"""Sampling from autoregressive cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._networks.sampling import penalised, restricted
from tests.compiling import fast_jit
from tests.parameters import quick_first

pytestmark = pytest.mark.usefixtures("keys_are_used_once")

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
MANY = jnp.zeros((2000, 1), jnp.int32)


def constant(logits):
    """A cell whose next token does not depend on anything."""

    def step(params, carry, x_t, *, key=None, train=False):
        return carry, jnp.broadcast_to(params, (*x_t.shape, len(logits)))

    return nn.Cell(lambda key, x_t: jnp.asarray(logits), lambda params, batch, dtype: (), step)


CONSTANT = constant(LOGITS)


def draw(**options):
    """How often each of four tokens comes, of 4000."""
    sampling = nn.sampling(**options)
    tokens = nn.generate(
        CONSTANT, jnp.asarray(LOGITS), MANY, length=2, key=jax.random.key(0), sampling=sampling
    )
    assert tokens.shape == (2000, 2)
    assert tokens.dtype == jnp.int32
    return np.bincount(np.ravel(tokens), minlength=4) / 4000


@quick_first(8)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 100}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.5}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.39}, [1, 0, 0, 0]),
        ({"top_p": 1e-6}, [1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_k": 3, "top_p": 0.7}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"min_p": 0.51}, [4 / 7, 3 / 7, 0, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        ({"temperature": 0.5, "min_p": 0.51}, [16 / 25, 9 / 25, 0, 0]),
        ({"top_p": 0.9, "min_p": 0.3}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_frequencies(options, expected):
    got = draw(**options)
    np.testing.assert_allclose(got, expected, atol=0.03)
    np.testing.assert_array_equal(got > 0, np.array(expected) > 0)


def test_tokens_that_were_there_become_less_likely():
    """Logits 2, 1, -1, -2: divided where positive, multiplied where negative, once for each."""
    logits = jnp.array([2.0, 1.0, -1.0, -2.0])
    sampling = nn.sampling(repetition_penalty=4.0)
    tokens = nn.generate(CONSTANT, logits, MANY[:1] + 1, length=5, sampling=sampling)
    np.testing.assert_array_equal(tokens, [[0, 0, 0, 0, 0]])  # 2, then 0.5 against 0.25, -1, -2
    sampling = nn.sampling(repetition_penalty=1 / 4)
    tokens = nn.generate(CONSTANT, logits, MANY[:2] + 3, length=2, sampling=sampling)
    np.testing.assert_array_equal(tokens, [[0, 0]] * 2)
    key, many = jax.random.key(0), jnp.full((4000, 2), jnp.array([0, 3]))
    sampling = nn.sampling(repetition_penalty=2.0, temperature=2.0)
    mask = np.array([True, False]).repeat(4000).reshape(2, 4000).T
    tokens = nn.generate(
        CONSTANT, logits, many, prompt_mask=mask, length=1, key=key, sampling=sampling
    )
    expected = np.exp(np.array([2.0 / 2, 1.0, -1.0, -2.0]) / 2)
    got = np.bincount(np.ravel(tokens), minlength=4) / 4000
    np.testing.assert_allclose(got, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7, "top_k": 5},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 7, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.3},
    ],
)
def test_the_distribution_is_that_of_transformers(options):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers").generation.logits_process
    logits = np.random.default_rng(0).standard_normal((6, 11)).astype(np.float32) * 2
    tokens = np.random.default_rng(1).integers(0, 11, (6, 3))
    processors = [
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
        ("temperature", theirs.TemperatureLogitsWarper),
        ("top_k", theirs.TopKLogitsWarper),
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
    ]
    expected = torch.tensor(logits)
    for name, processor in processors:
        if name in options:
            expected = processor(options[name])(torch.tensor(tokens), expected)
    seen = (tokens[:, :, None] == np.arange(11)).any(axis=1)
    settings = nn.sampling(**options)
    got = restricted(penalised(jnp.asarray(logits), settings, jnp.asarray(seen)), settings)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5)


def test_without_a_key_the_likeliest_token_is_taken():
    tokens = nn.generate(CONSTANT, jnp.asarray(LOGITS), MANY[:3], length=5)
    np.testing.assert_array_equal(tokens, np.zeros((3, 5)))


def test_steps_sequences_and_keys_draw_differently():
    def run(seed):
        key = jax.random.key(seed)
        return nn.generate(CONSTANT, jnp.asarray(LOGITS), MANY[:50], length=20, key=key)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.any(run(1) != run(2))
    assert len(np.unique(run(1), axis=0)) == 50
    assert len(np.unique(run(1), axis=1).T) == 20


COUNT = nn.Cell(
    lambda key, x_t: {},
    lambda params, batch_shape, dtype: jnp.zeros(batch_shape, jnp.int32),
    lambda params, carry, x_t, *, key=None, train=False: (
        carry + x_t,
        jax.nn.one_hot((carry + x_t) % 10, 10),
    ),
)


def test_the_whole_prompt_is_read():
    prompt = jnp.array([[1, 2, 3], [0, 0, 1]])
    tokens = nn.generate(COUNT, {}, prompt, length=4)
    # The next token is the sum of all before it, modulo 10.
    np.testing.assert_array_equal(tokens, [[6, 2, 4, 8], [1, 2, 4, 8]])
    np.testing.assert_array_equal(nn.generate(COUNT, {}, prompt[0], length=4), tokens[0])
    np.testing.assert_array_equal(nn.generate(COUNT, {}, prompt[0, :1], length=3), [1, 2, 4])


@pytest.mark.parametrize("one_more", [(), (6,)])
def test_after_the_end_comes_the_token_that_ended_it(one_more):
    prompt = jnp.array([[1, 2, 3], [0, 0, 1]])
    tokens = nn.generate(COUNT, {}, prompt, length=9, end_token=[4, *one_more])
    first = [6] * 9 if one_more else [6, 2, 4, 4, 4, 4, 4, 4, 4]
    np.testing.assert_array_equal(tokens, [first, [1, 2, 4, 4, 4, 4, 4, 4, 4]])


def test_the_loop_ends_when_all_sequences_have_ended():
    steps = []

    def step(params, carry, x_t, *, key=None, train=False):
        jax.debug.callback(lambda: steps.append(1))
        return COUNT.step(params, carry, x_t)

    prompt = jnp.array([[1, 2, 3], [0, 0, 1]])
    cell = COUNT._replace(step=step)
    jax.block_until_ready(nn.generate(cell, {}, prompt, length=50, end_token=4))
    jax.effects_barrier()
    assert len(steps) == 2 + 3  # of the prompt but its last token, and up to the 4


def test_after_the_end_comes_nothing_else():
    prompt = jnp.array([[1, 2, 3], [0, 0, 1]])
    tokens = nn.generate(COUNT, {}, prompt, length=4, end_token=4)
    np.testing.assert_array_equal(tokens, [[6, 2, 4, 4], [1, 2, 4, 4]])


# Streaming


@pytest.mark.parametrize(
    "settings",
    [{"end_token": 4}, {"key": jax.random.key(1), "sampling": nn.sampling(repetition_penalty=1.5)}],
)
def test_a_stream_has_the_tokens_of_generate(settings):
    prompt = np.array([[1, 2, 3], [0, 0, 1]])
    tokens = nn.generate(COUNT, {}, prompt, length=6, **settings)
    streamed = np.stack([*nn.stream(COUNT, {}, prompt, length=6, **settings)], axis=1)
    assert streamed.shape == (2, 3 if "end_token" in settings else 6)
    np.testing.assert_array_equal(streamed, tokens[:, : streamed.shape[1]])


@pytest.mark.slow
def test_a_stream_of_a_stack_with_padding():
    cell = RAGGED["attention"]
    params = fast_jit(cell.init)(jax.random.key(0), jnp.int32(0))
    prompt, mask = np.array([[3, 1, 4, 1], [9, 9, 5, 2]]), np.array([[True] * 4, [False, True] * 2])
    settings = {"length": 6, "prompt_mask": np.sort(mask)}
    tokens = nn.generate(cell, params, prompt, return_log_probs=True, **settings)[0]
    streamed = [*nn.stream(cell, params, prompt, **settings)]
    np.testing.assert_array_equal(np.stack(streamed, axis=1), tokens)


def test_a_stream_compiles_one_step_and_makes_no_more_than_is_asked_for():
    traced, made = [], []

    def step(params, carry, x_t, *, key=None, train=False):
        traced.append(1)
        jax.debug.callback(lambda: made.append(1))
        return COUNT.step(params, carry, x_t)

    cell = COUNT._replace(step=step)
    for _, token in zip(range(3), nn.stream(cell, {}, jnp.array([1]), length=50), strict=False):
        assert token.shape == ()
    jax.effects_barrier()
    assert len(made) == 3
    count = len(traced)
    list(nn.stream(cell, {}, jnp.array([2]), length=50))
    assert len(traced) == count


def test_errors_of_a_stream_come_with_the_call():
    with pytest.raises(TypeError, match="stream: prompt has dtype float32"):
        nn.stream(COUNT, {}, jnp.zeros(3), length=2)
    with pytest.raises(ValueError, match="stream: end_token is 10, expected 0 to 9"):
        list(nn.stream(COUNT, {}, jnp.array([1]), length=2, end_token=10))


# Log-probabilities


@quick_first(1)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"sampling": nn.sampling(temperature=0.7, top_k=3)},
        {"key": None},
    ],
)
def test_log_probs_of_sampling_are_those_of_one_pass(settings):
    """Decoding with the cache and teacher forcing agree, in the model's own distribution."""
    options = {"positions": nn.rotary(), "cache_length": 12}
    models = [
        nn.serial(nn.embedding(7, 8), nn.attention(2, is_causal=True, **given), nn.dense(7))
        for given in (options, {"positions": nn.rotary()})
    ]
    prompt = np.array([[3, 1, 4], [1, 5, 0]])
    params, _ = models[1].init(jax.random.key(0), prompt)
    params = jax.tree.map(lambda leaf: 2 * leaf, params)  # far from even
    settings = {"key": jax.random.key(1), "length": 9} | settings
    cell = nn.autoregressive(models[0])
    tokens, log_probs = nn.generate(cell, params, prompt, return_log_probs=True, **settings)
    np.testing.assert_array_equal(tokens, nn.generate(cell, params, prompt, **settings))
    assert log_probs.dtype == jnp.float32

    whole = jnp.concatenate([prompt, tokens], axis=1)
    logits, _ = jax.jit(models[1].apply)(params, {}, whole)
    one_pass = nn.functional.token_log_probs(logits[:, :-1], whole[:, 1:])[:, 2:]
    np.testing.assert_allclose(log_probs, one_pass, rtol=0, atol=1e-5)
    exact = np.asarray(logits, float)[:, 2:-1]
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    by_hand = np.take_along_axis(exact, np.asarray(tokens)[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_probs, by_hand, rtol=0, atol=1e-5)
    one, one_log_probs = nn.generate(
        cell, params, prompt[0], return_log_probs=True, **settings | {"key": None}
    )
    assert one.shape == one_log_probs.shape == (9,)


def test_what_fills_an_ended_sequence_is_certain():
    prompt = jnp.array([[1, 2, 3], [0, 0, 1]])
    tokens, log_probs = nn.generate(COUNT, {}, prompt, length=4, end_token=4, return_log_probs=True)
    ended = np.array([[False] * 3 + [True], [False] * 3 + [True]])
    np.testing.assert_array_equal(tokens[:, 3], 4)
    np.testing.assert_array_equal(log_probs == 0, ended)


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_a_token_outside_of_the_vocabulary_has_no_log_prob(bad):
    got = nn.functional.token_log_probs(jnp.zeros((2, 4)), jnp.array([bad, 3]))
    np.testing.assert_allclose(got, [np.nan, -np.log(4)], rtol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (jnp.zeros(2), TypeError, "token_log_probs: tokens have dtype float32"),
        (jnp.zeros((2, 4), int), ValueError, r"token_log_probs: tokens has shape \(2, 4\)"),
    ],
)
def test_errors_of_token_log_probs(tokens, error, message):
    with pytest.raises(error, match=message):
        nn.functional.token_log_probs(jnp.zeros((2, 4)), tokens)


# Programs


def test_one_program_for_all_settings_of_the_sampler():
    traced = []

    def step(params, carry, x_t, *, key=None, train=False):
        traced.append(1)
        return CONSTANT.step(params, carry, x_t)

    cell = CONSTANT._replace(step=step)
    key = jax.random.key(0)
    settings = [(0.5, 2, 0.9), (1.0, 3, 0.5), (jnp.float32(2.0), jnp.int32(1), 1.0)]
    for temperature, top_k, top_p in settings:
        nn.generate(
            cell,
            jnp.asarray(LOGITS),
            MANY[:2],
            length=3,
            key=key,
            sampling=nn.sampling(temperature=temperature, top_k=top_k, top_p=top_p),
        )
        if len(traced) > 1:
            raise AssertionError("compiled again")


def test_the_prompt_is_read_in_one_pass():
    """Whatever its length, the layers are traced for it once, and once for the new tokens."""
    lengths = []

    def note(x):
        lengths.append(x.shape[1])
        return x

    model = nn.serial(nn.embedding(7, 8), note, nn.attention(2, is_causal=True, cache_length=9))
    params, _ = fast_jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    lengths.clear()
    nn.generate(nn.autoregressive(model), params, jnp.arange(6), length=4)
    assert set(lengths) == {1, 5}


def deep(**cache):
    """Two layers with windows, over learned positions."""
    cached = bool(cache)
    block = nn.transformer_block(
        nn.attention(2, is_causal=True, window=(3, 0), positions=nn.rotary(), **cache),
        nn.feed_forward(8),
    )
    places = nn.learned_positions(20, embedding_init=nn.initializers.normal(1.0), cached=cached)
    return nn.serial(nn.embedding(7, 8), places, nn.stack(block, 2), nn.dense(7))


def moving_average():
    """A layer that remembers, though not by position."""

    def apply(params, state, x, *, key=None, train=False):
        def one(mean, x_t):
            mean = 0.7 * mean + x_t
            return mean, mean

        mean, y = jax.lax.scan(one, state["mean"], jnp.moveaxis(x, 1, 0))
        return jnp.moveaxis(y, 0, 1), {"mean": mean}

    def init(key, x):
        return {}, {"mean": jnp.zeros((x.shape[0], x.shape[2]), x.dtype)}

    return nn.Layer(init, apply)


RAGGED = {
    "attention": nn.autoregressive(deep(cache_length=9)),
    "alibi": nn.autoregressive(
        nn.serial(
            nn.embedding(7, 8),
            nn.sinusoidal_positions(cached=True),
            nn.attention(2, is_causal=True, positions=nn.alibi(), cache_length=9),
            nn.dense(7),
        )
    ),
    "recurrent": nn.stacked_cell(nn.embedding(7, 8), nn.gru_cell(8), nn.dense(7)),
    "state_space": nn.autoregressive(
        nn.serial(
            nn.embedding(7, 8),
            nn.residual(nn.serial(nn.layer_norm(), nn.recurrent(nn.lru_cell(8), cached=True))),
            nn.dense(7),
        )
    ),
    "own_state": nn.autoregressive(
        nn.serial(nn.embedding(7, 8), moving_average(), nn.dense(7)),
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "attention")) for n in RAGGED]
)
def test_prompts_of_different_lengths_give_what_they_give_alone(name):
    cell = RAGGED[name]
    params = fast_jit(cell.init)(jax.random.key(0), jnp.int32(0))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    prompts = [[3, 1, 4, 1], [5, 2]]
    left, right, mask = np.full((2, 4), -1), np.full((2, 4), 99), np.zeros((2, 4), bool)
    for row, prompt in enumerate(prompts):
        left[row, 4 - len(prompt) :], right[row, : len(prompt)] = prompt, prompt
        mask[row, 4 - len(prompt) :] = True
    both = [(left, mask), (right, mask[:, ::-1])]
    settings = {"length": 6, "return_log_probs": True}
    alone = nn.generate(cell, params, np.array(prompts[1]), **settings)
    for given, is_token in both:
        tokens, log_probs = nn.generate(cell, params, given, prompt_mask=is_token, **settings)
        np.testing.assert_array_equal(tokens[1], alone[0])
        np.testing.assert_allclose(log_probs[1], alone[1], atol=1e-5)


def test_inside_jit_and_vmap():
    keys = jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def run(keys, temperature):
        return jax.vmap(
            lambda key, t: nn.generate(
                CONSTANT,
                jnp.asarray(LOGITS),
                MANY[:2],
                length=5,
                key=key,
                sampling=nn.sampling(temperature=t),
            )
        )(keys, temperature)

    tokens = run(keys, jnp.array([1.0, 0.0, 1.0]))
    assert tokens.shape == (3, 2, 5)
    np.testing.assert_array_equal(tokens[1], 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cell": nn.dense(3)}, TypeError, r"cell is dense\(3\)"),
        ({"prompt": jnp.zeros((2, 3))}, TypeError, "prompt has dtype float32"),
        ({"prompt": jnp.zeros((2, 0), int)}, ValueError, r"prompt has shape \(2, 0\)"),
        ({"prompt": jnp.zeros((1, 2, 3), int)}, ValueError, r"prompt has shape \(1, 2, 3\)"),
        ({"prompt": np.array([2**32 + 1])}, ValueError, "prompt has the integer 4294967297 at"),
        ({"prompt_mask": np.ones((2000, 1))}, TypeError, "prompt_mask has dtype float"),
        ({"prompt_mask": np.ones(2, bool)}, ValueError, r"prompt_mask has shape \(2,\)"),
        ({"prompt_mask": np.arange(2000)[:, None] < 7}, ValueError, "no token in row 7"),
        ({"length": 0}, ValueError, "length is 0"),
        ({"end_token": -1}, ValueError, "end_token is -1, expected at least 0"),
        ({"end_token": [2, -1]}, ValueError, r"end_token is \[2, -1\], expected at least 0"),
        ({"end_token": []}, ValueError, r"end_token is \[\], expected at least"),
        ({"end_token": len(LOGITS)}, ValueError, "end_token is 4, expected 0 to 3, since"),
        ({"key": 3}, TypeError, "key is int"),
    ],
)
def test_errors(change, error, message):
    arguments = {"cell": CONSTANT, "params": jnp.asarray(LOGITS), "prompt": MANY, "length": 2}
    arguments |= {"key": jax.random.key(0)} | change
    with pytest.raises(error, match=message):
        nn.generate(**arguments)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1.0),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
    ],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(ValueError, match=rf"sampling: {setting} is {value}, expected"):
        nn.sampling(**{setting: value})


@pytest.mark.parametrize("token", [5, -1])
def test_a_token_outside_of_the_vocabulary_is_named(token, key):
    cell = nn.autoregressive(nn.serial(nn.embedding(5, 4), nn.dense(5)))
    params = cell.init(key, jnp.int32(0))
    with pytest.raises(ValueError, match=rf"token {token} at \(1, 2\), expected 0 to 4, as embed"):
        nn.generate(cell, params, jnp.array([[1, 2, 3], [0, 1, token]]), length=2)
    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with pytest.raises(ValueError, match="params give logits that are NaN"):
        nn.generate(cell, nan, jnp.array([1]), length=2)


# What decodes without what came before


def decoder(positions=None, **cache):
    """A small decoder over a vocabulary of 7."""
    layers = [nn.embedding(7, 8), positions, nn.attention(2, is_causal=True, **cache), nn.dense(7)]
    return nn.serial(*(layer for layer in layers if layer is not None))


def of_its_own(params, x):
    """Causal attention by the function, without a cache."""
    q = x[..., None, :]
    return nn.functional.dot_product_attention(q, q, q, is_causal=True)[..., 0, :]


CACHE = {"cache_length": 20}
WRONG_DECODERS = {
    "no_cache": (decoder(), "attention without a cache sees one element"),
    "short_cache": (decoder(cache_length=7), "cache_length is 7, expected at least 8"),
    "learned": (decoder(nn.learned_positions(20), **CACHE), "learned_positions without cached="),
    "learned_short": (
        decoder(nn.learned_positions(7, cached=True), **CACHE),
        "learned_positions: max_length is 7, expected at least 8",
    ),
    "sinusoidal": (decoder(nn.sinusoidal_positions(), **CACHE), "sinusoidal_positions without"),
    "bidirectional": (
        nn.serial(nn.embedding(7, 8), nn.attention(2), nn.dense(7)),
        "attention without a cache",
    ),
    "function": (
        nn.serial(nn.embedding(7, 8), nn.pure(lambda key, x: {}, of_its_own), nn.dense(7)),
        "dot_product_attention: with is_causal=True a query sees one element",
    ),
    "recurrent": (
        nn.serial(nn.embedding(7, 8), nn.recurrent(nn.gru_cell(8)), nn.dense(7)),
        r"recurrent\(gru_cell\(8\)\) sees one element",
    ),
    "convolution": (
        nn.serial(nn.embedding(7, 8), nn.conv(7, (3,), padding="CAUSAL")),
        "conv sees one element",
    ),
    "remat": (nn.remat(decoder()), "attention without a cache"),
    "mixed_precision": (nn.mixed_precision(decoder()), "attention without a cache"),
    "stack": (
        nn.serial(nn.embedding(7, 8), nn.stack(nn.attention(2, is_causal=True), 2), nn.dense(7)),
        "attention without a cache",
    ),
    "block": (
        nn.serial(
            nn.embedding(7, 8),
            nn.transformer_block(
                nn.attention(2, is_causal=True, cache_length=7), nn.feed_forward(8)
            ),
            nn.dense(7),
        ),
        "cache_length is 7, expected at least 8",
    ),
    "lora": (
        nn.serial(
            nn.embedding(7, 8),
            nn.attention(
                2,
                is_causal=True,
                dense=lambda n, **options: nn.lora(nn.dense(n, **options), 1),
            ),
            nn.dense(7),
        ),
        "attention without a cache",
    ),
}


@quick_first(5)
@pytest.mark.parametrize("name", WRONG_DECODERS)
def test_a_decoder_that_does_not_see_what_came_before_is_refused(name):
    model, message = WRONG_DECODERS[name]
    cell, prompt = nn.autoregressive(model), jnp.array([[1, 2, 3]])
    params, _ = model.init(jax.random.key(0), prompt)
    with pytest.raises(ValueError, match=message):
        nn.generate(cell, params, prompt, length=6)
    if "short" not in name and name != "block":
        with pytest.raises(ValueError, match=message):
            cell.step(params, cell.initial_carry(params, (1,), jnp.float32), prompt[:, 0])


def test_a_cache_of_just_the_length_is_enough():
    model = decoder(nn.learned_positions(8, cached=True), cache_length=8)
    prompt = jnp.array([[1, 2, 3]])
    params, _ = fast_jit(model.init)(jax.random.key(0), prompt)
    got = nn.generate(nn.autoregressive(model), params, prompt, length=6)
    read = np.concatenate([prompt, got[:, :-1]], axis=1)
    y, _ = fast_jit(decoder(nn.learned_positions(8)).apply)(params, {}, read)
    np.testing.assert_array_equal(got, jnp.argmax(y[:, 2:], -1))


def test_a_sequence_longer_than_the_cache_is_refused_in_recurrent():
    model = decoder(cache_length=4)
    layer = nn.recurrent(nn.autoregressive(model))
    ids = jnp.zeros((1, 5), jnp.int32)
    params, state = layer.init(jax.random.key(0), ids)
    with pytest.raises(ValueError, match="cache_length is 4, expected at least 5"):
        layer.apply(params, state, ids)
