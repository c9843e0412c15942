"""Beam search."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, widen
from jaxnn._core.decoding import decoded_steps
from jaxnn._core.hoisting import split
from jaxnn._core.layer import Cell
from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import Arrays, PyTree, Scalar
from jaxnn._networks.prompts import Task, begin_each, checked_task, refuse_bad_numbers


@checked
def beam_search(
    cell: Cell,
    params: Arrays,
    prompt: ArrayLike,
    *,
    length: int,
    num_beams: int,
    prompt_mask: ArrayLike | None = None,
    end_token: int | Sequence[int] | None = None,
    length_penalty: Scalar = 1.0,
    sharding: Sharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The most likely continuations of sequences that a beam search finds.

    A continuation of n tokens, the end token included, has the score
    `sum(log p(token)) / n ** length_penalty`. In each step the `num_beams` most likely unfinished
    continuations go on, and of those that end the best so far are kept. The search ends when none
    that goes on can become better than these, as with Hugging Face's `early_stopping="never"`.

    Args:
        cell: as in `nn.generate`.
        params: its parameters.
        prompt: integers, shape `(batch, time)` or `(time,)`, at least one token.
        length: the largest number of new tokens.
        num_beams: the number of continuations that are followed, and returned.
        prompt_mask: booleans of the shape of `prompt`, False for padding; None for all tokens.
        end_token: the end-of-sequence token, or several; None where all continuations have
            `length` tokens.
        length_penalty: the exponent; the greater, the longer are the continuations.
        sharding: `nn.sharding(...)`.

    Returns:
        The new tokens, int32, shape `(batch, num_beams, length)`, best first, filled after the end
        with the token that ended them; and their scores, shape `(batch, num_beams)`, -inf where
        there are not so many. Without the batch axis for a prompt without one.

    Raises:
        TypeError: as `nn.generate` does.
        ValueError: as `nn.generate` does, or `num_beams` is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.stacked_cell(nn.embedding(50, 8), nn.gru_cell(8), nn.dense(50))
        >>> params = cell.init(jax.random.key(0), jnp.int32(0))
        >>> tokens, scores = nn.beam_search(cell, params, jnp.array([3, 1]), length=5, num_beams=4)
        >>> tokens.shape, scores.shape
        ((4, 5), (4,))
    """
    check_count("beam_search", "num_beams", num_beams)
    task = checked_task(
        "beam_search", cell, params, prompt, prompt_mask, length, end_token, sharding
    )
    found, is_nan, vocabulary = compiled(_search, cell, length, num_beams)(
        task, jnp.asarray(length_penalty, jnp.float32)
    )
    refuse_bad_numbers("beam_search", cell, task, is_nan, vocabulary)
    batch = jnp.shape(prompt)[:-1]
    return found.tokens.reshape(*batch, num_beams, length), found.scores.reshape(*batch, num_beams)


class _Beams(NamedTuple):
    """Continuations of each prompt, best first."""

    tokens: jax.Array  # (batch, beams, length)
    scores: jax.Array  # (batch, beams)


class _Turn(NamedTuple):
    """What the loop carries."""

    made: jax.Array  # how many tokens
    carry: PyTree  # leaves (batch, beams, ...)
    last: jax.Array  # (batch, beams), the last tokens
    running: _Beams  # with the sums of the log-probabilities
    finished: _Beams
    is_nan: jax.Array


def _search(
    cell: Cell, length: int, num_beams: int, task: Task, length_penalty: jax.Array
) -> tuple[_Beams, jax.Array, jax.Array]:
    """What was found, whether a logit is NaN, and their number."""
    with decoded_steps(task.prompt.shape[1] + length - 1):
        carry, last = jax.tree.map(
            lambda leaf: jnp.repeat(leaf[:, None], num_beams, axis=1), begin_each(cell, task)
        )
        step: Any = jax.vmap(jax.vmap(cell.step, (None, 0, 0)), (None, 0, 0))
        both = split(step, task.params, carry, last)
    constants = both.before(task.params)
    logits = jax.eval_shape(lambda: widen(both.inside(constants, carry, last)[1]))
    vocabulary = logits.shape[-1]
    ends = 0 if task.end_tokens is None else len(task.end_tokens)
    # So many that enough go on if all that can end are the best.
    candidates = min(max(2, 1 + ends) * num_beams, num_beams * vocabulary)

    def turn(now: _Turn) -> _Turn:
        carry, logits = both.inside(constants, now.carry, now.last)
        log_probs = jax.nn.log_softmax(widen(logits), axis=-1)
        sums = (now.running.scores[..., None] + log_probs).reshape(len(logits), -1)
        sums, index = jax.lax.top_k(sums, candidates)
        parent, token = index // vocabulary, (index % vocabulary).astype(jnp.int32)
        # The rest is filled with the token too: it is written over unless this is the last one.
        is_new = jnp.arange(length)[None, None] >= now.made
        tokens = jnp.where(is_new, token[..., None], _of_beams(now.running.tokens, parent))

        has_ended = jnp.broadcast_to(now.made == length - 1, token.shape)
        if task.end_tokens is not None:
            has_ended |= jnp.isin(token, task.end_tokens)
        is_among_best = jnp.arange(candidates)[None] < num_beams
        ended = jnp.where(has_ended & is_among_best, sums, -jnp.inf)
        ended /= (now.made + 1).astype(sums.dtype) ** length_penalty.astype(sums.dtype)
        both_finished = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new], axis=1),
            now.finished,
            _Beams(tokens, ended),
        )
        going_on = jnp.where(has_ended, -jnp.inf, sums)
        running_scores, chosen = jax.lax.top_k(going_on, num_beams)
        return _Turn(
            now.made + 1,
            _of_beams(carry, _of_beams(parent, chosen)),
            _of_beams(token, chosen),
            _Beams(_of_beams(tokens, chosen), running_scores),
            _best(both_finished, num_beams),
            now.is_nan | jnp.isnan(logits).any(),
        )

    def goes_on(now: _Turn) -> jax.Array:
        longest = jnp.where(length_penalty > 0, length, jnp.maximum(now.made, 1))
        scores = now.running.scores[:, 0]
        possible = scores / longest.astype(scores.dtype) ** length_penalty.astype(scores.dtype)
        return (now.made < length) & jnp.any(possible > now.finished.scores[:, -1])

    tokens = jnp.zeros((*last.shape, length), jnp.int32)
    none = jnp.full(last.shape, -jnp.inf, logits.dtype)
    start = _Beams(tokens, none.at[:, 0].set(0))  # one alone: they are all equal
    first = _Turn(jnp.int32(0), carry, last, start, _Beams(tokens, none), jnp.asarray(False))
    found = jax.lax.while_loop(goes_on, turn, first)
    return found.finished, found.is_nan, jnp.asarray(vocabulary)


def _of_beams(tree: PyTree, index: jax.Array) -> PyTree:
    """The beams `index` of each prompt, of leaves `(batch, beams, ...)`."""
    return jax.tree.map(lambda leaf: jax.vmap(lambda one, at: one[at])(leaf, index), tree)


def _best(beams: _Beams, number: int) -> _Beams:
    scores, index = jax.lax.top_k(beams.scores, number)
    return _Beams(_of_beams(beams.tokens, index), scores)
