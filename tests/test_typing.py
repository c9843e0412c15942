"""What signatures speak of: every name is explained."""

import ast
import inspect
import itertools
import textwrap
from pathlib import Path

import pytest

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


def arguments_of_any_type(function):
    """The arguments of a function that its source annotates with `Any`, which says nothing."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in arguments if getattr(a.annotation, "id", None) == "Any"]


def public_functions():
    """The functions of the package and of its modules, by name."""
    modules = [nn, *(value for value in vars(nn).values() if inspect.ismodule(value))]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name in getattr(module, "__all__", ())
        if inspect.isfunction(value := getattr(module, name))
        and value.__module__.startswith("jaxnn.")
    }


def test_no_public_argument_is_of_any_type():
    found = {name: arguments_of_any_type(f) for name, f in public_functions().items()}
    assert {name: arguments for name, arguments in found.items() if arguments} == {}


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (nn.dense(4), ("init", "apply")),
        (nn.lstm_cell(4), ("init", "initial_carry", "step")),
        (nn.optimizers.sgd(0.1), ("init", "update")),
    ],
)
def test_protocols_are_plain_named_tuples_of_functions(value, fields):
    kind = type(value)
    assert kind._fields == fields
    assert kind(*value) == value == value._replace(init=value.init)
    assert all(inspect.isfunction(function) for function in value)
    assert not hasattr(value, "__dict__")
    assert tuple(inspect.signature(kind).parameters) == fields
