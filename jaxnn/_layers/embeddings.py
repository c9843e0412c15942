"""Embeddings of integers."""

from collections.abc import Callable

import jax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, pure
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw
from jaxnn.functional._embeddings import BagMode, check_bag_mode, check_padding_idx


@constructor
def embedding(
    num_embeddings: int,
    features: int,
    *,
    padding_idx: int | None = None,
    embedding_init: Initializer = initializers.normal(1.0),  # noqa: B008
) -> Layer:
    """A vector for each integer below `num_embeddings`: `y = embedding[x]`.

    With `attend=True` the same table makes logits (tied weights): `y = x @ embedding.T`. An id
    outside of the table gives NaN.

    Paper: Press and Wolf, Using the Output Embedding to Improve Language Models,
    https://arxiv.org/abs/1608.05859

    Args:
        num_embeddings: the vocabulary size.
        features: the embedding dimension.
        padding_idx: the id of padding, whose row is 0 at first and gets no gradient from
            embedding it, or None.
        embedding_init: initializer of the table, shape `(num_embeddings, features)`. The default is
            torch's, with variance 1; with tied weights, flax's `normal(features**-0.5)`
            gives logits of variance 1.

    Returns:
        A `Layer` from integers of any shape to `(..., features)`, in the dtype of its params
        `{"embedding"}`. Its `apply` takes `attend=False`; with True (a Python bool) it is from
        `(..., features)` to `(..., num_embeddings)`.

    Raises:
        TypeError: `num_embeddings`, `features` or `padding_idx` is not an integer, or `x` is not of
            integers.
        ValueError: `num_embeddings` or `features` is less than 1, or there is no row `padding_idx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def forward(f, ids):
        ...     h = f.body(f.embed(ids))
        ...     return f.embed(h, attend=True)  # the weights are tied
        >>> model = nn.compose(forward, embed=nn.embedding(50, 8), body=nn.dense(8))
        >>> ids = jnp.array([[3, 1, 4], [1, 5, 9]])
        >>> params, state = model.init(jax.random.key(0), ids)
        >>> params["embed"]["embedding"].shape, model.apply(params, state, ids)[0].shape
        ((50, 8), (2, 3, 50))
    """
    check_count("embedding", "num_embeddings", num_embeddings)
    check_count("embedding", "features", features)
    if padding_idx is not None:
        check_padding_idx("embedding", padding_idx, num_embeddings)
    shape = num_embeddings, features

    def call(params: PyTree, x: PyTree, *, attend: bool = False) -> jax.Array:
        if attend:
            return functional.attend(x, params["embedding"])
        return functional.embed(x, params["embedding"], padding_idx=padding_idx)

    return pure(_init("embedding", shape, padding_idx, embedding_init), call)


@constructor
def embedding_bag(
    num_embeddings: int,
    features: int,
    *,
    mode: BagMode = "mean",
    padding_idx: int | None = None,
    embedding_init: Initializer = initializers.normal(1.0),  # noqa: B008
) -> Layer:
    """The sum, mean or maximum of the vectors of each bag of integers.

    Args:
        num_embeddings, features, embedding_init: as in `embedding`.
        mode: "sum", "mean" or "max", the maximum of each feature.
        padding_idx: the id that fills up bags of fewer ids and counts in none, or None.

    Returns:
        A `Layer` from integers of shape `(..., n)` to `(..., features)`, in the dtype of its params
        `{"embedding"}`. Its `apply` takes `weights=None`, of each id, for the mode "sum".

    Raises:
        TypeError: `num_embeddings`, `features` or `padding_idx` is not an integer, or `x` is not of
            integers.
        ValueError: `num_embeddings` or `features` is less than 1; `mode` is unknown; or there is no
            row `padding_idx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.embedding_bag(50, 8, padding_idx=0)
        >>> bags = jnp.array([[3, 1, 4], [1, 5, 0]])
        >>> params, state = layer.init(jax.random.key(0), bags)
        >>> layer.apply(params, state, bags)[0].shape
        (2, 8)
    """
    check_count("embedding_bag", "num_embeddings", num_embeddings)
    check_count("embedding_bag", "features", features)
    check_bag_mode("embedding_bag", mode)
    if padding_idx is not None:
        check_padding_idx("embedding_bag", padding_idx, num_embeddings)
    shape = num_embeddings, features

    def call(params: PyTree, x: PyTree, *, weights: ArrayLike | None = None) -> jax.Array:
        table = params["embedding"]
        return functional.embed_bag(x, table, weights, mode=mode, padding_idx=padding_idx)

    return pure(_init("embedding_bag", shape, padding_idx, embedding_init), call)


def _init(
    name: str, shape: tuple[int, int], padding_idx: int | None, embedding_init: Initializer
) -> Callable[..., PyTree]:
    def init(key: jax.Array, x: PyTree) -> PyTree:
        check_key(name, key)
        table = draw(embedding_init, key, shape, param_dtype(x))
        return {"embedding": table if padding_idx is None else table.at[padding_idx].set(0)}

    return init
