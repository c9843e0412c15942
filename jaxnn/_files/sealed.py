"""What we add to the header of a file: notes on its tensors, digests and a seal."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxnn._files.blocks import DIGITS, digits
from jaxnn._files.safetensors import CODES, Header, Tensor, header, read_json

# Some entries of the metadata are ours. The first has a note for each leaf, with the digest of its
# data; the second is the digest of what the header says, in whatever order: another program may
# write the file again, with the tensors elsewhere.
RESERVED = "jaxnn."
_NOTES = "jaxnn.leaves"
_SEAL = "jaxnn.sha256"
_TEXTS = ("dtype", "key")
_PLACE = {"leaf", "shape", "at"}


def sealed_header(
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


def notes_of(found: Header) -> dict[str, dict[str, Any]]:
    """The notes on the leaves of a header that has its digest; empty ones of another program."""
    if not any(name.startswith(RESERVED) for name in found.metadata):
        return {name: {} for name in found.tensors}
    if found.metadata.get(_SEAL) != _seal_of(found.tensors, found.metadata):
        raise ValueError("its header does not have its digest")
    notes = read_json(found.metadata.get(_NOTES, "{}"))
    if not isinstance(notes, dict) or notes.keys() != found.tensors.keys():
        raise ValueError("its metadata are of other leaves than it has")
    for name, note in notes.items():
        if not _is_note(note, found.tensors[name]):
            raise ValueError(f"its metadata say {note!r:.99} of {name!r}")
    return notes


def _is_note(note: Any, tensor: Tensor) -> bool:
    """Whether a note is as `save` writes them.

    That is digests, perhaps a dtype or a kind of keys, and where a part of a leaf lies in it.
    """
    if not isinstance(note, dict) or not {"sha256"} <= note.keys() <= {"sha256", *_TEXTS, *_PLACE}:
        return False
    texts = [note[name] for name in ("sha256", *_TEXTS, "leaf") if name in note]
    return (
        all(isinstance(text, str) for text in texts)
        and len(note["sha256"]) in (DIGITS, digits(tensor.end - tensor.start))
        and all(len(note.get(name, "")) <= 64 for name in _TEXTS)
        and note.keys() & _PLACE in (set(), _PLACE)
    )
