"""How the axes of a leaf lie in the file of another library."""

import fnmatch
from collections.abc import Callable, Mapping

import numpy as np

Conversion = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
Conversions = Mapping[str, Conversion | None]

_COLUMNS = 64


def from_torch(leaf: str, array: np.ndarray) -> np.ndarray:
    """A tensor of torch as the leaf of that name: (out, in, *window) as (*window, in, out)."""
    if leaf != "kernel" or array.ndim < 2:
        return array
    return np.transpose(array, (*range(2, array.ndim), 1, 0))


def to_torch(leaf: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_torch`."""
    if leaf != "kernel" or array.ndim < 2:
        return array
    return np.transpose(array, (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)))


def unchanged(leaf: str, array: np.ndarray) -> np.ndarray:
    """A tensor that lies as the leaf does."""
    return array


def copy_transposed(into: np.ndarray, new: np.ndarray) -> None:
    """`into[...] = new`; of a transposed tensor in blocks that are read by lines of the cache."""
    if new.ndim < 2 or new.strides[-1] == new.itemsize:
        into[...] = new
        return
    for start in range(0, new.shape[-1], _COLUMNS):
        into[..., start : start + _COLUMNS] = new[..., start : start + _COLUMNS]


def check_conversions(function: str, convert: Conversions) -> None:
    """Raise unless each conversion is a pair of functions, or None."""
    for name, pair in convert.items():
        is_pair = isinstance(pair, tuple) and len(pair) == 2 and all(map(callable, pair))
        if not (isinstance(name, str) and (pair is None or is_pair)):
            raise TypeError(
                f"{function}: convert[{name!r}] is {pair!r}, expected two functions, of the tensor "
                "of the file and of the leaf, or None for a tensor that lies as the leaf does"
            )


def conversion(name: str, convert: Conversions) -> Conversion | None:
    """The conversion of a tensor, of the first glob that its name matches; None if none does."""
    for pattern, pair in convert.items():
        if fnmatch.fnmatchcase(name, pattern):
            return (np.asarray, np.asarray) if pair is None else pair
    return None
