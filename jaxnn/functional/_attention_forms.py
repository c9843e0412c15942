"""How attention is computed: in one block, or in blocks that are never all there at once."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import is_symbolic
from jaxnn.functional._dropout import dropout

Form = Literal["whole", "unrolled", "nested"]

SHORT = 2048  # keys up to which the blocks of queries are unrolled
FEW = 128  # queries whose logits are never many


class Rule(NamedTuple):
    """What the logits and weights are, besides the arrays that have queries and keys."""

    is_causal: bool
    window: tuple[int, int] | None
    offset: Any  # the position of the first query, an integer that may be traced
    scale: jax.Array
    soft_cap: jax.Array | None
    sinks: jax.Array | None  # (heads,)
    dropout_rate: Any
    dropout_key: jax.Array | None


class Arrays(NamedTuple):
    """Queries `(..., heads, queries, features)`, keys and values, and what broadcasts to logits."""

    query: Any
    key: Any
    value: Any
    bias: jax.Array | None
    mask: jax.Array | None


class _Sums(NamedTuple):
    """An online softmax: `exp(greatest)` times `total` is the denominator so far."""

    greatest: jax.Array
    total: jax.Array
    values: jax.Array


def block_size(form: Form, keys: int) -> int:
    """The queries, and where these are in blocks the keys, of a block."""
    if form == "nested":
        return 256
    return 64 if keys <= 512 else 128


def attend_with_weights(rule: Rule, arrays: Arrays) -> tuple[jax.Array, jax.Array]:
    """The weighted values and, in one block, all the weights, after dropout."""
    weights, sums = _weighed(rule, arrays, _start(rule, arrays), 0, 0)
    return _finished(sums, arrays), _over_total(weights, sums, arrays)


def attend(rule: Rule, arrays: Arrays, form: Form | None) -> jax.Array:
    """The weighted values of the keys that each query sees, 0 for one that sees none.

    What is hidden must be finite.
    """
    queries, keys = arrays.query.shape[-2], arrays.key.shape[-2]
    if is_symbolic(queries, keys):
        form = "whole"
    is_local = isinstance(rule.offset, int) and (rule.is_causal or rule.window is not None)
    if form is None and keys > SHORT and queries > FEW:
        form = "nested"
    if form == "nested":
        return _nested(rule, arrays, block_size("nested", keys))
    if form != "whole" and is_local:
        return _unrolled(rule, arrays, block_size("unrolled", keys))
    return _finished(_seeing(rule, arrays, _start(rule, arrays), 0, 0), arrays)


def _unrolled(rule: Rule, arrays: Arrays, block: int) -> jax.Array:
    """Blocks of queries, each against the keys between the first and the last that one sees."""
    parts = []
    for first in range(0, arrays.query.shape[-2], block):
        part = _queries(arrays, first, block)
        low, high = _range(rule, first, part.query.shape[-2], arrays.key.shape[-2])
        part = _keys(part, low, high - low)
        own = rule._replace(dropout_key=_folded(rule.dropout_key, first))
        parts.append(_finished(_seeing(own, part, _start(own, part), first, low), part))
    return jnp.concatenate(parts, -2) if len(parts) > 1 else parts[0]


def _range(rule: Rule, first: int, queries: int, keys: int) -> tuple[int, int]:
    """The keys that some query of a block may see; one at least."""
    low, high, at = 0, keys, first + int(rule.offset)
    if rule.window is not None:
        low, high = at - rule.window[0], min(high, at + queries + rule.window[1])
    if rule.is_causal:
        high = min(high, at + queries)
    low = min(max(low, 0), keys - 1)
    return low, max(high, low + 1)


def _nested(rule: Rule, arrays: Arrays, block: int) -> jax.Array:
    """An online softmax over blocks of keys, for one block of queries after the other.

    Nothing but the arguments is kept for the backward pass. With a window, a block of queries goes
    over so many blocks of keys as can hold what it sees.
    """
    queries, keys = arrays.query.shape[-2], arrays.key.shape[-2]
    size, width = min(block, queries), min(block, keys)
    rounds, blocks = math.ceil(queries / size), math.ceil(keys / width)
    padding = None if blocks * width == keys else keys
    rest, parts = _by_queries(_padded(arrays, rounds * size, blocks * width), rounds, size)
    within = blocks
    if rule.window is not None:
        right = 0 if rule.is_causal else rule.window[1]
        within = min(blocks, math.ceil((rule.window[0] + size + right) / width) + 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_queries(_: None, block: tuple[Arrays, jax.Array]) -> tuple[None, jax.Array]:
        part, first = _joined(block[0], rest), block[1]
        start = jnp.zeros((), jnp.int32)
        if rule.window is not None:
            lowest = (first + rule.offset - rule.window[0]) // width
            start = jnp.clip(lowest, 0, blocks - within).astype(jnp.int32)
        near = _keys(part, start * width, within * width)

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def of_keys(sums: _Sums, j: jax.Array) -> tuple[_Sums, None]:
            low = (start + j) * width

            def see(sums: _Sums) -> _Sums:
                own = rule._replace(dropout_key=_folded(_folded(rule.dropout_key, first), low))
                return _seeing(own, _keys(near, j * width, width), sums, first, low, padding)

            if not rule.is_causal:
                return see(sums), None
            is_past = low <= first + size - 1 + rule.offset
            return jax.lax.cond(is_past, see, lambda sums: sums, sums), None

        sums, _ = jax.lax.scan(of_keys, _start(rule, part), jnp.arange(within, dtype=jnp.int32))
        return None, _finished(sums, part)

    firsts = jnp.arange(rounds, dtype=jnp.int32) * size
    _, y = jax.lax.scan(of_queries, None, (parts, firsts))
    y = jnp.moveaxis(y, 0, -3)
    return y.reshape(*y.shape[:-3], rounds * size, y.shape[-1])[..., :queries, :]


def _start(rule: Rule, arrays: Arrays) -> _Sums:
    """The sums before any key: those of the sinks."""
    *rows, _ = arrays.query.shape
    wide = rule.scale.dtype
    values = jnp.zeros((*rows, arrays.value.shape[-1]), wide)
    if rule.sinks is None:
        return _Sums(jnp.full((*rows, 1), -jnp.inf, wide), jnp.zeros((*rows, 1), wide), values)
    sinks = jnp.broadcast_to(rule.sinks.reshape(-1, 1, 1), (*rows, 1)).astype(wide)
    greatest = jax.lax.stop_gradient(sinks)
    return _Sums(greatest, jnp.exp(sinks - greatest), values)


def _seeing(
    rule: Rule, arrays: Arrays, sums: _Sums, first: Any, low: Any, keys: int | None = None
) -> _Sums:
    """The sums with the keys of a block: query `i` is the `first + i`th, key `j` the `low + j`th.

    Keys from `keys` on are padding.
    """
    return _weighed(rule, arrays, sums, first, low, keys)[1]


def _weighed(
    rule: Rule, arrays: Arrays, sums: _Sums, first: Any, low: Any, keys: int | None = None
) -> tuple[jax.Array, _Sums]:
    """The weights of the keys of a block before they are divided, and the sums with them."""
    logits = _logits(rule, arrays, first, low, keys)
    greatest = jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    greatest = jnp.maximum(sums.greatest, greatest)
    finite = jnp.where(jnp.isneginf(greatest), 0, greatest)
    weights = jnp.exp(logits - finite)
    shrink = jnp.exp(sums.greatest - finite)
    total = sums.total * shrink + jnp.sum(weights, -1, keepdims=True)
    if rule.dropout_key is not None:
        weights = dropout(rule.dropout_key, weights, rule.dropout_rate)
    dtype = arrays.query.dtype
    values = _rows_of(arrays, weights.astype(dtype)) @ arrays.value
    values = values.reshape(sums.values.shape).astype(sums.values.dtype)
    return weights, _Sums(greatest, total, sums.values * shrink + values)


def _finished(sums: _Sums, arrays: Arrays) -> jax.Array:
    return _over_total(sums.values, sums, arrays)


def _over_total(of_keys: jax.Array, sums: _Sums, arrays: Arrays) -> jax.Array:
    total = jnp.where(sums.total > 0, sums.total, 1)
    return (of_keys / total).astype(arrays.query.dtype)


def _logits(rule: Rule, arrays: Arrays, first: Any, low: Any, keys: int | None) -> jax.Array:
    """The logits of a block, -inf where there is no attention."""
    query, key, _, bias, mask = arrays
    shape = (*query.shape[:-1], key.shape[-2])
    wide = rule.scale.dtype
    logits = jnp.einsum(
        "...qd,...kd->...qk", _rows_of(arrays, query), key, preferred_element_type=wide
    )
    logits = logits.reshape(shape) * rule.scale
    if rule.soft_cap is not None:
        logits = rule.soft_cap * jnp.tanh(logits / rule.soft_cap)
    masks = [] if mask is None else [mask]
    at = first + rule.offset + jnp.arange(shape[-2], dtype=jnp.int32)[:, None]
    of_key = low + jnp.arange(shape[-1], dtype=jnp.int32)[None]
    places = []
    if rule.is_causal:
        places.append(of_key <= at)
    if rule.window is not None:
        left, right = rule.window
        places.append((at - of_key <= left) & (of_key - at <= right))
    if keys is not None:
        places.append(of_key < keys)
    masks += [place.reshape((1,) * (len(shape) - 2) + place.shape) for place in places]
    if bias is not None:
        masks.append(bias != -jnp.inf)
    seen = functools.reduce(jnp.logical_and, masks) if masks else None
    if bias is not None and seen is not None:
        logits = logits + jnp.where(seen, bias, 0).astype(wide)
    return logits if seen is None else jnp.where(seen, logits, -jnp.inf)


def _rows_of(arrays: Arrays, of_heads: jax.Array) -> jax.Array:
    """The rows of all heads that share a key as those of one matrix."""
    *batch, heads, rows, features = of_heads.shape
    kv_heads = arrays.key.shape[-3]
    return of_heads.reshape(*batch, kv_heads, heads // kv_heads * rows, features)


def _folded(key: jax.Array | None, number: Any) -> jax.Array | None:
    if key is None or (isinstance(number, int) and number == 0):
        return key
    return jax.random.fold_in(key, number)


# Parts of the arrays


def _part(array: jax.Array, first: Any, size: int, axis: int) -> jax.Array:
    """Elements of an axis; all of one that broadcasts."""
    if array.shape[axis] == 1:
        return array
    if isinstance(first, int):
        return jax.lax.slice_in_dim(array, first, min(first + size, array.shape[axis]), axis=axis)
    return jax.lax.dynamic_slice_in_dim(array, first, size, axis)


def _queries(arrays: Arrays, first: int, size: int) -> Arrays:
    query, key, value, *of_logits = arrays
    return Arrays(
        jax.lax.slice_in_dim(query, first, min(first + size, query.shape[-2]), axis=-2),
        key,
        value,
        *(a if a is None else _part(a, first, size, -2) for a in of_logits),
    )


def _keys(arrays: Arrays, first: Any, size: int) -> Arrays:
    query, key, value, *of_logits = arrays
    cut = functools.partial(_part, first=first, size=size)
    return Arrays(
        query,
        cut(key, axis=-2),
        cut(value, axis=-2),
        *(a if a is None else cut(a, axis=-1) for a in of_logits),
    )


def _padded(arrays: Arrays, queries: int, keys: int) -> Arrays:
    """More queries and keys, where there are some already, and not one that broadcasts."""

    def pad(array: jax.Array, *sizes: tuple[int, int]) -> jax.Array:
        widths = [(0, 0)] * array.ndim
        for axis, size in sizes:
            widths[axis] = 0, size - array.shape[axis]
        return jnp.pad(array, widths)

    def pad_of_logits(array: jax.Array | None) -> jax.Array | None:
        if array is None:
            return None
        return pad(array, *((a, n) for a, n in ((-2, queries), (-1, keys)) if array.shape[a] > 1))

    query, key, value, bias, mask = arrays
    return Arrays(
        pad(query, (-2, queries)),
        pad(key, (-2, keys)),
        pad(value, (-2, keys)),
        pad_of_logits(bias),
        pad_of_logits(mask),
    )


def _by_queries(arrays: Arrays, rounds: int, size: int) -> tuple[Arrays, Arrays]:
    """What all blocks of queries share, and what each has of its own, in a new first axis."""

    def cut(array: jax.Array | None) -> jax.Array | None:
        if array is None or array.shape[-2] == 1 < rounds * size:
            return None
        *batch, _, last = array.shape
        return jnp.moveaxis(array.reshape(*batch, rounds, size, last), -3, 0)

    parts = Arrays(cut(arrays.query), None, None, cut(arrays.bias), cut(arrays.mask))
    shared = (a if part is None else None for a, part in zip(arrays, parts, strict=True))
    return Arrays(*shared), parts


def _joined(parts: Arrays, shared: Arrays) -> Arrays:
    return Arrays(*(b if a is None else a for a, b in zip(parts, shared, strict=True)))
