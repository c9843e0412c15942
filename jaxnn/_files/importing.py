"""Parameters from the checkpoints of other libraries."""

import difflib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arguments import checked
from jaxnn._core.paths import is_match
from jaxnn._core.progress import counted
from jaxnn._core.types import Arrays, PyTree
from jaxnn._files.blocks import Region, whole
from jaxnn._files.layouts import (
    Conversions,
    check_conversions,
    conversion,
    copy_transposed,
    from_torch,
    to_torch,
    unchanged,
)
from jaxnn._files.leaves import by_regions, is_key, leaves_by_name, sharding_of
from jaxnn._files.names import TORCH, Entry, Names, entries, widths
from jaxnn._files.tensors import Tensors

Index = tuple[int, ...]

_ALIGNMENT = 64  # bytes
_MOST_TOLD = 8  # of what is wrong with a file
_MOST_CANDIDATES = 1000  # for the nearest name


@checked
def import_params(
    path: str | bytes | PathLike[str] | Mapping[str, PyTree],
    like: Arrays,
    names: Names,
    *,
    state: Arrays = None,
    dtype: DTypeLike | None = None,
    convert: Conversions = {},  # noqa: B006
    ignore: Sequence[str] = (),
    progress: bool | Literal["bar", "lines"] | None = None,
) -> PyTree:
    """The parameters of a model from safetensors files that torch or Hugging Face wrote.

    `names` says where each module of the model stands in the files, and serves `export_params` as
    well. It is a mapping from paths of modules, "blocks/attention/query", or of single leaves, to
    names in the file:

    * `"encoder.layer.*.query"`: a star is the number of a layer, and stands for the leading axis
      that `nn.stack` gives its leaves, two stars for two axes. In `"layers.{2*i+1}"`, i, j, k and l
      are the numbers of the first, second ... of them: here every second layer.
    * `("up_proj", "gate_proj")`: equal parts, side by side in the last axis of the leaf; a mapping
      `{"q": 8, "k": 2}` has parts of that many features.
    * `("bias_ih", "+bias_hh")`: the leaf is the sum.
    * `"attention/{query,key,value}": "c_attn"`: one tensor, split over the leaves of three modules.
    * None: the file has nothing of it, and the leaves stay what they are in `like`, as a new head.

    What the table says of modules that `like` has not is left out. A module's `kernel`, `scale` or
    `embedding` is called `weight` in the file, its `bias` `bias`, its `mean` and `var`
    `running_mean` and `running_var`; of a single leaf the table gives the whole name. A kernel
    (out, in, *window) becomes (*window, in, out), all other leaves lie as they do in the file.

    Nothing is read into memory but what a device needs of one leaf after the other. Files are
    never unpickled.

    Args:
        path: a file, or a directory with one or with the index of several; or a tree of arrays
            from a library of JAX, restored by orbax, say: its names are paths with "/", its leaves
            have our names and lie as ours.
        like: the tree of parameters to make: arrays or `jax.ShapeDtypeStruct`s, as from
            `jax.eval_shape(layer.init, key, x)`.
        names: the table.
        state: the tree of state to make besides, such as the statistics of `nn.batch_norm`; its
            modules have the same paths.
        dtype: a floating dtype for all floating leaves; None for those of `like`. Floating tensors
            are converted, rounding where the dtype is narrower.
        convert: for tensors that lie otherwise, by globs on their names: a pair of functions of
            NumPy arrays, from the tensor to the leaf and back; None for no change at all.
        ignore: globs on the names of tensors that the model does not need.
        progress: as in `nn.fit`; what takes longer than a second shows how many leaves are made.

    Returns:
        A tree with the structure of `like`, sharded as its leaves are; with `state`, a pair
        `(params, state)`. A leaf is a NumPy array where that of `like` is one.

    Raises:
        FileNotFoundError: there is no such file, or the directory has none.
        TypeError: an argument is of another type.
        ValueError: a file is damaged; a leaf is without tensor, or named twice; a tensor is
            missing, is not named by the table, or has another shape. The message names each, and
            the nearest name. Nothing is made then.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(hidden=nn.dense(4), out=nn.dense(1))
        >>> params, _ = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> names = {"hidden": "fc1", "out": "head.linear"}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.export_params(directory, params, names)  # as torch writes its weights
        ...     file = nn.load(f"{directory}/model.safetensors")
        ...     again = nn.import_params(directory, params, names)
        >>> {name: x.shape for name, x in file.items() if "weight" in name}
        {'fc1.weight': (4, 3), 'head.linear.weight': (1, 4)}
        >>> bool((again["hidden"]["kernel"] == params["hidden"]["kernel"]).all())
        True
    """
    check_conversions("import_params", convert)
    ignored = tuple(ignore)
    leaves = joined("import_params", like, state)
    kinds = {name: _dtype_of(name, leaf, dtype) for name, leaf in leaves.items()}
    shapes = {name: np.shape(leaf) for name, leaf in leaves.items()}
    source: _Tree | Tensors
    if isinstance(path, Mapping):
        where, source, layout = "the tree", _Tree(path), (unchanged, unchanged)
        words, separator = dict(zip(TORCH, TORCH, strict=True)), "/"
    else:
        where, source = os.fsdecode(path), Tensors("import_params", path)
        layout = from_torch, to_torch
        words, separator = TORCH, "."
    found, absent = entries("import_params", shapes, names, words, separator)

    reader = _Reader(source, layout, convert)
    problems = list(_missing(leaves, found, absent, source.shapes(), ignored))
    _raise_for(where, problems)
    parts = {name: _Parts() for name in leaves}
    for entry in found:
        problems += _place(entry, reader, shapes, kinds, parts)
    _raise_for(where, problems)

    made = []
    each = counted("import_params", progress, leaves.items(), len(leaves), "leaves")
    for name, leaf in each:
        made.append(leaf if name in absent else _made(leaf, kinds[name], parts[name], reader))
        source.forget()
    return _split(made, like, state)


