"""What the losses do with their arguments: shapes that fit, one dtype, axes and masks."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arrays import (
    accumulator_dtype,
    canonical_axes,
    check_range,
    check_shape,
    hyperparameter,
    is_inexact,
    promoted,
)
from jaxnn.losses._left_out import tell_of_mask

Axis = int | Sequence[int] | None


def fitting(loss: str, **arguments: ArrayLike) -> tuple[jax.Array, ...]:
    """The arguments in one dtype, float32 or wider; shapes that differ are refused."""
    arrays = {name: jnp.asarray(value) for name, value in arguments.items()}
    if len({array.shape for array in arrays.values()}) > 1:
        (first, *others), shapes = arrays, [str(array.shape) for array in arrays.values()]
        described = [f"{first} have shape {shapes[0]}"]
        described += [f"{name} {shape}" for name, shape in zip(others, shapes[1:], strict=True)]
        raise ValueError(
            f"{loss}: {', '.join(described[:-1])} and {described[-1]}, expected equal shapes"
        )
    wide = [accumulator_dtype(a.dtype) for a in arrays.values() if is_inexact(a.dtype)]
    dtype = functools.reduce(promoted, wide) if wide else jnp.result_type(float)
    return tuple(array.astype(dtype) for array in arrays.values())


def check_ignore_index(function: str, ignore_index: int | None) -> None:
    """Raise unless `ignore_index` is None or an integer."""
    is_integer = isinstance(ignore_index, int | np.integer) and not isinstance(ignore_index, bool)
    if ignore_index is not None and not is_integer:
        raise TypeError(
            f"{function}: ignore_index is {ignore_index!r}, expected an integer label or None"
        )


def clamped(values: jax.Array, low: float, high: float | None = None) -> jax.Array:
    """Values back in their range, which rounding has left; the gradient is that of `values`."""
    return values + jax.lax.stop_gradient(jnp.clip(values, low, high) - values)


def per_class(loss: str, name: str, weights: ArrayLike, values: jax.Array) -> jax.Array:
    """Weights of the classes in the last axis of `values`, to multiply these with."""
    check_range(loss, name, weights, 0)
    check_shape(loss, name, weights, values.shape[-1:])
    weights = hyperparameter(weights, values.dtype)
    return weights.reshape((1,) * (values.ndim - 1) + weights.shape)


def masked(
    values: jax.Array, where: ArrayLike | None, loss: str, otherwise: float = 0
) -> jax.Array:
    """`values` where `where` is True, else 0 (or another number) with gradient 0."""
    if where is None:
        return values
    where = jnp.asarray(where)
    if where.shape != values.shape:
        raise ValueError(f"{loss}: where has shape {where.shape}, expected shape {values.shape}")
    tell_of_mask(loss, values.shape)
    return jnp.where(where, values, otherwise)


def broadcast_mask(
    loss: str, where: ArrayLike, shape: tuple[int, ...], new_axes: tuple[int, ...] = ()
) -> jax.Array:
    """`where`, given `new_axes` first, as booleans of the shape of the loss's first argument."""
    expanded = jnp.expand_dims(jnp.asarray(where).astype(bool), new_axes)
    try:
        return jnp.broadcast_to(expanded, shape)
    except ValueError as error:
        raise ValueError(
            f"{loss}: where has shape {np.shape(where)}, expected one that broadcasts to {shape}"
        ) from error


def all_axes(loss: str, axis: Axis, ndim: int, array: str) -> tuple[int, ...]:
    """`axis` as non-negative axes in the order they are given in; every axis for None."""
    given = tuple(range(ndim)) if axis is None else axis
    canonical_axes(given, ndim, loss, array)
    return tuple(a % ndim for a in (given if isinstance(given, Sequence) else (given,)))


@jax.custom_jvp
def at_labels(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """`scores[..., labels]`; of a class that does not exist, the score of another.

    The gradient is a comparison that is fused with what it is added to, where that of a gather is
    a matrix of its own.
    """
    labels = jnp.clip(labels, 0, scores.shape[-1] - 1)
    of_label = jnp.take_along_axis(scores, labels[..., None], -1)[..., 0]
    return jnp.where(of_label == 0, 0, of_label)  # -0.0 is 0.0, as in a sum


@at_labels.defjvp
def _(primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    scores, labels = primals
    classes = jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1)
    is_label = labels[..., None] == classes
    of_label = jnp.sum(jnp.where(is_label, tangents[0], 0), -1)
    return at_labels(scores, labels), of_label
