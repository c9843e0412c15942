"""Leaves of a tree by their path, as "encoder/0/kernel"."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import jax

from jaxnn._core.types import Mask, PyTree
from jaxnn._core.types import Selection as Selection

KERNELS = ("kernel", "*/kernel")  # what penalties and reparametrisations are for


def path_text(path: tuple[Any, ...]) -> str:
    """A key path of `jax.tree_util` as text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_paths(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """The path of each leaf, in the order of `jax.tree.leaves`."""
    return [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf)]


def same_structure(function: str, **trees: PyTree) -> None:
    """Raise unless the named trees have one structure; the message names the paths that differ."""
    structure: Callable[[PyTree], Any] = jax.tree.structure
    (first_name, first), *others = trees.items()
    for name, tree in others:
        if structure(tree) == structure(first):
            continue
        expected, got = leaf_paths(first), leaf_paths(tree)
        missing = sorted(set(expected) - set(got))
        extra = sorted(set(got) - set(expected))
        difference = "; ".join(
            [f"{name} lacks {path!r}" for path in missing[:3]]
            + [f"{first_name} lacks {path!r}" for path in extra[:3]]
        )
        raise ValueError(
            f"{function}: {name} and {first_name} differ in structure"
            + (f": {difference}" if difference else ", in the types of their containers")
        )


def select(tree: PyTree, where: Selection, name: str = "where") -> PyTree:
    """The tree of booleans that `where` chooses from `tree`.

    `where` is a glob on the path or several of them, a predicate `(path, leaf) -> bool`, a tree
    of booleans with the structure of `tree`, or one boolean for all. Errors call it `name`.
    """
    if isinstance(where, bool):
        return jax.tree.map(lambda _: where, tree)
    if isinstance(where, str):
        where = (where,)
    if callable(where):
        predicate = where
        return jax.tree_util.tree_map_with_path(lambda p, leaf: predicate(path_text(p), leaf), tree)
    if _are_globs(where):
        return _match(tree, where, name)
    same_structure(name, params=tree, where=where)
    for path, flag in zip(leaf_paths(where), jax.tree.leaves(where), strict=True):
        if not _is_flag(flag):
            raise TypeError(f"{name}: it has {flag!r} at {path!r}, expected True or False")
    return where


def is_selection(where: Any) -> bool:
    """Whether it is of a kind that `select` and `select_mask` take."""
    if callable(where):
        return not getattr(where, "is_constructor", False)
    if isinstance(where, str) or _are_globs(where):
        return True
    return where is not None and all(map(_is_flag, jax.tree.leaves(where)))


def _is_flag(leaf: Any) -> bool:
    is_scalar = getattr(leaf, "shape", None) == () and leaf.dtype == bool
    return isinstance(leaf, bool) or is_scalar


def select_mask(tree: PyTree, mask: Mask, name: str = "where") -> PyTree:
    """The tree of booleans that the mask of an optimizer chooses from `tree`.

    A mask is what `select` takes, and what optax does: a function of the tree that returns one
    (told from a predicate by its one argument), or a tree whose leaves stand for subtrees.
    """
    where: Any = mask
    if callable(where) and not _is_predicate(where):
        where = where(tree)
    if not (callable(where) or _are_globs(where)):
        where = broadcast_prefix(where, tree, name)
    return select(tree, where, name)


def named_mask(mask: Mask | None, name: str) -> Any:
    """The mask as a function of the tree, whose errors call it `name`."""
    return None if mask is None else lambda tree: select_mask(tree, mask, name)


def broadcast_prefix(
    prefix: PyTree, tree: PyTree, name: str, is_leaf: Callable[[Any], bool] | None = None
) -> PyTree:
    """`prefix`, which errors call `name`, with its leaves repeated for the subtrees of `tree`."""
    try:
        return jax.tree.broadcast(prefix, tree, is_leaf)
    except ValueError:
        given, wanted = leaf_paths(prefix, is_leaf), leaf_paths(tree)
        missing = [path for path in wanted if not any(is_in(path, top) for top in given)]
        extra = [top for top in given if not any(is_in(path, top) for path in wanted)]
    difference = [f"it lacks {path!r}" for path in missing[:3]]
    difference += [f"the params lack {path!r}" for path in extra[:3]]
    raise ValueError(
        f"{name}: the tree does not fit the params: "
        + ("; ".join(difference) or "the types of their containers differ")
    )


def is_in(path: str, top: str) -> bool:
    """Whether a path is that of `top`, or of what is in it."""
    return path == top or path.startswith(f"{top}/") or not top


def _are_globs(where: Any) -> TypeGuard[Sequence[str]]:
    """Whether it is a sequence of strings; an empty one is a tree, that of no leaves."""
    if not isinstance(where, Sequence) or not where:
        return False
    return all(isinstance(pattern, str) for pattern in where)


def _is_predicate(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) == 2


def _match(tree: PyTree, patterns: Sequence[str], name: str) -> PyTree:
    paths = leaf_paths(tree)
    chosen = [is_match(path, patterns) for path in paths]
    if not any(chosen):
        raise no_match(name, patterns, paths, "there are no leaves")
    return jax.tree.unflatten(jax.tree.structure(tree), chosen)


def is_match(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs matches the path."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def no_match(
    name: str, patterns: Sequence[str], paths: Sequence[str], if_none: str = "there are none"
) -> ValueError:
    """The error that globs match no path, which names the nearest."""
    near = difflib.get_close_matches(patterns[0], paths, n=5, cutoff=0) or [f"({if_none})"]
    return ValueError(
        f"{name}: {' and '.join(map(repr, patterns))} match no path; the nearest are "
        f"{', '.join(near)}"
    )


def check_globs(name: str, patterns: Sequence[str], paths: Sequence[str]) -> None:
    """Raise unless every glob matches a path; errors begin with `name`."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
            raise no_match(name, [pattern], paths)


def first_matches(tree: PyTree, patterns: Sequence[str], name: str) -> list[str | None]:
    """For each leaf the first glob that matches its path, None if none does.

    Every glob has to be the first for a leaf; errors begin with `name`.
    """
    chosen = {pattern: jax.tree.leaves(_match(tree, (pattern,), name)) for pattern in patterns}
    first = [
        next((pattern for pattern in patterns if chosen[pattern][i]), None)
        for i in range(len(leaf_paths(tree)))
    ]
    hidden = [pattern for pattern in patterns if pattern not in first]
    if hidden:
        raise ValueError(
            f"{name}: {hidden[0]!r} matches only what the patterns before it do, expected it "
            "before them, since the first match counts"
        )
    return first


def selected_leaves(tree: PyTree, where: Selection) -> list[Any]:
    """The leaves of `tree` that `where` chooses, one at least."""
    chosen = jax.tree.leaves(select(tree, where))
    if not any(chosen):
        raise ValueError(
            f"where: {where!r} chooses no leaf, expected at least one of {leaf_paths(tree)}"
        )
    return [leaf for leaf, wanted in zip(jax.tree.leaves(tree), chosen, strict=True) if wanted]
