"""Attention masks: booleans of shape `(batch, heads, queries, keys)`, True where to attend."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_size, promoted
from jaxnn._core.types import Size

AttentionWindow = int | tuple[int, int]


@checked
def causal_mask(
    query_length: Size, key_length: Size | None = None, *, query_offset: ArrayLike | None = None
) -> jax.Array:
    """Each query attends to the keys up to its own position: `j <= query_offset + i`.

    Args:
        query_length: the number of queries.
        key_length: the number of keys; None for that of the queries.
        query_offset: the position of the first query among the keys, an integer scalar, possibly
            traced. 0 aligns the two at their beginnings, `key_length - query_length` at their ends;
            None is for as many queries as keys.

    Returns:
        Shape `(1, 1, query_length, key_length)`, boolean.

    Raises:
        TypeError: a count or `query_offset` is not an integer.
        ValueError: a count is less than 1, or `query_offset` is not a scalar.

    Example:
        >>> import jaxnn as nn
        >>> nn.functional.causal_mask(2, 4, query_offset=2)[0, 0].astype(int)
        Array([[1, 1, 1, 0],
               [1, 1, 1, 1]], dtype=int32)
    """
    return _distances("causal_mask", query_length, key_length, query_offset) >= 0


@checked
def local_mask(
    query_length: Size,
    window: AttentionWindow,
    key_length: Size | None = None,
    *,
    query_offset: ArrayLike | None = None,
) -> jax.Array:
    """Each query attends to the keys around its own position: `-left <= j - i - offset <= right`.

    Args:
        query_length: the number of queries.
        window: `(left, right)`, how many keys before and after its own position a query sees; an
            integer stands for both. With a causal mask, `window=w` leaves `w + 1` keys.
        key_length: the number of keys; None for that of the queries.
        query_offset: the position of the first query among the keys, as in `causal_mask`.

    Returns:
        Shape `(1, 1, query_length, key_length)`, boolean.

    Raises:
        TypeError: a count, `window` or `query_offset` is not of integers.
        ValueError: a count is less than 1, `window` is negative, or `query_offset` is not a scalar.

    Example:
        >>> import jaxnn as nn
        >>> nn.functional.local_mask(3, (1, 0))[0, 0].astype(int)
        Array([[1, 0, 0],
               [1, 1, 0],
               [0, 1, 1]], dtype=int32)
    """
    left, right = check_window("local_mask", window)
    distances = _distances("local_mask", query_length, key_length, query_offset)
    return (distances <= left) & (distances >= -right)


@checked
def padding_mask(lengths: ArrayLike, key_length: Size) -> jax.Array:
    """Every query attends to the keys within its sequence's length, `j < lengths`.

    Args:
        lengths: shape `(batch,)`, integers: the number of keys of each sequence before its padding.
        key_length: the number of keys, padding included.

    Returns:
        Shape `(batch, 1, 1, key_length)`, boolean. A sequence of length 0 attends to nothing,
        and its attention is 0.

    Raises:
        TypeError: `lengths` or `key_length` is not of integers.
        ValueError: `lengths` does not have one axis, or `key_length` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int)
        Array([[1, 0, 0],
               [1, 1, 1]], dtype=int32)
    """
    lengths = _integers("padding_mask", "lengths", lengths, 1).astype(jnp.int32)
    positions = jnp.arange(check_size("padding_mask", "key_length", key_length), dtype=jnp.int32)
    return (positions[None, :] < lengths[:, None])[:, None, None, :]


@checked
def segment_mask(
    query_segment_ids: ArrayLike, key_segment_ids: ArrayLike | None = None
) -> jax.Array:
    """Each query attends to the keys of its own segment: several sequences packed into one row.

    Args:
        query_segment_ids: shape `(batch, query_length)`, integers: which segment each query belongs
            to.
        key_segment_ids: shape `(batch, key_length)`, the same for the keys; None for those of the
            queries.

    Returns:
        Shape `(batch, 1, query_length, key_length)`, boolean.

    Raises:
        TypeError: the segments are not integers.
        ValueError: they do not have two axes, or not the same batch.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.segment_mask(jnp.array([[0, 0, 1]]))[0, 0].astype(int)
        Array([[1, 1, 0],
               [1, 1, 0],
               [0, 0, 1]], dtype=int32)
    """
    of_queries = _integers("segment_mask", "query_segment_ids", query_segment_ids, 2)
    given = query_segment_ids if key_segment_ids is None else key_segment_ids
    of_keys = _integers("segment_mask", "key_segment_ids", given, 2)
    if of_queries.shape[0] != of_keys.shape[0]:
        raise ValueError(
            f"segment_mask: query_segment_ids has shape {of_queries.shape} and key_segment_ids "
            f"{of_keys.shape}, expected the same batch"
        )
    dtype = promoted(of_queries.dtype, of_keys.dtype)
    same = of_queries.astype(dtype)[:, :, None] == of_keys.astype(dtype)[:, None, :]
    return same[:, None]


@checked
def combine_masks(*masks: ArrayLike | None) -> jax.Array | None:
    """Attend where every mask does.

    Args:
        *masks: booleans that broadcast against one another, all of one rank; None is left out.

    Returns:
        The logical and of all, or None if there is no mask.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the masks differ in rank, or their shapes do not broadcast.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> f = nn.functional
        >>> padding = f.padding_mask(jnp.array([2]), 3)
        >>> f.combine_masks(f.causal_mask(3), None, padding)[0, 0].astype(int)
        Array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 0]], dtype=int32)
    """
    given = [
        check_boolean("combine_masks", jnp.asarray(mask), f"masks[{i}]")
        for i, mask in enumerate(masks)
        if mask is not None
    ]
    if not given:
        return None
    shapes = [mask.shape for mask in given]
    try:
        jnp.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"combine_masks: masks have shapes {shapes}, expected shapes that broadcast"
        ) from error
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"combine_masks: masks have shapes {shapes}, expected the same rank")
    return functools.reduce(jnp.logical_and, given)


def check_boolean(
    function: str, mask: jax.Array, name: str = "mask", true: str = "attend"
) -> jax.Array:
    """`mask`, the argument `name`, which must be boolean; `true` says what True means."""
    if mask.dtype != jnp.bool:
        raise TypeError(f"{function}: {name} has dtype {mask.dtype}, expected bool (True: {true})")
    return mask


def check_window(function: str, window: AttentionWindow) -> tuple[int, int]:
    """`window` as `(left, right)`."""
    sides = window if isinstance(window, tuple) else (window, window)
    if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) for s in sides):
        raise TypeError(
            f"{function}: window is {window!r}, expected an integer or a pair of integers"
        )
    if min(sides) < 0:
        raise ValueError(f"{function}: window is {window}, expected at least 0")
    return sides


def check_offset(
    function: str, offset: ArrayLike | None, query_length: Size, key_length: Size
) -> jax.Array:
    """A query offset as an int32 scalar; without one there must be as many queries as keys."""
    if offset is None and query_length != key_length:
        raise ValueError(
            f"{function}: query_offset is None with {query_length} queries and {key_length} keys, "
            f"expected where the queries begin: query_offset={key_length - query_length} if they "
            "are the last ones, 0 if they are the first"
        )
    offset = 0 if offset is None else offset
    return _integers(function, "query_offset", offset, 0).astype(jnp.int32)


def _integers(function: str, name: str, value: ArrayLike, ndim: int) -> jax.Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{function}: {name} has dtype {array.dtype}, expected integers")
    if array.ndim != ndim:
        raise ValueError(
            f"{function}: {name} has shape {array.shape}, expected {ndim or 'no'} "
            f"{'axis' if ndim == 1 else 'axes'}"
        )
    return array


def _distances(
    function: str, query_length: Size, key_length: Size | None, query_offset: ArrayLike | None
) -> jax.Array:
    """How far each key lies before each query, shape `(1, 1, query_length, key_length)`."""
    check_size(function, "query_length", query_length)
    key_length = (
        query_length if key_length is None else check_size(function, "key_length", key_length)
    )
    offset = check_offset(function, query_offset, query_length, key_length)
    of_queries = offset + jnp.arange(query_length, dtype=jnp.int32)
    of_keys = jnp.arange(key_length, dtype=jnp.int32)
    return (of_queries[:, None] - of_keys[None, :])[None, None]
