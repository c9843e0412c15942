"""Embeddings of integers."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import accumulator_dtype
from jaxnn._core.bounds import check_bounds
from jaxnn._core.meshes import automatic
from jaxnn.functional._dense import linear


@checked
def embed(ids: ArrayLike, embedding: ArrayLike) -> jax.Array:
    """The rows of a table: `y = embedding[ids]`.

    An id outside of the table, a negative one too, gives a row of NaN, and never another row. The
    gradient of a row is summed in float32 or wider, however often its id occurs.

    Args:
        ids: integers in `[0, num_embeddings)`, any shape.
        embedding: shape `(num_embeddings, features)`, floating.

    Returns:
        Shape `(*ids.shape, features)` in the dtype of `embedding`.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: `embedding` does not have two axes.

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
    return automatic(  # type: ignore[no-any-return]
        lambda ids, table: rows_of(table, ids), ids, embedding, leading=ids.ndim
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
    embedding = jnp.asarray(embedding)
    if embedding.ndim != 2:
        raise ValueError(
            f"{function}: embedding has shape {embedding.shape}, expected shape "
            "(num_embeddings, features)"
        )
    return embedding
