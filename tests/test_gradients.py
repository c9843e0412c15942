"""Every value and every gradient against backpropagation derived by hand in NumPy, in float64.

Each test is one gradient check: the value, the reverse mode and the forward mode of one function
or layer at one shape, for a random cotangent and a random direction.
`pytest --collect-only -q tests/test_gradients.py -m ""` counts them. One shape of each row is
quick, by turns the first, the second and so on; all others are slow cases.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.table import FUNCTIONS, LAYERS, draw_layer, in_turns, rng_for

pytestmark = pytest.mark.usefixtures("x64")

TOLERANCE = 1e-9


def assert_close(got, expected):
    """Compare two trees of arrays, structures included."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert g.dtype == np.float64
        np.testing.assert_allclose(g, e, rtol=TOLERANCE, atol=TOLERANCE)


def normal_like(tree, rng):
    """A tree of normal numbers of the shapes of `tree`."""
    return jax.tree.map(lambda leaf: np.asarray(rng.standard_normal(jnp.shape(leaf))), tree)


def dot(a, b):
    """The inner product of two trees."""
    return sum(np.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def has_gradient(argument):
    """Whether an argument is a floating array or a tree of them, and no mask, label or None."""
    leaves = jax.tree.leaves(argument)
    return argument is not None and all(leaf.dtype.kind == "f" for leaf in leaves)


class Case(NamedTuple):
    """A function of arrays at a point, and what it and its derivatives have to be there."""

    function: Callable
    point: tuple
    dy: Any
    direction: tuple
    y: Any
    gradients: list


def case_of(function, reference, arguments, rng):
    """The function of those of the arguments that have a gradient, and what its reference says."""
    chosen = [i for i, argument in enumerate(arguments) if has_gradient(argument)]
    point = tuple(arguments[i] for i in chosen)

    def of_chosen(*values):
        filled = dict(zip(chosen, values, strict=True))
        return function(*(filled.get(i, argument) for i, argument in enumerate(arguments)))

    y, backward = reference(*arguments)
    dy, direction = normal_like(y, rng), normal_like(point, rng)
    gradients = backward(dy)
    assert len(gradients) == len(arguments)
    return Case(of_chosen, point, dy, direction, y, [gradients[i] for i in chosen])


def derived(cases):
    """Value, forward and reverse mode of each of some cases by name, computed by one program.

    The reverse mode is the transpose of the forward mode, as `jax.vjp` makes it: so every function
    is traced once, not twice.
    """

    @fast_jit
    def run(given):
        results = {}
        for name, (point, dy, direction) in given.items():
            y, pushforward = jax.linearize(cases[name].function, *point)
            pullback = jax.linear_transpose(pushforward, *point)
            results[name] = y, list(pullback(dy)), pushforward(*direction)
        return results

    return run({name: case[1:4] for name, case in cases.items()})


def check(case, result):
    """Compare value and derivatives with those of the reference."""
    y, gradients, tangent = result
    assert_close(y, case.y)
    assert_close(gradients, case.gradients)
    expected = dot(case.gradients, case.direction)
    np.testing.assert_allclose(dot(case.dy, tangent), expected, TOLERANCE, TOLERANCE)


@cache
def all_cases(name, is_quick):
    """The cases of a function, either the quick ones or the others, and their results."""
    cases = {}
    for row, shape, quick in in_turns(FUNCTIONS):
        if row.name == name and quick == is_quick:
            rng = rng_for(row.case(shape))
            functions = (partial(f, **row.options) for f in (row.function, row.reference))
            cases[row.case(shape)] = case_of(*functions, row.draw(rng, shape), rng)
    return cases, derived(cases)


@pytest.mark.parametrize(
    ("row", "shape", "is_quick"),
    [
        pytest.param(row, shape, quick, id=row.case(shape), marks=[] if quick else pytest.mark.slow)
        for row, shape, quick in in_turns(FUNCTIONS)
    ],
)
def test_function(row, shape, is_quick):
    cases, results = all_cases(row.name, is_quick)
    check(cases[row.case(shape)], results[row.case(shape)])


def layer_cases():
    """Each layer at each shape; training where it is another computation, or else a slow case."""
    rows = [row for row in LAYERS if row.reference is not None]
    for (row, shape, quick), train in product(in_turns(rows), (False, True)):
        is_slow = not quick or (train and not row.differs_in_training)
        name = f"{row.name}-{'x'.join(map(str, shape))}-{'training' if train else 'evaluation'}"
        yield pytest.param(row, shape, train, id=name, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(("row", "shape", "train"), list(layer_cases()))
def test_layer(row, shape, train):
    layer, params, state, x = draw_layer(row, shape, np.float64)

    def function(params, x):
        return layer.apply(params, state, x, key=jax.random.key(3), train=train)[0]

    def reference(params, x):
        return row.reference(params, state, x, key=jax.random.key(3), train=train)

    case = case_of(function, reference, (params, x), rng_for(row.name))
    check(case, derived({row.name: case})[row.name])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: nn.losses.absolute_error(x, jnp.zeros(3)),
        lambda x: nn.losses.huber_loss(x, jnp.zeros(3)),
        lambda x: nn.regularizers.l1(0.5)({"kernel": x}),
    ],
    ids=["absolute_error", "huber_loss", "l1"],
)
def test_derivative_at_the_kink_is_0(function):
    @fast_jit
    def both_modes(x):
        y, pullback = jax.vjp(function, x)
        return *pullback(jnp.ones_like(y)), jax.jvp(function, (x,), (jnp.ones_like(x),))[1]

    for slope in both_modes(np.zeros(3)):
        np.testing.assert_array_equal(slope, np.zeros_like(slope))
