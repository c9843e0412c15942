"""The pages of the reference: each public name on one of them, and nothing else."""

import re
from pathlib import Path
from types import ModuleType

import jaxnn as nn

API = Path(__file__).parents[1] / "docs" / "api"
PAGES = {path.name: path.read_text() for path in API.glob("*.md")}
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


def documented(page):
    """The names that a page gives to mkdocstrings; a module without `members` stands for all."""
    for name, options in re.findall(r"^#+ ::: ([\w.]+)\n((?:    .*\n)*)", page, re.MULTILINE):
        if name not in MODULES:
            yield name
        elif "members: []" not in options:
            yield from public_names(MODULES[name], name)[0]


def test_each_public_name_is_on_one_page():
    public = [public_names(module, name) for name, module in {"jaxnn": nn, **MODULES}.items()]
    found = [name for page in PAGES.values() for name in documented(page)]
    assert sorted(found) == sorted(name for ours, _ in public for name in ours)
    mentioned = {f"jaxnn.{n}" for n in re.findall(r"`nn\.([\w.]+)`", "".join(PAGES.values()))}
    assert {name for _, from_jax in public for name in from_jax} <= mentioned


def test_each_module_has_a_page_that_begins_with_it():
    begun = {page.split("\n")[0].removeprefix("# ::: ") for page in PAGES.values()}
    assert MODULES.keys() <= begun


def test_each_page_of_the_documentation_is_in_the_navigation():
    docs = API.parent
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    navigation = (docs.parent / "mkdocs.yml").read_text()
    assert set(re.findall(r": ([\w/]+\.md)$", navigation, re.MULTILINE)) == pages
