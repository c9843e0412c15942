"""How Sphinx builds these pages: `make docs`."""

import ast
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import jaxnn as nn

sys.path.append(str(Path(__file__).parent))  # mathml.py

project = "jaxnn"
author = "The jaxnn authors"
version = release = nn.__version__

extensions = [
    "mathml",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

# Pages.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Reference.
default_role = "code"  # `x` in a docstring
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns"]  # sentences, not `type: text`

# The build needs no network; where it has one, types of JAX and NumPy become links.
if os.environ.get("INTERSPHINX"):
    intersphinx_mapping = {
        "jax": ("https://docs.jax.dev/en/latest", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "python": ("https://docs.python.org/3", None),
    }

html_theme = "furo"
html_title = "jaxnn"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False

ALIASES = ["jaxnn._core.types", "jaxnn._core.layer", "jaxnn.callbacks._callbacks"]


def as_written(
    app: Sphinx, what: str, name: str, obj: Any, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Give a function its signature as it stands in the source, with the names of types."""
    if what != "function":
        return None
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    return f"({ast.unparse(function.args)})", ast.unparse(function.returns)


def prepare(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn a docstring into reStructuredText, for napoleon to read its sections."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    text, example, code = "\n".join(lines).partition("\nExample:\n")
    lines[:] = (restructured(text) + example + code).split("\n")


def describe_alias(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Give the alias of a type the string below it in the source."""
    module, _, alias = name.rpartition(".")
    if module == "jaxnn.typing":
        for source in ALIASES:
            lines[:] = ModuleAnalyzer.for_module(source).find_attr_docs().get(("", alias), lines)


def restructured(text: str) -> str:
    """Escape what is marked up in reStructuredText, but in our docstrings is plain text."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"(?<!\*)\*(?![\s*])|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]  # `Layer`s
    return "".join(parts)


def shallow(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    """Keep the pages of single functions out of the navigation, which is part of each of them."""
    toctree = context["toctree"]
    context["toctree"] = lambda **options: toctree(**{**options, "maxdepth": 1})


def setup(app: Sphinx) -> None:
    """Register what is done here."""
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", describe_alias, priority=600)  # after it
    app.connect("autodoc-process-signature", as_written)
    app.connect("html-page-context", shallow, priority=400)  # before the theme
