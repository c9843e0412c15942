"""The data of a tensor in blocks with a digest each, so that a part is read and checked alone."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from io import BufferedReader
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxnn._files.safetensors import Tensor

BLOCK = 1 << 24  # bytes, a multiple of every dtype
DIGITS = 64  # of a digest

Region = tuple[range, ...]  # of an array: the indices along each axis


class Stored(NamedTuple):
    """A tensor in a file.

    `opened` is a context that gives the file, `begin` the byte of it where the data begin.
    `digests` are those of the blocks one after the other, or of the whole tensor, "" for none.
    `region` is what part of a leaf the tensor is, by the leading axes.
    """

    opened: Callable[[], AbstractContextManager[BufferedReader]]
    begin: int
    tensor: Tensor
    digests: str
    region: Region


def region_of(index: Sequence[slice], shape: Sequence[int]) -> Region:
    """What an index of slices stands for."""
    return tuple(range(*s.indices(size)) for s, size in zip(index, shape, strict=True))


def whole(shape: Sequence[int]) -> Region:
    """All of an array."""
    return tuple(map(range, shape))


def digits(size: int) -> int:
    """The digits of all digests of so many bytes."""
    return DIGITS * max(1, -(-size // BLOCK))


def write(file: BinaryIO, array: np.ndarray) -> str:
    """Write the bytes of an array, and return the digests of its blocks."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digests = []
    for start in range(0, max(data.size, 1), BLOCK):
        block = data[start : start + BLOCK].data
        digests.append(hashlib.sha256(block).hexdigest())
        file.write(block)
    return "".join(digests)


def read(stored: Stored, wanted: Sequence[tuple[Region, np.ndarray]]) -> None:
    """Read what a tensor has of regions of its leaf, each into an array of that region.

    Only the blocks that have some of them are read, one after the other, and each once.
    `ValueError` says what is wrong with them.
    """
    tensor = stored.tensor
    targets = [_target(stored, region, into) for region, into in wanted]
    targets = [target for target in targets if all(target.needed)]
    if not targets:
        return
    for start, data in _blocks(stored, [_span(target.needed, tensor) for target in targets]):
        if tensor.dtype == np.bool_ and np.any(data > 1):
            raise ValueError("has booleans that are neither 0 nor 1")
        elements = data.view(tensor.dtype)
        first = at = start // tensor.dtype.itemsize
        for box in _boxes(first, first + elements.size, tensor.shape):
            values = elements[at - first :][: math.prod(map(len, box))].reshape([*map(len, box)])
            at += values.size
            for target in targets:
                both = [_common(b, n) for b, n in zip(box, target.needed, strict=True)]
                if all(both):
                    target.into[_slices(both, target.region)] = values[_slices(both, box)]


class _Target(NamedTuple):
    """An array, the region that it is of, and what a tensor has of that, as the tensor counts."""

    into: np.ndarray
    region: Region
    needed: Region


def _target(stored: Stored, region: Region, into: np.ndarray) -> _Target:
    shape = stored.tensor.shape
    own = (
        range(r.start - s.start, r.stop - s.start)
        for r, s in zip(region, stored.region, strict=True)
    )
    shifted = (*own, *whole(shape[len(region) :]))
    needed = (_common(r, range(size)) for r, size in zip(shifted, shape, strict=True))
    return _Target(into, shifted, tuple(needed))


def _blocks(stored: Stored, spans: Sequence[range]) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of a tensor that have some of these bytes, checked, and where they begin.

    They are of one memory: each is overwritten by the next.
    """
    size = stored.tensor.end - stored.tensor.start
    last, is_one = (size - 1) // BLOCK, len(stored.digests) == DIGITS
    numbers = {n for span in spans for n in range(span.start // BLOCK, -(-span.stop // BLOCK))}
    memory = np.empty(min(BLOCK, size), np.uint8)
    digest = hashlib.sha256()
    with stored.opened() as file:
        for number in range(last + 1) if is_one else sorted(numbers):
            start = number * BLOCK
            data = memory[: min(BLOCK, size - start)]
            file.seek(stored.begin + stored.tensor.start + start)
            if file.readinto(data.data) != data.size:
                raise ValueError("is cut off by the end of the file")
            if stored.digests:
                digest.update(data.data)
                if is_one and number == last:
                    _check(digest, stored.digests)
                elif not is_one:
                    _check(digest, stored.digests[number * DIGITS :][:DIGITS])
                    digest = hashlib.sha256()
            yield start, data


def _check(digest: Any, expected: str) -> None:
    if digest.hexdigest() != expected:
        raise ValueError("does not have its digest")


def _span(region: Sequence[range], tensor: Tensor) -> range:
    """The bytes of a tensor from the first to the last of a region."""
    first = last = 0
    for indices, size in zip(region, tensor.shape, strict=True):
        first, last = first * size + indices[0], last * size + indices[-1]
    return range(first * tensor.dtype.itemsize, (last + 1) * tensor.dtype.itemsize)


def _boxes(start: int, stop: int, shape: Sequence[int]) -> Iterator[Region]:
    """The elements from `start` to `stop`, in the order they lie, as boxes."""
    if start >= stop:
        return
    if not shape:
        yield ()
        return
    row, inner = math.prod(shape[1:]), shape[1:]
    first, last = -(-start // row), stop // row  # the rows that are whole
    if first > last:
        row_start = last * row
        yield from _in_row(last, _boxes(start - row_start, stop - row_start, inner))
        return
    yield from _in_row(
        first - 1, _boxes(start - (first - 1) * row, row, inner) if start % row else ()
    )
    if first < last:
        yield range(first, last), *whole(inner)
    yield from _in_row(last, _boxes(0, stop - last * row, inner))


def _in_row(row: int, boxes: Any) -> Iterator[Region]:
    for box in boxes:
        yield range(row, row + 1), *box


def _common(a: range, b: range) -> range:
    return range(max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start)))


def _slices(region: Sequence[range], origin: Sequence[range]) -> tuple[slice, ...]:
    """A region as an index of an array that begins at `origin`."""
    return tuple(
        slice(r.start - o.start, r.stop - o.start) for r, o in zip(region, origin, strict=True)
    )
