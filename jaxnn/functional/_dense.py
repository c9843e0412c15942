"""Affine maps and shapes."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import canonical_axes, check_shape, compute_dtype, refuse_complex, spread
from jaxnn._core.meshes import automatic, is_explicit
from jaxnn._core.types import Axes
from jaxnn.functional._pooling import global_max_pool


@checked
def linear(x: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None) -> jax.Array:
    """An affine map of the last axis: `y = x @ kernel + bias`.

    Args:
        x: shape `(..., in)`, any rank from 1.
        kernel: shape `(in, out)`.
        bias: shape `(out,)`, or None.

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
    batch = x.shape[:-1]
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    # One flat matrix product: batched ones are 1.6 to 1.9 times slower on CPU.
    is_flat = not is_explicit(x)  # there, axes that are split cannot become one
    y = (x.reshape(math.prod(batch), kernel.shape[0]) if is_flat else x) @ kernel
    if bias is not None:
        check_shape("linear", "bias", bias, kernel.shape[1:])
        y = y + spread(jnp.asarray(bias).astype(dtype), (y.ndim - 1,), y.shape)
    return y.reshape(*batch, kernel.shape[1]) if is_flat else y


@checked
def linear_general(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    axis: Axes = -1,
) -> jax.Array:
    """An affine map of several axes to several: `y = sum_axis x * kernel + bias`.

    Args:
        x: any shape; `axis` holds the inputs.
        kernel: shape `(*in, *out)`, `in` being the sizes of `axis` in the order of `x`'s axes.
        bias: shape `out`, or None.
        axis: the axis or axes of `x` to map.

    Returns:
        Shape `(*rest, *out)`, `rest` being the other axes of `x`, in the dtype of `x`, to which
        kernel and bias are cast (an integer `x` is cast to theirs).

    Raises:
        ValueError: `axis` is out of range, or the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> heads, kernel = jnp.ones((7, 2, 4)), jnp.ones((2, 4, 3))
        >>> nn.functional.linear_general(heads, kernel, axis=(-2, -1)).shape
        (7, 3)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    axes = canonical_axes(axis, x.ndim, "linear_general")
    sizes, out = tuple(x.shape[a] for a in axes), kernel.shape[len(axes) :]
    if kernel.shape[: len(axes)] != sizes:
        raise ValueError(
            f"linear_general: kernel has shape {kernel.shape}, expected {sizes} first, the sizes "
            f"of axis {axis} of x with shape {x.shape}"
        )
    if bias is not None:
        check_shape("linear_general", "bias", bias, out, f"kernel without axis {axis} of x")
        bias = jnp.asarray(bias).reshape(math.prod(out))
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    rest = x.shape[: x.ndim - len(axes)]
    rows = x.reshape(*rest, math.prod(sizes))
    y = linear(rows, kernel.reshape(math.prod(sizes), math.prod(out)), bias)
    return y.reshape(*rest, *out)


@checked
def maxout(x: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None) -> jax.Array:
    """The greatest of several affine maps: `y = max_k(x @ kernel[:, k] + bias[k])`.

    Among equal maxima, the gradient goes to the first.

    Paper: Goodfellow et al., Maxout Networks, https://arxiv.org/abs/1302.4389

    Args:
        x: shape `(..., in)`.
        kernel: shape `(in, num_pieces, features)`.
        bias: shape `(num_pieces, features)`, or None.

    Returns:
        Shape `(..., features)` in the dtype of `x`, to which kernel and bias are cast (an integer
        `x` is cast to theirs).

    Raises:
        TypeError: `x` or `kernel` is complex.
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> kernel = jnp.array([[[1.0], [-1.0]]])  # |x| is the greater one of x and -x
        >>> nn.functional.maxout(jnp.array([[-3.0], [2.0]]), kernel).ravel()
        Array([3., 2.], dtype=float32)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    refuse_complex("maxout", "x", x)
    refuse_complex("maxout", "kernel", kernel)
    if kernel.ndim != 3:
        raise ValueError(
            f"maxout: kernel has shape {kernel.shape}, expected shape (in, num_pieces, features)"
        )
    return global_max_pool(linear_general(x, kernel, bias), axis=-2)


@checked
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


@checked
def reshape(x: ArrayLike, shape: Sequence[int]) -> jax.Array:
    """Other axes after the first: `(batch, ...) -> (batch, *shape)`.

    Args:
        x: shape `(batch, ...)`, any dtype.
        shape: the new axes after the first; one may be -1, which stands for what is left.

    Returns:
        Shape `(batch, *shape)`.

    Raises:
        ValueError: `x` has no batch axis, or its examples have another number of elements.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.reshape(jnp.zeros((8, 784)), (28, -1, 1)).shape
        (8, 28, 28, 1)
    """
    x, shape = jnp.asarray(x), tuple(shape)
    if x.ndim == 0:
        raise ValueError("reshape: x is a scalar, expected shape (batch, ...)")
    size, known = math.prod(x.shape[1:]), math.prod(n for n in shape if n != -1)
    left = size // known if known else 0
    new = tuple(left if n == -1 else n for n in shape)
    if shape.count(-1) > 1 or min(new, default=0) < 0 or math.prod(new) != size:
        raise ValueError(
            f"reshape: x has shape {x.shape} and shape is {shape}, expected {size} elements after "
            "the first axis, and -1 at most once"
        )
    return automatic(lambda x: x.reshape(x.shape[0], *new), x, leading=1)  # type: ignore[no-any-return]
