"""Vector quantisation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_axis_name, check_count, check_key, check_range, floating
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, shape_of
from jaxnn._core.meshes import automatic
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw


@constructor
def vector_quantizer(
    num_embeddings: int,
    *,
    decay: float = 0.99,
    embedding_init: Initializer = initializers.variance_scaling(1.0, "fan_out", "uniform"),  # noqa: B008
    axis_name: str | Sequence[str] | None = None,
) -> Layer:
    """Replace each vector by the nearest code of a codebook, as in a VQ-VAE.

    The gradient is that of the straight-through estimator, as if `y = x`. The codes are not trained
    by gradients: training moves each to an exponential moving average of the vectors assigned to
    it. To keep the vectors near their codes, add the commitment loss
    `squared_error(x, stop_gradient(y))` of the layer's input and output. The indices of the codes
    are `nn.functional.nearest_code(x, state["embedding"])`, with the state given to the layer.

    Paper: van den Oord et al., Neural Discrete Representation Learning (appendix A.1),
    https://arxiv.org/abs/1711.00937

    Args:
        num_embeddings: the number of codes.
        decay: the decay rate of the moving averages, in [0, 1].
        embedding_init: initializer of the codes, shape `(num_embeddings, features)`. The default is
            uniform of variance `1 / features`.
        axis_name: names of mapped axes (of `jax.vmap` or `jax.shard_map`) over which the batch is
            spread; the codes then follow the whole batch.

    Returns:
        A `Layer` from `(..., features)` to the same shape, without params, and with state
        `{"embedding": (num_embeddings, features), "count": (num_embeddings,)}`: the codes, and the
        moving average of the number of vectors assigned to each, initially 1. A code without
        vectors does not change.

    Raises:
        TypeError: `num_embeddings` is not an integer.
        ValueError: `num_embeddings` is less than 1; `decay` is outside [0, 1]; `x` has no feature
            axis; the state is missing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.vector_quantizer(2, decay=0.5)
        >>> state = {"embedding": jnp.array([[0.0], [10.0]]), "count": jnp.ones(2)}
        >>> y, state = layer.apply({}, state, jnp.array([[1.0], [12.0], [14.0]]), train=True)
        >>> y.ravel(), state["embedding"].ravel().round(2)
        (Array([ 0., 10., 10.], dtype=float32), Array([ 0.5, 12. ], dtype=float32))
    """
    num_embeddings = check_count("vector_quantizer", "num_embeddings", num_embeddings)
    check_range("vector_quantizer", "decay", decay, 0, 1)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("vector_quantizer", key)
        shape, dtype = shape_of("vector_quantizer", x), param_dtype(x)
        if not shape:
            raise ValueError("vector_quantizer: x is a scalar, expected shape (..., features)")
        embedding = draw(embedding_init, key, (num_embeddings, shape[-1]), dtype)
        return {}, {"embedding": embedding, "count": jnp.ones(num_embeddings, dtype)}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        if not {"embedding", "count"} <= state.keys():
            raise ValueError(
                f"vector_quantizer: state has {sorted(state)}, expected 'embedding' and 'count' as "
                "made by init"
            )
        x = floating(x)

        def nearest_and_state(x: jax.Array, state: PyTree) -> tuple[jax.Array, PyTree]:
            indices = functional.nearest_code(x, state["embedding"])
            nearest = jnp.asarray(state["embedding"])[indices].astype(x.dtype)
            return nearest, _follow(state, x, indices, decay, axis_name) if train else state

        constant = lax.stop_gradient(x)
        leading = (x.ndim, dict.fromkeys(state, 0))
        nearest, state = automatic(nearest_and_state, constant, state, leading=leading)
        return lax.stop_gradient(nearest) + (x - constant), state

    return Layer(init, apply)


def _follow(
    state: dict[str, jax.Array],
    x: jax.Array,
    indices: jax.Array,
    decay: float,
    axis_name: str | Sequence[str] | None,
) -> dict[str, jax.Array]:
    """The codes and counts after one batch, exponential moving averages."""
    old, count = state["embedding"], state["count"]
    # As a matrix product the sums are the same in each run; a scatter on a GPU adds in any order.
    chosen = jax.nn.one_hot(indices.reshape(-1), len(old), dtype=old.dtype)
    vectors = x.reshape(indices.size, x.shape[-1]).astype(old.dtype)
    new = jnp.sum(chosen, axis=0)
    total = jnp.matmul(chosen.T, vectors, precision=lax.Precision.HIGHEST)
    if axis_name is not None:
        check_axis_name("vector_quantizer", axis_name)
        new, total = lax.psum((new, total), axis_name)
    count = decay * count + (1 - decay) * new
    step = (1 - decay) * (total - new[:, None] * old)
    # A code without vectors has the step 0, whatever its count.
    return {"embedding": old + step / jnp.where(count > 0, count, 1)[:, None], "count": count}
