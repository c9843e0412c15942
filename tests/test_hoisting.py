"""What a loop computes of constants alone is computed before it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.hoisting import split

KERNELS = np.arange(12, dtype=np.float32).reshape(3, 2, 2) / 10
SMALL = np.arange(4, dtype=np.int8).reshape(2, 2)


def step(kernels, carry, scale):
    """Products with slices of the constants, one of them enlarged."""
    for i in range(3):
        carry = jnp.tanh(carry @ kernels["all"][i])
    return carry @ kernels["small"].astype(jnp.float32) * scale, {"unchanged": kernels["all"][0]}


def test_the_numbers_are_the_same():
    constants = {"all": KERNELS, "small": SMALL}
    carry = np.ones((1, 2), np.float32)
    both = split(step, constants, carry, 2.0)
    got = both.inside(both.before(constants), carry, 2.0)
    jax.tree.map(np.testing.assert_array_equal, got, step(constants, carry, 2.0))


def test_slices_leave_the_loop_and_what_they_would_enlarge_stays():
    def run(constants, carry):
        both = split(step, constants, carry, 2.0)
        values = both.before(constants)

        def turn(carry, _):
            return both.inside(values, carry, 2.0)[0], None

        return jax.lax.scan(turn, carry, None, 4)[0]

    constants = {"all": jnp.asarray(KERNELS), "small": jnp.asarray(SMALL)}
    program = jax.make_jaxpr(run)(constants, jnp.ones((1, 2)))
    (loop,) = (e for e in program.eqns if e.primitive.name == "scan")
    inside = [e.primitive.name for e in loop.params["jaxpr"].eqns]
    before = [e.primitive.name for e in program.eqns]
    assert "slice" not in inside
    assert before.count("slice") == 4
    assert inside.count("convert_element_type") == 1
    y = jax.grad(lambda carry: run(constants, carry).sum())(jnp.ones((1, 2)))
    assert np.isfinite(y).all()
