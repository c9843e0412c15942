"""Embeddings of integers."""

from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked, is_integer
from jaxnn._core.arrays import (
    accumulator_dtype,
    check_shape,
    floating,
    refuse_complex,
    widen,
)
from jaxnn._core.bounds import check_bounds
from jaxnn._core.meshes import automatic
from jaxnn.functional._dense import linear
from jaxnn.functional._pooling import maximum_along

BagMode: TypeAlias = Literal["sum", "mean", "max"]


@checked
def embed(ids: ArrayLike, embedding: ArrayLike, *, padding_idx: int | None = None) -> jax.Array:
    """The rows of a table: `y = embedding[ids]`.

    An id outside of the table, a negative one too, gives a row of NaN, and never another row. The
    gradient of a row is summed in float32 or wider, however often its id occurs.

    Args:
        ids: integers in `[0, num_embeddings)`, any shape.
        embedding: shape `(num_embeddings, features)`, floating.
        padding_idx: the id of padding, whose row gets no gradient here, or None.

    Returns:
        Shape `(*ids.shape, features)` in the floating dtype of `embedding`.

    Raises:
        TypeError: `ids` or `padding_idx` are not integers.
        ValueError: `embedding` does not have two axes, or no row `padding_idx`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> table = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> nn.functional.embed(jnp.array([1, 0, 7]), table)
        Array([[ 3.,  4.],
               [ 1.,  2.],
               [nan, nan]], dtype=float32)
    """
    ids, embedding = jnp.asarray(ids), _table("embed", embedding)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"embed: ids have dtype {ids.dtype}, expected integers")
    check_bounds("embed", ids, len(embedding))
    y = automatic(lambda ids, table: rows_of(table, ids), ids, embedding, leading=ids.ndim)
    if padding_idx is None:
        return y  # type: ignore[no-any-return]
    check_padding_idx("embed", padding_idx, len(embedding))
    return jnp.where((ids == padding_idx)[..., None], jax.lax.stop_gradient(y), y)


@checked
def embed_bag(
    ids: ArrayLike,
    embedding: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    mode: BagMode = "mean",
    padding_idx: int | None = None,
) -> jax.Array:
    """The sum, mean or maximum of the rows of each bag of ids: `y = sum_k weights[k] row(ids[k])`.

    Bags of fewer ids are filled up with `padding_idx`, which counts in none, as in torch's form
    with two axes (for that with offsets there are `embed` and `segment_sum`). A bag of padding
    alone, or of nothing, gives 0.

    Args:
        ids: integers in `[0, num_embeddings)`, shape `(..., n)`, `n` of each bag.
        embedding: shape `(num_embeddings, features)`, floating.
        weights: of each id, shape `(..., n)`, for `mode="sum"`, or None for 1.
        mode: "sum", "mean" or "max", the maximum of each feature.
        padding_idx: the id of padding, or None.

    Returns:
        Shape `(..., features)` in the floating dtype of `embedding`. Sums are float32 or wider.

    Raises:
        TypeError: `ids` are not integers, or `embedding` is complex for mode "max".
        ValueError: `mode` is unknown; the shape of `weights` is not that of `ids`, or they are
            given for another mode; `ids` has no axis; `embedding` does not have two axes, or no row
            `padding_idx`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> table = jnp.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
        >>> bags = jnp.array([[1, 2], [2, 0]])
        >>> nn.functional.embed_bag(bags, table, padding_idx=0)
        Array([[2., 3.],
               [3., 4.]], dtype=float32)
    """
    check_bag_mode("embed_bag", mode)
    ids = jnp.asarray(ids)
    if ids.ndim == 0:
        raise ValueError("embed_bag: ids has shape (), expected shape (..., n)")
    rows = embed(ids, embedding, padding_idx=padding_idx)
    wide = widen(rows)
    counts = (jnp.ones(ids.shape, bool) if padding_idx is None else ids != padding_idx)[..., None]
    if weights is not None:
        if mode != "sum":
            raise ValueError(f"embed_bag: weights are given for mode {mode!r}, expected 'sum'")
        check_shape("embed_bag", "weights", weights, ids.shape, "ids")
        # Both 0 where nothing counts: times NaN, a gradient of 0 would be NaN.
        weights = jnp.asarray(weights).astype(wide.dtype)[..., None]
        wide = jnp.where(counts, wide, 0) * jnp.where(counts, weights, 0)
    if mode == "max" and ids.shape[-1] != 0:
        refuse_complex("embed_bag", "embedding", wide)
        greatest = maximum_along(jnp.where(counts, wide, -jnp.inf), ids.ndim - 1)
        is_any = jnp.any(counts, axis=-2)
        y = jnp.where(is_any, jnp.squeeze(greatest, ids.ndim - 1), 0)
    else:
        y = jnp.sum(jnp.where(counts, wide, 0), axis=-2)
        if mode == "mean":
            y = y / jnp.maximum(jnp.sum(counts, axis=-2), 1).astype(y.dtype)
    return y.astype(rows.dtype)


