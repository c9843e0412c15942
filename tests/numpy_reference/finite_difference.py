"""Numerical derivatives, against which the hand-derived ones are themselves checked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .float64 import Array

# Central differences err by step^2 f''' / 6 + 1e-16 f / step: both near 1e-11 here.
STEP = 1e-5


def directional(
    f: Callable, arguments: Sequence[Any], directions: Sequence[Array | None], step: float = STEP
) -> float:
    """Return d/dt f(arguments + t directions) at t = 0; a direction of None leaves its argument."""

    def along(t: float) -> float:
        pairs = zip(arguments, directions, strict=True)
        return f(*(a if d is None else a + t * d for a, d in pairs))

    return (along(step) - along(-step)) / (2 * step)


def is_differentiable(argument: Any) -> bool:
    """Tell whether a gradient is due: for floating arrays, not for masks, labels and None."""
    return isinstance(argument, np.ndarray) and argument.dtype.kind == "f"


def _outputs(y: Any) -> tuple[Array, ...]:
    return y if isinstance(y, tuple) else (y,)


def check(reference_call: Callable, arguments: Sequence[Any], rng: np.random.Generator) -> float:
    """Return the largest relative error of a reference's gradients, over random directions.

    With a random cotangent dy and direction u of one argument, <gradient, u> must be the
    derivative of <dy, y> along u. Floating arrays must have a gradient of their shape, others None.
    """
    y, backward = reference_call(*arguments)
    dys = tuple(rng.standard_normal(np.shape(value)) for value in _outputs(y))
    gradients = backward(dys if isinstance(y, tuple) else dys[0])
    if not isinstance(gradients, tuple) or len(gradients) != len(arguments):
        raise AssertionError(f"{len(arguments)} arguments, but the gradients are {gradients!r}")

    def scalar(*args: Any) -> float:
        values = _outputs(reference_call(*args)[0])
        return float(sum(np.sum(dy * value) for dy, value in zip(dys, values, strict=True)))

    worst = 0.0
    for i, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        if not is_differentiable(argument):
            if gradient is not None:
                raise AssertionError(f"argument {i} has no gradient, but got {gradient!r}")
            continue
        if gradient.shape != argument.shape or gradient.dtype != np.float64:
            raise AssertionError(f"argument {i}: the gradient is {gradient.dtype}{gradient.shape}")
        for _ in range(3):
            u = rng.standard_normal(argument.shape)
            directions = [u if j == i else None for j in range(len(arguments))]
            numerical, derived = directional(scalar, arguments, directions), np.sum(gradient * u)
            size = max(np.linalg.norm(gradient) * np.linalg.norm(u), abs(numerical))
            worst = max(worst, abs(numerical - derived) / size if size else 0.0)
    return float(worst)
