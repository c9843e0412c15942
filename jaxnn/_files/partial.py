"""Trees of arrays from files that have more, or less, or other names."""

import os
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.types import PyTree
from jaxnn._files.leaves import as_leaf, form_of, leaves_by_name, saved_form
from jaxnn._files.safetensors import opened
from jaxnn._files.saving import read_leaf, sealed_header


class PartialLoad(NamedTuple):
    """What `load_partial` returns: the tree, and what did not find its counterpart.

    `missing` are the paths of leaves that the file lacks, which are those of `like`; `unexpected`
    are the names of tensors that the tree has no leaf for.
    """

    tree: PyTree
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@checked
def load_partial(
    path: str | bytes | PathLike[str], like: PyTree, *, rename: Mapping[str, str] | None = None
) -> PartialLoad:
    """Load what a file has of a tree, and tell what it lacks, and what it has besides.

    For a trunk that becomes part of another model, or a head that is to be new. `nn.load` is for a
    whole tree, and refuses a file that is not of it.

    Args:
        path: the file.
        like: the tree to make; a leaf that the file lacks is taken from it.
        rename: names of the file, as patterns in which a star stands for anything, and the paths
            that they become, with as many stars: `{"encoder/*": "model/trunk/*"}`. The first
            pattern that a name matches counts; other names stay.

    Returns:
        A `PartialLoad`: `tree` with the structure of `like`, `missing` and `unexpected`.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an argument is of the wrong kind.
        ValueError: the file is damaged; a tensor has another shape or dtype than its leaf; the file
            lacks a leaf that is a `jax.ShapeDtypeStruct`; or two names become the same path.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> x, keys = jnp.ones((1, 3)), jax.random.split(jax.random.key(0))
        >>> trunk = nn.serial(nn.dense(4), nn.relu)
        >>> model = nn.serial(trunk=trunk, head=nn.dense(2))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/trunk.safetensors", trunk.init(keys[0], x)[0])
        ...     params, missing, unexpected = nn.load_partial(
        ...         f"{directory}/trunk.safetensors", model.init(keys[1], x)[0],
        ...         rename={"*": "trunk/*"})
        >>> missing, unexpected
        (('head/bias', 'head/kernel'), ())
    """
    path, patterns = os.fsdecode(path), _patterns(rename or {})
    wanted = leaves_by_name("load_partial", like)
    with opened("load_partial", path) as file:
        found, notes = sealed_header("load_partial", path, file)
        names = {name: _renamed(name, patterns) for name in found.tensors}
        sources = {target: name for name, target in names.items()}
        if len(sources) < len(names):
            twice = next(name for name, target in names.items() if sources[target] != name)
            raise ValueError(
                f"load_partial: rename makes {names[twice]!r} of {twice!r} and of "
                f"{sources[names[twice]]!r}, expected a path for each"
            )
        missing = tuple(target for target in wanted if target not in sources)
        abstract = [name for name in missing if isinstance(wanted[name], jax.ShapeDtypeStruct)]
        if abstract:
            raise ValueError(
                f"load_partial: {path} lacks {', '.join(map(repr, abstract[:5]))}, of which like "
                "has no value, expected arrays in like"
            )
        common = {target: sources[target] for target in wanted if target in sources}
        forms = {
            target: saved_form(path, name, found.tensors[name], notes[name])
            for target, name in common.items()
        }
        for target, name in common.items():
            expected = form_of("load_partial", target, wanted[target])
            if forms[target] != expected:
                raise ValueError(
                    f"load_partial: {path}: {name!r} has {forms[target]}, expected {expected} for "
                    f"{target!r}"
                )
        values = dict(wanted)
        for target, name in common.items():
            data = read_leaf("load_partial", path, file, name, found, notes[name])
            values[target] = as_leaf(wanted[target], data, forms[target], notes[name])
    tree = jax.tree.unflatten(jax.tree.structure(like), values.values())
    unexpected = tuple(sorted(name for name, target in names.items() if target not in wanted))
    return PartialLoad(tree, missing, unexpected)


def _patterns(rename: Any) -> list[tuple[re.Pattern[str], str]]:
    if not isinstance(rename, Mapping) or not all(
        isinstance(text, str) for pair in rename.items() for text in pair
    ):
        raise TypeError(
            f"load_partial: rename is {rename!r}, expected a mapping from names to paths"
        )
    for pattern, target in rename.items():
        if pattern.count("*") != target.count("*"):
            raise ValueError(
                f"load_partial: rename has {pattern!r}: {target!r}, expected as many stars in both"
            )
    return [
        (re.compile(re.escape(pattern).replace(r"\*", "(.*)"), re.DOTALL), target)
        for pattern, target in rename.items()
    ]


def _renamed(name: str, patterns: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in patterns:
        if match := pattern.fullmatch(name):
            first, *others = target.split("*")
            pairs = zip(match.groups(), others, strict=True)
            return first + "".join(part + other for part, other in pairs)
    return name
