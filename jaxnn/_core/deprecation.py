"""Names and arguments that go: they work on for a while, and say what is there instead."""

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_arguments(until: str, **new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take arguments by their old names too, with a `DeprecationWarning`.

    `@renamed_arguments("0.3", heads="num_heads")` above a function with the argument `num_heads`:
    `heads=` is passed on as `num_heads=`, until version 0.3. The signature has new names alone.

    Args:
        until: the version in which the old names go.
        **new_names: the new name for each old one.

    Returns:
        A decorator.

    Raises:
        TypeError: when the function is called with an argument by both of its names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in new_names.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(
                            f"{function.__name__}: got {old} and {new}, expected {new} alone"
                        )
                    _warn(f"{function.__name__}: {old} is now {new}", until)
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        unknown = set(new_names.values()) - inspect.signature(function).parameters.keys()
        assert not unknown, f"{function.__name__} has no arguments {unknown}"
        return renamed

    return decorate


def deprecated(instead: str, until: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function give a `DeprecationWarning` at each call.

    Args:
        instead: what to use, as in "nn.fit(..., members=5)".
        until: the version in which the function goes.

    Returns:
        A decorator.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            _warn(f"{function.__name__} is deprecated: use {instead}", until)
            return function(*args, **kwargs)

        return warned

    return decorate


def renamed_names(module: str, until: str, **new_names: str) -> Callable[[str], Any]:
    """Let a module give what it has renamed by its old names too, with a `DeprecationWarning`.

    `__getattr__ = renamed_names(__name__, "0.3", huber="huber_loss")` in `jaxnn/losses/__init__.py`
    makes `losses.huber` be `losses.huber_loss`, until version 0.3. `dir` has the new names alone.

    Args:
        module: the name of the module.
        until: the version in which the old names go.
        **new_names: the new name for each old one.

    Returns:
        The module's `__getattr__`.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in new_names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name} is now {module}.{new_names[name]}", until)
        return getattr(importlib.import_module(module), new_names[name])

    return __getattr__


def _warn(message: str, until: str) -> None:
    warnings.warn(f"{message}; the old form goes in version {until}", DeprecationWarning, 3)