def joined(function: str, params: PyTree, state: PyTree) -> dict[str, Any]:
    """The leaves of params and state by path: a module has one path in both."""
    of_params, of_state = leaves_by_name(function, params), leaves_by_name(function, state)
    both = sorted(of_params.keys() & of_state.keys())
    if both:
        raise ValueError(f"{function}: {both[0]!r} is a leaf of the params and of the state")
    return of_params | of_state


def _split(leaves: Sequence[Any], params: PyTree, state: PyTree) -> PyTree:
    """The inverse of `joined`; params alone if there was no state."""
    count = len(jax.tree.leaves(params))
    made = jax.tree.unflatten(jax.tree.structure(params), leaves[:count])
    if state is None:
        return made
    return made, jax.tree.unflatten(jax.tree.structure(state), leaves[count:])


def _dtype_of(name: str, leaf: Any, dtype: DTypeLike | None) -> np.dtype:
    """The dtype that a leaf is to have."""
    if not hasattr(leaf, "dtype"):
        raise TypeError(
            f"import_params: leaf {name!r} of like or state is {leaf!r}, expected an array"
        )
    wanted = leaf.dtype
    if is_key(leaf):
        return wanted  # type: ignore[no-any-return]
    if dtype is not None and jnp.issubdtype(wanted, jnp.floating):
        wanted = np.dtype(dtype)
        if not jnp.issubdtype(wanted, jnp.floating):
            raise ValueError(f"import_params: dtype is {dtype!r}, expected a floating dtype")
    if not isinstance(leaf, np.ndarray) and jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"import_params: leaf {name!r} is to have dtype {wanted}, which JAX has only with "
            "jax_enable_x64; expected that, or NumPy arrays in like"
        )
    return wanted  # type: ignore[no-any-return]


class _Tree:
    """The arrays of a tree by path, read as the tensors of a file are."""

    def __init__(self, tree: Mapping[str, PyTree]) -> None:
        self._leaves = leaves_by_name("import_params", tree)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(leaf) for name, leaf in self._leaves.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._leaves[name])

    def forget(self) -> None:
        pass


class _Reader(NamedTuple):
    """Tensors as the leaves that they are of."""

    source: Any
    layout: Any
    convert: Conversions

    def read(self, name: str, leaf: str) -> np.ndarray:
        own = conversion(name, self.convert)
        array = self.source[name]
        return self.layout[0](leaf, array) if own is None else np.asarray(own[0](array))

    def expected(self, name: str, leaf: str, shape: tuple[int, ...]) -> str:
        """The shape that a tensor should have had for a leaf to be of this one."""
        if conversion(name, self.convert) is not None:
            return f"{shape} after its conversion"
        return str(self.layout[1](leaf, np.broadcast_to(np.int8(0), shape)).shape)


class _Part(NamedTuple):
    """A part of a tensor, and where it goes in the last axis of an element of a leaf."""

    name: str
    leaf: str
    first: int
    last: int
    at: int
    is_added: bool


class _Parts(dict[Index, list[_Part]]):
    """The parts of which each element of the leading axes of a leaf is made."""


def _missing(
    leaves: Mapping[str, Any],
    found: Sequence[Entry],
    absent: Sequence[str],
    tensors: Mapping[str, Any],
    ignore: Sequence[str],
) -> Iterator[str]:
    """What lacks its counterpart: leaves, tensors that the table names, and others."""
    placed = {path for entry in found for path, _ in entry.targets}
    for name in leaves.keys() - placed - set(absent):
        yield f"names has no tensor for the leaf {name!r}, expected one, or None to keep it"
    for name in absent:
        if isinstance(leaves[name], jax.ShapeDtypeStruct):
            yield f"names has None for {name!r}, and like has no array to keep there"
    wanted = {source.name for entry in found for source in entry.sources}
    unexpected = {name for name in tensors.keys() - wanted if not is_match(name, ignore)}
    candidates = sorted(unexpected or tensors)[:_MOST_CANDIDATES]
    for i, name in enumerate(sorted(wanted - tensors.keys())):
        near = difflib.get_close_matches(name, candidates if i < _MOST_TOLD else (), 1, cutoff=0)
        yield f"it lacks {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
    for name in sorted(unexpected):
        yield f"it has {name!r}, which neither names nor ignore has"


