"""Constructors: pure functions whose equal calls give equal objects, named after their call."""

import enum
import functools
import inspect
import threading
import types
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxnn._core.arguments import ArgumentChecks, value_text

P = ParamSpec("P")
R = TypeVar("R")  # a function, or a named tuple of functions: a Layer, an Optimizer, a Metric

_VALUES = (bool, int, str, bytes, type(None), type(Ellipsis), range)
_lock = threading.RLock()  # reentrant: a weak reference may be told of a death at any allocation


class _Constructing(threading.local):
    """How many constructors of this thread call one another.

    What one makes for another is its own, made anew, and has its name in the end.
    """

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


_constructing = _Constructing()


class IncomparableError(TypeError):
    """An argument has no identity that could be told without keeping it alive: an array."""


class _ById:
    """An object by its identity, for as long as it lives."""

    __slots__ = ("_hash", "_ref")

    def __init__(self, value: Any) -> None:
        self._hash, self._ref = id(value), weakref.ref(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _ById):
            return NotImplemented
        mine = self._ref()
        return self is other or (mine is not None and mine is other._ref())


def comparable(value: Any) -> Hashable:
    """What is equal for equal arguments, types and signs told apart, and keeps no object alive.

    Numbers, strings and the like compare by type and value; containers, named tuples of functions
    and partial functions by what is in them; functions and all other objects by identity.

    Raises:
        IncomparableError: an array or traced value is in it.
    """
    kind = type(value)
    if kind in _VALUES:
        return kind, value
    if kind is float:
        return kind, value.hex()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if isinstance(value, (jax.Array, np.ndarray)):
        raise IncomparableError
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if isinstance(value, (np.dtype, enum.Enum, NamedSharding, PartitionSpec)):
        return kind, value
    if kind is slice:
        return kind, comparable((value.start, value.stop, value.step))
    if isinstance(value, (tuple, list)):
        return kind, *map(comparable, value)
    if kind is dict:
        return kind, *((comparable(name), comparable(item)) for name, item in value.items())
    if kind in (set, frozenset):
        return kind, frozenset(map(comparable, value))
    if kind is types.MethodType:
        return kind, comparable(value.__func__), comparable(value.__self__)
    try:
        if kind in (functools.partial, jax.tree_util.Partial):
            return kind, *map(comparable, (value.func, value.args, value.keywords))
    except IncomparableError:
        pass  # by its identity, then
    try:
        return _ById(value)
    except TypeError:
        raise IncomparableError from None


def _snapshot(value: Any) -> Any:
    """`value` with containers of its own, which nobody can change later."""
    if type(value) in (list, tuple, set):
        return type(value)(map(_snapshot, value))
    if type(value) is dict:
        return {name: _snapshot(item) for name, item in value.items()}
    return value


def constructor(make: Callable[P, R]) -> Callable[P, R]:
    """Let equal calls of `make` give equal objects, as long as the first lives, and name them.

    What `make` returns, a function or a named tuple of functions, is made once for equal arguments
    that hold no arrays: the next call gives the same functions. They are held weakly, as is every
    function among the arguments, and hold each other. Arguments of another kind than their
    annotations say are refused.

    `repr(layer)` reads as the call, and so do Python's own errors: an unknown keyword gives
    `TypeError: dense(10)() got an unexpected keyword argument 'mask'`. A function that belongs to
    one of the arguments, a layer that is wrapped, keeps its name.
    """
    signature = inspect.signature(make)
    check = ArgumentChecks(make)
    made: dict[Hashable, tuple[Callable[..., Any], list[Callable[[], Any]]]] = {}

    @functools.wraps(make)
    def construct(*args: P.args, **kwargs: P.kwargs) -> R:
        check(args, kwargs)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return make(*args, **kwargs)  # which raises it in Python's own words
        bound.apply_defaults()
        key = None if _constructing.depth else _key(bound)
        if key is None:
            with _constructing:
                return _named(make(*args, **kwargs), construct, bound)
        with _lock:
            known = _alive(made.get(key))
        if known is None:
            bound.arguments = {name: _snapshot(value) for name, value in bound.arguments.items()}
            with _constructing:
                made_now = make(*bound.args, **bound.kwargs)
                result = _named(made_now, construct, bound)
            with _lock:
                known = _alive(made.get(key))  # another thread may have been faster
                if known is None:
                    _remember(made, key, result)
                    known = result
        return known  # type: ignore[no-any-return]

    construct.is_constructor = True  # type: ignore[attr-defined]
    return construct


