"""The pages of the documentation: each public name in one group of the reference, and found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import jaxnn as nn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = {path.name: path.read_text() for path in DOCS.glob("api/*.md")}
MODULES = {
    f"jaxnn.{name}": value
    for name in nn.__all__
    if isinstance(value := getattr(nn, name), ModuleType)
}


def public_names(module, prefix):
    """What a module makes public, and which of it is JAX's."""
    values = {f"{prefix}.{name}": getattr(module, name) for name in module.__all__}
    names = {n for n in values if n not in MODULES}
    from_jax = {n for n in names if getattr(values[n], "__module__", "").startswith("jax.")}
    return names - from_jax, from_jax


PUBLIC = [public_names(module, name) for name, module in {"jaxnn": nn, **MODULES}.items()]
OURS = {name for ours, _ in PUBLIC for name in ours}


def grouped(page):
    """The names of which Sphinx makes pages: those in the groups of a page of the reference."""
    groups = r"\.\. currentmodule:: ([\w.]+)\n\.\. autosummary::\n(?:   :.*\n)*\n((?:   \w+\n)+)```"
    for module, names in re.findall(groups, page):
        yield from (f"{module}.{name}" for name in names.split())


def test_each_public_name_is_in_one_group():
    found = [name for page in REFERENCE.values() for name in grouped(page)]
    assert sorted(found) == sorted(OURS)
    mentioned = {f"jaxnn.{n}" for n in re.findall(r"`nn\.([\w.]+)`", "".join(REFERENCE.values()))}
    assert {name for _, from_jax in PUBLIC for name in from_jax} <= mentioned


def test_each_module_has_a_page_that_begins_with_it():
    begun = {page.split("\n")[0].removeprefix("# ") for page in REFERENCE.values()}
    assert MODULES.keys() <= begun


def test_each_page_of_the_documentation_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    trees = re.findall(r"```{toctree}\n(?::.*\n)*\n([^`]+)```", (DOCS / "index.md").read_text())
    assert {name for tree in trees for name in tree.split()} == pages - {"index"}


def test_each_example_is_on_the_page_of_examples():
    rows = re.findall(r"^\| `(\w+\.py)` \|", (DOCS / "examples.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


COMPARED = [
    ("Transformer, 24 layers", "jaxnn, `nn.stack`"),
    ("Transformer, 24 layers", "flax linen + optax"),
    ("Transformer, 24 layers", "flax linen, `nn.scan`"),
    ("Transformer, 24 layers", "equinox + optax"),
    ("CNN 28x28", "jaxnn"),
    ("CNN 28x28", "flax linen + optax"),
    ("CNN 28x28", "equinox + optax"),
    ("Network 3-3-1", "jaxnn `training_run`"),
    ("Network 3-3-1", "equinox + optax, a jitted step"),
]


def test_figures_of_the_readme_are_those_of_the_benchmarks():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text().split("\n## ")
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("Why this, and not") : readme.index("Where all the time")]
    measured = []
    for heading, contestant in COMPARED:
        [rows] = [rows for rows in results if rows.startswith(heading)]
        measured += re.findall(rf"^\| {re.escape(contestant)} \| ([^|]+) \|", rows, re.MULTILINE)
    assert re.findall(r"[\d.]+ (?:µs|ms|s)\b", section) == measured


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as `make docs` builds them, by their names."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("generated"))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-j", "2", "docs", "site"]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder / "site"


@pytest.mark.slow
def test_each_public_name_has_a_page_with_a_heading_and_is_found(site):
    search = (site / "searchindex.js").read_text()
    objects = json.loads(search.removeprefix("Search.setIndex(").removesuffix(")"))["objects"]
    found = {f"{module}.{entry[-1]}" for module, entries in objects.items() for entry in entries}
    assert found >= OURS
    for name in OURS:
        page = (site / "api" / "generated" / f"{name}.html").read_text()
        assert f"<h1>{name}<" in page
        assert f'id="{name}"' in page


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere_and_show_no_private_name(site):
    for path in site.rglob("*.html"):
        page = path.read_text()
        fetched = (
            r"<(?:script|img|iframe)[^>]* src=\"(?:https?:)?//|<link[^>]* href=\"(?:https?:)?//"
        )
        assert not re.search(fetched, page), path
        assert "jaxnn._" not in page, path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", path.read_text()), path
