"""The header of a safetensors file: a name, dtype, shape and place for each tensor of the data.

The file is the length of the header in 8 bytes, little-endian; the header, as JSON, padded with
spaces; and the data, little-endian, without holes. https://github.com/huggingface/safetensors
"""

import errno
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(jnp.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(jnp.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(jnp.float8_e8m0fnu),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}

_METADATA = "__metadata__"
_ALIGNMENT = 8
_LONGEST = 100_000_000  # a longer header is refused by every reader
_MOST_ITEMS = 1 << 19  # of JSON, which takes a second
_MOST_TENSORS = 50_000
_LONGEST_NAME = 4096
_MOST_AXES = 64  # as NumPy has it
_MOST_DIGITS = 19
_MOST_BYTES = 1 << 63


class Tensor(NamedTuple):
    """What the header says of a tensor: its bytes are `start` to `end`, counted from the data."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """A header: `raw` is all that precedes the data, the eight bytes of its length included."""

    raw: bytes
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def placed(forms: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Tensors one after the other, those of wide dtypes first: so each is aligned to its dtype."""
    tensors, end = {}, 0
    for name in sorted(forms, key=lambda name: (-forms[name][0].itemsize, name)):
        dtype, shape = forms[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        tensors[name] = Tensor(dtype, shape, start, end)
    return tensors


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The header of tensors and metadata, with the eight bytes of its length."""
    content: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    for name, tensor in tensors.items():
        if name == _METADATA:
            raise ValueError(f"a leaf is named {_METADATA!r}, which the format reserves")
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a leaf has a path of {len(name)} characters, {name:.50} ...")
        content[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (tensor.start, tensor.end),
        }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _LONGEST:
        raise ValueError(f"the names and metadata take {len(text)} bytes, at most {_LONGEST} fit")
    if len(tensors) > _MOST_TENSORS or text.count(b",") > _MOST_ITEMS:
        raise ValueError(f"there are {len(tensors)} leaves, which is more than load reads")
    return len(text).to_bytes(8, "little") + text


@contextmanager
def opened(function: str, path: str | bytes | os.PathLike[str]) -> Iterator[BufferedReader]:
    """A file, open for reading; pipes and devices, which might never end, are refused."""
    mode, name = os.stat(path).st_mode, os.fsdecode(path)
    if stat.S_ISDIR(mode):
        told = f"{function} reads a file, and nn.import_params a directory"
        raise IsADirectoryError(errno.EISDIR, told, name)
    if not stat.S_ISREG(mode):
        raise ValueError(f"{function}: {name} is no regular file, expected one")
    with open(path, "rb") as file:
        yield file


def read_json(text: str) -> Any:
    """What a JSON text says; `ValueError` for what no header has, before it costs anything."""
    if text.count(",") > _MOST_ITEMS:
        raise ValueError(f"it has more than {_MOST_ITEMS} items")
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_header(file: BufferedReader) -> Header:
    """The header of a file, checked against its length; `ValueError` says what is wrong."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(_LONGEST, size - 8):
        raise ValueError(f"its {size} bytes do not hold the header that they begin")
    text = file.read(length)
    try:
        content = read_json(text.decode())
    except ValueError as error:
        raise ValueError(f"its header is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    metadata = content.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not _are_all(str, metadata.values()):
        raise ValueError(f"its {_METADATA} is not from strings to strings")
    if len(content) > _MOST_TENSORS:
        raise ValueError(f"it has {len(content)} tensors, expected at most {_MOST_TENSORS}")
    longest = max(map(len, content), default=0)
    if longest > _LONGEST_NAME:
        raise ValueError(f"it has a name of {longest} characters")
    tensors = {name: _tensor(name, entry) for name, entry in content.items()}
    _check_places(tensors, size - 8 - length)
    return Header(prefix + text, tensors, metadata)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{counts.most_common(1)[0][0]!r:.99} is there twice")
    return content


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has an integer of {len(digits)} digits")
    return int(digits)


def _are_all(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and _are_all(int, values) and min(values, default=0) >= 0


def _tensor(name: str, entry: Any) -> Tensor:
    """An entry of the header, checked by itself."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name!r} is not a dtype, a shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{name!r} has dtype {code!r:.99}, which is none of {', '.join(DTYPES)}")
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise ValueError(f"{name!r} has shape {shape!r:.99} and data_offsets {offsets!r:.99}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"{name!r} has {len(shape)} axes, expected at most {_MOST_AXES}")
    if math.prod(size or 1 for size in shape) * DTYPES[code].itemsize >= _MOST_BYTES:
        raise ValueError(f"{name!r} has shape {shape}, which no array has")
    expected = math.prod(shape) * DTYPES[code].itemsize
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"{name!r} has data_offsets {offsets}, but {code} of shape {shape} takes {expected}"
        )
    return Tensor(DTYPES[code], tuple(shape), *offsets)


def _check_places(tensors: Mapping[str, Tensor], size: int) -> None:
    """Raise unless the tensors fill the data, without holes and overlaps."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.start != end:
            what = "overlaps what is before it" if tensor.start < end else "has a hole before it"
            raise ValueError(f"{name!r} {what}: it starts at byte {tensor.start}, not {end}")
        end = tensor.end
    if end != size:
        raise ValueError(f"it has {size} bytes of data where its header says {end}")
