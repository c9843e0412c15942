"""Arrays of several processes, of which each writes what it has into a file of its own.

The file at the path has the part of process 0, and says who else has one. The others lie beside it,
as `part-MARK-PROCESS.safetensors`; the mark is new for each saving, so that what a file refers to
is never overwritten. Where process 0 has all, there are no others.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._files.blocks import Region, region_of
from jaxnn._files.safetensors import opened, read_header

PARTS = "jaxnn.parts"  # of the metadata: the mark and the processes, or the mark and the process
_SECONDS_OF_STALE = 3600.0
_PARTS = re.compile(r"[0-9a-f]{32}( [1-9][0-9]{0,5})*")
_NAME = re.compile(r"part-([0-9a-f]{32})-[0-9]+\.safetensors")


class Piece(NamedTuple):
    """A region of a leaf, and its values."""

    region: Region
    values: Any


class Spread:
    """What this process has to write of an array that several have.

    Attributes:
        shape: the shape of the array.
        dtype: its dtype.
        pieces: regions of it, each of which is here alone; of keys, the values are their data.
        owners: the processes that have some.
        impl: the implementation of keys.
    """

    def __init__(self, leaf: jax.Array, *, copy: bool = False) -> None:
        self.shape, self.dtype = leaf.shape, leaf.dtype
        self.impl = _impl_of(leaf)
        data = leaf if self.impl is None else jax.random.key_data(leaf)
        self.owners = frozenset(
            shard.device.process_index for shard in data.global_shards if shard.replica_id == 0
        )
        self.pieces = [
            Piece(
                region_of(shard.index, data.shape)[: len(leaf.shape)],
                np.array(shard.data) if copy else shard.data,
            )
            for shard in data.addressable_shards
            if shard.replica_id == 0
        ]


def _impl_of(leaf: jax.Array) -> str | None:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(leaf)) if is_key else None


def is_spread(leaf: Any) -> bool:
    """Whether several processes have an array."""
    if isinstance(leaf, Spread):
        return True
    is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return is_array and not leaf.is_deleted() and not leaf.is_fully_addressable


def part_of(path: str | os.PathLike[str], mark: str, process: int) -> Path:
    """The file of the part of another process than the first."""
    return Path(os.path.realpath(path)).with_name(f"part-{mark}-{process}.safetensors")


def parts_text(mark: str, processes: Iterable[int]) -> str:
    """The entry of the metadata."""
    return " ".join([mark, *map(str, sorted(processes))])


def parts_in(metadata: Mapping[str, str]) -> tuple[str, list[int]]:
    """The mark and the processes of an entry of the metadata, of which there may be none."""
    text = metadata.get(PARTS)
    if text is None:
        return "", []
    if not _PARTS.fullmatch(text):
        raise ValueError(f"its parts are {text!r:.99}, expected a mark and processes")
    mark, *processes = text.split()
    return mark, [int(process) for process in processes]


def mark_of(path: Path) -> str:
    """The mark of the parts that a file refers to; "" without, or if it cannot be read as such."""
    try:
        with opened("save", path) as file:
            return parts_in(read_header(file).metadata)[0]
    except (OSError, ValueError):
        return ""


@contextlib.contextmanager
def releasing_parts(path: str | os.PathLike[str]) -> Iterator[None]:
    """Remove the parts that the file at a path refers to when it is replaced or removed.

    Others that no file in the directory refers to are removed when they are an hour old.
    """
    target = Path(os.path.realpath(path))
    parts = _parts_of(target.parent)
    given_up = mark_of(target) if parts else ""
    yield
    if not parts:
        return
    needed = {mark_of(file) for file in target.parent.glob("*.safetensors") if file not in parts}
    now = target.parent.stat().st_mtime  # when the file was replaced or removed
    for part, mark in parts.items():
        with contextlib.suppress(OSError):
            is_stale = now - part.stat().st_mtime > _SECONDS_OF_STALE
            if mark not in needed and (mark == given_up or is_stale):
                part.unlink()


def _parts_of(directory: Path) -> dict[Path, str]:
    """The parts of whatever files there are, and their marks."""
    if not directory.is_dir():
        return {}
    return {path: m[1] for path in directory.iterdir() if (m := _NAME.fullmatch(path.name))}


def check_regions(shape: Sequence[int], regions: Sequence[Region]) -> None:
    """Raise unless regions fill an array as the cells of a grid do, each once."""
    cells = 1
    for axis, size in enumerate(shape):
        spans = sorted({(region[axis].start, region[axis].stop) for region in regions})
        ends = [0, *(stop for _, stop in spans)]
        if ends[-1] != size or any(s != end for (s, _), end in zip(spans, ends, strict=False)):
            raise ValueError(f"has parts that leave gaps or overlap along axis {axis}")
        cells *= len(spans)
    if not len(set(regions)) == len(regions) == cells:
        raise ValueError(f"has {len(regions)} parts, expected {cells} that differ")


def region_at(shape: Any, at: Any, extents: Sequence[int]) -> Region:
    """The region of a leaf that a note on a tensor tells, checked."""
    are_lists = isinstance(shape, list) and isinstance(at, list)
    numbers = [*shape, *at] if are_lists else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"is said to lie at {at!r:.99} of the shape {shape!r:.99}")
    region = tuple(range(first, first + n) for first, n in zip(at, extents, strict=False))
    fits = len(shape) == len(at) == len(extents)
    if not fits or any(r.stop > size for r, size in zip(region, shape, strict=True)):
        raise ValueError(f"is said to lie at {at!r:.99} of the shape {shape!r:.99}")
    if math.prod(size or 1 for size in shape) >= 1 << 60:
        raise ValueError(f"is said to be of the shape {shape!r:.99}, which no array has")
    return region
