"""Vector quantisation."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import floating, promoted, refuse_complex, widen
from jaxnn._core.meshes import automatic


@checked
def nearest_code(x: ArrayLike, codes: ArrayLike) -> jax.Array:
    """The index of the code nearest to each vector: `argmin ‖x - code‖`, the first among equals.

    Args:
        x: shape `(..., features)`.
        codes: shape `(codes, features)`.

    Returns:
        Shape `(...)`, int32, from 0 to `codes - 1`.

    Raises:
        TypeError: an argument is complex.
        ValueError: `codes` does not have two axes, or `x` has another number of features.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> codes = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> nn.functional.nearest_code(jnp.array([[0.1, -0.2], [0.9, 0.7]]), codes)
        Array([0, 1], dtype=int32)
    """
    x, codes = floating(x), floating(codes)
    refuse_complex("nearest_code", "x", x)
    refuse_complex("nearest_code", "codes", codes)
    if codes.ndim != 2:
        raise ValueError(
            f"nearest_code: codes has shape {codes.shape}, expected shape (codes, features)"
        )
    if x.ndim == 0 or x.shape[-1] != codes.shape[1]:
        raise ValueError(
            f"nearest_code: x has shape {x.shape}, expected {codes.shape[1]} features in its last "
            f"axis to fit codes of shape {codes.shape}"
        )
    dtype = promoted(widen(x).dtype, widen(codes).dtype)
    x, codes = x.astype(dtype), codes.astype(dtype)
    return automatic(_nearest, x, codes, leading=x.ndim - 1)  # type: ignore[no-any-return]


def _nearest(x: jax.Array, codes: jax.Array) -> jax.Array:
    vectors = x.reshape(math.prod(x.shape[:-1]), codes.shape[1])
    # ‖x - c‖² = ‖x‖² + ‖c‖² - 2 x·c, about the mean of the codes, far from which it would cancel.
    center = jnp.mean(codes, axis=0, keepdims=True)
    vectors, codes = vectors - center, codes - center
    products = jnp.matmul(vectors, codes.T, precision=lax.Precision.HIGHEST)
    distances = jnp.sum(jnp.square(codes), axis=1)[None, :] - 2 * products
    return jnp.argmin(distances, axis=1).astype(jnp.int32).reshape(x.shape[:-1])
