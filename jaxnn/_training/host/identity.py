"""What a run is made of, as text, so that a run and its continuation can be compared."""

import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.processes import Group

_SMALL = 1000  # arrays of no more elements are told by their values
_SAMPLED = 32  # examples of the data


# What is compared of the globals that a function reads: numbers, texts, arrays, layers, functions.
_FOLLOWED = (
    *(bool, int, float, complex, str, bytes, np.generic, np.ndarray, jax.Array),
    *(tuple, functools.partial, types.FunctionType),
)


class Told(NamedTuple):
    """A value as text, and a digest of the functions and small arrays in it."""

    text: str
    digest: str


def told(value: Any) -> Told:
    """What a value is: the call that made it, and whatever of the user's is inside.

    Of a user's function that is its name, its bytecode, its defaults and what it refers to, be it
    of an enclosing function or global; functions of libraries are known by their names.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    for part in _parts(value, seen):
        digest.update(part.encode() + b"\0")
    return Told(_text(value), digest.hexdigest()[:16])


def sample(data: Any) -> Told:
    """Shapes and dtypes of data in memory or mapped, and a digest of some of the examples."""
    digest, shapes = hashlib.sha256(), []
    for leaf in jax.tree.leaves(data):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            return Told(f"a {type(data).__name__}", "")
        shapes.append(f"{leaf.dtype}{list(leaf.shape)}")
        if leaf.shape and leaf.shape[0]:
            rows = np.unique(np.linspace(0, leaf.shape[0] - 1, _SAMPLED).astype(int))
            digest.update(np.ascontiguousarray(np.asarray(leaf[rows])).tobytes())
    return Told(", ".join(shapes) or "nothing", digest.hexdigest()[:16])


def entire(data: Any) -> Told:
    """The same with a digest of all examples that this process has; of batches nothing."""
    digest, known = hashlib.sha256(), sample(data)
    for leaf in jax.tree.leaves(data) if known.digest else []:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            digest.update(np.ascontiguousarray(np.asarray(leaf)).reshape(-1).view(np.uint8).data)
    return Told(known.text, digest.hexdigest()[:16])


def check_same(group: Group, told: Mapping[str, Told]) -> None:
    """Raise unless all processes were told the same."""
    digests = [hashlib.sha256(repr(entry).encode()).digest()[:4] for entry in told.values()]
    words = group.gathered(np.frombuffer(b"".join(digests), np.uint32))
    for name, of_all in zip(told, words.T, strict=True):
        others = np.flatnonzero(of_all != of_all[0])
        if others.size:
            hint = "; what an iterable yields may differ" * (name in ("data", "validation"))
            raise ValueError(
                f"fit: {name} of process {others[0]} differs from that of process 0, expected the "
                f"same in all processes of a run{hint}"
            )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(v)}" for name, v in value.items()) + "}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return value.__qualname__
    if isinstance(value, functools.partial):
        return f"partial({_text(value.func)})"
    if isinstance(value, jax.Array | np.ndarray):
        return str(value)
    if isinstance(value, tuple | int | float | str | bool | type(None)):
        return repr(value)
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, bool | int | float | complex | str | bytes | type(None) | np.generic):
        yield repr(value)
    elif isinstance(value, jax.Array | np.ndarray):
        yield from _of_array(value)
    elif id(value) in seen:
        yield "again"
    elif isinstance(value, Mapping):
        seen.add(id(value))
        for name, item in value.items():
            yield repr(name)
            yield from _parts(item, seen)
    elif isinstance(value, tuple | list | set | frozenset):
        seen.add(id(value))
        yield type(value).__name__
        for item in value if isinstance(value, tuple | list) else sorted(value, key=repr):
            yield from _parts(item, seen)
    elif isinstance(value, functools.partial):
        seen.add(id(value))
        yield from _parts((value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        yield from _parts((value.__func__, type(value.__self__)), seen)
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        yield from _of_function(value, seen)
    elif callable(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
        seen.add(id(value))  # a loss that is an object, or jitted
        yield from _parts((type(value).__qualname__, type(value).__call__, vars(value)), seen)
    else:
        yield getattr(value, "__qualname__", None) or type(value).__qualname__


def _of_array(array: Any) -> Iterator[str]:
    yield f"{array.dtype}{array.shape}"
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    if array.size <= _SMALL and not is_key:
        yield hashlib.sha256(np.ascontiguousarray(np.asarray(array)).tobytes()).hexdigest()


def _of_function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    module = function.__module__ or ""
    yield f"{module}.{function.__qualname__}"
    if module.partition(".")[0] in sys.stdlib_module_names | {"jax", "numpy"}:
        return
    if module.partition(".")[0] != "jaxnn":
        yield from _of_code(function.__code__)
        yield from _parts((function.__defaults__, function.__kwdefaults__), seen)
        if not _is_installed(module):
            yield from _parts(_globals_of(function), seen)
    for cell in function.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen)
        except ValueError:  # an empty cell
            yield "empty"
    wrapped = inspect.unwrap(function)
    if wrapped is not function:
        yield from _parts(wrapped, seen)


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The constants and functions that a function has from its module, by their names."""
    found, codes, written = {}, [function.__code__], set()
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname == "STORE_GLOBAL":
                written.add(name)
            elif instruction.opname == "LOAD_GLOBAL" and name in function.__globals__:
                found[name] = function.__globals__[name]
    return {
        name: value
        for name, value in sorted(found.items())
        if name not in written and (isinstance(value, _FOLLOWED) or hasattr(value, "__wrapped__"))
    }


def _is_installed(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _of_code(code: types.CodeType) -> Iterator[str]:
    yield f"{sys.version_info[:2]}{code.co_code.hex()}{code.co_names}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_code(constant)
        else:  # the order of a set differs from process to process
            is_set = isinstance(constant, frozenset)
            yield repr(sorted(constant, key=repr) if is_set else constant)
