"""Trees of arrays in files, in the safetensors format."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from io import BufferedReader
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._core.types import PyTree
from jaxnn._files.atomic import replacing
from jaxnn._files.leaves import (
    Form,
    as_leaf,
    check_has_values,
    check_text,
    form_of,
    is_key,
    leaves_by_name,
    note_of,
    on_host,
    saved_form,
    stored,
)
from jaxnn._files.safetensors import (
    CODES,
    Header,
    Tensor,
    header,
    opened,
    placed,
    read_header,
    read_json,
)

# Two entries of the metadata are ours. The first has a note for each leaf, with the digest of its
# data; the second is the digest of what the header says, in whatever order: another program may
# write the file again, with the tensors elsewhere.
_RESERVED = "jaxnn."
_NOTES = "jaxnn.leaves"
_SEAL = "jaxnn.sha256"
_ZEROS = "0" * 64

_CHUNK = 1 << 24


@checked
def save(
    path: str | bytes | PathLike[str], tree: PyTree, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Save a tree of arrays as one file in the safetensors format.

    Each leaf is a tensor of the file, named by its path in the tree, "encoder/0/kernel"; other
    programs that know the format read it. A file that is already there is replaced when the new
    one is complete and on disk: whoever reads, and whoever comes after a crash, finds the one or
    the other, whole. The file has a SHA-256 digest of each leaf and of what describes them, which
    `load` checks.

    Leaves go through the host's memory one after the other. The same tree gives the same bytes.

    Args:
        path: the file. Its directory must exist; a symbolic link stays, and what it points to is
            replaced. A process that is killed leaves a part, `.NAME.RANDOM.tmp`, in the directory,
            which a `save` to the same path removes when it is an hour old.
        tree: a pytree whose leaves are arrays of JAX or NumPy, of any shape and any dtype of JAX,
            numbers of Python or NumPy, or arrays of typed PRNG keys. Dtypes that the format lacks
            (complex128, int4 and others) are stored as bytes.
        metadata: strings by name, to be read by `saved_metadata`. Names that begin with "jaxnn."
            are reserved.

    Returns:
        None.

    Raises:
        FileNotFoundError: there is no directory for the file.
        OSError: the file cannot be written; the one that was there is as it was.
        TypeError: a leaf is something else, or the metadata are not strings.
        ValueError: two leaves have the same path, an integer of Python takes more than 64 bits,
            an array was donated or is spread over several processes, or a name is reserved.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/params.safetensors", params, metadata={"epoch": "7"})
        ...     print(nn.load(f"{directory}/params.safetensors", params)["bias"])
        ...     print(nn.saved_metadata(f"{directory}/params.safetensors"))
        [0. 0.]
        {'epoch': '7'}
    """
    path, checked = os.fsdecode(path), _checked_metadata(metadata)
    leaves = leaves_by_name("save", tree)
    for name, leaf in leaves.items():
        check_has_values("save", name, leaf)
    forms = {name: form_of("save", name, leaf) for name, leaf in leaves.items()}
    notes = {
        name: {"sha256": _ZEROS, **note_of(leaf, forms[name].dtype)}
        for name, leaf in leaves.items()
    }
    tensors = placed({name: stored(form) for name, form in forms.items()})
    try:
        room = _sealed_header(tensors, checked, notes)
    except ValueError as error:
        raise ValueError(f"save: {error}") from None
    with replacing("save", path) as file:
        file.write(bytes(len(room)))
        for name in tensors:
            notes[name]["sha256"] = _write(file, on_host(leaves[name], forms[name].dtype))
        file.seek(0)
        file.write(_sealed_header(tensors, checked, notes))


@checked
def load(path: str | bytes | PathLike[str], like: PyTree = None) -> PyTree:
    """Load a tree of arrays from a file in the safetensors format.

    Names, shapes and dtypes must be those of `like`; nothing is converted. Of a file that `save`
    wrote, any damage is found by its digests. Files of other programs have no digests; of them the
    header is checked, and that the data are complete.

    Args:
        path: the file.
        like: a tree that says what to expect: arrays, `jax.ShapeDtypeStruct`s, as from
            `jax.eval_shape(layer.init, key, x)`, or numbers. None for whatever the file has, as
            a dict of NumPy arrays (and of PRNG keys) by name.

    Returns:
        A tree with the structure of `like`. A leaf is a NumPy array or a number where that of
        `like` is one, and else a JAX array, with the sharding of that of `like` if it is committed
        to one.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: a leaf of `like` is something else.
        ValueError: the file is not in the format, or is damaged; it lacks a leaf of `like`, or has
            others; a leaf has another shape or dtype; or JAX is not set to have 64 bits, and a
            leaf is to be a JAX array of them.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> model, x = nn.serial(nn.dense(4), nn.relu, nn.dense(1)), jnp.ones((1, 3))
        >>> like, _ = jax.eval_shape(model.init, jax.random.key(0), x)  # computes nothing
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/params.safetensors", model.init(jax.random.key(0), x)[0])
        ...     params = nn.load(f"{directory}/params.safetensors", like)
        ...     print(sorted(nn.load(f"{directory}/params.safetensors")))
        ['0/bias', '0/kernel', '2/bias', '2/kernel']
        >>> nn.stateless(model)(params, x).shape
        (1, 1)
    """
    with opened("load", path) as file:
        saved = read_saved("load", path, file)
        wanted = dict.fromkeys(saved.forms) if like is None else leaves_by_name("load", like)
        lacks = [f"it lacks {name!r}" for name in wanted if name not in saved.forms]
        others = [
            f"it has {name!r}, which is not in like" for name in saved.forms if name not in wanted
        ]
        saved.raise_for(lacks + others)
        values = saved.leaves(wanted, {name: name for name in wanted})
    return values if like is None else jax.tree.unflatten(jax.tree.structure(like), values.values())


