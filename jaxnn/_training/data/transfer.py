"""Arrays of other libraries as arrays of the device, which share no memory with them."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arrays import check_integers_fit, integers_may_not_fit
from jaxnn._core.paths import path_text
from jaxnn._core.types import PyTree

ALIGNMENT = 64  # the CPU backend takes host memory that is aligned so as its own, without a copy


def batch_to_device(where: str, batch: PyTree) -> PyTree:
    """A batch as arrays of the device, whose own arrays may be overwritten afterwards.

    Leaves are arrays of NumPy or JAX, or anything with `__array__` or `__dlpack__`, such as the
    tensors of torch. Errors begin with `where`.
    """
    to_device = functools.partial(_leaf_to_device, where)
    return jax.tree_util.tree_map_with_path(to_device, batch, is_leaf=is_iterator)


def is_iterator(leaf: Any) -> bool:
    """For `is_leaf`: JAX warns of an iterator in a pytree unless it is said to be a leaf."""
    return isinstance(leaf, Iterator)


def copy_to_device(where: str, array: np.ndarray) -> jax.Array:
    """A copy of a NumPy array; an integer that its dtype on the device cannot hold raises."""
    own = _aligned(array.shape, device_dtype(array.dtype))
    check_integers_fit(where, array, own.dtype)
    np.copyto(own, array, casting="unsafe")
    copied: jax.Array = jax.device_put(own)
    return copied


def take_to_device(where: str, array: np.ndarray, rows: np.ndarray) -> jax.Array:
    """A copy of some rows of a NumPy array; no other row is read."""
    dtype = device_dtype(array.dtype)
    if integers_may_not_fit(array.dtype, dtype):
        return copy_to_device(where, np.take(array, rows, axis=0))
    own = _aligned((len(rows), *array.shape[1:]), dtype)
    np.take(array, rows, axis=0, out=own, mode="clip")  # the mode "raise" would copy once more
    taken: jax.Array = jax.device_put(own)
    return taken


def place_of(where: str, path: tuple[Any, ...]) -> str:
    """A leaf of an argument in words: "fit: data at '1'"."""
    return f"{where} at {path_text(path)!r}" if path else where


def as_numpy(where: str, path: tuple[Any, ...], leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array of numbers, which may share its memory."""
    place = f" at {path_text(path)!r}" if path else ""
    expected = f"{place}, expected an array of numbers"
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(
            f"{where} has a masked array{expected}: its mask would be lost; give weights of 0"
        )
    if not hasattr(leaf, "__array__"):
        hint = "; lists of numbers need np.asarray" * isinstance(leaf, (int, float))
        raise TypeError(f"{where} has a {type(leaf).__name__}{expected}{hint}")
    try:
        array = np.asarray(leaf)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{where} has a {type(leaf).__name__}{expected}: {error}") from error
    if not _is_known(array.dtype):
        hint = "; np.unique(it, return_inverse=True) numbers classes" * (array.dtype.kind in "OSU")
        raise TypeError(f"{where} has the dtype {array.dtype}{expected}{hint}")
    return array


def device_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype on the device: unless x64 is enabled, float32 for float64 and so on."""
    canonical: np.dtype = jax.dtypes.canonicalize_dtype(dtype.newbyteorder("="))
    return canonical


def _leaf_to_device(where: str, path: tuple[Any, ...], leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf
    try:
        array = as_numpy(where, path, leaf)
    except TypeError:
        shared = _by_dlpack(leaf)
        if shared is None:
            raise
        return shared
    return copy_to_device(place_of(where, path), array)


def _by_dlpack(leaf: Any) -> jax.Array | None:
    """A copy of what NumPy has no dtype for, such as a bfloat16 tensor of torch."""
    if isinstance(leaf, np.ndarray) or not hasattr(leaf, "__dlpack__"):
        return None
    try:
        shared = jnp.from_dlpack(leaf)  # also where it is told to copy (jax 0.10)
        return jnp.array(shared, copy=True).block_until_ready()
    except (BufferError, RuntimeError, TypeError, ValueError):
        return None


def _is_known(dtype: np.dtype) -> bool:
    is_number = jnp.issubdtype(dtype, np.number) or dtype == np.bool_
    return bool(is_number) and dtype not in (np.longdouble, np.clongdouble)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)
