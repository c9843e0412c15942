"""Generating tokens with an autoregressive model."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_key
from jaxnn._core.decoding import decoded_steps
from jaxnn._core.hoisting import Split, split
from jaxnn._core.layer import Cell
from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import Arrays, PyTree
from jaxnn._networks.prompts import Task, begin, checked_task, refuse_bad_numbers
from jaxnn._networks.sampling import ANY_TOKEN, Sampling, as_arrays, sample
from jaxnn.functional import token_log_probs


@overload
def generate(
    cell: Cell,
    params: Arrays,
    prompt: ArrayLike,
    *,
    length: int,
    prompt_mask: ArrayLike | None = ...,
    key: jax.Array | None = ...,
    sampling: Sampling = ...,
    end_token: int | Sequence[int] | None = ...,
    return_log_probs: Literal[False] = ...,
    sharding: Sharding | None = ...,
) -> jax.Array: ...


@overload
def generate(
    cell: Cell,
    params: Arrays,
    prompt: ArrayLike,
    *,
    length: int,
    prompt_mask: ArrayLike | None = ...,
    key: jax.Array | None = ...,
    sampling: Sampling = ...,
    end_token: int | Sequence[int] | None = ...,
    return_log_probs: Literal[True],
    sharding: Sharding | None = ...,
) -> tuple[jax.Array, jax.Array]: ...


@checked
def generate(
    cell: Cell,
    params: Arrays,
    prompt: ArrayLike,
    *,
    length: int,
    prompt_mask: ArrayLike | None = None,
    key: jax.Array | None = None,
    sampling: Sampling = ANY_TOKEN,
    end_token: int | Sequence[int] | None = None,
    return_log_probs: bool = False,
    sharding: Sharding | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Continue sequences of tokens by sampling from an autoregressive model.

    `token ~ softmax(logits)`, as `sampling` says, or the most likely one. The prompt is read in one
    pass, and the loop over new tokens ends when all sequences have ended. Both are one compiled
    program; calls with the same cell, shapes and `length` share it, whatever the numbers of
    `sampling` and the end tokens.

    Args:
        cell: from integer tokens `(batch,)` to logits `(batch, vocabulary)`: an
            `nn.autoregressive` layer, or recurrent cells with an embedding below and a dense layer
            on top.
        params: its parameters.
        prompt: integers, shape `(batch, time)` or `(time,)`, at least one token.
        length: the number of new tokens.
        prompt_mask: booleans of the shape of `prompt`, False for what is left out of prompts of
            different lengths, on the left or on the right: each gives what it gives alone, its
            positions counted from 0. None for all tokens.
        key: a typed PRNG key; without one, decoding is greedy: the most likely token each time.
        sampling: `nn.sampling(...)`: temperature, top-k, top-p, min-p and repetition penalty.
        end_token: the end-of-sequence token, or several; a sequence that has ended is filled with
            the one that has ended it.
        return_log_probs: whether to return the log-probabilities of the new tokens as well, as for
            policy gradients. They are the model's, `log softmax(logits)`, whatever `sampling` is; 0
            where a sequence is filled. `nn.functional.token_log_probs` of the logits of the whole
            sequence gives the same, with a gradient.
        sharding: `nn.sharding(...)`: how the sequences and the params are spread over many devices.

    Returns:
        The new tokens, int32, shape `(batch, length)` or `(length,)`; with `return_log_probs` a
        pair of these and their log-probabilities, float32 or wider, of the same shape.

    Raises:
        TypeError: `cell` is not a `Cell`; `prompt` is not of integers, or `prompt_mask` not of
            booleans; `key` is not a typed key.
        ValueError: `prompt` is empty or of another rank, or `prompt_mask` of another shape or
            without a token in some row; `length` or `end_token` is out of range; the layer of an
            `nn.autoregressive` has no cache, or one that is too short for the prompt and the new
            tokens.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> count_up = nn.Cell(
        ...     init=lambda key, x_t: {},
        ...     initial_carry=lambda params, batch_shape, dtype: (),
        ...     step=lambda params, carry, x_t, *, key=None, train=False: (
        ...         carry, jax.nn.one_hot(x_t + 1, 10)))
        >>> nn.generate(count_up, {}, jnp.array([1, 2, 3]), length=4)
        Array([4, 5, 6, 7], dtype=int32)
        >>> nn.generate(count_up, {}, jnp.array([3]), length=3, key=jax.random.key(0),
        ...             sampling=nn.sampling(top_k=1))
        Array([4, 5, 6], dtype=int32)
    """
    task = checked_task("generate", cell, params, prompt, prompt_mask, length, end_token, sharding)
    if key is not None:
        check_key("generate", key)
        key = key if sharding is None else sharding.put(key)
    new, is_nan, vocabulary = compiled(_generate, cell, length, return_log_probs)(
        task, key, as_arrays(sampling)
    )
    refuse_bad_numbers("generate", cell, task, is_nan, vocabulary)
    shape = (*jnp.shape(prompt)[:-1], length)
    tokens, log_probs = jax.tree.map(lambda leaf: leaf.reshape(shape), new)
    return (tokens, log_probs) if return_log_probs else tokens


