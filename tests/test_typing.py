"""What signatures speak of: every name is explained."""

import ast
import itertools
from pathlib import Path

import jaxnn as nn
from jaxnn._core import layer, types
from jaxnn.callbacks import _callbacks


def explained(module):
    """The names that a module defines with a docstring, or with a string that follows."""
    body = ast.parse(Path(module.__file__).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    names = {node.name for node in classes if ast.get_docstring(node)}
    for node, following in itertools.pairwise(body):
        is_string = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and is_string:
            names.add(node.target.id)
    return names


def test_every_name_is_explained_where_it_is_defined():
    known = set().union(*map(explained, (types, layer, _callbacks)))
    assert set(nn.typing.__all__) - known == set()
