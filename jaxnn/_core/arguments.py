"""What a signature promises is checked: no argument of another kind than annotated goes further."""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from jaxnn._core.paths import is_selection
from jaxnn._core.types import Mask, Scalar, Selection, Steps

P = ParamSpec("P")
R = TypeVar("R")

LARGEST_INTEGER = 2**31 - 1  # JAX takes Python's integers for int32


class Kind(NamedTuple):
    """The values that an annotation stands for."""

    accepts: Callable[[Any], bool]
    expected: str


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_real_number(value: Any) -> bool:
    """Whether it is one real number, of Python or an array without axes, possibly traced."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.shape == () and is_numeric(value.dtype) and value.dtype.kind not in "bc"
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite_number(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    return _is_real_number(value) and (isinstance(value, jax.core.Tracer) or math.isfinite(value))


def _is_number_of_any_size(value: Any) -> bool:
    return _is_finite_number(value) or (isinstance(value, int) and not isinstance(value, bool))


def is_numeric(dtype: Any) -> bool:
    """Whether arrays of a dtype are numbers or booleans: no strings, objects or records."""
    return dtype.kind in "biufc" or jax.numpy.issubdtype(dtype, np.number)


KINDS: dict[Any, Kind] = {
    bool: Kind(_is_flag, "True or False"),
    float: Kind(_is_finite_number, "a finite number"),
    type(None): Kind(lambda value: value is None, "None"),
}
KINDS[Scalar] = KINDS[float]
KINDS[Selection] = Kind(is_selection, "globs, a predicate or a tree of booleans")
KINDS[Mask] = KINDS[Selection]
KINDS[Mask | None] = Kind(lambda v: v is None or is_selection(v), KINDS[Mask].expected)
KINDS[Steps] = Kind(_is_number_of_any_size, "a finite number of steps")


def kind_of(annotation: Any) -> Kind | None:
    """What an annotation stands for; None if that is not checked here."""
    if isinstance(annotation, (type, types.UnionType)) and annotation in KINDS:
        return KINDS[annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [kind_of(member) for member in typing.get_args(annotation)]
        known = [kind for kind in kinds if kind is not None]
        expected = " or ".join(kind.expected for kind in known)
        is_known = len(known) == len(kinds)
        return Kind(lambda v: any(k.accepts(v) for k in known), expected) if is_known else None
    return None


def flags_of(parameters: Iterable[inspect.Parameter]) -> list[str]:
    """The names of those that are annotated as booleans."""
    return [p.name for p in parameters if p.annotation is bool]


def check_flag(function: str, name: str, value: Any) -> None:
    """Raise unless `value`, the argument `name` of `function`, is a boolean of the host."""
    if not _is_flag(value):
        refuse(function, name, value, KINDS[bool].expected)


def refuse(function: str, name: str, value: Any, expected: str) -> None:
    """Raise for an argument of another kind: `ValueError` for a number where one is expected."""
    error = ValueError if _is_real_number(value) and "number" in expected else TypeError
    raise error(f"{function}: {name} is {value!r}, expected {expected}")


class ArgumentChecks:
    """The checks of a function's arguments, made once from its signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function.__name__
        self._parameters = list(inspect.signature(function).parameters.values())
        kinds = {p.name: kind_of(p.annotation) for p in self._parameters}
        self._kinds = {name: kind for name, kind in kinds.items() if kind is not None}
        self._positional = [p.name for p in self._parameters if p.kind is not p.KEYWORD_ONLY]

    def __call__(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Raise for an argument that is of another kind than its annotation says."""
        for name, value in zip(self._positional, args, strict=False):
            self._check(name, value)
        for name, value in keywords.items():
            self._check(name, value)

    def _check(self, name: str, value: Any) -> None:
        kind = self._kinds.get(name)
        if kind is not None and not kind.accepts(value):
            refuse(self._function, name, value, kind.expected)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse arguments of another kind than its annotations say, by their name."""
    check = ArgumentChecks(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check(args, kwargs)
        return function(*args, **kwargs)

    return call
