"""Sequences of many lengths: packed into rows of one, or in batches of similar ones."""

from bisect import bisect_left, insort
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked, value_text
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.types import PyTree
from jaxnn._training.data.padding import check_alike, check_ladder, gathered, size_at, steps_up
from jaxnn._training.data.transfer import place_of


class Packed(NamedTuple):
    """What `pack` returns: NumPy arrays with an axis of rows and one of their elements."""

    data: PyTree
    segment_ids: np.ndarray
    positions: np.ndarray


@checked
def pack(sequences: list[Any], length: int) -> Packed:
    """Pack sequences of different lengths into rows of one length, several in a row.

    The longest are placed first, each in the fullest row that has room for it (best-fit
    decreasing), so that little is left to be padding. Sequences that are longer than a row are cut
    into pieces, each a sequence of its own. A row has its sequences in the order of the list, and
    rows are in the order of their first sequences.

    A model keeps them apart by `nn.functional.segment_mask(segment_ids)`, the mask of attention;
    `positions` are for `nn.learned_positions` and `nn.sinusoidal_positions`, `segment_ids > 0` for
    the weights of the loss.

    Paper: Krell et al., Efficient Sequence Packing without Cross-contamination,
    https://arxiv.org/abs/2107.02027

    Args:
        sequences: arrays or lists of numbers, of any length, or tuples or dicts of arrays of equal
            lengths, such as the inputs and the targets of a language model.
        length: the length of a row.

    Returns:
        `Packed(data, segment_ids, positions)`: the sequences with their structure, as arrays of
        shape `(rows, length, ...)`; integers of shape `(rows, length)` that say to which sequence
        of the row an element belongs, from 1, and how far from its beginning it is. Padding, at the
        end of a row, is 0 in all three.

    Raises:
        TypeError: a sequence is no array of numbers.
        ValueError: there are no elements; sequences differ in structure, dtype or in an axis after
            the first; the arrays of one have different lengths.

    Example:
        >>> import jaxnn as nn
        >>> packed = nn.pack([[5, 3, 2], [8, 4], [9, 9, 9, 9], [1]], length=5)
        >>> packed.data
        array([[5, 3, 2, 8, 4],
               [9, 9, 9, 9, 1]])
        >>> packed.segment_ids
        array([[1, 1, 1, 2, 2],
               [1, 1, 1, 1, 2]], dtype=int32)
        >>> packed.positions
        array([[0, 1, 2, 0, 1],
               [0, 1, 2, 3, 0]], dtype=int32)
    """
    if not isinstance(sequences, list):
        raise TypeError(f"pack: sequences is {value_text(sequences)}, expected a list of arrays")
    check_count("pack", "length", length)
    ragged = gathered("pack: sequences", sequences)
    sizes = _lengths(ragged)
    pieces = [
        (sequence, start, min(length, size - start))
        for sequence, size in enumerate(sizes)
        for start in range(0, size, length)
    ]
    if not pieces:
        raise ValueError("pack: sequences are all empty, expected one element at least")
    rows = _rows([size for _, _, size in pieces], length)
    ids, positions = (np.zeros((max(rows) + 1, length), np.int32) for _ in range(2))
    leaves, structure = jax.tree.flatten(ragged)
    firsts = [leaf.arrays[0] for leaf in leaves]
    data = [np.zeros((*ids.shape, *first.shape[1:]), first.dtype) for first in firsts]
    filled, number = (np.zeros(len(ids), int) for _ in range(2))
    for row, (sequence, start, size) in zip(rows, pieces, strict=True):
        number[row] += 1
        place = row, slice(filled[row], filled[row] + size)
        ids[place], positions[place] = number[row], np.arange(size)
        for array, leaf in zip(data, leaves, strict=True):
            array[place] = leaf.arrays[sequence][start : start + size]
        filled[row] += size
    return Packed(jax.tree.unflatten(structure, data), ids, positions)


def _lengths(ragged: PyTree) -> list[int]:
    """The length of each sequence, that of all its arrays."""
    of_leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(ragged):
        where = place_of("pack: sequences", path)
        check_alike(where, leaf, ragged=True)
        if not leaf.has_axes:
            raise ValueError(f"{where} has numbers, expected arrays with an axis of elements")
        of_leaves.append([len(array) for array in leaf.arrays])
    for sequence, lengths in enumerate(zip(*of_leaves, strict=True)):
        if len(set(lengths)) > 1:
            raise ValueError(
                f"pack: sequences[{sequence}] has arrays of the lengths {list(lengths)}, expected "
                "one length"
            )
    return of_leaves[0]


