"""The mistakes are as many as promised, and both checkers must find each."""

import ast
from pathlib import Path


def test_every_mistake_is_marked_for_both_checkers() -> None:
    text = Path(__file__).with_name("mistakes.py").read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    statements = [statement for function in functions for statement in function.body[1:]]
    mistakes = [statement for statement in statements if isinstance(statement, ast.Expr)]
    assert len(mistakes) >= 30
    lines = text.splitlines()
    for mistake in mistakes:
        line = lines[mistake.lineno - 1]
        assert "# type: ignore[" in line, line
        assert "# pyright: ignore[" in line, line
