"""Formulas as MathML, made when the pages are built: a browser shows it without a script."""

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator


def inline(translator: HTML5Translator, node: math) -> None:
    """Write a formula within a line."""
    translator.body.append(latex2mathml.tex2mathml(node.astext()))
    raise SkipNode


def block(translator: HTML5Translator, node: math_block) -> None:
    """Write a formula in lines of its own."""
    text = node.astext()
    formula = latex2mathml.tex2mathml(text, as_block=True)
    translator.body.append(f'<div class="math">{formula}</div>')
    raise SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
