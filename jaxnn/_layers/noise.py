"""Layers that are random in training, and something simple in evaluation."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnn._core.layer import Layer, missing_key, pure
from jaxnn._core.types import PyTree


def in_training(
    name: str,
    change: Callable[[jax.Array, PyTree, Any], jax.Array],
    amount: Any,
    evaluate: Callable[[PyTree], PyTree] = lambda x: x,
) -> Layer:
    """A layer that is `change(key, x, amount)` in training, and `evaluate(x)` in evaluation."""

    def call(params: PyTree, x: PyTree, *, key: jax.Array | None, train: bool) -> PyTree:
        if not train:
            return evaluate(x)
        if key is None:
            raise missing_key(f"{name}({amount})")
        return change(key, x, amount)

    return pure(lambda key, x: {}, call)
