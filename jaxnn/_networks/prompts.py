"""Prompts: what every way of generating checks, and how it begins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_count, check_shape, concrete
from jaxnn._core.bounds import OutOfBoundsError, looking_for_integers_outside
from jaxnn._core.layer import Cell, Layer
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import Arrays, PyTree
from jaxnn._networks.autoregressive import first_carry, read


class Task(NamedTuple):
    """What is to be continued."""

    params: PyTree
    prompt: jax.Array  # (batch, time)
    mask: jax.Array | None  # (batch, time), which tokens belong to the prompts
    end_tokens: jax.Array | None


def checked_task(
    function: str,
    cell: Any,
    params: Arrays,
    prompt: ArrayLike,
    prompt_mask: ArrayLike | None,
    length: int,
    end_token: int | Sequence[int] | None,
    sharding: Sharding | None = None,
) -> Task:
    """The arguments of `function` as arrays, where they belong."""
    if isinstance(cell, Layer) or not isinstance(cell, Cell):
        raise TypeError(
            f"{function}: cell is {cell!r}, expected a Cell (as nn.autoregressive makes)"
        )
    check_sharding(function, sharding)
    tokens = jnp.asarray(prompt)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"{function}: prompt has dtype {tokens.dtype}, expected integers")
    if tokens.ndim not in (1, 2) or tokens.shape[-1] == 0:
        raise ValueError(
            f"{function}: prompt has shape {tokens.shape}, expected (batch, time) or (time,), with "
            "at least one token"
        )
    mask = None if prompt_mask is None else _checked_mask(function, prompt_mask, tokens)
    check_count(function, "length", length)
    ends = None if end_token is None else np.atleast_1d(np.asarray(end_token, np.int32))
    if ends is not None and (ends.size == 0 or ends.min() < 0):
        raise ValueError(f"{function}: end_token is {end_token}, expected at least 0")
    tokens = jnp.atleast_2d(tokens).astype(jnp.int32)
    if sharding is not None:
        params, tokens = sharding.put_params(params), sharding.put_batch(tokens)
        mask = None if mask is None else sharding.put_batch(mask)
    return Task(params, tokens, mask, None if ends is None else jnp.asarray(ends))


def _checked_mask(function: str, prompt_mask: ArrayLike, prompt: jax.Array) -> jax.Array:
    mask = jnp.asarray(prompt_mask)
    if mask.dtype != jnp.bool:
        raise TypeError(f"{function}: prompt_mask has dtype {mask.dtype}, expected booleans")
    check_shape(function, "prompt_mask", mask, prompt.shape)
    mask = jnp.atleast_2d(mask)
    known = concrete(mask)
    if known is not None and not np.all(np.any(known, axis=1)):
        row = int(np.argmin(np.any(known, axis=1)))
        raise ValueError(
            f"{function}: prompt_mask has no token in row {row}, expected at least one"
        )
    return mask


def begin(cell: Cell, task: Task) -> tuple[PyTree, jax.Array]:
    """The carry after all tokens of the prompts but the last, and the last ones."""
    if task.mask is not None:
        return begin_each(cell, task)
    carry = first_carry(cell, task.params, task.prompt.shape[:1])
    return read(cell, task.params, carry, task.prompt[:, :-1]), task.prompt[:, -1]


def begin_each(cell: Cell, task: Task) -> tuple[PyTree, jax.Array]:
    """The same with a carry of its own for each prompt, along axis 0 of all leaves.

    Each is read alone, from its first token on.
    """
    mask = jnp.ones(task.prompt.shape, bool) if task.mask is None else task.mask

    def one(tokens: jax.Array, is_token: jax.Array) -> tuple[PyTree, jax.Array]:
        last = jnp.sum(is_token) - 1
        tokens = tokens[jnp.argsort(~is_token, stable=True)]
        carry = first_carry(cell, task.params, ())
        return read(cell, task.params, carry, tokens[:-1], last), tokens[last]

    return jax.vmap(one)(task.prompt, mask)


def refuse_bad_numbers(
    function: str, cell: Cell, task: Task, is_nan: jax.Array, vocabulary: jax.Array
) -> None:
    """Raise for logits that are NaN, and for end tokens that there are no logits of."""
    if isinstance(is_nan, jax.core.Tracer):
        return
    if is_nan:
        _refuse_nan(function, cell, task)
    ends = None if task.end_tokens is None else concrete(task.end_tokens)
    if ends is not None and ends.max() >= vocabulary:
        raise ValueError(
            f"{function}: end_token is {ends.max()}, expected 0 to {vocabulary - 1}, since there "
            f"are {vocabulary} logits"
        )


def _refuse_nan(function: str, cell: Cell, task: Task) -> None:
    """Raise for logits that are NaN: the token that made them so, if it was one of the prompt."""
    prompt = np.asarray(task.prompt)
    is_token = np.ones(prompt.shape, bool) if task.mask is None else np.asarray(task.mask)
    tokens = jnp.asarray(np.unique(prompt[is_token]))
    try:
        with looking_for_integers_outside():
            cell.step(task.params, first_carry(cell, task.params, tokens.shape), tokens)
    except OutOfBoundsError as error:
        place = tuple(map(int, np.argwhere((prompt == error.value) & is_token)[0]))
        raise ValueError(
            f"{function}: prompt has the token {error.value} at {place}, expected 0 to "
            f"{error.size - 1}, as {error.user} takes them"
        ) from error
    raise ValueError(f"{function}: params give logits that are NaN, expected numbers")
