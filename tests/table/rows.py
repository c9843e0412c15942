"""What a row of the table is, and how its arguments are drawn."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import jaxnn as nn


def rng_for(name):
    """A generator that depends on the name of a case only."""
    return np.random.default_rng(list(name.encode()))


class LayerRow(NamedTuple):
    """A layer, the call that makes it as `repr` shows it, and what is to be expected of it."""

    name: str
    call: str
    make: Callable[[], nn.Layer]
    shapes: tuple = ((4, 6), (2, 5, 4))  # of inputs; most tests take the first
    reference: Callable | None = None  # None: checked through its children
    is_random: bool = False
    has_state: bool = False
    keeps_state: bool = False  # in training too
    has_examples: bool = True  # along axis 0 of the input
    couples_examples: tuple = ()  # in which modes, as `train`, outputs depend on other examples
    vocabulary: int | None = None  # inputs are integers below it
    bfloat16_tolerance: float = 0.05

    @property
    def constructor(self):
        """The public name."""
        return self.call.partition("(")[0]

    def draw_x(self, rng, shape, dtype):
        """An input: normal numbers, or integers below `vocabulary`."""
        if self.vocabulary is None:
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, self.vocabulary, shape).astype(np.int32)

    def abstract_x(self, dtype):
        """The shape and dtype of the first input."""
        return jax.ShapeDtypeStruct(self.shapes[0], dtype if self.vocabulary is None else np.int32)

    @property
    def differs_in_training(self):
        """Whether training computes something else than evaluation does."""
        return self.is_random or self.has_state

    @property
    def differentiable(self):
        """Which of (params, x) have a gradient."""
        return (0, 1) if self.vocabulary is None else (0,)

    def evaluate_call(self):
        """What `call` gives, with the names of jaxnn and of the module of the row."""
        return eval(self.call, {**self.make.__globals__, **vars(nn)})


class Drawn(NamedTuple):
    """A layer with parameters and state drawn at random, and an input."""

    layer: nn.Layer
    params: Any
    state: Any
    x: Any


def cases(rows):
    """A case for each row; the variants of a constructor, after its first row, are slow ones."""
    seen = set()
    params = []
    for row in rows:
        marks = [pytest.mark.slow] if row.constructor in seen else []
        seen.add(row.constructor)
        params.append(pytest.param(row, id=row.name, marks=marks))
    return params


def in_turns(rows):
    """Each row with each of its shapes, and whether it is the quick one of the row."""
    for place, row in enumerate(rows):
        for i, shape in enumerate(row.shapes):
            yield row, shape, i == place % len(row.shapes)


def draw_layer(row, shape=None, dtype=np.float32):
    """NumPy arrays for a row: normal parameters, biases included, and a positive state."""
    rng = rng_for(row.name)
    layer = row.make()
    x = row.draw_x(rng, shape or row.shapes[0], dtype)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    return Drawn(
        layer,
        jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), params),
        jax.tree.map(lambda leaf: rng.uniform(0.3, 2.0, leaf.shape).astype(leaf.dtype), state),
        x,
    )


class FunctionRow(NamedTuple):
    """A function of arrays and its reference, which takes the same arguments and options."""

    name: str  # as jaxnn.losses.huber_loss is named: losses.huber_loss
    function: Callable
    reference: Callable
    draw: Callable[[np.random.Generator, tuple], tuple]  # (rng, shape) -> arguments
    shapes: tuple = ((6,), (4, 6), (2, 3, 4))
    options: Mapping = MappingProxyType({})  # keyword arguments of both
    variant: str = ""

    def case(self, shape):
        """What a test of the row with this shape is called."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        parts = [self.name, self.variant, *options, "x".join(map(str, shape))]
        return "-".join(part for part in parts if part)


def normal(rng, shape):
    """One normal array."""
    return (rng.standard_normal(shape),)


def off_kinks(rng, shape):
    """Numbers in (-8, 8), at least 0.1 from the integers, where the activations have kinks."""
    return (rng.integers(-8, 8, shape) + rng.uniform(0.1, 0.9, shape),)