class _Turn(NamedTuple):
    """What the loop over new tokens carries."""

    made: jax.Array  # how many tokens
    carry: PyTree
    token: jax.Array
    ended: jax.Array
    seen: jax.Array | None  # (batch, vocabulary), of the tokens of each sequence


class _New(NamedTuple):
    """What a turn makes."""

    token: jax.Array
    log_prob: jax.Array | None
    is_nan: jax.Array


def _generate(
    cell: Cell,
    length: int,
    with_log_probs: bool,
    task: Task,
    key: jax.Array | None,
    sampling: Sampling,
) -> tuple[tuple[jax.Array, jax.Array | None], jax.Array, jax.Array]:
    """The new tokens, with log-probabilities if wanted; whether a logit is NaN; their number."""
    split_step, constants, first, vocabulary = _begun(cell, length, task, sampling)
    step = functools.partial(split_step.inside, constants)
    write = functools.partial(_write, step, with_log_probs)

    def goes_on(loop: tuple[_Turn, _New]) -> jax.Array:
        turn, _ = loop
        return (turn.made < length) & ~jnp.all(turn.ended)

    def body(loop: tuple[_Turn, _New]) -> tuple[_Turn, _New]:
        turn, all_new = loop
        next_turn, new = write(turn, key, sampling, task.end_tokens)
        return next_turn, jax.tree.map(lambda old, new: old.at[turn.made].set(new), all_new, new)

    example = jax.eval_shape(write, first, key, sampling, task.end_tokens)[1]
    none = jax.tree.map(lambda new: jnp.zeros((length, *new.shape), new.dtype), example)
    last, new = jax.lax.while_loop(goes_on, body, (first, none))
    is_made = jnp.arange(length)[:, None] < last.made
    tokens = jnp.where(is_made, new.token, last.token)
    return jax.tree.map(jnp.transpose, (tokens, new.log_prob)), new.is_nan.any(), vocabulary


def _start(
    cell: Cell, length: int, task: Task, sampling: Sampling
) -> tuple[list[jax.Array], _Turn, jax.Array]:
    """What all steps take, the first turn, and the number of logits: a program of its own."""
    return _begun(cell, length, task, sampling)[1:]


def _begun(
    cell: Cell, length: int, task: Task, sampling: Sampling
) -> tuple[Split, list[jax.Array], _Turn, jax.Array]:
    """The step, what all steps take, the first turn, and the number of logits."""
    with decoded_steps(task.prompt.shape[1] + length - 1):
        carry, token = begin(cell, task)
    first = _Turn(jnp.int32(0), carry, token, jnp.zeros(len(token), bool), None)
    step = _step_of(cell, length, task, first)
    constants = step.before(task.params)
    _, logits = jax.eval_shape(step.inside, constants, carry, token)
    if sampling.repetition_penalty is not None:
        rows = jnp.arange(len(token))[:, None]
        is_token = True if task.mask is None else task.mask
        first = first._replace(
            seen=jnp.zeros(logits.shape, bool).at[rows, task.prompt].max(is_token)
        )
    return step, constants, first, jnp.asarray(logits.shape[-1])


