"""Every value and every gradient against backpropagation derived by hand in NumPy, in float64.

Each test is one gradient check: the value, the reverse mode and the forward mode of one function
or layer at one shape, for a random cotangent and a random direction.
`pytest --collect-only -q tests/test_gradients.py` counts them.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.table import FUNCTIONS, LAYERS, draw_layer, rng_for

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
    return sum(np.sum(x * y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def has_gradient(argument):
    """Whether an argument is a floating array or a tree of them, and no mask, label or None."""
    leaves = jax.tree.leaves(argument)
    return argument is not None and all(leaf.dtype.kind == "f" for leaf in leaves)


def check(function, reference, arguments, rng):
    """Compare value, `vjp` and `jvp` of a function with its reference."""
    chosen = [i for i, argument in enumerate(arguments) if has_gradient(argument)]
    point = [arguments[i] for i in chosen]

    def of_chosen(*values):
        filled = dict(zip(chosen, values, strict=True))
        return function(*(filled.get(i, argument) for i, argument in enumerate(arguments)))

    @fast_jit
    def derived(point, dy, direction):
        y, pullback = jax.vjp(of_chosen, *point)
        return y, list(pullback(dy)), jax.jvp(of_chosen, point, direction)[1]

    expected_y, backward = reference(*arguments)
    dy, direction = normal_like(expected_y, rng), normal_like(point, rng)
    y, gradients, tangent = derived(tuple(point), dy, tuple(direction))
    assert_close(y, expected_y)

    all_expected = backward(dy)
    assert len(all_expected) == len(arguments)
    expected = [all_expected[i] for i in chosen]
    assert_close(gradients, expected)
    np.testing.assert_allclose(dot(dy, tangent), dot(expected, direction), TOLERANCE, TOLERANCE)


@pytest.mark.parametrize(
    ("row", "shape"),
    [pytest.param(row, s, id=row.case(s)) for row in FUNCTIONS for s in row.shapes],
)
def test_function(row, shape):
    rng = rng_for(row.case(shape))
    arguments = row.draw(rng, shape)
    check(
        partial(row.function, **row.options), partial(row.reference, **row.options), arguments, rng
    )


def layer_cases():
    """Each layer at each shape; training where it is another computation, or else a slow case."""
    for row, train in product(LAYERS, (False, True)):
        if row.reference is not None:
            marks = [pytest.mark.slow] if train and not row.differs_in_training else []
            for shape in row.shapes:
                name = f"{row.name}-{'x'.join(map(str, shape))}"
                mode = "training" if train else "evaluation"
                yield pytest.param(row, shape, train, id=f"{name}-{mode}", marks=marks)


@pytest.mark.parametrize(("row", "shape", "train"), list(layer_cases()))
def test_layer(row, shape, train):
    layer, params, state, x = draw_layer(row, shape, np.float64)

    def function(params, x):
        return layer.apply(params, state, x, key=jax.random.key(3), train=train)[0]

    def reference(params, x):
        return row.reference(params, state, x, key=jax.random.key(3), train=train)

    check(function, reference, (params, x), rng_for(row.name))


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
    zeros = jnp.zeros(3)
    y, pullback = jax.vjp(function, zeros)
    np.testing.assert_array_equal(pullback(jnp.ones_like(y))[0], zeros)
    np.testing.assert_array_equal(jax.jvp(function, (zeros,), (jnp.ones(3),))[1], 0 * y)
