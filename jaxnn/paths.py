"""Leaves of a tree by their path, as "encoder/0/kernel"."""

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxnn._arrays import PyTree

Selection = str | Sequence[str] | Callable[[str, Any], bool] | PyTree


def path_text(path: tuple[Any, ...]) -> str:
    """A key path of `jax.tree_util` as text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of each leaf, in the order of `jax.tree.leaves`."""
    return [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


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


def select(tree: PyTree, where: Selection) -> PyTree:
    """The tree of booleans that `where` chooses from `tree`.

    `where` is a glob on the path or several of them, a predicate `(path, leaf) -> bool`, a tree
    of booleans with the structure of `tree`, or one boolean for all.
    """
    if isinstance(where, bool):
        return jax.tree.map(lambda _: where, tree)
    if isinstance(where, str):
        where = (where,)
    if callable(where):
        predicate = where
        return jax.tree_util.tree_map_with_path(lambda p, leaf: predicate(path_text(p), leaf), tree)
    if isinstance(where, Sequence) and all(isinstance(pattern, str) for pattern in where):
        return _match(tree, where)
    same_structure("where", params=tree, where=where)
    return where


def _match(tree: PyTree, patterns: Sequence[str]) -> PyTree:
    paths = leaf_paths(tree)
    chosen = [any(fnmatch.fnmatchcase(p, pattern) for pattern in patterns) for p in paths]
    if not any(chosen):
        wanted = patterns[0] if patterns else ""
        near = difflib.get_close_matches(wanted, paths, n=5, cutoff=0) or ["(there are no leaves)"]
        raise ValueError(
            f"where: {' and '.join(map(repr, patterns))} match no path; the nearest are "
            f"{', '.join(near)}"
        )
    return jax.tree.unflatten(jax.tree.structure(tree), chosen)


def selected_leaves(tree: PyTree, where: Selection) -> list[Any]:
    """The leaves of `tree` that `where` chooses, one at least."""
    chosen = jax.tree.leaves(select(tree, where))
    if not any(chosen):
        raise ValueError(
            f"where: {where!r} chooses no leaf, expected at least one of {leaf_paths(tree)}"
        )
    return [leaf for leaf, wanted in zip(jax.tree.leaves(tree), chosen, strict=True) if wanted]
