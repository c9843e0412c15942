"""Activations: those of `jax.nn`, used from there (`nn.relu is jax.nn.relu`), and what it lacks."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    identity,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    sparse_plus,
    sparse_sigmoid,
    squareplus,
    tanh,
)
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    canonical_axes,
    check_key,
    check_range,
    concrete,
    floating,
    hyperparameter,
    widen,
)
from jaxnn._core.types import Scalar

__all__ = [
    "celu",
    "elu",
    "geglu",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "quick_gelu",
    "reglu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "soft_sign",
    "softmax",
    "softplus",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squared_relu",
    "squareplus",
    "swiglu",
    "tanh",
]


# Gated: one half of the features times an activation of the other


def _halves(function: str, x: ArrayLike, axis: int) -> tuple[jax.Array, jax.Array]:
    x = floating(x)
    (axis,) = canonical_axes(axis, x.ndim, function)
    if x.shape[axis] % 2:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected an even size along axis {axis}"
        )
    a, b = jnp.split(x, 2, axis)
    return a, b


@checked
def swiglu(x: ArrayLike, axis: int = -1) -> jax.Array:
    """The linear unit gated by `silu`: `y = a * silu(b)`, `a` and `b` being the halves of `x`.

    The second half is the gate, as in `nn.glu`.

    Paper: Shazeer, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202

    Args:
        x: any shape, of even size along `axis`.
        axis: the axis that is halved.

    Returns:
        Half the size along `axis`, in the floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or its size is odd.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.swiglu(jnp.array([2.0, 10.0]))
        Array([19.999092], dtype=float32)
    """
    a, b = _halves("swiglu", x, axis)
    return a * silu(b)


@checked
def geglu(x: ArrayLike, axis: int = -1, approximate: bool = True) -> jax.Array:
    """The linear unit gated by `gelu`: `y = a * gelu(b)`, `a` and `b` being the halves of `x`.

    Args:
        x, axis: as in `nn.swiglu`, whose paper has this unit too.
        approximate: whether `gelu` is its approximation by tanh, as by default in `nn.gelu`.

    Returns:
        Half the size along `axis`, in the floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or its size is odd.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.geglu(jnp.array([2.0, 10.0]))
        Array([20.], dtype=float32)
    """
    a, b = _halves("geglu", x, axis)
    # gelu is relu there, and the gradient of jax.nn.gelu in float16 is NaN from 148 on.
    large = jnp.abs(b) > 16
    small_gate = gelu(jnp.where(large, 0, b), approximate=approximate)
    return a * jnp.where(large, relu(b), small_gate)


@checked
def reglu(x: ArrayLike, axis: int = -1) -> jax.Array:
    """The linear unit gated by `relu`: `y = a * relu(b)`, `a` and `b` being the halves of `x`.

    Args:
        x, axis: as in `nn.swiglu`, whose paper has this unit too.

    Returns:
        Half the size along `axis`, in the floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or its size is odd.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.reglu(jnp.array([2.0, 3.0, 10.0, -10.0]))
        Array([20.,  0.], dtype=float32)
    """
    a, b = _halves("reglu", x, axis)
    return a * relu(b)


# Elementwise


@checked
def squared_relu(x: ArrayLike) -> jax.Array:
    """The square of the positive part: `y = max(x, 0)^2`.

    Paper: So et al., Primer, https://arxiv.org/abs/2109.08668

    Args:
        x: any shape.

    Returns:
        The shape and floating dtype of `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.squared_relu(jnp.array([-2.0, 0.5, 3.0]))
        Array([0.  , 0.25, 9.  ], dtype=float32)
    """
    return jnp.square(relu(floating(x)))


@checked
def quick_gelu(x: ArrayLike) -> jax.Array:
    """An approximation of `gelu` by a sigmoid: `y = x * sigmoid(1.702 x)`.

    Paper: Hendrycks and Gimpel, Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415

    Args:
        x: any shape.

    Returns:
        The shape and floating dtype of `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.quick_gelu(jnp.array([-8.0, 0.0, 8.0])).round(2)
        Array([-0.,  0.,  8.], dtype=float32)
    """
    x = floating(x)
    return x * sigmoid(1.702 * x)


@checked
def soft_shrink(x: ArrayLike, threshold: Scalar = 0.5) -> jax.Array:
    """Towards 0 by `threshold`: `y = sign(x) * max(|x| - threshold, 0)`.

    The derivative at the threshold is 0.

    Args:
        x: any shape, real.
        threshold: at least 0; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `threshold` is known and negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.soft_shrink(jnp.array([-2.0, -0.25, 0.25, 2.0]))
        Array([-1.5,  0. ,  0. ,  1.5], dtype=float32)
    """
    check_range("soft_shrink", "threshold", threshold, 0)
    x = floating(x)
    threshold = hyperparameter(threshold, x.dtype)
    shrunk = jnp.where(x > 0, x - threshold, x + threshold)
    return jnp.where(_within(x, threshold), 0, shrunk)


@checked
def hard_shrink(x: ArrayLike, threshold: Scalar = 0.5) -> jax.Array:
    """What exceeds `threshold`, else 0: `y = x if |x| > threshold else 0`.

    The derivative at the threshold is 0.

    Args:
        x: any shape, real.
        threshold: at least 0; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `threshold` is known and negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.hard_shrink(jnp.array([-2.0, -0.25, 0.25, 2.0]))
        Array([-2.,  0.,  0.,  2.], dtype=float32)
    """
    check_range("hard_shrink", "threshold", threshold, 0)
    x = floating(x)
    return jnp.where(_within(x, hyperparameter(threshold, x.dtype)), 0, x)


def _within(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """Whether `|x| <= threshold`, which NaN is not."""
    return (x >= -threshold) & (x <= threshold)


# Distributions


@checked
def sparsemax(x: ArrayLike, axis: int = -1) -> jax.Array:
    """The distribution nearest to `x`, which has zeros: `y = argmin_p |p - x|^2`.

    `y = max(x - tau, 0)`, with the `tau` for which `y` sums to 1. Its Jacobian is exact: `dy` is
    `dx` less its mean on the support of `y`, and 0 elsewhere.

    Paper: Martins and Astudillo, From Softmax to Sparsemax, https://arxiv.org/abs/1602.02068

    Args:
        x: any shape, real.
        axis: the axis of the classes.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.sparsemax(jnp.array([1.0, 1.5, -2.0]))
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """
    x = floating(x)
    (axis,) = canonical_axes(axis, x.ndim, "sparsemax")
    if x.shape[axis] == 0:
        raise ValueError(
            f"sparsemax: x has shape {x.shape}, expected a class at least in axis {axis}"
        )
    z = widen(x)
    z = z - lax.stop_gradient(jnp.max(z, axis, keepdims=True))
    # With the support held fixed, y is linear in z: its derivatives are those of sparsemax.
    fixed = lax.stop_gradient(z)
    support = ~(fixed <= _threshold_of_support(fixed, axis))  # written so that NaN stays NaN
    size = jnp.sum(support, axis, keepdims=True).astype(z.dtype)
    tau = (jnp.sum(jnp.where(support, z, 0), axis, keepdims=True) - 1) / size
    return jnp.where(support, z - tau, 0).astype(x.dtype)


def _threshold_of_support(z: jax.Array, axis: int) -> jax.Array:
    """`tau` by the greatest k with `1 + k z_k > z_1 + ... + z_k`, `z` in descending order."""
    descending = jnp.sort(z, axis, descending=True)
    k = 1 + lax.broadcasted_iota(z.dtype, z.shape, axis)
    sums = jnp.cumsum(descending, axis)
    is_in = 1 + k * descending > sums
    size = jnp.sum(is_in, axis, keepdims=True)
    total = jnp.take_along_axis(sums, size - 1, axis)
    return (total - 1) / size.astype(z.dtype)


@checked
def gumbel_softmax(
    key: jax.Array,
    logits: ArrayLike,
    temperature: Scalar = 1.0,
    hard: bool = False,
    axis: int = -1,
) -> jax.Array:
    """A random class with a gradient: `y = softmax((logits + gumbel noise) / temperature)`.

    The greatest element of `y` is of class `i` with probability `softmax(logits)[i]`. With `hard`,
    `y` is one-hot there, and its gradient that of the soft `y` ("straight through").

    Papers: Jang et al., Categorical Reparameterization with Gumbel-Softmax,
    https://arxiv.org/abs/1611.01144; Maddison et al., The Concrete Distribution,
    https://arxiv.org/abs/1611.00712

    Args:
        key: a typed PRNG key.
        logits: any shape; `axis` holds the classes.
        temperature: greater than 0; the smaller, the nearer to one-hot. It may be traced.
        hard: whether `y` is one-hot; a Python bool.
        axis: the axis of the classes.

    Returns:
        The shape and floating dtype of `logits`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `temperature` is known and not greater than 0, or `axis` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> nn.gumbel_softmax(jax.random.key(0), jnp.array([0.0, 9.0, 0.0]), hard=True)
        Array([0., 1., 0.], dtype=float32)
    """
    check_key("gumbel_softmax", key)
    known = concrete(temperature)
    if known is not None and not (known > 0).all():
        raise ValueError(
            f"gumbel_softmax: temperature is {temperature}, expected a number greater than 0"
        )
    logits = floating(logits)
    (axis,) = canonical_axes(axis, logits.ndim, "gumbel_softmax", "logits")
    wide = widen(logits)
    noisy = wide + jax.random.gumbel(key, wide.shape, wide.dtype)
    y = softmax(noisy / hyperparameter(temperature, wide.dtype), axis)
    if hard:
        one_hot = jax.nn.one_hot(jnp.argmax(y, axis), y.shape[axis], dtype=y.dtype, axis=axis)
        y = one_hot + (y - lax.stop_gradient(y))
    return y.astype(logits.dtype)
