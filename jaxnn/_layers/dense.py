"""Affine maps and shapes."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import canonical_axes, check_count
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, elementwise, param_dtype, pure, shape_of
from jaxnn._core.types import Axes, PyTree
from jaxnn._layers.params import kernel_and_bias, kernel_and_bias_of


@constructor
def dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A fully connected layer: `y = x @ kernel + bias`.

    Args:
        features: the number of output features.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel, shape `(in, features)`. The default, LeCun normal,
            is a truncated normal of variance `1 / fan_in` (torch's default is uniform:
            `nn.initializers.torch_uniform()`).
        bias_init: initializer of the bias, shape `(features,)`.

    Returns:
        A `Layer` from `(..., in)` to `(..., features)`, of any rank from 1, with params
        `{"kernel", "bias"}` and the output in the dtype of `x`.

    Raises:
        TypeError: `features` is not an integer.
        ValueError: `features` is less than 1, or `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.dense(4)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> y, state = layer.apply(params, state, jnp.ones((8, 3)))
        >>> y.shape
        (8, 4)
    """
    check_count("dense", "features", features)

    inits = kernel_init, bias_init if use_bias else None

    def init(key: jax.Array, x: PyTree) -> PyTree:
        shape = shape_of("dense", x)
        if not shape:
            raise ValueError("dense: x is a scalar, expected shape (..., in)")
        return kernel_and_bias("dense", key, (shape[-1], features), param_dtype(x), *inits)

    def call(params: PyTree, x: PyTree) -> jax.Array:
        return functional.linear(x, *kernel_and_bias_of("dense", params, use_bias))

    return pure(init, call)


DenseLike: TypeAlias = Annotated[Callable[..., Layer], "a constructor as nn.dense"]


@constructor
def dense_general(
    features: int | Sequence[int],
    axis: Axes = -1,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A fully connected layer from several axes to several: `y = sum_axis x * kernel + bias`.

    Args:
        features: the number of output features, or several numbers.
        axis: the axis or axes of `x` to map; the others stay, and come first.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel as a matrix `(in, out)`, whose axes are then split
            into those of `axis` and `features`.
        bias_init: initializer of the bias, of shape `features`.

    Returns:
        A `Layer` with params `{"kernel", "bias"}`; the kernel has shape `(*in, *features)`, `in`
        being the sizes of `axis` in the order of `x`'s axes. The output is in the dtype of `x`.

    Raises:
        TypeError: `features` are not integers.
        ValueError: `features` are less than 1, or `axis` is out of range for `x`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> split_heads, join_heads = nn.dense_general((2, 4)), nn.dense_general(8, axis=(-2, -1))
        >>> model = nn.serial(split_heads, join_heads)
        >>> x = jnp.ones((3, 5, 8))
        >>> params, state = model.init(jax.random.key(0), x)
        >>> [layer["kernel"].shape for layer in params], model.apply(params, state, x)[0].shape
        ([(8, 2, 4), (2, 4, 8)], (3, 5, 8))
    """
    given = features if isinstance(features, Sequence) else (features,)
    out = tuple(check_count("dense_general", "features", size) for size in given)

    inits = kernel_init, bias_init if use_bias else None

    def init(key: jax.Array, x: PyTree) -> PyTree:
        shape = shape_of("dense_general", x)
        inputs = tuple(shape[a] for a in canonical_axes(axis, len(shape), "dense_general"))
        matrix = math.prod(inputs), math.prod(out)
        params = kernel_and_bias("dense_general", key, matrix, param_dtype(x), *inits, out)
        return params | {"kernel": params["kernel"].reshape(*inputs, *out)}

    def call(params: PyTree, x: PyTree) -> jax.Array:
        leaves = kernel_and_bias_of("dense_general", params, use_bias)
        return functional.linear_general(x, *leaves, axis=axis)

    return pure(init, call)


@constructor
def maxout(
    features: int,
    num_pieces: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """The greatest of several affine maps: `y = max_k(x @ kernel[:, k] + bias[k])`.

    Paper: Goodfellow et al., Maxout Networks, https://arxiv.org/abs/1302.4389

    Args:
        features: the number of output features.
        num_pieces: the number of affine maps for each output feature.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel as a matrix `(in, num_pieces * features)`.
        bias_init: initializer of the bias, shape `(num_pieces, features)`.

    Returns:
        A `Layer` from `(..., in)` to `(..., features)` with params `{"kernel", "bias"}`, the kernel
        of shape `(in, num_pieces, features)`, and the output in the dtype of `x`.

    Raises:
        TypeError: `features` or `num_pieces` is not an integer.
        ValueError: `features` or `num_pieces` is less than 1, or `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.maxout(4, 3)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> params["kernel"].shape, layer.apply(params, state, jnp.ones((8, 2)))[0].shape
        ((2, 3, 4), (8, 4))
    """
    check_count("maxout", "features", features)
    check_count("maxout", "num_pieces", num_pieces)
    maps = dense_general(
        (num_pieces, features), use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init
    )
    return pure(
        lambda key, x: maps.init(key, x)[0],
        lambda params, x: functional.maxout(x, *kernel_and_bias_of("maxout", params, use_bias)),
    )


@constructor
def flatten() -> Layer:
    """All axes after the first as one: `(batch, ...) -> (batch, features)`.

    Returns:
        A `Layer` without parameters.

    Raises:
        ValueError: `x` has no batch axis.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.flatten().apply({}, {}, jnp.zeros((8, 28, 28, 1)))[0].shape
        (8, 784)
    """
    return elementwise(functional.flatten)


@constructor
def reshape(shape: Sequence[int]) -> Layer:
    """Other axes after the first: `(batch, ...) -> (batch, *shape)`.

    Args:
        shape: the new axes after the first; one may be -1, which stands for what is left.

    Returns:
        A `Layer` without parameters.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.reshape((28, 28, 1)).apply({}, {}, jnp.zeros((8, 784)))[0].shape
        (8, 28, 28, 1)
    """
    return elementwise(lambda x: functional.reshape(x, shape))