def _raise_for(where: str, problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise ValueError(f"import_params: {where}: {'; '.join(problems[:_MOST_TOLD])}{more}")


def _place(
    entry: Entry,
    reader: _Reader,
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, np.dtype],
    parts: Mapping[str, _Parts],
) -> Iterator[str]:
    """Add the tensors of an entry to the parts of its leaves; what does not fit is told."""
    element = [(path, index, shapes[path][len(index) :]) for path, index in entry.targets]
    sizes = [(shape or (1,))[-1] for _, _, shape in element]
    total, lead = sum(sizes), element[0][2][:-1]
    if any(shape[:-1] != lead for _, _, shape in element):
        told = ", ".join(f"{path!r} of shape {shape}" for path, _, shape in element)
        yield f"one tensor cannot be split over {told}, expected equal axes before the last"
        return
    sizes_of_tensors = widths(entry.sources, total)
    if sizes_of_tensors is None:
        told = ", ".join(repr(source.name) for source in entry.sources)
        yield f"{told} are to fill the {total} features of {element[0][0]!r}, and do not"
        return
    at = start = 0
    for source, expected in zip(entry.sources, sizes_of_tensors, strict=True):
        array = reader.read(source.name, entry.leaf)
        shape = (*lead, expected) if element[0][2] else ()
        if array.shape != shape:
            given = reader.source.shapes()[source.name]
            wanted = reader.expected(source.name, entry.leaf, shape)
            yield f"{source.name!r} has shape {given}, expected {wanted} for {element[0][0]!r}"
            return
        if not _converts(array.dtype, kinds[element[0][0]]):
            yield (
                f"{source.name!r} has dtype {array.dtype}, expected one that {element[0][0]!r}, of "
                f"{kinds[element[0][0]]}, can be converted from"
            )
        start = start if source.is_added else at
        for (path, index, _), first, last in spans(element, sizes):
            low, high = max(start, first), min(start + expected, last)
            if low < high:
                part = _Part(
                    source.name, entry.leaf, low - start, high - start, low - first, source.is_added
                )
                parts[path].setdefault(index, []).append(part)
        at = start + expected


def spans(element: Sequence[Any], sizes: Sequence[int]) -> Iterator[tuple[Any, int, int]]:
    ends = list(itertools.accumulate(sizes))
    for one, size, end in zip(element, sizes, ends, strict=True):
        yield one, end - size, end


def _converts(tensor: np.dtype, leaf: np.dtype) -> bool:
    """Whether values of one dtype are meant by another: floating ones by floating ones, ..."""
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(tensor, kind) and jnp.issubdtype(leaf, kind) for kind in kinds)


def _made(leaf: Any, dtype: np.dtype, parts: _Parts, reader: _Reader) -> Any:
    """A leaf of its parts, of which each device reads what it needs."""

    def read(region: Region) -> np.ndarray:
        out = _aligned([*map(len, region)], dtype)
        for element, of_element in parts.items():
            outer, inner = region[: len(element)], region[len(element) :]
            if all(i in r for i, r in zip(element, outer, strict=True)):
                at: Any = [i - r.start for i, r in zip(element, outer, strict=True)]
                into = out[(*at, ...)]
                for part in of_element:
                    _fill(into, inner, part, reader.read(part.name, part.leaf))
        return out

    if isinstance(leaf, np.ndarray):
        return read(whole(leaf.shape))
    return by_regions(leaf.shape, sharding_of(leaf), lambda regions: [*map(read, regions)])


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An empty array at an address from which JAX takes it on a CPU without a copy."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _fill(into: np.ndarray, ranges: Sequence[range], part: _Part, tensor: np.ndarray) -> None:
    """Write what a part has of a region of an element."""
    if not ranges:
        _copy(into, tensor, part.is_added)
        return
    *rows, columns = ranges
    low = max(part.at, columns.start)
    high = min(part.at + part.last - part.first, columns.stop)
    if low < high:
        shift = part.first - part.at
        chosen = tensor[(*(slice(r.start, r.stop) for r in rows), slice(low + shift, high + shift))]
        _copy(into[..., low - columns.start : high - columns.start], chosen, part.is_added)


def _copy(into: np.ndarray, new: np.ndarray, is_added: bool) -> None:
    if is_added:
        into += new.astype(into.dtype)
    else:
        copy_transposed(into, new)
