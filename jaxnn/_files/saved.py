"""Files of trees that are open for reading."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from io import BufferedReader
from os import PathLike
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn._files import blocks
from jaxnn._files.blocks import Region, Stored, whole
from jaxnn._files.leaves import Form, as_leaf, form_of, is_key, saved_form
from jaxnn._files.safetensors import Header, opened, read_header
from jaxnn._files.sealed import notes_of
from jaxnn._files.spread import PARTS, check_regions, part_of, parts_in, parts_text, region_at


class Saved(NamedTuple):
    """A file that is open for reading, its parts, and what their headers say."""

    function: str
    path: str
    header: Header
    stored: Mapping[str, Sequence[Stored]]
    notes: Mapping[str, Mapping[str, str]]
    forms: Mapping[str, Form]

    def raise_for(self, problems: Sequence[str]) -> None:
        """Raise for problems, of which the message names the first few."""
        if problems:
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(f"{self.function}: {self.path}: {'; '.join(problems[:5])}{more}")

    def leaves(self, wanted: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """The leaves by their paths, each from what has its name in the file.

        They must have the shape and dtype of the leaf that is `wanted` in their place, if any.
        """
        values = {path: leaf for path, leaf in wanted.items() if leaf is not None}
        forms = {path: form_of(self.function, path, leaf) for path, leaf in values.items()}
        self.raise_for(
            [
                f"leaf {names[path]!r} has {self.forms[names[path]]}, expected {form}"
                + (f" for {path!r}" if names[path] != path else "")
                for path, form in forms.items()
                if self.forms[names[path]] != form
            ]
        )
        self.raise_for(
            [
                f"leaf {path!r} has dtype {forms[path].dtype}, which JAX has only with "
                "jax_enable_x64; expected that, or NumPy arrays in like"
                for path, leaf in values.items()
                if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct))
                and not is_key(leaf)
                and jax.dtypes.canonicalize_dtype(forms[path].dtype) != forms[path].dtype
            ]
        )
        made = dict(wanted)
        for path in sorted(wanted, key=lambda path: self.stored[names[path]][0].tensor.start):
            name = names[path]
            read = partial(self.read, name)
            made[path] = as_leaf(wanted[path], self.forms[name], self.notes[name], read)
        return made

    def read(self, name: str, regions: Sequence[Region]) -> list[np.ndarray]:
        """The data of regions of a leaf, checked by their digests."""
        first = self.stored[name][0].tensor
        rest = first.shape[len(self.forms[name].shape) :]
        made = [np.empty((*map(len, region), *rest), first.dtype) for region in regions]
        try:
            for stored in self.stored[name]:
                blocks.read(stored, list(zip(regions, made, strict=True)))
        except ValueError as error:
            self.raise_for([f"it is damaged: leaf {name!r} {error}"])
        return made


@contextmanager
def reading(function: str, path: str | bytes | PathLike[str]) -> Iterator[Saved]:
    """A file that `save` or another program wrote, what it says checked field by field."""
    with opened(function, path) as file:
        name = os.fsdecode(path)
        try:
            saved = _saved(function, name, file)
        except ValueError as error:
            raise ValueError(f"{function}: {name} is damaged or not safetensors: {error}") from None
        yield saved


class _File(NamedTuple):
    """One of the files of a tree, and what its header says."""

    opened: Callable[[], AbstractContextManager[BufferedReader]]
    header: Header
    notes: Mapping[str, Mapping[str, Any]]


def _saved(function: str, name: str, file: BufferedReader) -> Saved:
    files = [_file(lambda: nullcontext(file))]
    mark, others = parts_in(files[0].header.metadata)
    for process in others:
        path = part_of(name, mark, process)
        try:
            files.append(_file(partial(opened, function, path)))
        except FileNotFoundError:
            raise ValueError(f"its part {path.name} is not there") from None
        except ValueError as error:
            raise ValueError(f"its part {path.name} {error}") from None
        if files[-1].header.metadata.get(PARTS) != parts_text(mark, [process]):
            raise ValueError(f"its part {path.name} is of something else")
    leaves: dict[str, list[tuple[Form, dict[str, str], Stored]]] = {}
    for one in files:
        for tensor_name in one.header.tensors:
            leaf, entry = _entry(one, tensor_name)
            leaves.setdefault(leaf, []).append(entry)
    for leaf, entries in leaves.items():
        form, note, _ = entries[0]
        if any(other[:2] != (form, note) for other in entries):
            raise ValueError(f"leaf {leaf!r} has parts of different shapes or dtypes")
        try:
            check_regions(form.shape, [stored.region for _, _, stored in entries])
        except ValueError as error:
            raise ValueError(f"leaf {leaf!r} {error}") from None
    return Saved(
        function,
        name,
        files[0].header,
        {leaf: [stored for _, _, stored in entries] for leaf, entries in leaves.items()},
        {leaf: entries[0][1] for leaf, entries in leaves.items()},
        {leaf: entries[0][0] for leaf, entries in leaves.items()},
    )


def _file(opened: Callable[[], AbstractContextManager[BufferedReader]]) -> _File:
    with opened() as file:
        found = read_header(file)
    return _File(opened, found, notes_of(found))


def _entry(file: _File, name: str) -> tuple[str, tuple[Form, dict[str, str], Stored]]:
    """The leaf that a tensor is of, its form and what else is said of it, and the tensor."""
    tensor, note = file.header.tensors[name], file.notes[name]
    form = saved_form(name, tensor, note)
    leaf, region = name, whole(form.shape)
    if "leaf" in note:
        leaf = note["leaf"]
        try:
            region = region_at(note["shape"], note["at"], form.shape)
        except ValueError as error:
            raise ValueError(f"{name!r} {error}") from None
        form = Form(tuple(note["shape"]), form.dtype)
    kind = {key: note[key] for key in ("dtype", "key") if key in note}
    digests = note.get("sha256", "")
    stored = Stored(file.opened, len(file.header.raw), tensor, digests, region)
    return leaf, (form, kind, stored)