def _key(bound: inspect.BoundArguments) -> Hashable:
    """What equal calls share; None if they share nothing, since arrays are among the arguments."""
    try:
        return tuple(map(comparable, bound.arguments.values()))
    except IncomparableError:
        return None


def _fields(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def _remember(made: dict[Hashable, Any], key: Hashable, result: Any) -> None:
    def forget(_: Any) -> None:
        with _lock:
            if made.get(key) is entry:
                del made[key]

    def held(field: Any) -> Callable[[], Any]:
        return weakref.ref(field, forget) if callable(field) else lambda: field

    rebuild = type(result) if isinstance(result, tuple) else lambda function: function
    entry = rebuild, [held(field) for field in _fields(result)]
    made[key] = entry


def _alive(entry: tuple[Callable[..., Any], list[Callable[[], Any]]] | None) -> Any:
    """The object that an entry is of, if all of its functions live."""
    if entry is None:
        return None
    rebuild, held = entry
    fields = [field() for field in held]
    references = (field for field in held if isinstance(field, weakref.ref))
    # Asked after the fields are held: none can die in between.
    return None if any(reference() is None for reference in references) else rebuild(*fields)


def _named(result: R, construct: Any, bound: inspect.BoundArguments) -> R:
    """`result`, whose new functions are named after the call, and hold each other and what made it.

    A constructor that another one has made remembers what it made as long as that lives.
    """
    call = _call_text(construct.__name__, bound)
    given = {id(function) for function in _functions_in(bound.arguments.values())}
    finish: Any = getattr(result, "_constructed", None)  # of a layer
    if finish is not None:
        result = finish(given)
    fields = _fields(result)
    for field in fields:
        if callable(field) and id(field) not in given:
            field.__qualname__ = call
            if hasattr(field, "explains"):
                field.explains.__qualname__ = call
            field.made_with = fields
            field.made_by = construct
            field.made_from = bound.arguments
    return result


def _functions_in(values: Iterable[Any]) -> Iterable[Any]:
    """The functions among some values, and in their containers."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _functions_in(value)
        elif isinstance(value, dict):
            yield from _functions_in(value.values())
        elif callable(value):
            yield value


def call_of(made: Any) -> tuple[Any, dict[str, Any]]:
    """The constructor that made a named tuple of functions, and the arguments it was given.

    None and no arguments for what was made by hand.
    """
    for function in made:
        if getattr(function, "made_with", None) == tuple(made):
            return function.made_by, function.made_from
    return None, {}


def call_repr(made: Any) -> str:
    """The call that made a named tuple of functions; its functions, if it was made by hand."""
    for function in made:
        if getattr(function, "made_with", None) == tuple(made):
            return function.__qualname__  # type: ignore[no-any-return]
    return f"{type(made).__name__}({', '.join(map(value_text, made))})"


def refuse_constructor(value: Any, where: str, expected: str = "a layer") -> None:
    """Raise if `value` is a constructor such as `nn.dense`, given without being called."""
    if getattr(value, "is_constructor", False):
        name = value.__name__
        raise TypeError(
            f"{where} is the constructor {name}, expected {expected}: call it, {name}(...)"
        )


def _call_text(name: str, bound: inspect.BoundArguments) -> str:
    """The call as one would write it: without defaults, and what has one by its name."""
    shown: list[str] = []
    for parameter in bound.signature.parameters.values():
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            shown += map(value_text, value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            shown += [f"{key}={value_text(item)}" for key, item in value.items()]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            shown.append(value_text(value))
        elif not _is_default(value, parameter.default):
            shown.append(f"{parameter.name}={value_text(value)}")
    return f"{name}({', '.join(shown)})"


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    try:
        return comparable(value) == comparable(default)
    except IncomparableError:
        return False
