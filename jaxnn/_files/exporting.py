"""Parameters as checkpoints of other libraries."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range
from jaxnn._core.types import Arrays
from jaxnn._files.atomic import replacing
from jaxnn._files.importing import joined
from jaxnn._files.layouts import (
    Conversions,
    check_conversions,
    conversion,
    copy_transposed,
    to_torch,
)
from jaxnn._files.leaves import check_has_values, form_of, on_host
from jaxnn._files.names import TORCH, Entry, Names, entries, widths
from jaxnn._files.safetensors import CODES, header, placed

Form = tuple[np.dtype, tuple[int, ...]]

_FILE = "model.safetensors"
_INDEX = f"{_FILE}.index.json"


@checked
def export_params(
    path: str | os.PathLike[str],
    params: Arrays,
    names: Names,
    *,
    state: Arrays = None,
    dtype: DTypeLike | None = None,
    convert: Conversions = {},  # noqa: B006
    max_shard_size: float = 5e9,
) -> None:
    r"""Write parameters as safetensors files that torch and Hugging Face read.

    The inverse of `nn.import_params`, by the same table: what was imported and not trained is
    written back bit for bit, if the dtypes are the file's. A tensor that stands for two leaves
    (tied weights) needs equal ones; of a sum, the first tensor gets the leaf and the others zeros.

    Args:
        path: a directory, which is made if there is none, for `model.safetensors`, or, above
            `max_shard_size`, for `model-00001-of-00003.safetensors` and so on with their index; or
            a file, `NAME.safetensors`.
        params: the tree of parameters.
        names: the table, see `nn.import_params`.
        state: the tree of state to write besides.
        dtype: a floating dtype for all floating leaves; None for their own.
        convert: pairs of functions by globs on names of tensors, see `nn.import_params`; the second
            makes the tensor of the leaf.
        max_shard_size: the most bytes of a file; a larger tensor has a file of its own.

    Returns:
        None.

    Raises:
        OSError: a file cannot be written; those that were there are as they were.
        TypeError: an argument is of another type.
        ValueError: `max_shard_size` is less than 1; a leaf is without name, or named twice; two
            leaves of one tensor differ; a leaf cannot be split into equal parts, or has a dtype
            that the format lacks.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.zeros((2, 4))}  # of nn.stack
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.export_params(f"{directory}/a.safetensors", params, {"": "layers.*.linear"})
        ...     print(*sorted(nn.load(f"{directory}/a.safetensors")), sep="\n")
        layers.0.linear.bias
        layers.0.linear.weight
        layers.1.linear.bias
        layers.1.linear.weight
    """
    check_conversions("export_params", convert)
    check_range("export_params", "max_shard_size", max_shard_size, 1)
    leaves = joined("export_params", params, state)
    for name, leaf in leaves.items():
        check_has_values("export_params", name, leaf)
    forms = {name: _form(name, leaf, dtype) for name, leaf in leaves.items()}
    shapes = {name: shape for name, (_, shape) in forms.items()}
    found, absent = entries("export_params", shapes, names, TORCH, ".")
    named = {path for entry in found for path, _ in entry.targets}
    without = sorted(leaves.keys() - named - set(absent))
    if without:
        raise ValueError(
            f"export_params: names has no tensor for {', '.join(map(repr, without[:8]))}, expected "
            "one each, or None to leave it out"
        )
    writers = _writers(found, forms, convert)
    _write(path, writers, _Leaves(leaves, forms), max_shard_size)


def _form(name: str, leaf: Any, dtype: DTypeLike | None) -> Form:
    """The dtype and shape in which a leaf is written."""
    form = form_of("export_params", name, leaf)
    kind = form.dtype
    if dtype is not None and jnp.issubdtype(kind, jnp.floating):
        kind = np.dtype(dtype)
    if kind not in CODES:
        raise ValueError(
            f"export_params: leaf {name!r} has dtype {kind}, expected one of "
            f"{', '.join(map(str, CODES))}"
        )
    return kind, form.shape


class _Leaves:
    """Elements of leaves as NumPy arrays; one leaf is on the host at a time."""

    def __init__(self, leaves: Mapping[str, Any], forms: Mapping[str, Form]) -> None:
        self._leaves, self._forms = leaves, forms
        self._held: dict[str, np.ndarray] = {}

    def hold(self, paths: Sequence[str]) -> None:
        """Have these on the host, and no others."""
        missing = set(paths) - self._held.keys()
        self._held = {path: self._held[path] for path in self._held.keys() & set(paths)}
        for path in missing:
            self._held[path] = on_host(self._leaves[path], None)

    def element(self, path: str, index: tuple[int, ...]) -> np.ndarray:
        where: Any = (*index, ...)
        element: np.ndarray = self._held[path][where]
        return element.astype(self._forms[path][0], copy=False)


class _Writer(NamedTuple):
    """A tensor of the file, and the entry that it is of."""

    form: Form
    entry: Entry
    position: int
    """Which of the sources of the entry it is."""
    convert: Conversions

    def values(self, get: Any) -> np.ndarray:
        """The tensor, of the elements of leaves that `get` gives."""
        parts = [get(path, index) for path, index in self.entry.targets]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
        source = self.entry.sources[self.position]
        sizes = widths(self.entry.sources, (whole.shape or (1,))[-1])
        beside = [
            size
            for size, one in zip(sizes or [], self.entry.sources, strict=True)
            if not one.is_added
        ]
        if len(beside) > 1:
            before = [one for one in self.entry.sources[: self.position] if not one.is_added]
            start = sum(beside[: len(before)])
            whole = whole[..., start : start + beside[len(before)]]
        if source.is_added:
            whole = np.zeros_like(whole)
        own = conversion(source.name, self.convert)
        return to_torch(self.entry.leaf, whole) if own is None else np.asarray(own[1](whole))


def _writers(
    found: Sequence[Entry], forms: Mapping[str, Form], convert: Conversions
) -> dict[str, list[_Writer]]:
    """How each tensor is made; several ways if several leaves are tied to it."""

    def empty(path: str, index: tuple[int, ...]) -> np.ndarray:
        dtype, shape = forms[path]
        return np.broadcast_to(np.zeros((), dtype), shape[len(index) :])

    writers: dict[str, list[_Writer]] = {}
    for entry in found:
        element = [empty(path, index) for path, index in entry.targets]
        total = sum((one.shape or (1,))[-1] for one in element)
        if widths(entry.sources, total) is None:
            told = ", ".join(repr(source.name) for source in entry.sources)
            raise ValueError(
                f"export_params: {entry.targets[0][0]!r} has {total} features, expected as many as "
                f"{told} have together: equal parts, or a mapping with their numbers"
            )
        for position, source in enumerate(entry.sources):
            writer = _Writer((np.dtype(bool), ()), entry, position, convert)
            made = writer.values(empty)
            writers.setdefault(source.name, []).append(
                writer._replace(form=(made.dtype, made.shape))
            )
    return writers


def _write(
    path: str | os.PathLike[str],
    writers: Mapping[str, list[_Writer]],
    leaves: _Leaves,
    max_shard_size: float,
) -> None:
    target = Path(os.fsdecode(path))
    if target.suffix == ".safetensors":
        files = {target: list(writers)}
    else:
        target.mkdir(parents=True, exist_ok=True)
        shards = _shards(writers, max_shard_size)
        files = {target / _shard_name(i, len(shards)): names for i, names in enumerate(shards)}
    index = {name: file.name for file, names in files.items() for name in names}
    with contextlib.ExitStack() as stack:  # all files take their places when all are written
        if len(files) > 1:
            opened = stack.enter_context(replacing("export_params", target / _INDEX))
            size = sum(_size(writers[name][0].form) for name in index)
            content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
            opened.write(json.dumps(content, indent=2).encode())
        for file, names in files.items():
            opened = stack.enter_context(replacing("export_params", file))
            _write_file(opened, names, writers, leaves)
    if target.is_dir():
        _remove_others(target, {_INDEX, *index.values()} if len(files) > 1 else {_FILE})


def _shard_name(i: int, count: int) -> str:
    return _FILE if count == 1 else f"model-{i + 1:05}-of-{count:05}.safetensors"


def _size(form: Form) -> int:
    dtype, shape = form
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _shards(writers: Mapping[str, list[_Writer]], most: float) -> list[list[str]]:
    """The names of the tensors of each file, in their order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, (first, *_) in writers.items():
        if shards[-1] and size + _size(first.form) > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += _size(first.form)
    return shards


