"""Data sets in memory: checks on the host, batches on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._core.arrays import check_count
from jaxnn._core.layer import abstract
from jaxnn._core.paths import path_text
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import PyTree
from jaxnn._training.data.shuffle import shuffled_indices
from jaxnn._training.data.transfer import as_numpy, copy_to_device, place_of

MOST_EXAMPLES = 2**31 - 1


def on_device(
    function: str,
    name: str,
    data: Any,
    supervised: bool = True,
    sharding: Sharding | None = None,
) -> tuple[PyTree, int]:
    """A data set as arrays of the device, or of many, and the number of its examples.

    NumPy arrays are copied, never aliased.
    """
    check_set(function, name, data, supervised)
    data = tuple(data) if isinstance(data, list) else data
    arrays = arrays_on_device(f"{function}: {name}", data)
    n = count_examples(function, name, arrays)
    check_size(function, name, n)
    if supervised:
        check_weights(f"{function}: {name}", arrays)
    return arrays if sharding is None else sharding.put_data(arrays), n


def check_set(function: str, name: str, data: Any, supervised: bool) -> None:
    """Raise unless `data` has the form `(x, y)` or `(x, y, weights)`, if it is to have it."""
    if supervised and not (isinstance(data, (tuple, list)) and len(data) in (2, 3)):
        shape = getattr(data, "shape", None)
        kind = type(data).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(f"{function}: {name} is {kind}, expected (x, y) or (x, y, weights)")


def arrays_on_device(where: str, tree: PyTree) -> PyTree:
    """A pytree of arrays that share no memory with NumPy arrays; errors begin with `where`."""

    def one(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf
        if isinstance(leaf, (str, bytes)):
            raise TypeError(f"{place_of(where, path)} is {leaf!r}, expected an array of numbers")
        array = as_numpy(where, path, leaf if hasattr(leaf, "__array__") else np.asarray(leaf))
        return copy_to_device(place_of(where, path), array)

    return jax.tree_util.tree_map_with_path(one, tree)


def check_weights(where: str, batch: Any) -> None:
    """Raise if `batch` is `(x, y, weights)` and a weight is negative, complex or not finite."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 3):
        return
    weights = batch[2]
    if not hasattr(weights, "dtype"):
        return
    if jnp.iscomplexobj(weights):
        raise TypeError(f"{where} has weights of dtype {weights.dtype}, expected real ones")
    if isinstance(weights, jax.core.Tracer):
        return
    if weights.dtype == bool:
        return
    is_sound = (weights >= 0) & jnp.isfinite(weights)
    if not bool(is_sound.all()):
        place = tuple(int(i) for i in np.argwhere(~np.asarray(is_sound))[0])
        raise ValueError(
            f"{where} has the weight {weights[place]} at {place}, expected finite weights of at "
            "least 0"
        )


def count_examples(function: str, name: str, tree: PyTree) -> int:
    """The length of axis 0, the same for each leaf."""
    lengths: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.ndim(leaf) == 0:
            raise ValueError(
                f"{function}: {name} has a scalar at {path_text(path)!r}, expected arrays with the "
                "examples along axis 0; lists of numbers need np.asarray"
            )
        lengths[path_text(path)] = leaf.shape[0]
    if len(set(lengths.values())) != 1:
        described = ", ".join(f"{path}: {length}" for path, length in lengths.items())
        raise ValueError(
            f"{function}: {name} has arrays of different lengths ({described}), expected as many "
            "examples in each"
        )
    (n,) = set(lengths.values())
    if n == 0:
        raise ValueError(f"{function}: {name} has no examples, expected at least one")
    return n


def batch_length(batch: PyTree) -> int:
    """The number of examples in a batch, in which some leaves may be without axes."""
    return len(next(leaf for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf)))


def check_size(function: str, name: str, n: int) -> None:
    """Raise if data in memory have more examples than 32 bits count."""
    if n > MOST_EXAMPLES:
        raise ValueError(
            f"{function}: {name} has {n} examples, expected at most {MOST_EXAMPLES} in memory; "
            "give an np.memmap or batches from an iterable"
        )


def check_steps(function: str, epochs: int, steps: int | None) -> None:
    """Raise if a run has more steps than its count of 32 bits holds."""
    if epochs * (steps or 1) > MOST_EXAMPLES:
        raise ValueError(
            f"{function}: epochs is {epochs} of {steps or 'unknown'} steps each, expected at most "
            f"{MOST_EXAMPLES} steps in all"
        )


def effective_batch_size(function: str, batch_size: int | None, n: int) -> int:
    """The number of examples in a full batch: all of them if `batch_size` is None or larger."""
    return n if batch_size is None else min(check_count(function, "batch_size", batch_size), n)


def example_of(data: PyTree) -> PyTree:
    """The shapes and dtypes of one example, as a batch of size 1."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = abstract(leaf)
        return jax.ShapeDtypeStruct((1, *spec.shape[1:]), spec.dtype)

    return jax.tree.map(one, data)


def take_batch(
    data: PyTree, n: int, start: Any, size: int, seeds: jax.Array | None = None
) -> PyTree:
    """`size` examples from position `start` on, in the order that `seeds` fix, if any."""
    if size == n:
        return data
    if seeds is None:
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size), data)
    indices = shuffled_indices(seeds, n, start + jnp.arange(size, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="promise_in_bounds"), data)
