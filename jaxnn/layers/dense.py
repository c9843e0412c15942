"""Affine maps and shapes."""

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._arrays import PyTree, check_count, check_key
from jaxnn.layer import Layer, abstract, constructor, lift, param_dtype


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
        features: the number of outputs.
        use_bias: whether there is a bias.
        kernel_init: makes the kernel, shape `(in, features)`. The default draws from a truncated
            normal of variance `1 / in` (torch's default is uniform:
            `nn.initializers.torch_uniform()`).
        bias_init: makes the bias, shape `(features,)`.

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

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("dense", key)
        shape, dtype = abstract(x).shape, param_dtype(x)
        if not shape:
            raise ValueError("dense: x is a scalar, expected shape (..., in)")
        kernel_key, bias_key = jax.random.split(key)
        params = {"kernel": kernel_init(kernel_key, (shape[-1], features), dtype)}
        if use_bias:
            params["bias"] = bias_init(bias_key, (features,), dtype)
        return params, {}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        return functional.linear(x, params["kernel"], params.get("bias")), state

    return Layer(init, apply)


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
    return lift(functional.flatten)
