"""Generating tokens with an autoregressive model."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    check_count,
    check_key,
    check_shape,
    concrete,
    promoted,
)
from jaxnn._core.bounds import OutOfBoundsError, looking_for_integers_outside
from jaxnn._core.decoding import decoded_steps
from jaxnn._core.hoisting import hoisted
from jaxnn._core.layer import Cell, Layer
from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import Arrays, PyTree
from jaxnn._networks.autoregressive import first_carry, read
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
    if isinstance(cell, Layer) or not isinstance(cell, Cell):
        raise TypeError(f"generate: cell is {cell!r}, expected a Cell (as nn.autoregressive makes)")
    check_sharding("generate", sharding)
    prompt = jnp.asarray(prompt)
    if not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise TypeError(f"generate: prompt has dtype {prompt.dtype}, expected integers")
    if prompt.ndim not in (1, 2) or prompt.shape[-1] == 0:
        raise ValueError(
            f"generate: prompt has shape {prompt.shape}, expected (batch, time) or (time,), with "
            "at least one token"
        )
    mask = None if prompt_mask is None else _checked_mask(prompt_mask, prompt)
    check_count("generate", "length", length)
    end_tokens = None if end_token is None else np.atleast_1d(np.asarray(end_token))
    if end_tokens is not None and (end_tokens.size == 0 or end_tokens.min() < 0):
        raise ValueError(f"generate: end_token is {end_token}, expected at least 0")
    if key is not None:
        check_key("generate", key)

    tokens_given = jnp.atleast_2d(prompt).astype(jnp.int32)
    if sharding is not None:
        params, tokens_given = sharding.put_params(params), sharding.put_batch(tokens_given)
        mask = None if mask is None else sharding.put_batch(mask)
        key = sharding.put(key)
    new, is_nan, vocabulary = compiled(_generate, cell, length, return_log_probs)(
        params,
        tokens_given,
        mask,
        key,
        as_arrays(sampling),
        None if end_tokens is None else jnp.asarray(end_tokens, jnp.int32),
    )
    is_known = not isinstance(is_nan, jax.core.Tracer)
    if is_known and is_nan:
        _refuse_nan(cell, params, tokens_given, mask)
    if is_known and end_tokens is not None and end_tokens.max() >= vocabulary:
        raise ValueError(
            f"generate: end_token is {end_token}, expected 0 to {vocabulary - 1}, since there are "
            f"{vocabulary} logits"
        )
    shape = (*prompt.shape[:-1], length)
    tokens, log_probs = jax.tree.map(lambda leaf: leaf.reshape(shape), new)
    return (tokens, log_probs) if return_log_probs else tokens


def _checked_mask(prompt_mask: ArrayLike, prompt: jax.Array) -> jax.Array:
    """Which tokens belong to the prompts, shape `(batch, time)`."""
    mask = jnp.asarray(prompt_mask)
    if mask.dtype != jnp.bool:
        raise TypeError(f"generate: prompt_mask has dtype {mask.dtype}, expected booleans")
    check_shape("generate", "prompt_mask", mask, prompt.shape)
    mask = jnp.atleast_2d(mask)
    known = concrete(mask)
    if known is not None and not np.all(np.any(known, axis=1)):
        row = int(np.argmin(np.any(known, axis=1)))
        raise ValueError(f"generate: prompt_mask has no token in row {row}, expected at least one")
    return mask


def _refuse_nan(cell: Cell, params: PyTree, prompt: jax.Array, mask: jax.Array | None) -> None:
    """Raise for logits that are NaN: the token that made them so, if it was one of the prompt."""
    is_token = np.ones(prompt.shape, bool) if mask is None else np.asarray(mask)
    tokens = jnp.unique(prompt[is_token])
    try:
        with looking_for_integers_outside():
            cell.step(params, first_carry(cell, params, tokens.shape), tokens)
    except OutOfBoundsError as error:
        place = tuple(
            int(i) for i in np.argwhere((np.asarray(prompt) == error.value) & is_token)[0]
        )
        raise ValueError(
            f"generate: prompt has the token {error.value} at {place}, expected 0 to "
            f"{error.size - 1}, as {error.user} takes them"
        ) from error
    raise ValueError("generate: params give logits that are NaN, expected numbers")


def _begin(
    cell: Cell, params: PyTree, prompt: jax.Array, mask: jax.Array | None
) -> tuple[PyTree, jax.Array]:
    """The carry after all tokens of the prompts but the last, and the last ones.

    With a mask each prompt is read alone, from its first token on.
    """
    if mask is None:
        carry = first_carry(cell, params, prompt.shape[:1])
        return read(cell, params, carry, prompt[:, :-1]), prompt[:, -1]

    def begin(tokens: jax.Array, is_token: jax.Array) -> tuple[PyTree, jax.Array]:
        last = jnp.sum(is_token) - 1
        tokens = tokens[jnp.argsort(~is_token, stable=True)]
        carry = read(cell, params, first_carry(cell, params, ()), tokens[:-1], last)
        return carry, tokens[last]

    return jax.vmap(begin)(prompt, mask)


class _Turn(NamedTuple):
    """What the loop over new tokens carries."""

    made: jax.Array  # how many tokens
    carry: PyTree
    token: jax.Array
    ended: jax.Array
    new: tuple[jax.Array, jax.Array | None]
    is_nan: jax.Array
    seen: jax.Array | None  # (batch, vocabulary), of the tokens of each sequence


def _generate(
    cell: Cell,
    length: int,
    with_log_probs: bool,
    params: PyTree,
    prompt: jax.Array,
    mask: jax.Array | None,
    key: jax.Array | None,
    sampling: Sampling,
    end_tokens: jax.Array | None,
) -> tuple[tuple[jax.Array, jax.Array | None], jax.Array, jax.Array]:
    """The new tokens, with log-probabilities if wanted; whether a logit is NaN; their number."""
    batch = prompt.shape[:1]
    rows = jnp.arange(batch[0])
    with decoded_steps(prompt.shape[1] + length - 1):
        start, last_token = _begin(cell, params, prompt, mask)
        step = cell.step if mask is None else jax.vmap(cell.step, (None, 0, 0))
        step = hoisted(step, params, start, last_token)
    _, logits = jax.eval_shape(step, start, last_token)

    def write(turn: _Turn) -> _Turn:
        carry, logits = step(turn.carry, turn.token)
        step_key = None if key is None else jax.random.fold_in(key, turn.made)
        token = sample(step_key, logits, sampling, turn.seen)
        log_prob = token_log_probs(logits, token) if with_log_probs else None
        ended = turn.ended
        if end_tokens is not None:
            token = jnp.where(ended, turn.token, token)
            log_prob = None if log_prob is None else jnp.where(ended, 0, log_prob)
            ended = jnp.isin(token, end_tokens)
        new = jax.tree.map(lambda all, one: all.at[turn.made].set(one), turn.new, (token, log_prob))
        is_nan = turn.is_nan | jnp.isnan(logits).any()
        seen = None if turn.seen is None else turn.seen.at[rows, token].set(True)
        return _Turn(turn.made + 1, carry, token, ended, new, is_nan, seen)

    def goes_on(turn: _Turn) -> jax.Array:
        return (turn.made < length) & ~jnp.all(turn.ended)

    tokens = jnp.zeros((length, *batch), jnp.int32)
    log_probs = jnp.zeros(tokens.shape, promoted(logits.dtype, jnp.float32))
    seen = None
    if sampling.repetition_penalty is not None:
        none = jnp.zeros((*batch, logits.shape[-1]), bool)
        seen = none.at[rows[:, None], prompt].max(True if mask is None else mask)
    first = _Turn(
        jnp.int32(0),
        start,
        last_token,
        jnp.zeros(batch, bool),
        (tokens, log_probs if with_log_probs else None),
        jnp.asarray(False),
        seen,
    )
    last = jax.lax.while_loop(goes_on, write, first)
    is_made = jnp.arange(length)[:, None] < last.made
    new = jnp.where(is_made, last.new[0], last.token), last.new[1]
    return jax.tree.map(jnp.transpose, new), last.is_nan, jnp.asarray(logits.shape[-1])
