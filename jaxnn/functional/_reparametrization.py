"""Weight normalisation and spectral normalisation of kernels."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    absolute_square,
    along,
    canonical_axes,
    check_count,
    check_range,
    check_shape,
    floating,
    real_dtype,
    widen,
)
from jaxnn._core.meshes import placed_alike
from jaxnn._core.types import Axes
from jaxnn.functional._normalization import other_axes


@checked
def weight_norm(kernel: ArrayLike, scale: ArrayLike, *, axis: Axes = -1) -> jax.Array:
    """A kernel of given lengths: `w = scale * kernel / ‖kernel‖`, for each output.

    The Euclidean length is taken over all axes but `axis`. An output whose kernel is zero stays
    zero, with finite gradients.

    Paper: Salimans and Kingma, Weight Normalization, https://arxiv.org/abs/1602.07868

    Args:
        kernel: the directions, any shape.
        scale: the lengths, of the shape of `axis`.
        axis: the axis or axes of the outputs.

    Returns:
        The shape and floating dtype of `kernel`.

    Raises:
        ValueError: `axis` is out of range, or the shape of `scale` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.weight_norm(jnp.array([[3.0, 0.0], [4.0, 2.0]]), jnp.array([10.0, 1.0]))
        Array([[6., 0.],
               [8., 1.]], dtype=float32)
    """
    kernel = floating(kernel)
    outputs = canonical_axes(axis, kernel.ndim, "weight_norm", "kernel")
    shape = tuple(kernel.shape[a] for a in outputs)
    check_shape("weight_norm", "scale", scale, shape, f"kernel in axis {axis}")
    wide = widen(kernel)
    _, inverse = _length_and_inverse(wide, outputs)
    factor = jnp.asarray(scale).astype(wide.dtype) * inverse.astype(wide.dtype)
    return (wide * along(factor, outputs, kernel.ndim)).astype(kernel.dtype)


def kernel_length(kernel: jax.Array, axis: Axes) -> jax.Array:
    """The Euclidean length over all axes but `axis`."""
    length, _ = _length_and_inverse(widen(kernel), canonical_axes(axis, kernel.ndim, "weight_norm"))
    return length.astype(real_dtype(kernel.dtype))


def _length_and_inverse(kernel: jax.Array, outputs: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The length of each output's kernel and 1 over it; 0 and 1, with gradient 0, for zero."""
    square = jnp.sum(absolute_square(kernel), axis=other_axes(outputs, kernel.ndim))
    inverse = lax.rsqrt(jnp.where(square > 0, square, 1))
    return square * inverse, inverse


@checked
def spectral_norm(
    kernel: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    *,
    axis: Axes = -1,
    epsilon: float = 1e-12,
) -> jax.Array:
    """A kernel over its largest singular value: `w = kernel / σ`, `σ = uᵀ W v`.

    `W` is the kernel as a matrix `(inputs, outputs)`; `u` and `v`, made by `power_iteration`, are
    its first singular vectors. (They are the `v` and `u` of torch, whose matrix is the transpose.)
    Where they are complex, `ᵀ` conjugates.

    Paper: Miyato et al., Spectral Normalization for Generative Adversarial Networks,
    https://arxiv.org/abs/1802.05957

    Args:
        kernel: any shape.
        u: shape `(inputs,)`, the product of all axes but `axis`.
        v: shape `(outputs,)`, the product of `axis`.
        axis: the axis or axes of the outputs.
        epsilon: where `|σ|` is not larger, the kernel is taken for zero and stays as it is.

    Returns:
        The shape and floating dtype of `kernel`.

    Raises:
        ValueError: `axis` is out of range, `epsilon` is negative, or the shape of `u` or `v` does
            not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> kernel = jnp.array([[4.0, 0.0], [0.0, 2.0]])
        >>> e = jnp.array([1.0, 0.0])
        >>> nn.functional.spectral_norm(kernel, e, e)
        Array([[1. , 0. ],
               [0. , 0.5]], dtype=float32)
    """
    check_range("spectral_norm", "epsilon", epsilon, 0)
    kernel = floating(kernel)
    matrix, u, v = _matrix_and_vectors("spectral_norm", kernel, u, v, axis)
    sigma = jnp.real(jnp.vdot(u, _product(matrix, v), precision=lax.Precision.HIGHEST))
    sigma = jnp.where(jnp.abs(sigma) > epsilon, sigma, 1)
    return (widen(kernel) / sigma.astype(matrix.dtype)).astype(kernel.dtype)


