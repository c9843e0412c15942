"""Batches of data that stay in files: read row by row, in the order of a run in memory."""

from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.types import PyTree
from jaxnn._training.data.shuffle import epoch_seeds, shuffled_indices
from jaxnn._training.data.transfer import copy_to_device, place_of, take_to_device

MOST_SHUFFLED = 2**32  # examples that `shuffled_indices` can tell apart


def memmap_batches(
    where: str,
    data: PyTree,
    n: int,
    size: int,
    key: jax.Array | None,
    own_rows: Callable[[int], np.ndarray] | None,
    epoch: int,
    skip: int,
) -> Generator[PyTree, None, None]:
    """The batches of an epoch, after the first `skip`, which are not read.

    Args:
        where: what errors begin with.
        data: a pytree of NumPy arrays with `n` examples along axis 0, in memory or mapped.
        n: the number of examples.
        size: how many are in a batch; in the last, what is left.
        key: what fixes the order of the examples, with `epoch`; None for the order they are in.
        own_rows: which rows of a batch of so many examples to read; None for all.
        epoch: the number of the epoch.
        skip: how many batches to leave out.

    Returns:
        A generator of pytrees of arrays of the device.
    """
    seeds = None if key is None or size == n else _seeds(key, epoch)
    for first in range(skip * size, n, size):
        own = None if own_rows is None else own_rows(min(size, n - first))
        yield _batch(where, data, n, first, min(first + size, n), seeds, own)


def _batch(
    where: str,
    data: PyTree,
    n: int,
    first: int,
    last: int,
    seeds: np.ndarray | None,
    own: np.ndarray | None,
) -> PyTree:
    if seeds is None and own is None:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: copy_to_device(place_of(where, path), leaf[first:last]), data
        )
    rows = np.arange(first, last) if seeds is None else _rows(seeds, n, first, last)
    rows = rows if own is None else rows[own]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: take_to_device(place_of(where, path), leaf, rows), data
    )


def _seeds(key: jax.Array, epoch: int) -> np.ndarray:
    with _on_cpu():
        return np.asarray(epoch_seeds(key, jnp.asarray(epoch)))


def _rows(seeds: np.ndarray, n: int, first: int, last: int) -> np.ndarray:
    with _on_cpu():
        return np.asarray(_indices(seeds, n, np.arange(first, last, dtype=np.uint32)))


def _on_cpu() -> Any:
    """An accelerator would compute an order only after the steps that it was given before."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


_indices = jax.jit(shuffled_indices, static_argnums=1)
