"""The matrix products of a step alone, as XLA does them: what remains if all else costs nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.row import Run


def repeated(multiply: Callable[[Any], Any], operands: Any, times: int = 1) -> Run:
    """The products of these operands so many times for each piece of work."""
    compiled = jax.jit(multiply)

    def run(n: int) -> None:
        for _ in range(n * times):
            jax.block_until_ready(compiled(operands))

    return run


def operands_of_dense(rows: int, inputs: int, outputs: int) -> Any:
    """The input of a dense layer, its kernel, and the gradient of its output."""
    return jnp.ones((rows, inputs)), jnp.ones((inputs, outputs)), jnp.ones((rows, outputs))


def dense(x: jax.Array, kernel: jax.Array, y: jax.Array) -> Any:
    """The output, the gradient of the kernel and that of the input."""
    return x @ kernel, x.T @ y, y @ kernel.T


def mlp(data: Any) -> Run:
    """Those of dense layers, the first of which needs no gradient of its input."""
    rows = len(data["x"])
    operands = [operands_of_dense(rows, *layer["kernel"].shape) for layer in data["weights"]]

    def multiply(operands: Any) -> Any:
        first, *others = operands
        return dense(*first)[:2], [dense(*layer) for layer in others]

    return repeated(multiply, operands)


def transformer(data: Any) -> Run:
    """Those of the blocks, without those of the embedding and the logits."""
    depth, width = data["weights"]["blocks"]["mlp_norm"]["bias"].shape
    batch, time = data["x"].shape
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    layers = [operands_of_dense(batch * time, *shape) for shape in shapes]
    heads = (batch, data["heads"], time)
    attention = [jnp.ones((*heads, width // data["heads"])) for _ in range(4)]
    weights = [jnp.ones((*heads, time)) for _ in range(2)]

    def multiply(operands: Any) -> Any:
        layers, (query, key, value, gradient), (seen, gradient_of_seen) = operands
        transposed = [a.mT for a in (key, value, seen, gradient_of_seen)]
        key_t, value_t, seen_t, gradient_of_seen_t = transposed
        forward = query @ key_t, seen @ value
        backward = gradient @ value_t, seen_t @ gradient
        backward += gradient_of_seen @ key, gradient_of_seen_t @ query
        return [dense(*layer) for layer in layers], forward, backward

    return repeated(multiply, (layers, attention, weights), depth)