@checked
def power_iteration(
    kernel: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    *,
    n_steps: int = 1,
    axis: Axes = -1,
    epsilon: float = 1e-12,
) -> tuple[jax.Array, jax.Array]:
    """Power iteration: approximate the first singular vectors of a kernel.

    In each step `v = Wᵀu / ‖Wᵀu‖` and then `u = Wv / ‖Wv‖`, `W` being the kernel as a matrix
    `(inputs, outputs)`.

    Args:
        kernel: any shape.
        u: shape `(inputs,)`, the product of all axes but `axis`.
        v: shape `(outputs,)`, the product of `axis`.
        n_steps: the number of iterations.
        axis: the axis or axes of the outputs.
        epsilon: a product that is not longer leaves the vector as it was.

    Returns:
        `(u, v)`, shapes and dtypes as given, of length 1.

    Raises:
        TypeError: `n_steps` is not an integer.
        ValueError: `n_steps` is less than 1; `axis` is out of range; `epsilon` is negative;
            the shape of `u` or `v` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> kernel = jnp.array([[3.0, 0.0], [0.0, 2.0]])
        >>> u, v = nn.functional.power_iteration(kernel, jnp.ones(2), jnp.ones(2), n_steps=20)
        >>> u.round(3), v.round(3)
        (Array([1., 0.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    n_steps = check_count("power_iteration", "n_steps", n_steps)
    check_range("power_iteration", "epsilon", epsilon, 0)
    matrix, *start = _matrix_and_vectors("power_iteration", floating(kernel), u, v, axis)

    def step(_: int, vectors: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u, v = vectors
        v = _unit(_product(jnp.conj(matrix.T), u), v, epsilon)
        return _unit(_product(matrix, v), u, epsilon), v

    _, *start = placed_alike(matrix, *start)
    new_u, new_v = lax.fori_loop(0, n_steps, step, tuple(start))
    return new_u.astype(jnp.result_type(u)), new_v.astype(jnp.result_type(v))


def _matrix_and_vectors(
    function: str, kernel: jax.Array, u: ArrayLike, v: ArrayLike, axis: Axes
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The kernel as a matrix `(inputs, outputs)`, and the vectors, checked, in its dtype."""
    outputs = canonical_axes(axis, kernel.ndim, function, "kernel")
    inputs = other_axes(outputs, kernel.ndim)
    rows, columns = (math.prod(kernel.shape[a] for a in axes) for axes in (inputs, outputs))
    of = f"kernel, (inputs, outputs), with outputs in axis {axis}"
    check_shape(function, "u", u, (rows,), of)
    check_shape(function, "v", v, (columns,), of)
    matrix = widen(kernel).transpose(*inputs, *outputs).reshape(rows, columns)
    return matrix, jnp.asarray(u).astype(matrix.dtype), jnp.asarray(v).astype(matrix.dtype)


def _product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def _unit(product: jax.Array, old: jax.Array, epsilon: float) -> jax.Array:
    """`product` at length 1; `old`, where its length is no more than `epsilon`."""
    square = jnp.sum(absolute_square(product))
    known = square > epsilon**2
    inverse = lax.rsqrt(jnp.where(known, square, 1)).astype(product.dtype)
    return jnp.where(known, product * inverse, old)