@checked
def saved_metadata(path: str | bytes | PathLike[str]) -> dict[str, str]:
    """The metadata of a file in the safetensors format, without its arrays.

    Args:
        path: the file.

    Returns:
        What was given to `save` as `metadata`, or what another program put there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in the format, or its header is damaged.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxnn as nn
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/a.safetensors", jnp.ones(3), metadata={"model": "small"})
        ...     nn.saved_metadata(f"{directory}/a.safetensors")
        {'model': 'small'}
    """
    with opened("saved_metadata", path) as file:
        found = read_saved("saved_metadata", path, file).header
    return {k: value for k, value in found.metadata.items() if not k.startswith(_RESERVED)}


def _checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(metadata or {})
    for name, value in checked.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"save: metadata has {name!r}: {value!r}, expected strings")
        if name.startswith(_RESERVED):
            raise ValueError(f"save: metadata has {name!r}, expected no name in {_RESERVED!r}")
        for text in (name, value):
            check_text(f"save: {text!r} in metadata", text)
    return checked


def _sealed_header(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], notes: Mapping[str, Any]
) -> bytes:
    """The header of a file with all digests; how long it is does not depend on them."""
    text = json.dumps(notes, ensure_ascii=False, separators=(",", ":"))
    told = {_NOTES: text, **metadata}
    return header(tensors, {_SEAL: _seal_of(tensors, told), **told})


def _seal_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The digest of the names, dtypes and shapes of tensors, and of all metadata but itself."""
    forms = {name: [CODES[tensor.dtype], tensor.shape] for name, tensor in tensors.items()}
    others = {name: value for name, value in metadata.items() if name != _SEAL}
    text = json.dumps([forms, others], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Saved(NamedTuple):
    """A file that is open for reading, and what its header says."""

    function: str
    path: str
    file: BufferedReader
    header: Header
    notes: Mapping[str, Mapping[str, str]]
    forms: Mapping[str, Form]

    def raise_for(self, problems: Sequence[str]) -> None:
        """Raise for problems, of which the message names the first few."""
        if problems:
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(f"{self.function}: {self.path}: {'; '.join(problems[:5])}{more}")

    def leaves(self, wanted: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """The leaves by their paths, each from the tensor that has its name in the file.

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
        for path in sorted(wanted, key=lambda path: self.header.tensors[names[path]].start):
            name = names[path]
            made[path] = as_leaf(wanted[path], self._data(name), self.forms[name], self.notes[name])
        return made

    def _data(self, name: str) -> np.ndarray:
        """The data of a tensor, checked by their digest."""
        tensor, note = self.header.tensors[name], self.notes[name]
        data = np.empty(tensor.end - tensor.start, np.uint8)
        self.file.seek(len(self.header.raw) + tensor.start)
        digest, is_sealed = hashlib.sha256(), "sha256" in note
        for start in range(0, data.size, _CHUNK):
            chunk = data[start : start + _CHUNK].data
            if self.file.readinto(chunk) != len(chunk):
                self.raise_for([f"it ends within leaf {name!r}"])
            if is_sealed:
                digest.update(chunk)
        if is_sealed and digest.hexdigest() != note["sha256"]:
            self.raise_for([f"it is damaged: leaf {name!r} does not have its digest"])
        if tensor.dtype == np.bool_ and np.any(data > 1):
            self.raise_for([f"leaf {name!r} has booleans that are neither 0 nor 1"])
        return data.view(tensor.dtype).reshape(tensor.shape)


def read_saved(function: str, path: str | bytes | PathLike[str], file: BufferedReader) -> Saved:
    """What the header of a file says, checked field by field."""
    name = os.fsdecode(path)
    try:
        found = read_header(file)
        notes = _notes(found)
        forms = {
            leaf: saved_form(leaf, tensor, notes[leaf]) for leaf, tensor in found.tensors.items()
        }
    except ValueError as error:
        raise ValueError(f"{function}: {name} is damaged or not safetensors: {error}") from None
    return Saved(function, name, file, found, notes, forms)


def _notes(found: Header) -> dict[str, dict[str, str]]:
    """The notes on the leaves of a header that has its digest; empty ones of another program."""
    if not any(name.startswith(_RESERVED) for name in found.metadata):
        return {name: {} for name in found.tensors}
    if found.metadata.get(_SEAL) != _seal_of(found.tensors, found.metadata):
        raise ValueError("its header does not have its digest")
    notes = read_json(found.metadata.get(_NOTES, "{}"))
    if not isinstance(notes, dict) or notes.keys() != found.tensors.keys():
        raise ValueError("its metadata are of other leaves than it has")
    for name, note in notes.items():
        if not _is_note(note):
            raise ValueError(f"its metadata say {note!r:.99} of {name!r}")
    return notes


def _is_note(note: Any) -> bool:
    """Whether a note is as `save` writes them: a digest, and perhaps a dtype or a kind of keys."""
    return (
        isinstance(note, dict)
        and {"sha256"} <= note.keys() <= {"sha256", "dtype", "key"}
        and all(isinstance(value, str) and len(value) <= 64 for value in note.values())
        and len(note["sha256"]) == len(_ZEROS)
    )


def _write(file: BinaryIO, array: np.ndarray) -> str:
    """Write the bytes of an array, and return their digest."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.sha256()
    for start in range(0, data.size, _CHUNK):
        chunk = data[start : start + _CHUNK].data
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()
