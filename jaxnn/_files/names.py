"""Tables that say where the leaves of a tree stand in the files of another library."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxnn._core.paths import is_in

Names = Mapping[str, "str | Sequence[str] | Mapping[str, int] | None"]

# What torch calls our leaves. The first that a module has is its "weight".
TORCH = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

_AXES = "ijkl"
_NUMBER = re.compile(r"\*|\{([^{}]*)\}")
_TERM = re.compile(rf"(?:(\d+)\*)?([{_AXES}])|(\d+)")


class Source(NamedTuple):
    """A tensor of the file that holds a leaf, or a part of one."""

    name: str
    features: int | None
    """How many features of the last axis are its own; None for an equal part."""
    is_added: bool
    """Whether it is added to the one before it, instead of standing beside it."""


class Entry(NamedTuple):
    """Leaves, or elements of their leading axes, and the tensors of the file that hold them."""

    leaf: str
    """The name of the leaf, which says how its axes lie in the file."""
    targets: tuple[tuple[str, tuple[int, ...]], ...]
    """Paths, each with its index into the leading axes: the tensors are split over them."""
    sources: tuple[Source, ...]
    """The tensors, side by side in the last axis of the leaf, or added up."""


def entries(
    function: str,
    shapes: Mapping[str, tuple[int, ...]],
    names: Names,
    words: Mapping[str, str],
    separator: str,
) -> tuple[list[Entry], list[str]]:
    """What a table says of the leaves with these shapes, and the leaves that no file has.

    `words` are the file's names for leaves. What the table says of modules that are not there is
    left out: so one table serves the variants of a model.

    Raises:
        TypeError: the table is not from strings to strings, sequences or mappings of them, or None.
        ValueError: a leaf is named twice, or the numbers in a name do not fit it.
    """
    found: list[Entry] = []
    absent: list[str] = []
    named: dict[str, str] = {}

    def name(path: str, target: str) -> str:
        if path in named:
            raise ValueError(
                f"{function}: names has {path!r} twice, by {named[path]!r} and {target!r}"
            )
        named[path] = target
        return path

    for target, source in _checked(function, names):
        if source is None:
            absent += [name(path, target) for path in shapes if is_in(path, target)]
            continue
        for leaf, paths, ending in _leaves(function, target, shapes, words, separator):
            for path in paths:
                name(path, target)
            found += _by_element(function, leaf, paths, _sources(source, ending), shapes)
    return found, absent


def _checked(function: str, names: Names) -> Iterable[tuple[str, Any]]:
    for target, source in names.items():
        parts = [source] if isinstance(source, str | None) else source
        are_names = isinstance(parts, Sequence | Mapping) and parts
        if not are_names or not all(isinstance(part, str | None) for part in (target, *parts)):
            raise TypeError(
                f"{function}: names[{target!r}] is {source!r}, expected a name, several of them, "
                "a mapping from names to numbers of features, or None"
            )
        if isinstance(source, Mapping) and not all(type(n) is int for n in source.values()):
            raise TypeError(
                f"{function}: names[{target!r}] is {source!r}, expected integers as numbers of "
                "features"
            )
    return names.items()


def _leaves(
    function: str,
    target: str,
    shapes: Mapping[str, Any],
    words: Mapping[str, str],
    separator: str,
) -> Iterator[tuple[str, list[str], str]]:
    """The leaves of a module, or of several: their name, their paths, the ending in the file."""
    before, braces, rest = target.partition("{")
    choices, _, after = rest.partition("}")
    tops = (
        [before + choice.strip() + after for choice in choices.split(",")] if braces else [before]
    )
    if any(top in shapes for top in tops):
        yield tops[0].rpartition("/")[2], _all_of(function, target, tops, shapes), ""
        return
    for leaf, word in words.items():
        paths = [f"{top}/{leaf}".lstrip("/") for top in tops]
        if any(path in shapes for path in paths):
            yield leaf, _all_of(function, target, paths, shapes), separator + word


def _all_of(function: str, target: str, paths: list[str], shapes: Mapping[str, Any]) -> list[str]:
    for path in paths:
        if path not in shapes:
            raise ValueError(
                f"{function}: names has {target!r}, but of {', '.join(map(repr, paths))} there is "
                f"no {path!r}"
            )
    return paths


def _sources(source: Any, ending: str) -> tuple[Source, ...]:
    if isinstance(source, str):
        source = (source,)
    sizes = source if isinstance(source, Mapping) else dict.fromkeys(source)
    return tuple(
        Source(name.removeprefix("+") + ending, features, name.startswith("+"))
        for name, features in sizes.items()
    )


def _by_element(
    function: str,
    leaf: str,
    paths: list[str],
    sources: tuple[Source, ...],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[Entry]:
    """An entry for each element of the leading axes that the numbers in the names stand for."""
    axes = {len(_numbers(function, source.name)[1]) for source in sources}
    if len(axes) > 1:
        listed = ", ".join(repr(source.name) for source in sources)
        raise ValueError(f"{function}: names of one leaf have as many numbers; {listed} differ")
    (count,) = axes
    leading = {shapes[path][:count] for path in paths}
    if len(leading) > 1 or len(next(iter(leading))) < count:
        told = ", ".join(f"{path!r} of shape {shapes[path]}" for path in paths)
        raise ValueError(
            f"{function}: {sources[0].name!r} has {count} numbers, expected each to be a leading "
            f"axis of {told}"
        )
    for index in itertools.product(*map(range, next(iter(leading)))):
        filled = tuple(source._replace(name=fill(source.name, index)) for source in sources)
        yield Entry(leaf, tuple((path, index) for path in paths), filled)


def widths(sources: Sequence[Source], total: int) -> list[int] | None:
    """How many of `total` features each tensor has; None if they do not fill them.

    It is its own number, an equal part, or that of the one before it, to which it is added.
    """
    beside = [source for source in sources if not source.is_added]
    if not beside or sources[0].is_added:
        return None
    equal, left = divmod(total, len(beside))
    sizes = [equal if source.features is None else source.features for source in beside]
    if sum(sizes) != total or (left and None in {source.features for source in beside}):
        return None
    remaining, found = iter(sizes), list[int]()
    for source in sources:
        found.append(found[-1] if source.is_added else next(remaining))
    return found


def fill(name: str, index: Sequence[int]) -> str:
    """A name with its numbers, those of an element of the leading axes."""
    numbers, _ = _numbers("names", name)
    values = iter(
        constant + sum(factor * index[axis] for axis, factor in factors.items())
        for constant, factors in numbers
    )
    return _NUMBER.sub(lambda _: str(next(values)), name)


def _numbers(function: str, name: str) -> tuple[list[tuple[int, dict[int, int]]], set[int]]:
    """The numbers in a name, each a constant and a factor for each axis, and all the axes.

    A star is the next axis of those that no expression such as `{2*i+1}` has.
    """
    expressions = [_linear(function, name, m[1]) for m in _NUMBER.finditer(name)]
    taken = {axis for expression in expressions if expression for axis in expression[1]}
    free = (axis for axis in itertools.count() if axis not in taken)
    numbers = [expression or (0, {next(free): 1}) for expression in expressions]
    return numbers, {axis for _, factors in numbers for axis in factors}


def _linear(function: str, name: str, text: str | None) -> tuple[int, dict[int, int]] | None:
    """The constant and the factors of an expression; None for a star."""
    if text is None:
        return None
    constant, factors = 0, dict[int, int]()
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(
                f"{function}: {name!r} has {{{text}}}, expected a sum such as {{2*i+1}} with i, j, "
                "k, l for the leading axes"
            )
        factor, axis, number = match.groups()
        if axis is None:
            constant += int(number)
        else:
            factors[_AXES.index(axis)] = int(factor or 1)
    return constant, factors
