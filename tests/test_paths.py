"""Leaves by their path: names, selections, structures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxnn as nn
from jaxnn._core.paths import leaf_paths, same_structure, select, selected_leaves


class Pair(NamedTuple):
    """A container with named fields."""

    mu: object
    nu: object


TREE = {
    "encoder": ({"kernel": 1, "bias": 2}, {}, {"kernel": 3, "bias": 4}),
    "head": {"scale": 5},
}
PATHS = ["encoder/0/bias", "encoder/0/kernel", "encoder/2/bias", "encoder/2/kernel", "head/scale"]

CONTAINERS = {
    "dict": (TREE, PATHS),
    "sorted": ({"b": 1, "a": 2}, ["a", "b"]),
    "list": ([1, [2, 3]], ["0", "1/0", "1/1"]),
    "namedtuple": (Pair({"w": 1}, 2), ["mu/w", "nu"]),
    "leaf": (1, [""]),
    "empty": ({}, []),
    "none": ({"w": None}, []),
    "integer-keys": ({0: 1, 10: 2}, ["0", "10"]),
}


@pytest.mark.parametrize(("tree", "paths"), CONTAINERS.values(), ids=CONTAINERS)
def test_leaf_paths(tree, paths):
    assert leaf_paths(tree) == paths
    assert len(paths) == len(jax.tree.leaves(tree))


# Each row: what chooses, the numbers of the leaves it chooses.
SELECTIONS = {
    "exact": ("head/scale", {5}),
    "star-crosses-slashes": ("*/kernel", {1, 3}),
    "star": ("*", {1, 2, 3, 4, 5}),
    "prefix": ("encoder/*", {1, 2, 3, 4}),
    "question-mark": ("encoder/?/bias", {2, 4}),
    "set": ("encoder/[0]/*", {1, 2}),
    "several": (("*/bias", "head/*"), {2, 4, 5}),
    "list": (["*/bias", "nothing/*"], {2, 4}),
    "case": ("HEAD/*", None),
    "part": ("kernel", None),
    "no-pattern": ((), None),
    "predicate-on-path": (lambda path, leaf: path.startswith("head"), {5}),
    "predicate-on-leaf": (lambda path, leaf: leaf > 3, {4, 5}),
    "predicate-of-none": (lambda path, leaf: False, set()),
    "true": (True, {1, 2, 3, 4, 5}),
    "false": (False, set()),
    "tree": (jax.tree.map(lambda leaf: leaf == 3, TREE), {3}),
    "other-tree": ({"encoder": True, "head": False}, None),
}
GOOD = {name: row for name, row in SELECTIONS.items() if row[1] is not None}
REFUSED = [name for name, row in SELECTIONS.items() if row[1] is None]


@pytest.mark.parametrize(("where", "chosen"), GOOD.values(), ids=GOOD)
def test_select(where, chosen):
    picked = select(TREE, where)
    assert jax.tree.structure(picked) == jax.tree.structure(TREE)
    pairs = zip(jax.tree.leaves(TREE), jax.tree.leaves(picked), strict=True)
    assert {leaf for leaf, wanted in pairs if wanted} == chosen
    if chosen:
        assert set(selected_leaves(TREE, where)) == chosen


@pytest.mark.parametrize("name", REFUSED)
def test_selections_that_fit_nothing_are_refused(name):
    with pytest.raises(ValueError, match="where"):
        select(TREE, SELECTIONS[name][0])


def test_a_glob_without_a_match_names_itself_and_the_nearest_paths():
    with pytest.raises(ValueError, match="'encodr/0/kernel'") as error:
        select(TREE, "encodr/0/kernel")
    nearest = str(error.value).split("nearest are ")[1].split(", ")
    assert nearest[0] == "encoder/0/kernel"
    assert set(nearest) <= set(PATHS)


def test_a_glob_in_a_tree_without_leaves_is_refused():
    with pytest.raises(ValueError, match="no leaves"):
        select({}, "*")


# Each row: another tree, what the message says of it.
DIFFERENT = {
    "less": ({"a": 1}, ["new lacks 'b/c'"]),
    "more": ({"a": 1, "b": {"c": 2}, "d": 3}, ["old lacks 'd'"]),
    "renamed": ({"a": 1, "b": {"x": 2}}, ["new lacks 'b/c'", "old lacks 'b/x'"]),
    "none": ({"a": None, "b": {"c": 2}}, ["new lacks 'a'"]),
    "deeper": ({"a": {"z": 1}, "b": {"c": 2}}, ["new lacks 'a'", "old lacks 'a/z'"]),
}


@pytest.mark.parametrize(("other", "fragments"), DIFFERENT.values(), ids=DIFFERENT)
def test_structures_that_differ(other, fragments):
    with pytest.raises(ValueError, match="caller: new and old differ in structure") as error:
        same_structure("caller", old={"a": 1, "b": {"c": 2}}, new=other)
    assert all(fragment in str(error.value) for fragment in fragments)


def test_containers_that_differ():
    with pytest.raises(ValueError, match="in the types of their containers"):
        same_structure("caller", old=[1, 2], new=(1, 2))


def test_the_tree_that_differs_is_named_among_several():
    with pytest.raises(ValueError, match=r"third and first .* third lacks 'a'"):
        same_structure("caller", first={"a": 1}, second={"a": 2}, third={})


@pytest.mark.parametrize("tree", [TREE, {}, 1, None, [(), {}]])
def test_equal_structures_pass(tree):
    same_structure("caller", old=tree, new=jax.tree.map(lambda leaf: jnp.ones(leaf), tree))


@pytest.mark.parametrize("regularizer", ["l1", "l2"])
@pytest.mark.parametrize("where", [False, lambda path, leaf: False])
def test_a_penalty_of_no_leaves_is_refused(regularizer, where):
    penalty = getattr(nn.regularizers, regularizer)(0.1, where=where)
    with pytest.raises(ValueError, match=r"chooses no leaf, expected at least one of .*'kernel'"):
        penalty({"kernel": jnp.ones(3)})
