"""What a signature promises is checked: no argument of another kind than annotated goes further."""

import collections.abc as abc
import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_integers_fit
from jaxnn._core.paths import is_selection, path_text
from jaxnn._core.types import (
    Arrays,
    Limit,
    Mask,
    Padding,
    Scalar,
    ScalarOrSchedule,
    Selection,
    Size,
    Steps,
)

P = ParamSpec("P")
R = TypeVar("R")

_INITIALIZERS = (Initializer.__module__, "jaxnn.initializers._initializers")

# The kinds of arguments


class Kind(NamedTuple):
    """The values that an annotation stands for."""

    accepts: Callable[[Any], bool]
    alternatives: tuple[str, ...]
    found: Callable[[Any], str] | None = None  # what is wrong, where that is within the value

    @property
    def expected(self) -> str:
        """The alternatives in words."""
        *most, last = self.alternatives
        return f"{', '.join(most)} or {last}" if most else last


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def is_integer(value: Any) -> bool:
    """Whether it is one integer of the host, of 64 bits at most."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, np.integer)


def _is_real_number(value: Any) -> bool:
    """Whether it is one real number, of Python or an array without axes, possibly traced."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.shape == () and is_numeric(value.dtype) and value.dtype.kind not in "bc"
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite_number(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if isinstance(value, int):
        return not isinstance(value, bool) and _fits(value)
    return _is_real_number(value) and (isinstance(value, jax.core.Tracer) or math.isfinite(value))


def _is_number_of_any_size(value: Any) -> bool:
    return _is_finite_number(value) or (isinstance(value, int) and not isinstance(value, bool))


def _is_limit(value: Any) -> bool:
    return _is_real_number(value) and (isinstance(value, jax.core.Tracer) or not math.isnan(value))


def _fits(value: int) -> bool:
    """Whether JAX takes an integer of Python, for one of 32 bits or of 64."""
    return bool(abs(value) <= jnp.iinfo(jnp.result_type(int)).max)


def is_numeric(dtype: Any) -> bool:
    """Whether arrays of a dtype are numbers or booleans: no strings, objects or records."""
    return getattr(dtype, "kind", "O") in "biufc" or jnp.issubdtype(dtype, np.number)


def _is_array(value: Any) -> bool:
    """Whether it is numbers, for an array: lists of numbers are too."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return is_numeric(value.dtype)
    if isinstance(value, int):
        return isinstance(value, bool) or _fits(value)
    if isinstance(value, (float, complex)):
        return True
    if isinstance(value, (list, tuple)):
        return all(map(_is_array, value)) and len(set(map(np.shape, value))) <= 1
    return hasattr(type(value), "__array__") or hasattr(type(value), "__jax_array__")


def as_array(where: str, value: Any) -> Any:
    """A number or an array as it is; anything else that is meant as an array, made one.

    Of the host where all numbers are, so that they can be checked under `jit` too.
    """
    if value is None or isinstance(value, (jax.Array, int, float, complex)):
        return value
    if not isinstance(value, (np.ndarray, np.generic)):
        is_traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
        if is_traced or hasattr(value, "__jax_array__"):
            return jnp.asarray(value)
        value = np.asarray(value)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array, expected one without: its mask would be lost")
    if value.dtype in (np.int64, np.uint64):
        check_integers_fit(where, np.asarray(value), jax.dtypes.canonicalize_dtype(value.dtype))
    return value


def is_array_leaf(leaf: Any) -> bool:
    """Whether it has a shape and a dtype, as an array and a key have, or is a number."""
    has_type = hasattr(leaf, "dtype") and hasattr(leaf, "shape") and not isinstance(leaf, type)
    return has_type or _is_array(leaf)


def _first_other_leaf(tree: Any) -> str:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_array_leaf(leaf):
            return (
                f"has {value_text(leaf)} at {path_text(path)!r}"
                if path
                else f"is {value_text(leaf)}"
            )
    return ""


def _first_other_item(items: Any) -> str:
    if not isinstance(items, Mapping):
        return f"is {value_text(items)}"
    others = [name for name in items if not isinstance(name, str)]
    return f"has the name {others[0]!r}" if others else _first_other_leaf(dict(items))


def _is_dtype(value: Any) -> bool:
    try:
        return isinstance(value, (str, type, np.dtype)) and is_numeric(jnp.dtype(value))
    except TypeError:
        return False


def _is_initializer(value: Any) -> bool:
    """Whether it is a function of a key, a shape and a dtype, not one that makes such functions."""
    if not _is_function(value):
        return False
    try:
        signature = inspect.signature(value)
        signature.bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # of C: nothing is known
        return True
    is_known = getattr(value, "__module__", "") in _INITIALIZERS
    return not is_known or "key" in signature.parameters


def _is_function(value: Any) -> bool:
    return callable(value) and not getattr(value, "is_constructor", False)


_FLAG = Kind(_is_flag, ("True or False",))
_NUMBER = Kind(_is_finite_number, ("a finite number",))
_SELECTION = Kind(is_selection, ("globs", "a predicate", "a tree of booleans"))

KINDS: dict[Any, Kind | None] = {
    bool: _FLAG,
    int: Kind(is_integer, ("an integer",)),
    Size: Kind(lambda v: is_integer(v) or jax.export.is_symbolic_dim(v), ("an integer",)),
    float: _NUMBER,
    str: Kind(lambda value: isinstance(value, str), ("a string",)),
    bytes: Kind(lambda value: isinstance(value, bytes), ("bytes",)),
    type(None): Kind(lambda value: value is None, ("None",)),
    Scalar: _NUMBER,
    Limit: Kind(_is_limit, ("a number",)),
    ScalarOrSchedule: Kind(
        lambda v: _is_function(v) or _is_finite_number(v), ("a finite number", "a schedule")
    ),
    Steps: Kind(_is_number_of_any_size, ("a finite number of steps",)),
    Selection: _SELECTION,
    Mask: _SELECTION,
    Mask | None: Kind(lambda v: v is None or is_selection(v), (*_SELECTION.alternatives, "None")),
    Arrays: Kind(lambda v: not _first_other_leaf(v), ("a pytree of arrays",), _first_other_leaf),
    Mapping[str, Arrays]: Kind(
        lambda v: not _first_other_item(v), ("a dict of arrays by name",), _first_other_item
    ),
    Initializer: Kind(_is_initializer, ("an initializer, (key, shape, dtype) -> array",)),
    ArrayLike: Kind(_is_array, ("a number", "an array of numbers")),
    DTypeLike: Kind(_is_dtype, ("a dtype",)),
    Padding: None,  # has a check of its own
}


def kind_of(annotation: Any) -> Kind | None:
    """What an annotation stands for; None if that is not checked here.

    `Annotated[T, "text"]` stands for what `T` does, and says it in its own words.
    """
    if isinstance(annotation, abc.Hashable) and annotation in KINDS:
        return KINDS[annotation]
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        kind = kind_of(members[0])
        return kind and kind._replace(alternatives=members[1:])
    if origin is typing.Union or origin is types.UnionType:
        return _either(members)
    if origin is Literal:
        return Kind(lambda v: isinstance(v, str) and v in members, tuple(map(repr, members)))
    if origin is abc.Sequence:
        return _sequence(*members)
    if origin is tuple:
        return _sequence(members[0]) if Ellipsis in members else _fixed(members)
    if origin is abc.Mapping:
        return Kind(lambda value: isinstance(value, Mapping), ("a dict",))
    if origin is abc.Callable:
        makes_functions = hasattr(members[-1], "init")  # those of a layer, say
        return Kind(callable if makes_functions else _is_function, ("a function",))
    if origin is os.PathLike:
        return Kind(lambda value: isinstance(value, os.PathLike), ("a path",))
    return None


def _either(members: tuple[Any, ...]) -> Kind | None:
    kinds: list[Kind | None] = []
    for union in (ScalarOrSchedule, ArrayLike, DTypeLike, Scalar):
        whole = typing.get_args(union)
        if set(whole) <= set(members):
            kinds.append(KINDS[union])
            members = tuple(member for member in members if member not in whole)
    kinds += map(kind_of, members)
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    accepts = [kind.accepts for kind in known]
    return Kind(
        lambda value: any(accept(value) for accept in accepts),
        tuple(words for kind in known for words in kind.alternatives),
        next((kind.found for kind in known if kind.found), None),
    )


def _sequence(member: Any) -> Kind | None:
    kind = kind_of(member)
    if kind is None:
        return None

    def accepts(value: Any) -> bool:
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return is_sequence and all(map(kind.accepts, value))

    return Kind(accepts, (f"a sequence of {_plural(kind)}",))


def _fixed(members: tuple[Any, ...]) -> Kind | None:
    kinds = [kind for member in members if (kind := kind_of(member)) is not None]
    if len(kinds) < len(members):
        return None

    def accepts(value: Any) -> bool:
        is_whole = isinstance(value, (tuple, list)) and len(value) == len(kinds)
        return is_whole and all(k.accepts(v) for k, v in zip(kinds, value, strict=True))

    count = "a pair of" if len(kinds) == 2 else str(len(kinds))
    return Kind(accepts, (f"{count} {_plural(kinds[0])}",))


def _plural(kind: Kind) -> str:
    if len(kind.alternatives) > 1:
        return f"({kind.expected})"
    _, noun, rest = re.split(r"^(?:an?) ((?:finite )?\w+)", kind.expected)
    return f"{noun}s{rest}"


# The checks of a function


def flags_of(parameters: Iterable[inspect.Parameter]) -> list[str]:
    """The names of those that are annotated as booleans."""
    return [p.name for p in parameters if p.annotation is bool]


def check_flag(function: str, name: str, value: Any) -> None:
    """Raise unless `value`, the argument `name` of `function`, is a boolean of the host."""
    if not _is_flag(value):
        _refuse(function, name, value, _FLAG)


def _refuse(function: str, name: str, value: Any, kind: Kind) -> None:
    """Raise for an argument: `ValueError` where a number or a word is expected, and came."""
    expected = kind.expected
    is_of_kind = (_is_real_number(value) and "number" in expected) or (
        isinstance(value, str) and any(words.startswith("'") for words in kind.alternatives)
    )
    error: type[Exception] = ValueError if is_of_kind else TypeError
    if isinstance(value, int) and abs(value) >= 2**31:
        error, expected = ValueError, f"{expected} of fewer bits"
    if getattr(value, "is_constructor", False) and "function" in expected:
        expected = f"{expected}: call it, {value.__name__}(...)"
    found = kind.found(value) if kind.found else f"is {value_text(value)}"
    raise error(f"{function}: {name} {found}, expected {expected}")


def value_text(value: Any) -> str:
    """An argument as it is written in a call, if it can be."""
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return repr(value)
    if getattr(value, "made_with", None) == (value,):
        return value.__qualname__  # type: ignore[no-any-return]
    return getattr(value, "__name__", None) or repr(value)


class ArgumentChecks:
    """The checks of a function's arguments, made once from its signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function.__name__
        parameters = list(inspect.signature(function).parameters.values())
        kinds = {p.name: kind_of(p.annotation) for p in parameters}
        before = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        after = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self._by_position = [(p.name, kinds[p.name]) for p in parameters if p.kind in before]
        self._by_keyword = {p.name: kinds[p.name] for p in parameters if p.kind in after}
        self._rest = [(p.name, kinds[p.name]) for p in parameters if p.kind is p.VAR_POSITIONAL]
        arrays = [p.name for p in parameters if p.annotation in (ArrayLike, ArrayLike | None)]
        self._arrays = frozenset(arrays)

    def __call__(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Raise for an argument that is of another kind than its annotation says."""
        for (name, kind), value in zip(self._by_position, args, strict=False):
            if kind is not None and not kind.accepts(value):
                _refuse(self._function, name, value, kind)
        for name, value in keywords.items():
            kind = self._by_keyword.get(name)
            if kind is not None and not kind.accepts(value):
                _refuse(self._function, name, value, kind)
        for rest, kind in self._rest:
            for i, value in enumerate(args[len(self._by_position) :]):
                if kind is not None and not kind.accepts(value):
                    _refuse(self._function, f"{rest}[{i}]", value, kind)

    def with_arrays(
        self, args: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with an array for each that is meant as one."""

        def one(name: str, value: Any) -> Any:
            is_array = name in self._arrays
            return as_array(f"{self._function}: {name}", value) if is_array else value

        as_arrays = [
            one(name, value) for (name, _), value in zip(self._by_position, args, strict=False)
        ]
        rest = args[len(as_arrays) :]
        return (*as_arrays, *rest), {name: one(name, value) for name, value in keywords.items()}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse arguments of another kind than its annotations say, by their name.

    Where an array is expected, the function gets one: a list of numbers is made one before.
    """
    check = ArgumentChecks(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check(args, kwargs)
        args, kwargs = check.with_arrays(args, kwargs)  # type: ignore[assignment]
        return function(*args, **kwargs)

    return call
