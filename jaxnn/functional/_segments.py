"""What graph networks are built from: along edges to and from nodes, and sums over segments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    accumulator_dtype,
    check_shape,
    check_size,
    floating,
    refuse_complex,
    widen,
)
from jaxnn._core.bounds import check_bounds
from jaxnn._core.meshes import automatic
from jaxnn._core.types import Size
from jaxnn.functional._embeddings import rows_of
from jaxnn.functional._masks import check_boolean


@checked
def gather(x: ArrayLike, ids: ArrayLike) -> jax.Array:
    """What lies at some places, as the features of the nodes at which edges begin: `y = x[ids]`.

    An id outside, a negative one too, gives NaN. The gradient is summed in float32 or wider.

    Args:
        x: shape `(*batch, num_nodes, ...)`, floating.
        ids: integers in `[0, num_nodes)`, shape `(*batch, num_edges)`: the last of their axes is
            not a batch's.

    Returns:
        Shape `(*batch, num_edges, ...)` in the floating dtype of `x`.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nodes, senders = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 1, 0])
        >>> nn.functional.gather(nodes, senders)
        Array([[3., 4.],
               [3., 4.],
               [1., 2.]], dtype=float32)
    """
    x, ids = floating(x), jnp.asarray(ids)
    _check_integers("gather", "ids", ids)
    batch = ids.ndim - 1
    if ids.ndim == 0 or x.ndim <= batch or x.shape[:batch] != ids.shape[:batch]:
        raise ValueError(
            f"gather: x has shape {x.shape} and ids {ids.shape}, expected (*batch, num_nodes, ...) "
            "and (*batch, num_edges)"
        )
    check_bounds("gather", ids, x.shape[batch])
    run = _over_batch(rows_of, batch)
    return automatic(run, x, ids, leading=batch)  # type: ignore[no-any-return]


@checked
def segment_sum(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: Size,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The sum of the elements of each segment, as of the messages that each node receives.

    Sums are in float32 or wider. A segment without elements has the sum 0.

    Args:
        x: shape `(*batch, elements, ...)`, floating.
        segment_ids: integers in `[0, num_segments)`, in any order, shape `(*batch, elements)`. One
            outside makes the results of its graph NaN, rather than leave something out.
        num_segments: how many segments there are, an integer.
        where: booleans of the shape of `segment_ids`, False for elements that do not count, such as
            padding, whatever they and their ids are.

    Returns:
        Shape `(*batch, num_segments, ...)` in the floating dtype of `x`.

    Raises:
        TypeError: `segment_ids` or `num_segments` are not integers, or `where` is not boolean.
        ValueError: the shapes do not fit; `num_segments` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> messages, receivers = jnp.array([1.0, 2.0, 4.0]), jnp.array([2, 0, 2])
        >>> nn.functional.segment_sum(messages, receivers, 3)
        Array([2., 0., 5.], dtype=float32)
    """

    def of(x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
        return _sum(x, ids, num_segments).astype(x.dtype)

    return _by_segment("segment_sum", of, x, segment_ids, num_segments, where)


@checked
def segment_mean(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: Size,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The mean of the elements of each segment; 0 where there are none.

    See `segment_sum` for the arguments.

    Returns:
        Shape `(*batch, num_segments, ...)` in the floating dtype of `x`.

    Raises:
        TypeError: `segment_ids` or `num_segments` are not integers, or `where` is not boolean.
        ValueError: the shapes do not fit; `num_segments` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> messages, receivers = jnp.array([1.0, 2.0, 4.0]), jnp.array([2, 0, 2])
        >>> nn.functional.segment_mean(messages, receivers, 3)
        Array([2. , 0. , 2.5], dtype=float32)
    """

    def of(x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
        total = _sum(x, ids, num_segments)
        count = _sum(valid.astype(total.dtype), ids, num_segments)
        return (total / _spread(jnp.maximum(count, 1), total)).astype(x.dtype)

    return _by_segment("segment_mean", of, x, segment_ids, num_segments, where)


@checked
def segment_max(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: Size,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The greatest of the elements of each segment; 0 where there are none.

    That is PyTorch Geometric's convention (`jax.ops.segment_max`: -inf). The gradient goes to the
    first of those that are equal. See `segment_sum` for the arguments.

    Returns:
        Shape `(*batch, num_segments, ...)` in the floating dtype of `x`.

    Raises:
        TypeError: `segment_ids` or `num_segments` are not integers, `where` is not boolean, or `x`
            is complex.
        ValueError: the shapes do not fit; `num_segments` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> messages, receivers = jnp.array([-1.0, 2.0, -4.0]), jnp.array([2, 0, 2])
        >>> nn.functional.segment_max(messages, receivers, 3)
        Array([ 2.,  0., -1.], dtype=float32)
    """

    def of(x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
        elements = x.shape[0]
        if elements == 0:
            return jnp.zeros((num_segments, *x.shape[1:]), x.dtype)
        values = jax.lax.stop_gradient(x)
        is_greatest = (values == rows_of(_max(values, ids, valid, num_segments), ids)) | jnp.isnan(
            x
        )
        at = _spread(jnp.arange(elements, dtype=jnp.int32), x)
        at = jnp.where(is_greatest & _spread(valid, x), at, elements)
        first = jnp.full((num_segments, *x.shape[1:]), elements, jnp.int32)
        first = first.at[ids].min(at, mode="drop", wrap_negative_indices=False)
        chosen = jnp.take_along_axis(x, jnp.minimum(first, elements - 1), axis=0)
        return jnp.where(first < elements, chosen, 0)

    refuse_complex("segment_max", "x", jnp.asarray(x))
    return _by_segment("segment_max", of, x, segment_ids, num_segments, where)


@checked
def segment_softmax(
    logits: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: Size,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The softmax over the elements of each segment, as of attention along edges.

    `y_i = exp(logits_i) / (sum of exp(logits_j) over the j of the same segment)`, in float32 or
    wider. See `segment_sum` for the arguments.

    Args:
        logits: shape `(*batch, elements, ...)`, floating; of -inf, the weight is 0.

    Returns:
        The shape and floating dtype of `logits`; 0 for elements that do not count.

    Raises:
        TypeError: `segment_ids` or `num_segments` are not integers, `where` is not boolean, or
            `logits` are complex.
        ValueError: the shapes do not fit; `num_segments` is less than 1.

    Example:
        A graph attention layer (Velickovic et al., https://arxiv.org/abs/1710.10903) with one head:

        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def forward(f, nodes, *, senders, receivers):
        ...     h = f.nodes(nodes)
        ...     to, by = (nn.functional.gather(h, ids) for ids in (receivers, senders))
        ...     logits = nn.leaky_relu(f.to(to) + f.by(by), 0.2)
        ...     weights = nn.functional.segment_softmax(logits, receivers, len(nodes))
        ...     return nn.functional.segment_sum(weights * by, receivers, len(nodes))
        >>> layer = nn.compose(forward, nodes=nn.dense(8, use_bias=False),
        ...                    to=nn.dense(1, use_bias=False), by=nn.dense(1, use_bias=False))
        >>> graph = {"senders": jnp.array([0, 1, 2]), "receivers": jnp.array([1, 2, 2])}
        >>> params, state = layer.init(jax.random.key(0), jnp.ones((3, 4)), **graph)
        >>> layer.apply(params, state, jnp.ones((3, 4)), **graph)[0].shape
        (3, 8)
    """

    def of(logits: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
        wide, counts = widen(logits), _spread(valid, logits)
        greatest = _max(jax.lax.stop_gradient(wide), ids, valid, num_segments)
        greatest = jnp.where(jnp.isneginf(greatest), 0, greatest)
        shifted = jnp.where(counts, wide - rows_of(greatest, ids), 0)
        powers = jnp.where(counts, jnp.exp(shifted), 0)
        total = rows_of(_sum(powers, ids, num_segments), ids)
        return (powers / jnp.where(total == 0, 1, total)).astype(logits.dtype)

    refuse_complex("segment_softmax", "logits", jnp.asarray(logits))
    return _by_segment("segment_softmax", of, logits, segment_ids, num_segments, where, "logits")


# Of one graph: x of shape (elements, ...), ids of shape (elements,)


def _sum(x: jax.Array, ids: jax.Array, num_segments: Size) -> jax.Array:
    """The sums in a wide dtype."""
    sums = jnp.zeros((num_segments, *x.shape[1:]), accumulator_dtype(x.dtype))
    return sums.at[ids].add(widen(x), mode="drop", wrap_negative_indices=False)


def _max(x: jax.Array, ids: jax.Array, valid: jax.Array, num_segments: Size) -> jax.Array:
    """The greatest elements, -inf where there are none; it has no gradient."""
    least = jnp.full((num_segments, *x.shape[1:]), -jnp.inf, x.dtype)
    x = jnp.where(_spread(valid, x), x, -jnp.inf)
    return least.at[ids].max(x, mode="drop", wrap_negative_indices=False)


def _spread(of_elements: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.expand_dims(of_elements, range(1, x.ndim))


# Of a batch


def _over_batch(function: Callable[..., jax.Array], axes: int) -> Callable[..., jax.Array]:
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def _by_segment(
    name: str,
    function: Callable[..., jax.Array],
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: Size,
    where: ArrayLike | None,
    argument: str = "x",
) -> jax.Array:
    """`function(x, ids, valid)` for each of a batch; what does not count is 0 with the id 0."""
    x, ids = floating(x), jnp.asarray(segment_ids)
    check_size(name, "num_segments", num_segments)
    _check_integers(name, "segment_ids", ids)
    if ids.ndim == 0 or x.shape[: ids.ndim] != ids.shape:
        raise ValueError(
            f"{name}: {argument} has shape {x.shape} and segment_ids {ids.shape}, expected "
            "(*batch, elements, ...) and (*batch, elements)"
        )
    valid = jnp.ones_like(ids, bool)
    if where is not None:
        check_shape(name, "where", where, ids.shape)
        valid = check_boolean(name, jnp.asarray(where), "where", "the element counts")
        x = jnp.where(jnp.expand_dims(valid, range(ids.ndim, x.ndim)), x, 0)
        ids = jnp.where(valid, ids, 0)
    check_bounds(name, ids, num_segments)
    batch = ids.ndim - 1

    def of_one(x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
        is_outside = jnp.any((ids < 0) | (ids >= num_segments))
        return jnp.where(is_outside, jnp.nan, function(x, ids, valid))

    run = _over_batch(of_one, batch)
    return automatic(run, x, ids, valid, leading=batch)  # type: ignore[no-any-return]


def _check_integers(function: str, name: str, ids: Any) -> None:
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{function}: {name} have dtype {ids.dtype}, expected integers")
