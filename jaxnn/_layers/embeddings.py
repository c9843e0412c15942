"""Embeddings of integers."""

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, pure
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw


@constructor
def embedding(
    num_embeddings: int,
    features: int,
    *,
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
        embedding_init: initializer of the table, shape `(num_embeddings, features)`. The default is
            torch's, with variance 1; with tied weights, flax's `normal(features**-0.5)`
            gives logits of variance 1.

    Returns:
        A `Layer` from integers of any shape to `(..., features)`, in the dtype of its params
        `{"embedding"}`. Its `apply` takes `attend=False`; with True (a Python bool) it is from
        `(..., features)` to `(..., num_embeddings)`.

    Raises:
        TypeError: `num_embeddings` or `features` is not an integer, or `x` is not of integers.
        ValueError: `num_embeddings` or `features` is less than 1.

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

    def init(key: jax.Array, x: PyTree) -> PyTree:
        check_key("embedding", key)
        return {"embedding": draw(embedding_init, key, (num_embeddings, features), param_dtype(x))}

    def call(params: PyTree, x: PyTree, *, attend: bool = False) -> jax.Array:
        use = functional.attend if attend else functional.embed
        return use(x, params["embedding"])

    return pure(init, call)