def _step_of(cell: Cell, length: int, task: Task, turn: _Turn) -> Split:
    """The step of all sequences, apart from what it computes of the params alone."""
    step: Any = cell.step if task.mask is None else jax.vmap(cell.step, (None, 0, 0))
    with decoded_steps(task.prompt.shape[1] + length - 1):
        return split(step, task.params, turn.carry, turn.token)


def _write(
    step: Callable[..., Any],
    with_log_probs: bool,
    turn: _Turn,
    key: jax.Array | None,
    sampling: Sampling,
    end_tokens: jax.Array | None,
) -> tuple[_Turn, _New]:
    """One more token for each sequence, but for those that have ended."""
    carry, logits = step(turn.carry, turn.token)
    step_key = None if key is None else jax.random.fold_in(key, turn.made)
    token = sample(step_key, logits, sampling, turn.seen)
    log_prob = token_log_probs(logits, token) if with_log_probs else None
    ended = turn.ended
    if end_tokens is not None:
        token = jnp.where(ended, turn.token, token)
        log_prob = None if log_prob is None else jnp.where(ended, 0, log_prob)
        ended = jnp.isin(token, end_tokens)
    seen = turn.seen
    if seen is not None:
        seen = seen.at[jnp.arange(len(token)), token].set(True)
    new = _New(token, log_prob, jnp.isnan(logits).any())
    return _Turn(turn.made + 1, carry, token, ended, seen), new


@checked
def stream(
    cell: Cell,
    params: Arrays,
    prompt: ArrayLike,
    *,
    length: int,
    prompt_mask: ArrayLike | None = None,
    key: jax.Array | None = None,
    sampling: Sampling = ANY_TOKEN,
    end_token: int | Sequence[int] | None = None,
    sharding: Sharding | None = None,
) -> Iterator[np.ndarray]:
    """The tokens of `nn.generate`, each as soon as it is made.

    Two compiled programs, one for the prompt and one for a token, serve all calls with the same
    cell, shapes and `length`. Who stops iterating stops generating.

    Args:
        cell: as in `nn.generate`.
        params: its parameters.
        prompt: integers, shape `(batch, time)` or `(time,)`, at least one token.
        length: the largest number of new tokens.
        prompt_mask: booleans of the shape of `prompt`, False for padding; None for all tokens.
        key: a typed PRNG key; None for the most likely tokens.
        sampling: `nn.sampling(...)`.
        end_token: the end-of-sequence token, or several; after the last sequence has ended nothing
            more comes.
        sharding: `nn.sharding(...)`.

    Returns:
        An iterator over the new tokens: int32 of the host, shape `(batch,)` or `()`.

    Raises:
        TypeError: as `nn.generate` does.
        ValueError: as `nn.generate` does.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.stacked_cell(nn.embedding(50, 8), nn.gru_cell(8), nn.dense(50))
        >>> params = cell.init(jax.random.key(0), jnp.int32(0))
        >>> tokens = nn.stream(cell, params, jnp.array([3, 1]), length=5)
        >>> [token.shape for token in tokens]
        [(), (), (), (), ()]
    """
    task = checked_task("stream", cell, params, prompt, prompt_mask, length, end_token, sharding)
    if key is not None:
        check_key("stream", key)
        key = key if sharding is None else sharding.put(key)
    settings = as_arrays(sampling)

    def tokens() -> Iterator[np.ndarray]:
        constants, turn, vocabulary = compiled(_start, cell, length)(task, settings)
        for _ in range(length):
            step = compiled(_next, cell, length, donate_argnums=2)
            turn, new = step(task, constants, turn, key, settings)
            refuse_bad_numbers("stream", cell, task, new.is_nan, vocabulary)
            yield np.asarray(new.token).reshape(np.shape(prompt)[:-1])
            if turn.ended.all():
                return

    return tokens()


def _next(
    cell: Cell,
    length: int,
    task: Task,
    constants: list[jax.Array],
    turn: _Turn,
    key: jax.Array | None,
    sampling: Sampling,
) -> tuple[_Turn, _New]:
    step = functools.partial(_step_of(cell, length, task, turn).inside, constants)
    return _write(step, False, turn, key, sampling, task.end_tokens)
