"""Parts of a data set: to train on, and to hold out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked, is_integer, value_text
from jaxnn._core.arrays import check_key, check_shape
from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import count_examples
from jaxnn._training.data.sources import makes_batches
from jaxnn._training.data.transfer import as_numpy


@checked
def split(
    data: PyTree,
    size: float,
    key: jax.Array | None,
    *,
    stratify: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> tuple[PyTree, PyTree]:
    """Split data in two at random: what to train on, and what is held out.

    Both parts keep the order of the data. NumPy arrays are split on the host, those of JAX on
    their device, also under `jit`.

    Args:
        data: a pytree of arrays with the examples along axis 0, such as `(x, y)`, or a list of
            batches, which stay whole.
        size: what is held out: a fraction of the examples between 0 and 1, rounded to the nearest
            number of them, or that number, an integer.
        key: a typed PRNG key; None to hold out the last examples, as of a time series. Mapped
            files (`np.memmap`) are split so alone, and stay mapped.
        stratify: labels, shape `(n,)`: the held-out part has `size` of each class, rounded up or
            down, and as many examples in all as without.
        groups: numbers of groups (patients, say), shape `(n,)`: a group is held out as a whole or
            not at all. Of the groups in a random order, as many are held out as come nearest to
            `size` examples.

    Returns:
        `(training, held_out)`, each with the structure of `data`.

    Raises:
        TypeError: `data` have something that is no array; they make batches of which the number
            is not known; `groups` are traced.
        ValueError: a part would be empty; lengths differ; `stratify` or `groups` come with
            another, or without a key; mapped files come with a key.

    Example:
        >>> import jax, numpy as np, jaxnn as nn
        >>> x, y = np.arange(10), np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
        >>> training, validation = nn.split((x, y), 0.5, jax.random.key(0), stratify=y)
        >>> training[1], validation[1]
        (array([0, 0, 0, 0, 1]), array([0, 0, 0, 0, 1]))
        >>> nn.split(x, 3, key=None)
        (array([0, 1, 2, 3, 4, 5, 6]), array([7, 8, 9]))
    """
    data, n = _arrays("split", data)
    held_out = _number_held_out(size, n)
    if stratify is not None and groups is not None:
        raise ValueError("split: both stratify and groups are given, expected at most one of them")
    by = stratify if groups is None else groups
    if by is not None:
        check_shape("split", "stratify" if groups is None else "groups", by, (n,))
    if key is None:
        if by is not None:
            raise ValueError("split: key is None, expected a key with stratify or groups")
        return _rows(data, slice(n - held_out)), _rows(data, slice(n - held_out, n))
    check_key("split", key)
    if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(data)):
        raise ValueError(
            "split: data has an np.memmap, expected key=None, which holds out its last examples "
            "unread; np.array(it) reads the file into memory"
        )
    is_held_out: Any
    if groups is not None:
        is_held_out = _of_groups(key, groups, held_out)
    else:
        is_held_out = _drawn(key, stratify, n, held_out)
    if isinstance(is_held_out, jax.core.Tracer):
        return (
            _rows(data, jnp.flatnonzero(~is_held_out, size=n - held_out)),
            _rows(data, jnp.flatnonzero(is_held_out, size=held_out)),
        )
    is_held_out = np.asarray(is_held_out)
    return _rows(data, np.flatnonzero(~is_held_out)), _rows(data, np.flatnonzero(is_held_out))


def stratified_order(key: jax.Array, labels: ArrayLike | None, n: int) -> jax.Array:
    """The examples class by class, at random in each; without labels, all at random."""
    order = jax.random.permutation(key, n)
    if labels is None:
        return order
    return order[jnp.argsort(jnp.asarray(labels)[order], stable=True)]


def _drawn(key: jax.Array, labels: ArrayLike | None, n: int, held_out: int) -> jax.Array:
    """Whether each example is held out: of the classes in a row, every `n / held_out`-th.

    So a class has its share, rounded up or down. Where to begin is random, for otherwise some
    classes of few examples would never be held out.
    """
    whole, rest = np.divmod(np.arange(n + 1) * held_out, n)
    is_held_out: jax.Array = _evenly(key, labels, whole.astype(np.int32), rest.astype(np.int32))
    return is_held_out


@jax.jit
def _evenly(key: jax.Array, labels: ArrayLike | None, whole: Any, rest: Any) -> jax.Array:
    n = len(rest) - 1
    order_key, offset_key = jax.random.split(key)
    offset = jax.random.randint(offset_key, (), 0, n, np.int32)
    held_out_before = whole + (rest + offset) // n
    is_held_out = held_out_before[1:] > held_out_before[:-1]
    order = stratified_order(order_key, labels, n)
    return jnp.zeros(n, bool).at[order].set(is_held_out)


def _of_groups(key: jax.Array, groups: ArrayLike, held_out: int) -> np.ndarray:
    """Whether each example is held out, where groups stay whole."""
    if isinstance(groups, jax.core.Tracer):
        raise TypeError("split: groups are traced, expected numbers: split outside of jit")
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError("split: groups has 1 group, expected at least 2")
    order = np.asarray(jax.random.permutation(key, len(names)))
    sizes = np.cumsum(np.bincount(group_of)[order])[:-1]  # of the first group, the first two ...
    return np.isin(group_of, order[: 1 + np.argmin(np.abs(sizes - held_out))])


def _number_held_out(size: float, n: int) -> int:
    held_out = int(size) if is_integer(size) else round(float(size) * n)
    if not 0 < held_out < n or not (is_integer(size) or 0 < size < 1):
        raise ValueError(
            f"split: size is {value_text(size)}, expected a fraction of {n} examples or a number "
            "of them that leaves some in either part"
        )
    return held_out


def _arrays(function: str, data: PyTree) -> tuple[PyTree, int]:
    """The data with arrays of NumPy and JAX for leaves, and their length; a list of batches."""
    if not makes_batches(data):

        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            is_known = isinstance(leaf, (jax.Array, np.memmap))
            return leaf if is_known else as_numpy(f"{function}: data", path, leaf)

        arrays = jax.tree_util.tree_map_with_path(one, data)
        return arrays, count_examples(function, "data", arrays)
    if not isinstance(data, list):
        raise TypeError(
            f"{function}: data is {value_text(data)}, expected arrays or a list of batches"
        )
    return data, len(data)


def _rows(data: PyTree, rows: Any) -> PyTree:
    if makes_batches(data):
        return [data[row] for row in np.arange(len(data))[rows]]
    is_traced = isinstance(rows, jax.core.Tracer)
    return jax.tree.map(lambda leaf: (jnp.asarray(leaf) if is_traced else leaf)[rows], data)