def _write_file(
    file: BinaryIO, names: Sequence[str], writers: Mapping[str, list[_Writer]], leaves: _Leaves
) -> None:
    tensors = placed({name: writers[name][0].form for name in names})
    start = file.write(header(tensors, {"format": "pt"}))
    for name in names:
        values = _tensor(name, writers[name], leaves)
        file.seek(start + tensors[name].start)
        file.write(values.reshape(-1).view(np.uint8).data)


def _tensor(name: str, writers: Sequence[_Writer], leaves: _Leaves) -> np.ndarray:
    """The values of a tensor, in which all leaves that are tied to it must agree."""
    paths = [path for writer in writers for path, _ in writer.entry.targets]
    leaves.hold(paths)
    first, *others = [writer.values(leaves.element) for writer in writers]
    for other, writer in zip(others, writers[1:], strict=True):
        if first.shape != other.shape or not np.array_equal(first, other):
            tied = writers[0].entry.targets[0][0], writer.entry.targets[0][0]
            raise ValueError(
                f"export_params: {name!r} stands for {tied[0]!r} and {tied[1]!r}, expected them to "
                "be equal"
            )
    out = np.empty(first.shape, first.dtype)
    copy_transposed(out, first)
    return out


def _remove_others(directory: Path, written: set[str]) -> None:
    """Remove the files of an earlier export to the directory, which would be read with the new."""
    for pattern in (_FILE, _INDEX, "model-*-of-*.safetensors"):
        for found in directory.glob(pattern):
            if found.name not in written:
                with contextlib.suppress(FileNotFoundError):
                    found.unlink()
