"""Trees of arrays from files that have more, or less, or other names."""

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.types import Arrays, PyTree
from jaxnn._files.leaves import leaves_by_name
from jaxnn._files.saved import reading


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
    path: str | bytes | PathLike[str], like: Arrays, *, rename: Mapping[str, str] | None = None
) -> PartialLoad:
    """Load what a file has of a tree, and tell what it lacks, and what it has besides.

    For a trunk that becomes part of another model, or a head that is to be new. `nn.load` is for a
    whole tree, and refuses a file that is not of it.

    Args:
        path: the file.
        like: the tree to make; a leaf that the file lacks is taken from it.
        rename: names of the file, as patterns in which a star stands for anything, and the paths
            that they become, with as many stars: `{"encoder/*": "model/trunk/*"}`. A star takes as
            little as it can, the last one the rest. The first pattern that a name matches counts;
            other names stay.

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
    patterns, wanted = _patterns(rename or {}), leaves_by_name("load_partial", like)
    with reading("load_partial", path) as saved:
        targets = {name: _renamed(name, patterns) for name in saved.forms}
        names = {target: name for name, target in targets.items()}
        saved.raise_for(
            [
                f"rename makes {target!r} of {name!r} and of {names[target]!r}, expected a path "
                "for each"
                for name, target in targets.items()
                if names[target] != name
            ]
        )
        missing = {target: leaf for target, leaf in wanted.items() if target not in names}
        saved.raise_for(
            [
                f"it lacks {target!r}, and like has no array to keep there, expected one"
                for target, leaf in missing.items()
                if isinstance(leaf, jax.ShapeDtypeStruct)
            ]
        )
        common = {target: leaf for target, leaf in wanted.items() if target in names}
        values = {**wanted, **saved.leaves(common, names)}
    tree = jax.tree.unflatten(jax.tree.structure(like), values.values())
    unexpected = sorted(name for name, target in targets.items() if target not in wanted)
    return PartialLoad(tree, tuple(missing), tuple(unexpected))


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
    return [(_compiled(pattern), target) for pattern, target in rename.items()]


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern that costs no more than a name is long: what a star has taken, it keeps."""
    *parts, last = map(re.escape, pattern.split("*"))
    if not parts:
        return re.compile(last)
    first, *others = parts
    between = "".join(f"(?>(.*?){part})" for part in others)
    return re.compile(f"{first}{between}(.*){last}", re.DOTALL)


def _renamed(name: str, patterns: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in patterns:
        if match := pattern.fullmatch(name):
            first, *others = target.split("*")
            pairs = zip(match.groups(), others, strict=True)
            return first + "".join(part + other for part, other in pairs)
    return name
