"""Ragged data as arrays of a few sizes."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxnn._core.arguments import checked, is_integer, value_text
from jaxnn._core.paths import same_structure
from jaxnn._core.types import PyTree
from jaxnn._training.data.transfer import as_numpy, place_of

Ladder: TypeAlias = int | list[int] | None


@checked
def pad_to(batch: PyTree, sizes: PyTree) -> tuple[PyTree, PyTree]:
    """Pad ragged data to few sizes, so that a jitted function is traced once for each of them.

    A list is a batch of examples: of arrays (texts), or of tuples or dicts of arrays. They are
    padded along their axis 0 and stacked. An array that is in no list, as in one graph, is padded
    along its axis 0. The padding is zeros, at the end.

    All that is padded goes the same number of steps up its ladder of sizes, as many as the one
    that is furthest from fitting needs. So there are as many shapes as sizes, even where nodes and
    edges have ladders of their own.

    Args:
        batch: arrays, lists of examples, or tuples and dicts of these; numbers, arrays without
            axes and lists of numbers are examples too. NumPy pads them, on the host.
        sizes: an integer, the first size, which is doubled for the next one, and so on; a list of
            all sizes, in ascending order; or None for what is not padded. A tuple or dict of these
            gives the parts of `batch` (of its examples, where it is a list) sizes of their own.

    Returns:
        `(padded, mask)`, of one structure, as NumPy arrays. A mask is true where there are data,
        and has the axes of the examples and of the padding alone: `(batch, size)`, or `(size,)`
        without a list. Give it to layers as `mask` or `where`, to losses as weights.

    Raises:
        TypeError: a leaf is no array of numbers; a size is no integer.
        ValueError: nothing fits; sizes do not ascend; examples differ in structure, in dtype or in
            an axis that is not padded; a list is empty.

    Example:
        >>> import jax, numpy as np, jaxnn as nn
        >>> tokens, mask = nn.pad_to([[5, 3, 2, 7, 1], [8, 4]], sizes=4)
        >>> tokens
        array([[5, 3, 2, 7, 1, 0, 0, 0],
               [8, 4, 0, 0, 0, 0, 0, 0]])
        >>> mask.sum(axis=1)
        array([5, 2])
        >>> graph = {"nodes": np.ones((5, 2)), "edges": np.ones((7, 3))}
        >>> graph, mask = nn.pad_to(graph, {"nodes": 4, "edges": 6})
        >>> jax.tree.map(np.shape, graph)
        {'edges': (12, 3), 'nodes': (8, 2)}
    """

    def gather(path: tuple[Any, ...], node: Any) -> PyTree:
        if _is_list(node):
            return gathered("pad_to: batch", node, path)
        return Ragged([_array("pad_to: batch", path, node)], False)

    ragged = jax.tree_util.tree_map_with_path(gather, batch, is_leaf=_is_list)
    leaves, structure = jax.tree_util.tree_flatten_with_path(ragged)
    if not any(leaf.has_axes or leaf.is_list for _, leaf in leaves):
        raise ValueError(f"pad_to: batch is {batch!r}, expected arrays, or lists of examples")
    ladders = _ladders(sizes, ragged)
    places = [place_of("pad_to: batch", path) for path, _ in leaves]
    parts = list(zip(places, [leaf for _, leaf in leaves], ladders, strict=True))
    step = max(
        0 if ladder is None or not leaf.has_axes else steps_up(place, leaf.length, ladder)
        for place, leaf, ladder in parts
    )
    padded, masks = zip(*(_padded(*part, step) for part in parts), strict=True)
    return jax.tree.unflatten(structure, padded), jax.tree.unflatten(structure, masks)


@dataclass(frozen=True)
class Ragged:
    """An array, or those of a list that are to be stacked."""

    arrays: list[np.ndarray]
    is_list: bool

    @property
    def has_axes(self) -> bool:
        return self.arrays[0].ndim > 0

    @property
    def length(self) -> int:
        return max(len(array) for array in self.arrays)


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


def gathered(what: str, examples: list[Any], path: tuple[Any, ...] = ()) -> PyTree:
    """The arrays of all examples, in a tree with the structure of one."""
    where = place_of(what, path)
    if not examples:
        raise ValueError(f"{where} is an empty list, expected at least one example")
    trees = [
        jax.tree_util.tree_map_with_path(
            lambda inner, leaf: _array(what, (*path, *inner), leaf), example, is_leaf=_is_list
        )
        for example in examples
    ]
    for number, tree in enumerate(trees):
        same_structure(where, **{"example 0": trees[0], f"example {number}": tree})
    return jax.tree.map(lambda *arrays: Ragged(list(arrays), True), *trees)


def _array(what: str, path: tuple[Any, ...], leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.core.Tracer):
        where = place_of(what, path)
        raise TypeError(f"{where} is traced, expected an array of numbers, outside of jit")
    is_plain = isinstance(leaf, (bool, int, float, complex, list))
    return as_numpy(what, path, np.asarray(leaf) if is_plain else leaf)


def _ladders(sizes: PyTree, ragged: PyTree) -> list[Ladder]:
    """The sizes for each leaf."""

    def is_ladder(node: Any) -> bool:
        return node is None or _is_list(node)

    for path, ladder in jax.tree_util.tree_leaves_with_path(sizes, is_leaf=is_ladder):
        if ladder is not None:
            check_ladder(place_of("pad_to: sizes", path), ladder)
    try:
        spread = jax.tree.broadcast(sizes, ragged, is_leaf=is_ladder)
    except ValueError as error:
        raise ValueError(
            f"pad_to: sizes is {sizes!r}, expected an integer, a list of integers, or a tuple or "
            "dict of these with the structure of batch"
        ) from error
    ladders = jax.tree.leaves(spread, is_leaf=is_ladder)
    numbers = {len(ladder) for ladder in ladders if _is_list(ladder)}
    if len(numbers) > 1:
        raise ValueError(
            f"pad_to: sizes has lists of {sorted(numbers)} sizes, expected as many in each"
        )
    return ladders


def check_ladder(where: str, ladder: Any) -> None:
    """Raise unless sizes are an integer or a list of ascending ones."""
    if is_integer(ladder) and ladder > 0:
        return
    are_sizes = _is_list(ladder) and ladder and all(is_integer(n) and n > 0 for n in ladder)
    if not are_sizes or ladder != sorted(set(ladder)):
        kind = ValueError if are_sizes or is_integer(ladder) or _is_list(ladder) else TypeError
        raise kind(
            f"{where} is {value_text(ladder)}, expected a positive integer, or a list of "
            "ascending ones"
        )


def steps_up(where: str, length: int, ladder: int | list[int]) -> int:
    """How far up a ladder of sizes the first is that has room."""
    if isinstance(ladder, int):
        return (max(-(-length // ladder), 1) - 1).bit_length()
    step = bisect_left(ladder, length)
    if step == len(ladder):
        raise ValueError(
            f"{where} has the length {length}, expected at most {ladder[-1]}, the last of its sizes"
        )
    return step


def size_at(step: int, ladder: int | list[int]) -> int:
    """The size there."""
    return ladder * 2**step if isinstance(ladder, int) else ladder[step]


def _padded(where: str, leaf: Ragged, ladder: Ladder, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a leaf as one, and where it has data."""
    first = leaf.arrays[0]
    check_alike(where, leaf, ragged=ladder is not None and leaf.has_axes)
    if ladder is not None and leaf.has_axes:
        padded = np.zeros((len(leaf.arrays), size_at(step, ladder), *first.shape[1:]), first.dtype)
        mask = np.zeros(padded.shape[:2], bool)
        for row, array in enumerate(leaf.arrays):
            padded[row, : len(array)] = array
            mask[row, : len(array)] = True
    else:
        padded = np.stack(leaf.arrays)
        mask = np.ones(len(leaf.arrays), bool)
    return (padded, mask) if leaf.is_list else (padded[0], mask[0])


def check_alike(where: str, leaf: Ragged, ragged: bool) -> None:
    """Raise for arrays that differ in dtype, or in shape, that of a ragged axis 0 apart."""
    first = leaf.arrays[0]
    for array in leaf.arrays:
        for what in ("dtype", "ndim", "shape"):
            ours, expected = getattr(array, what), getattr(first, what)
            if what == "shape" and ragged:
                ours, expected = ours[1:], expected[1:]
            if ours != expected:
                raise ValueError(
                    f"{where} has examples of {what} {expected} and {ours}, expected one"
                    + (" apart from axis 0" if what == "shape" and ragged else "")
                )