def _rows(sizes: list[int], length: int) -> list[int]:
    """The row of each piece, by best-fit decreasing."""
    rows_with: dict[int, list[int]] = {}  # by how much room they have
    rooms: list[int] = []  # its keys, ascending
    chosen, count = [0] * len(sizes), 0
    for piece in sorted(range(len(sizes)), key=lambda piece: -sizes[piece]):
        place = bisect_left(rooms, sizes[piece])
        if place == len(rooms):
            row, room, count = count, length, count + 1
        else:
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room], rooms[place]
        chosen[piece] = row
        left = room - sizes[piece]
        if left and left not in rows_with:
            insort(rooms, left)
        if left:
            rows_with.setdefault(left, []).append(row)
    in_order = {row: number for number, row in enumerate(dict.fromkeys(chosen))}
    return [in_order[row] for row in chosen]


@checked
def bucket_by_length(
    lengths: ArrayLike,
    sizes: int | list[int],
    *,
    batch_size: int | None = None,
    max_elements: int | None = None,
    key: jax.Array | None = None,
    drop_remainder: bool = False,
) -> list[np.ndarray]:
    """Batches of examples of similar lengths, so that little of them is padding.

    Those of a batch need the same size of the ladder `sizes`, to which `nn.pad_to` then pads them:
    there are as many shapes as sizes, and one more for the remainder of each.

    Args:
        lengths: shape `(examples,)`, integers.
        sizes: the ladder of sizes, as in `nn.pad_to`: the first, which is doubled for the next one,
            and so on, or a list of all.
        batch_size: the examples of a batch.
        max_elements: in place of `batch_size`, the elements of a batch, padding included: as many
            examples as have room at their size, at least one.
        key: a typed PRNG key for the order of examples and batches, another for each epoch; None
            for the order in which they are.
        drop_remainder: whether to leave out what does not fill a batch.

    Returns:
        For each batch the indices of its examples.

    Raises:
        TypeError: `lengths` are not integers.
        ValueError: not one of `batch_size` and `max_elements` is given; a number is less than 1;
            `sizes` do not ascend, or an example is longer than the last.

    Example:
        >>> import jaxnn as nn
        >>> nn.bucket_by_length([3, 9, 4, 2, 12], sizes=4, batch_size=2)
        [array([0, 2]), array([1, 4]), array([3])]
    """
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1:
        kind = TypeError if lengths.dtype.kind not in "iu" else ValueError
        raise kind(
            f"bucket_by_length: lengths have dtype {lengths.dtype} and shape {lengths.shape}, "
            "expected integers with one axis"
        )
    if (lengths < 0).any():
        raise ValueError(f"bucket_by_length: lengths has {lengths.min()}, expected at least 0")
    check_ladder("bucket_by_length: sizes", sizes)
    if (batch_size is None) == (max_elements is None):
        raise ValueError(
            f"bucket_by_length: batch_size is {batch_size} and max_elements {max_elements}, "
            "expected one of them"
        )
    for name, count in (("batch_size", batch_size), ("max_elements", max_elements)):
        if count is not None:
            check_count("bucket_by_length", name, count)
    order, batch_key = np.arange(len(lengths)), None
    if key is not None:
        check_key("bucket_by_length", key)
        example_key, batch_key = jax.random.split(key)
        order = order[np.asarray(jax.random.permutation(example_key, len(lengths)))]

    different, which = np.unique(lengths, return_inverse=True)
    steps = [steps_up("bucket_by_length: lengths", int(n), sizes) for n in different]
    step_of = np.asarray(steps, int)[which][order]
    batches = []
    for step in sorted(set(steps)):
        rows = order[step_of == step]
        n = batch_size or max(max_elements // size_at(step, sizes), 1)  # type: ignore[operator]
        ends = len(rows) - len(rows) % n if drop_remainder else len(rows)
        batches += [rows[start : start + n] for start in range(0, ends, n)]
    if batch_key is None:
        return sorted(batches, key=lambda rows: int(rows[0]))
    return [batches[i] for i in np.asarray(jax.random.permutation(batch_key, len(batches)))]