def check_bag_mode(function: str, mode: BagMode) -> None:
    """Raise unless `embed_bag` knows the mode."""
    if mode not in get_args(BagMode):
        raise ValueError(f"{function}: mode is {mode!r}, expected one of {get_args(BagMode)}")


def check_padding_idx(function: str, padding_idx: int, num_embeddings: int) -> None:
    """Raise unless it is the number of a row."""
    if not is_integer(padding_idx):
        raise TypeError(f"{function}: padding_idx is {padding_idx!r}, expected an integer")
    if not 0 <= padding_idx < num_embeddings:
        raise ValueError(
            f"{function}: padding_idx is {padding_idx}, expected at least 0 and less than "
            f"{num_embeddings}, the number of embeddings"
        )


@checked
def attend(x: ArrayLike, embedding: ArrayLike) -> jax.Array:
    """Products with each row of a table: `y = x @ embedding.T`.

    With the table of `embed` (tied weights), these are logits over the vocabulary.

    Paper: Press and Wolf, Using the Output Embedding to Improve Language Models,
    https://arxiv.org/abs/1608.05859

    Args:
        x: shape `(..., features)`.
        embedding: shape `(num_embeddings, features)`.

    Returns:
        Shape `(..., num_embeddings)` in the dtype of `x`, to which the table is cast.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> table = jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
        >>> nn.functional.attend(jnp.array([1.0, -1.0]), table)
        Array([-1., -1., -1.], dtype=float32)
    """
    x, embedding = jnp.asarray(x), _table("attend", embedding)
    if x.ndim == 0 or x.shape[-1] != embedding.shape[1]:
        raise ValueError(
            f"attend: x has shape {x.shape}, expected {embedding.shape[1]} features in its last "
            f"axis to fit an embedding of shape {embedding.shape}"
        )
    return linear(x, embedding.T)


def rows_of(table: jax.Array, ids: jax.Array) -> jax.Array:
    """What lies at some places of the first axis, NaN outside; gradients are summed wide."""
    is_wide = accumulator_dtype(table.dtype) == table.dtype
    return _rows(table, ids) if is_wide else _rows_of_narrow(table, ids)


def _rows(embedding: jax.Array, ids: jax.Array) -> jax.Array:
    rows = embedding.at[ids]
    return rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


@jax.custom_jvp
def _rows_of_narrow(embedding: jax.Array, ids: jax.Array) -> jax.Array:
    """The rows, whose derivative is that of rows in float32.

    Its transpose, the gradient, adds up rows: in bfloat16, 1 added to 256 is 256.
    """
    return _rows(embedding, ids)


@_rows_of_narrow.defjvp
def _(primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    embedding, ids = primals
    wide = tangents[0].astype(accumulator_dtype(embedding.dtype))
    return _rows_of_narrow(embedding, ids), _rows(wide, ids).astype(embedding.dtype)


def _table(function: str, embedding: ArrayLike) -> jax.Array:
    embedding = floating(embedding)
    if embedding.ndim != 2:
        raise ValueError(
            f"{function}: embedding has shape {embedding.shape}, expected shape "
            "(num_embeddings, features)"
        )
    return embedding
