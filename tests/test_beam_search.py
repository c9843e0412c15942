"""Beam search against the search for all continuations, and against transformers."""

import itertools

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once

VOCABULARY, LENGTH = 4, 3


def model(**cache):
    """A decoder of one layer."""
    attention = nn.attention(2, is_causal=True, positions=nn.rotary(), **cache)
    return nn.serial(nn.embedding(VOCABULARY, 8), nn.stack(attention, 1), nn.dense(VOCABULARY))


CELL = nn.autoregressive(model(cache_length=9))
PROMPT = np.array([[3, 1], [0, 2]])


@pytest.fixture(scope="module")
def params():
    """Parameters whose distributions are far from even."""
    params, _ = fast_jit(model().init)(jax.random.key(3), PROMPT)
    return jax.tree.map(lambda leaf: 1.5 * leaf, params)


def all_continuations(params, prompt, end_tokens, length_penalty):
    """Every continuation with its score, best first, cut off and filled after the end."""
    every = np.array(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
    whole = np.concatenate([np.tile(prompt, (len(every), 1)), every], axis=1)
    logits, _ = fast_jit(model().apply)(params, {}, whole[:, :-1])
    logits = np.asarray(logits, np.float64)[:, len(prompt) - 1 :]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    of_tokens = np.take_along_axis(log_probs, every[..., None], -1)[..., 0]
    found = {}
    for tokens, each in zip(every, of_tokens, strict=True):
        ends = np.flatnonzero(np.isin(tokens, end_tokens))
        n = ends[0] + 1 if len(ends) else LENGTH
        filled = tuple(map(int, [*tokens[:n], *[tokens[n - 1]] * (LENGTH - n)]))
        found[filled] = each[:n].sum() / n**length_penalty
    return sorted(found.items(), key=lambda item: -item[1])


ENDS = [*(pytest.param(ends, marks=pytest.mark.slow) for ends in (None, 1)), [1, 3]]


@each_value_once
@pytest.mark.parametrize("end_token", ENDS)
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0, 3.0])
def test_with_enough_beams_the_best_of_all_is_found(params, end_token, length_penalty):
    tokens, scores = nn.beam_search(
        CELL,
        params,
        PROMPT,
        length=LENGTH,
        num_beams=VOCABULARY**LENGTH,
        end_token=end_token,
        length_penalty=length_penalty,
    )
    ends = [] if end_token is None else np.atleast_1d(end_token)
    for row, prompt in enumerate(PROMPT):
        expected = all_continuations(params, prompt, ends, length_penalty)
        got = np.asarray(scores[row])
        found = np.isfinite(got)
        assert found.sum() == len(expected)
        np.testing.assert_allclose(
            got[found], [score for _, score in expected], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(tokens[row, 0], expected[0][0])
        assert {tuple(map(int, t)) for t in tokens[row][found]} == {t for t, _ in expected}


@pytest.mark.slow
def test_beams_of_padded_prompts_are_those_of_each_alone(params):
    settings = {"length": 5, "num_beams": 3, "end_token": 1}
    prompt, mask = np.array([[3, 1, 2], [9, 0, 2]]), np.array([[True] * 3, [False, True, True]])
    tokens, scores = nn.beam_search(CELL, params, prompt, prompt_mask=mask, **settings)
    alone = nn.beam_search(CELL, params, prompt[1, 1:], **settings)
    np.testing.assert_array_equal(tokens[1], alone[0])
    np.testing.assert_allclose(scores[1], alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_beam_takes_the_likeliest_token(params):
    tokens, scores = nn.beam_search(CELL, params, PROMPT, length=5, num_beams=1)
    greedy, log_probs = nn.generate(CELL, params, PROMPT, length=5, return_log_probs=True)
    np.testing.assert_array_equal(tokens[:, 0], greedy)
    np.testing.assert_allclose(scores[:, 0], log_probs.mean(axis=1), rtol=1e-4, atol=1e-5)


def test_errors(params):
    with pytest.raises(ValueError, match="beam_search: num_beams is 0, expected at least 1"):
        nn.beam_search(CELL, params, PROMPT, length=2, num_beams=0)
    with pytest.raises(ValueError, match="beam_search: prompt has the token 6 at"):
        nn.beam_search(
            CELL,
            params,
            PROMPT + 6,
            length=LENGTH,
            num_beams=VOCABULARY**LENGTH,
            end_token=[1, 3],
        )
