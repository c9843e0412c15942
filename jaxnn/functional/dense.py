"""Affine maps and shapes."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import check_shape, compute_dtype


def linear(x: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None) -> jax.Array:
    """An affine map of the last axis: `y = x @ kernel + bias`.

    Args:
        x: shape `(..., in)`, any rank from 1.
        kernel: shape `(in, out)`.
        bias: shape `(out,)`, or None for none.

    Returns:
        Shape `(..., out)` in the dtype of `x`, to which kernel and bias are cast (an integer `x`
        is cast to theirs).

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.linear(jnp.ones(2), jnp.array([[1.0], [2.0]]), jnp.array([10.0]))
        Array([13.], dtype=float32)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if kernel.ndim != 2:
        raise ValueError(f"linear: kernel has shape {kernel.shape}, expected shape (in, out)")
    if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"linear: x has shape {x.shape}, expected {kernel.shape[0]} features in its last axis "
            f"to fit a kernel of shape {kernel.shape}"
        )
    dtype = compute_dtype(x, kernel)
    # One flat matrix product: batched ones are 1.6 to 1.9 times slower on CPU.
    rows = math.prod(x.shape[:-1])
    y = x.astype(dtype).reshape(rows, kernel.shape[0]) @ kernel.astype(dtype)
    if bias is not None:
        check_shape("linear", "bias", bias, kernel.shape[1:])
        y = y + jnp.asarray(bias).astype(dtype)[None, :]
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def flatten(x: ArrayLike) -> jax.Array:
    """All axes after the first as one: `(batch, ...) -> (batch, features)`.

    Args:
        x: shape `(batch, ...)`, any dtype.

    Returns:
        Shape `(batch, features)`, `features` being the product of the other axes (1 for none).

    Raises:
        ValueError: `x` has no batch axis.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.flatten(jnp.zeros((8, 28, 28, 1))).shape
        (8, 784)
    """
    x = jnp.asarray(x)
    if x.ndim == 0:
        raise ValueError("flatten: x is a scalar, expected shape (batch, ...)")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
