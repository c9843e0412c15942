"""Cells whose gradients are formed once for all steps, against the same steps one by one."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

CELLS = {
    "rnn": nn.rnn_cell(2),
    "lstm": nn.lstm_cell(2),
    "gru": nn.gru_cell(2),
    "conv_lstm": nn.conv_lstm_cell(2, (3,), (3,)),
}
BATCH, TIME, INPUTS = 3, 5, 2


def normal_like(rng, tree):
    """A tree of normal numbers of the shapes of `tree`."""
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), tree)


def arguments(cell, rng):
    """Params, a carry and an input, random, in the default float."""
    dtype = jnp.result_type(float)
    images = (3,) if cell is CELLS["conv_lstm"] else ()
    x = rng.standard_normal((BATCH, TIME, *images, INPUTS))
    params = jax.eval_shape(cell.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape[2:], dtype))
    carry = cell.initial_carry(params, (BATCH,), dtype)
    return normal_like(rng, params), normal_like(rng, carry), jnp.asarray(x)


def a_scan(cell, lengths, reverse):
    """The sum of what the cell gives, by `lax.scan` alone."""

    def total(params, carry, x):
        def step(carry, inputs):
            t, x_t = inputs
            new_carry, y_t = cell.step(params, carry, x_t)
            if lengths is None:
                return new_carry, y_t
            return where(t < lengths, new_carry, carry), where(t < lengths, y_t, 0 * y_t)

        steps = jnp.arange(TIME), jnp.moveaxis(x, 1, 0)
        carry, ys = jax.lax.scan(step, carry, steps, reverse=reverse)
        return summed(jnp.moveaxis(ys, 0, 1), carry)

    return total


def where(valid, chosen, other):
    """Leaf by leaf, for each sequence."""

    def one(chosen, other):
        return jnp.where(valid.reshape(-1, *[1] * (chosen.ndim - 1)), chosen, other)

    return jax.tree.map(one, chosen, other)


def summed(ys, carry):
    """A number that depends on every element."""
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((ys, carry)))


def by_layer(cell, lengths, reverse):
    """The sum of what the cell gives, by `nn.recurrent`."""
    layer = nn.recurrent(cell, reverse=reverse, return_carry=True)

    def total(params, carry, x):
        (ys, carry), _ = layer.apply(params, {}, x, lengths=lengths, initial_carry=carry)
        return summed(ys, carry)

    return total


def derivatives(total, primals, tangents):
    """The gradient, forward mode, and the products with the Hessian, by either mode first."""
    gradient = jax.grad(total, (0, 1, 2))

    def slope(*primals):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient(*primals), tangents)))

    def directional(*primals):
        return jax.jvp(total, primals, tangents)[1]

    return (
        jax.value_and_grad(total, (0, 1, 2))(*primals),
        directional(*primals),
        jax.jvp(gradient, primals, tangents)[1],
        jax.grad(slope, (0, 1, 2))(*primals),
        jax.grad(directional, (0, 1, 2))(*primals),
    )


def assert_close(got, expected, tolerance):
    """Compare two trees of arrays."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance)


def cases():
    """All cells in all ways; the plain cell in reverse, with padding, always."""
    for name in CELLS:
        for lengths in (None, (5, 0, 2)):
            for reverse in (False, True):
                quick = (name, lengths is None, reverse) == ("rnn", False, True)
                marks = [] if quick else [pytest.mark.slow]
                yield pytest.param(name, lengths, reverse, marks=marks)


@pytest.mark.parametrize(("name", "lengths", "reverse"), list(cases()))
def test_all_derivatives_are_those_of_a_scan(name, lengths, reverse, x64):
    cell, rng = CELLS[name], np.random.default_rng(0)
    primals = arguments(cell, rng)
    tangents = normal_like(rng, primals)
    lengths = None if lengths is None else jnp.array(lengths)

    @fast_jit
    def both(primals, tangents):
        totals = by_layer(cell, lengths, reverse), a_scan(cell, lengths, reverse)
        return [derivatives(total, primals, tangents) for total in totals]

    got, expected = both(primals, tangents)
    assert_close(got, expected, 1e-11)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "gru" else pytest.mark.slow) for name in CELLS]
)
def test_gradients_may_be_mapped_and_checkpointed(name, x64):
    cell, rng = CELLS[name], np.random.default_rng(1)
    primals = [arguments(cell, rng) for _ in range(2)]
    lengths = jnp.array([[5, 0, 2], [1, 3, 4]])

    def gradient(total, primals):
        return jax.grad(total, (0, 1, 2))(*primals)

    @fast_jit
    def both(primals, lengths):
        def mapped(primals, lengths):
            return gradient(by_layer(cell, lengths, False), primals)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *primals)
        again = [
            gradient(jax.checkpoint(by_layer(cell, lengths[i], False)), primals[i]) for i in (0, 1)
        ]
        expected = [gradient(a_scan(cell, lengths[i], False), primals[i]) for i in (0, 1)]
        return jax.vmap(mapped)(stacked, lengths), again, expected

    mapped, again, expected = both(primals, lengths)
    assert_close(again, expected, 1e-11)
    for i in (0, 1):
        assert_close(jax.tree.map(operator.itemgetter(i), mapped), expected[i], 1e-11)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "lstm" else pytest.mark.slow) for name in CELLS]
)
def test_gradients_in_bfloat16_are_those_in_float32(name):
    cell, rng = CELLS[name], np.random.default_rng(2)
    params, _, x = jax.tree.map(lambda leaf: 0.3 * leaf, arguments(cell, rng))
    layer = nn.recurrent(cell)

    @fast_jit
    def gradients(params, x):
        def total(params, x):
            return jnp.sum(jnp.sin(layer.apply(params, {}, x)[0].astype(jnp.float32)))

        return [jax.grad(total, (0, 1))(params, x.astype(d)) for d in ("bfloat16", "float32")]

    low, expected = gradients(params, x)
    assert [leaf.dtype for leaf in jax.tree.leaves(low)] == [
        *(leaf.dtype for leaf in jax.tree.leaves(params)),
        jnp.bfloat16,
    ]
    assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low), expected, 0.1)


def test_the_backward_pass_makes_the_gradient_of_a_kernel_outside_of_its_loop():
    cell = nn.lstm_cell(2)
    params, _, x = arguments(cell, np.random.default_rng(3))

    def total(params, x):
        return jnp.sum(nn.recurrent(cell).apply(params, {}, x)[0])

    jaxpr = jax.make_jaxpr(jax.grad(total))(params, x)
    loops = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    kernels = {leaf.shape for leaf in jax.tree.leaves(params)}
    made = [v.aval.shape for loop in loops for v in loop.outvars]
    assert loops
    assert not kernels & set(made), "a loop carries the gradient of a parameter"
    assert kernels <= set(map(operator.attrgetter("aval.shape"), jaxpr.jaxpr.outvars))


def test_other_cells_are_run_step_by_step():
    params, carry, x = arguments(CELLS["lstm"], np.random.default_rng(4))
    inside = nn.stacked_cell(CELLS["lstm"])
    expected, _ = nn.recurrent(CELLS["lstm"]).apply(params, {}, x, initial_carry=carry)
    run = functools.partial(nn.recurrent(inside).apply, (params,), {}, x)
    np.testing.assert_allclose(run(initial_carry={"0": carry})[0], expected, rtol=1e-6)
