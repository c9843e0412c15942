"""Initializers that `jax.nn.initializers` lacks."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.nn.initializers import (
    Initializer,
    variance_scaling,
)

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range


def _dtype(dtype: Any) -> jnp.dtype:
    return jnp.result_type(float) if dtype is None else jnp.dtype(dtype)


@checked
def identity(gain: float = 1.0) -> Initializer:
    """A kernel that passes inputs through: `gain` on the diagonal, 0 elsewhere.

    Args:
        gain: the value on the diagonal.

    Returns:
        An initializer of shape `(in, out)`.

    Raises:
        ValueError: when it is called with a shape that does not have two axes.

    Example:
        >>> import jax, jaxnn as nn
        >>> nn.initializers.identity(2.0)(jax.random.key(0), (2, 3))
        Array([[2., 0., 0.],
               [0., 2., 0.]], dtype=float32)
    """

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        if len(shape) != 2:
            raise ValueError(f"identity: shape is {tuple(shape)}, expected (in, out)")
        return gain * jnp.eye(shape[0], shape[1], dtype=_dtype(dtype))

    return init


def dirac() -> Initializer:
    """A convolution kernel that passes channels through: 1 at the centre tap where in = out.

    Returns:
        An initializer of shape `(*spatial, in, out)`.

    Raises:
        ValueError: when it is called with a shape that has fewer than three axes.

    Example:
        >>> import jax, jaxnn as nn
        >>> nn.initializers.dirac()(jax.random.key(0), (3, 1, 1)).ravel()
        Array([0., 1., 0.], dtype=float32)
    """

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        if len(shape) < 3:
            raise ValueError(f"dirac: shape is {tuple(shape)}, expected (*spatial, in, out)")
        *spatial, inputs, outputs = shape
        centre = tuple(size // 2 for size in spatial)
        eye = jnp.eye(inputs, outputs, dtype=_dtype(dtype))
        return jnp.zeros(shape, _dtype(dtype)).at[centre].set(eye)

    return init


@checked
def sparse(sparsity: float, stddev: float = 0.01) -> Initializer:
    """A normal kernel in which each output has the same number of inputs with weight 0.

    Paper: Martens, Deep Learning via Hessian-free Optimization, ICML 2010.

    Args:
        sparsity: the fraction of each output's inputs that is 0, rounded up; in [0, 1].
        stddev: the standard deviation of the others.

    Returns:
        An initializer of shape `(in, out)`.

    Raises:
        ValueError: `sparsity` is outside [0, 1], `stddev` is negative, or the shape does not have
            two axes.

    Example:
        >>> import jax, jaxnn as nn
        >>> kernel = nn.initializers.sparse(0.5)(jax.random.key(0), (4, 3))
        >>> (kernel == 0).sum(axis=0)
        Array([2, 2, 2], dtype=int32)
    """
    check_range("sparse", "sparsity", sparsity, 0, 1)
    check_range("sparse", "stddev", stddev, 0)

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        if len(shape) != 2:
            raise ValueError(f"sparse: shape is {tuple(shape)}, expected (in, out)")
        value_key, place_key = jax.random.split(key)
        zero_rows = jnp.arange(shape[0])[:, None] < math.ceil(sparsity * shape[0])
        is_zero = jax.random.permutation(
            place_key, jnp.broadcast_to(zero_rows, shape), axis=0, independent=True
        )
        values = stddev * jax.random.normal(value_key, shape, _dtype(dtype))
        return jnp.where(is_zero, 0, values)

    return init


def torch_uniform() -> Initializer:
    """The default of torch's linear and convolution layers: uniform within `1 / sqrt(fan_in)`.

    torch draws the bias from the same range, which depends on the kernel's fan-in; most libraries
    initialise it with zeros.

    Returns:
        An initializer of shape `(*spatial, in, out)`, `fan_in` being the product of all axes but
        the last.

    Example:
        >>> import jax, jaxnn as nn
        >>> kernel = nn.initializers.torch_uniform()(jax.random.key(0), (100, 50))
        >>> bool((abs(kernel) <= 0.1).all())
        True
    """
    return variance_scaling(1 / 3, "fan_in", "uniform")


_GAINS: dict[str, float] = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}

Nonlinearity: TypeAlias = Literal[
    "linear", "identity", "sigmoid", "tanh", "relu", "selu", "leaky_relu"
]


@checked
def calculate_gain(nonlinearity: Nonlinearity, param: float = 0.01) -> float:
    """The recommended gain of a kernel's standard deviation, by the activation after it.

    As `torch.nn.init.calculate_gain`: 1 for linear, identity and sigmoid, 5/3 for tanh, √2 for
    relu, `√(2 / (1 + param²))` for leaky_relu, 3/4 for selu.

    Paper: He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852

    Args:
        nonlinearity: the activation's name.
        param: the negative slope of leaky_relu.

    Returns:
        The gain, a float.

    Raises:
        ValueError: the activation is not in the list.

    Example:
        >>> import jaxnn as nn
        >>> round(nn.initializers.calculate_gain("relu"), 4)
        1.4142
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + param**2))
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"calculate_gain: nonlinearity is {nonlinearity!r}, expected one of "
            f"{sorted([*_GAINS, 'leaky_relu'])}"
        )
    return _GAINS[nonlinearity]
