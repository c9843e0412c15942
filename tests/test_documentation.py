"""The pages of the documentation: each public name on one of them, and nothing else."""

import re
import types
from pathlib import Path

import jaxnn as nn

API = Path(__file__).parents[1] / "docs" / "api"


def documented():
    """The names that the pages give to mkdocstrings, one by one or as a whole module."""
    names = []
    for page in API.glob("*.md"):
        for block in re.split(r"^::: ", page.read_text(), flags=re.MULTILINE)[1:]:
            module, _, options = block.partition("\n")
            listed = re.search(r"members:\s*(\[[^]]*\]|(?:\n +- \w+)+)", options)
            members = re.findall(r"\w+", listed.group(1)) if listed else [None]
            names += [module if member is None else f"{module}.{member}" for member in members]
    return names


def test_each_public_name_is_on_one_page():
    values = {f"jaxnn.{name}": getattr(nn, name) for name in nn.__all__}
    from_jax = {n for n, v in values.items() if getattr(v, "__module__", "").startswith("jax.")}
    assert sorted(documented()) == sorted(values.keys() - from_jax)


def test_modules_are_documented_as_a_whole():
    modules = {n for n in nn.__all__ if isinstance(getattr(nn, n), types.ModuleType)}
    assert {f"jaxnn.{name}" for name in modules} <= set(documented())
