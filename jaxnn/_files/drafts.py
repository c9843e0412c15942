"""Files of trees that are written, and not yet in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from jaxnn._core.processes import ALL
from jaxnn._core.types import PyTree
from jaxnn._files.atomic import replacing
from jaxnn._files.blocks import digits, write
from jaxnn._files.leaves import (
    Form,
    check_has_values,
    form_of,
    leaves_by_name,
    note_of,
    on_host,
    stored,
)
from jaxnn._files.safetensors import placed
from jaxnn._files.sealed import sealed_header
from jaxnn._files.spread import PARTS, Spread, is_spread, part_of, parts_text, releasing_parts


@contextmanager
def draft(path: str, tree: PyTree, metadata: Mapping[str, str], mark: str = "") -> Iterator[None]:
    """The file of a tree, written, which leaving the context puts in its place.

    Of arrays that several processes have, each writes what it has. Then `mark` is what nobody had
    before, and no process leaves the context before all have written; one that leaves it by an
    exception puts nothing in its place.
    """
    leaves = leaves_by_name("save", tree)
    for name, leaf in leaves.items():
        if not is_spread(leaf):
            check_has_values("save", name, leaf)
        elif not isinstance(leaf, Spread):
            leaves[name] = Spread(leaf)
    spread = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Spread)}
    owners = {process for leaf in spread.values() for process in leaf.owners if process}
    if not spread or ALL.is_first:
        parts = {PARTS: parts_text(mark, owners)} if owners else {}
        with releasing_parts(path), replacing("save", path) as file:
            _write_tree(file, leaves, {**metadata, **parts})
            yield
        return
    own = jax.process_index()
    part = part_of(path, mark, own)
    if own in owners:
        with replacing("save", part) as file:
            _write_tree(file, spread, {PARTS: parts_text(mark, [own])})
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Own(NamedTuple):
    """A tensor of the file: its form, what is said of it, and the values."""

    form: Form
    note: dict[str, Any]
    values: Any


def _write_tree(file: BinaryIO, leaves: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    own = {key: tensor for name, leaf in leaves.items() for key, tensor in _tensors(name, leaf)}
    tensors = placed({name: stored(tensor.form) for name, tensor in own.items()})
    notes = {
        name: {"sha256": "0" * digits(tensor.end - tensor.start), **own[name].note}
        for name, tensor in tensors.items()
    }
    try:
        room = sealed_header(tensors, metadata, notes)
    except ValueError as error:
        raise ValueError(f"save: {error}") from None
    file.write(bytes(len(room)))
    for name in tensors:
        dtype = own[name].form.dtype
        dtype = dtype if isinstance(dtype, np.dtype) else None  # keys, whose data are no such
        notes[name]["sha256"] = write(file, on_host(own[name].values, dtype))
    file.seek(0)
    file.write(sealed_header(tensors, metadata, notes))


def _tensors(name: str, leaf: Any) -> Iterator[tuple[str, _Own]]:
    """The tensors that a leaf becomes, by their names in the file."""
    form = form_of("save", name, leaf)
    note = note_of(leaf, form.dtype)
    if not isinstance(leaf, Spread):
        yield name, _Own(form, note, leaf)
        return
    for region, values in leaf.pieces:
        extents, at = tuple(map(len, region)), [indices.start for indices in region]
        if extents == form.shape:
            yield name, _Own(form, note, values)
        else:
            place = {"leaf": name, "shape": form.shape, "at": at}
            own = _Own(Form(extents, form.dtype), note | place, values)
            yield f"{name}@{','.join(map(str, at))}", own
