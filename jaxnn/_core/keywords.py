"""The keywords that an `apply` or `init` takes beyond the protocol: declared, never swallowed."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def declare_keywords(own: Sequence[inspect.Parameter], function: F) -> F:
    """`function`, an `init` or `apply` whose `**extra` stands for the keywords `own` alone."""
    signature = inspect.signature(function)
    standard = [
        p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    names = {p.name for p in (*standard, *own)}

    def declared(*args: Any, **kwargs: Any) -> Any:
        unknown = kwargs.keys() - names
        if unknown:
            raise TypeError(
                f"{declared.__qualname__}() got an unexpected keyword argument '{min(unknown)}'"
            )
        return function(*args, **kwargs)

    declared.__signature__ = signature.replace(parameters=[*standard, *own])  # type: ignore[attr-defined]
    return cast(F, declared)


def keywords_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What an `init` or `apply` takes beyond the protocol."""
    protocol = ("key", "params", "state", "x", "train")
    parameters = inspect.signature(function).parameters.values()
    return [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in parameters
        if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name not in protocol
    ]


def accepted(function: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Those of `extra` that `function` declares."""
    declared = inspect.signature(function).parameters
    return {name: value for name, value in extra.items() if name in declared}


def split_static(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords that hold arrays, and those that are configuration (a bool, None)."""
    arrays = {
        name: value
        for name, value in extra.items()
        if any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value))
    }
    return arrays, {name: value for name, value in extra.items() if name not in arrays}
