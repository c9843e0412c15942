"""Linear recurrences: the forms, what they carry, and the cell made of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxnn as nn
from jaxnn.functional import _linear_recurrence as forms
from tests.compiling import fast_jit

recur = nn.functional.linear_recurrence


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("reverse", [False, True])
def test_at_once_agrees_with_in_turn(reverse):
    a, b = normal(0, 5, 1, 3), normal(1, 5, 2, 3)
    both = fast_jit(lambda a, b: [f(a, b, reverse) for f in (forms._at_once, forms._in_turn)])
    np.testing.assert_allclose(*both(a, b), rtol=1e-5, atol=1e-6)


def test_accelerators_have_no_loop():
    shapes = [jax.ShapeDtypeStruct((1, 64, 3), jnp.float32)] * 2
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(recur(a, b) ** 2), (0, 1)))

    def text(platform):
        return gradient.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.while" not in text("cuda")
    assert text("cpu").count("stablehlo.while") == 2


@pytest.mark.slow
def test_derivatives_of_derivatives_and_vmap():
    """d2y/dh2 = 0 and d2y/da2 = 2 for y = h_2 = a^2 h, and the same for each of a batch."""

    def second(a, h):
        def of(a):
            return recur(a, jnp.zeros((1, 2, 1)), h)[0, -1, 0]

        return jax.hessian(of)(a), jax.grad(lambda a: jnp.sum(jax.grad(of)(a)))(a)

    run = fast_jit(lambda a, h: jax.vmap(second)(a, h))
    for got in run(normal(0, 3, 1), np.full((3, 1, 1), 1.5, np.float32)):
        np.testing.assert_allclose(np.ravel(got), 3.0, rtol=1e-6)


def test_narrow_numbers_are_carried_in_float32():
    h = fast_jit(recur)(*(np.ones(s, jnp.bfloat16) for s in (1, (1, 1000, 1))))
    assert h.dtype == jnp.bfloat16
    assert h[0, -1, 0] == 1000  # in bfloat16, 256 + 1 is 256


def test_time_may_be_symbolic_and_empty():
    empty = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3,), (2, 0, 3), (2, 3))]
    assert jax.eval_shape(recur, *empty).shape == (2, 0, 3)
    (time,) = export.symbolic_shape("time")
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3,), (2, time, 3), (2, 3))]
    made = export.export(jax.jit(recur), platforms=("cpu", "cuda"))(*shapes)
    a, b, h = normal(0, 3), normal(1, 2, 4, 3), normal(2, 2, 3)
    np.testing.assert_allclose(made.call(a, b, h), recur(a, b, h), rtol=1e-6)


X = jnp.ones((2, 4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recur(jnp.ones((5, 3)), X), r"a has shape \(5, 3\), expected one that broadcasts"),
        (lambda: recur(X[None], X), r"a has shape \(1, 2, 4, 3\)"),
        (lambda: recur(X, X, X), r"h has shape \(2, 4, 3\), expected shape \(2, 3\)"),
        (lambda: recur(X, X, time_axis=3), "time_axis is 3, expected an axis of b, from 0 to 2"),
        (lambda: nn.lru_cell(0), "lru_cell: hidden_features is 0"),
        (
            lambda: nn.lru_cell(2, min_radius=0.9, max_radius=0.5),
            "min_radius is 0.9 and max_radius",
        ),
        (lambda: nn.lru_cell(2, max_radius=1.0), "max_radius 1.0, expected 0 <= min_radius"),
        (lambda: nn.lru_cell(2).init(jax.random.key(0), 1.0), "x is a scalar"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_cell_begins_on_the_ring_with_the_variance_of_its_input():
    cell = nn.lru_cell(400, min_radius=0.5, max_radius=0.9, max_phase=0.3)
    params = fast_jit(cell.init)(jax.random.key(0), jnp.zeros(4))
    radius = np.exp(-np.exp(params["recurrent"]["log_decay"]))
    phase = np.exp(params["recurrent"]["log_phase"])
    assert radius.min() < 0.55
    assert radius.max() > 0.88
    assert ((radius >= 0.5) & (radius <= 0.9) & (phase > 0) & (phase < 0.3)).all()
    # var h = scale^2 (1 + r^2 + r^4 + ...) var(x W)
    scale = np.exp(params["input"]["log_scale"])
    np.testing.assert_allclose(scale**2 / (1 - radius**2), 1, rtol=1e-4)


def test_a_cell_in_a_stack_runs_step_by_step_to_the_same():
    """As it does when a model generates."""
    x = normal(0, 2, 5, 3)
    alone = nn.recurrent(nn.lru_cell(4), return_carry=True)
    within = nn.recurrent(nn.stacked_cell(lru=nn.lru_cell(4)), return_carry=True)
    params, _ = alone.init(jax.random.key(0), x)
    lengths = np.array([5, 2])

    @fast_jit
    def both(params, x):
        apply = functools.partial(alone.apply, params, {}, x, lengths=lengths)
        return apply()[0], within.apply({"lru": params}, {}, x, lengths=lengths)[0]

    (ys, h), (expected, carry) = both(params, x)
    np.testing.assert_allclose(ys, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(h, carry["lru"], rtol=1e-4, atol=1e-5)
    assert h.dtype == jnp.complex64
