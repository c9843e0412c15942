"""Projections against NumPy and optax, and copies that follow the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import optimizer_wrappers as reference
from tests.optimizer_wrapper_cases import usual_promotion
from tests.parameters import each_value_once

O = nn.optimizers  # noqa: E741
RNG = np.random.default_rng(0)
BOX = {"lower": -0.3, "upper": 0.7}
CALLS = {
    "projection_simplex": [{}, {"scale": 2.5}],
    "projection_l1_ball": [{}, {"scale": 2.5}, {"scale": 1e3}],
    "projection_l2_ball": [{}, {"scale": 0.5}, {"scale": 1e3}],
    "projection_linf_ball": [{}, {"scale": 0.5}],
    "projection_non_negative": [{}],
    "projection_box": [BOX],
}
every_projection = pytest.mark.parametrize("name", CALLS)


def tree(dtype="float32"):
    return {
        "kernel": jnp.asarray(RNG.standard_normal((3, 4)), dtype),
        "bias": jnp.asarray(RNG.standard_normal(5), dtype),
    }


def vector(of):
    return np.concatenate([np.asarray(of[k], np.float64).reshape(-1) for k in ("kernel", "bias")])


@each_value_once
@every_projection
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_projections_are_those_of_numpy_and_optax(name, dtype):
    optax = pytest.importorskip("optax")
    given = tree(dtype)
    for keywords in CALLS[name]:
        ours = getattr(O, name)(given, **keywords)
        assert {leaf.dtype for leaf in ours.values()} == {jnp.dtype(dtype)}
        expected = getattr(reference, name)(vector(given), **keywords)
        tolerance = 1e-6 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(vector(ours), expected, rtol=tolerance, atol=tolerance)
        if dtype == "float32":
            with usual_promotion():
                limits = keywords
                if name == "projection_box":
                    limits = {k: jax.tree.map(lambda _, v=v: v, given) for k, v in keywords.items()}
                theirs = getattr(optax.projections, name)(given, **limits)
            np.testing.assert_allclose(vector(ours), vector(theirs), rtol=1e-5, atol=1e-6)


@every_projection
def test_what_lies_in_the_set_stays_and_slopes_are_finite(name):
    project = functools.partial(getattr(O, name), **CALLS[name][0])
    once = project(tree())
    np.testing.assert_allclose(vector(project(once)), vector(once), atol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, once)
    slopes = jax.grad(lambda t: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(project(t))))(zeros)
    assert np.isfinite(vector(slopes)).all()


def test_boxes_of_trees():
    lower, upper = {"kernel": 0.0, "bias": jnp.arange(5.0)}, {"kernel": jnp.inf, "bias": 9.0}
    inside = O.projection_box(tree(), lower, upper)
    assert (inside["kernel"] >= 0).all()
    assert (inside["bias"] >= jnp.arange(5.0)).all()


def test_wrong_values():
    for name in ("simplex", "l1_ball", "l2_ball", "linf_ball"):
        with pytest.raises(ValueError, match=rf"projection_{name}: scale is 0\.0"):
            getattr(O, f"projection_{name}")(jnp.ones(2), 0.0)
    with pytest.raises(TypeError, match="complex"):
        O.projection_simplex(jnp.ones(2, jnp.complex64))
    last = O.project_params(lambda t: t["kernel"])
    with pytest.raises(ValueError, match="project_params: "):
        last.update(tree(), last.init(tree()), tree())
    with pytest.raises(ValueError, match=r"step_size is 1\.5"):
        O.incremental_update(jnp.ones(2), jnp.ones(2), 1.5)
    with pytest.raises(ValueError, match="update_period is 0"):
        O.periodic_update(jnp.ones(2), jnp.ones(2), 1, 0)


def test_copies_follow():
    new, old = tree(), tree("bfloat16")
    moved = O.incremental_update(new, old, 0.25)
    assert moved["bias"].dtype == jnp.bfloat16
    expected = reference.incremental_update(vector(new), vector(old), 0.25)
    np.testing.assert_allclose(vector(moved), expected, atol=1e-2)
    renewed = jax.jit(O.periodic_update)
    for steps in range(7):
        copy = renewed(new, jax.tree.map(jnp.zeros_like, new), steps, 3)
        expected = reference.periodic_update(vector(new), np.zeros(17), steps, 3)
        np.testing.assert_allclose(vector(copy), expected)


def test_large_and_broken_gradients_are_skipped():
    skip = functools.partial(O.skip_large_updates, max_squared_norm=20.0)
    optimizer = O.accumulate(O.scale(1.0), 1, should_skip_update_fn=skip)
    w = jnp.zeros(2)
    state = optimizer.init(w)
    for g, kept in (([3.0, 4.0], False), ([3.0, 1.0], True), ([jnp.nan, 0.0], False)):
        updates, state = optimizer.update(jnp.array(g), state, w)
        np.testing.assert_array_equal(updates, g if kept else [0.0, 0.0])
        assert bool(state.skip_state["should_skip"]) is not kept
