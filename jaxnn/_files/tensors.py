"""The tensors of safetensors files of other libraries, as views of mapped memory."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn._files.safetensors import Tensor, opened, read_header, read_json

_INDEX = ".safetensors.index.json"
_LONGEST_INDEX = 100_000_000
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")


class Place(NamedTuple):
    """Where a tensor lies: its file, the byte of it where the data begin, and its entry."""

    file: Path
    data: int
    tensor: Tensor


class Tensors:
    """All tensors of a file, or of the files of a directory, by name.

    Nothing is read before it is asked for; `forget` lets the memory go that was.
    """

    def __init__(self, function: str, path: str | bytes | os.PathLike[str]) -> None:
        self.places: dict[str, Place] = {}
        self._maps: dict[Path, np.memmap] = {}
        decoded = Path(os.fsdecode(path))
        for file, expected in _files(function, decoded).items():
            with opened(function, file) as readable:
                try:
                    found = read_header(readable)
                except ValueError as error:
                    raise ValueError(
                        f"{function}: {file} is damaged or not safetensors: {error}"
                    ) from None
            if expected is not None and found.tensors.keys() != expected:
                name = min(found.tensors.keys() ^ expected)
                where = "not in the file" if name in expected else "not in the index"
                raise ValueError(f"{function}: {file} does not fit its index: {name!r} is {where}")
            for name, tensor in found.tensors.items():
                if name in self.places:
                    both = f"{self.places[name].file.name} and {file.name}"
                    raise ValueError(f"{function}: {decoded}: {name!r} is in {both}")
                self.places[name] = Place(file, len(found.raw), tensor)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: place.tensor.shape for name, place in self.places.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        file, data, tensor = self.places[name]
        if file not in self._maps:
            self._maps[file] = np.memmap(file, np.uint8, "r")
        found = self._maps[file][data + tensor.start : data + tensor.end]
        return found.view(np.ndarray).view(tensor.dtype).reshape(tensor.shape)

    def forget(self) -> None:
        """Let the system take back the memory of what was read."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps.values():
                base: Any = mapped._mmap  # type: ignore[attr-defined]
                base.madvise(mmap.MADV_DONTNEED)


def _files(function: str, path: Path) -> dict[Path, set[str] | None]:
    """The files of a path, each with the names that an index says it has."""
    if not path.is_dir():
        if path.name.endswith(_INDEX):
            return _of_index(function, path)
        return {path: None}
    indices = sorted(path.glob(f"*{_INDEX}"))
    files = sorted(path.glob("*.safetensors"))
    if len(indices) == 1:
        return _of_index(function, indices[0])
    if len(indices) > 1 or len(files) > 1:
        listed = ", ".join(found.name for found in indices or files)
        raise ValueError(f"{function}: {path} has {listed}, expected the path of one of them")
    if not files:
        others = [found.name for found in sorted(path.iterdir()) if found.suffix in _OTHERS]
        has = f"has {', '.join(others)} and no" if others else "has no"
        raise FileNotFoundError(
            f"{function}: {path} {has} *.safetensors file, the only format that is read: load it "
            "with the library that wrote it, and save it so"
        )
    return {files[0]: None}


def _of_index(function: str, index: Path) -> dict[Path, set[str] | None]:
    def fail(problem: str) -> ValueError:
        return ValueError(f"{function}: {index} is no index of safetensors files: {problem}")

    if index.stat().st_size > _LONGEST_INDEX:
        raise fail(f"it has {index.stat().st_size} bytes, expected at most {_LONGEST_INDEX}")
    try:
        with opened(function, index) as file:
            content = read_json(file.read().decode())
    except ValueError as error:
        raise fail(f"it is not JSON: {error}") from None
    where = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(where, Mapping) or not where:
        raise fail("it has no weight_map")
    files: dict[Path, set[str]] = {}
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise fail(f"{name!r} is in {file!r}, expected the name of a file beside it")
        files.setdefault(index.parent / file, set()).add(name)
    return dict(files)
