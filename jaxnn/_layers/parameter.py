"""A layer that is a parameter."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from jaxnn import initializers
from jaxnn._core.arrays import check_count, check_key, check_shape
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, pure
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw


@constructor
def parameter(
    shape: Sequence[int],
    init: Initializer = initializers.zeros,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Layer:
    """An array that is trained, as a layer: `y = params`, whatever `x` is.

    In `nn.compose` it is called without an input, `f.name()`: a class token, a temperature, a
    learned query.

    Args:
        shape: its shape; `()` for a number.
        init: its initializer; one that scales by fan-in needs two axes at least.
        dtype: its floating dtype, which no input decides.

    Returns:
        A `Layer` whose params are the array itself.

    Raises:
        TypeError: `shape` is not of integers, or `init` is no function.
        ValueError: a size is less than 1, or `dtype` is not floating.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def with_class_token(f, x):
        ...     token = jnp.broadcast_to(f.token(), (x.shape[0], 1, x.shape[-1]))
        ...     return jnp.concatenate([token, x], axis=1)
        >>> model = nn.compose(with_class_token, token=nn.parameter((8,)))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 5, 8)))
        >>> params["token"].shape, model.apply(params, state, jnp.ones((2, 5, 8)))[0].shape
        ((8,), (2, 6, 8))
    """
    sizes = tuple(check_count("parameter", "shape", size) for size in shape)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"parameter: dtype is {dtype!r}, expected a floating dtype")

    def make(key: jax.Array, x: PyTree) -> PyTree:
        check_key("parameter", key)
        return draw(init, key, sizes, jnp.dtype(dtype))

    def call(params: PyTree, x: PyTree) -> jax.Array:
        check_shape("parameter", "params", params, sizes)
        return jnp.asarray(params)

    return pure(make, call)
