"""Parts of states by name, and chains whose states have names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

O = nn.optimizers  # noqa: E741
PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def test_parts_are_found_in_any_state_and_set():
    optimizer = O.params_ema(
        O.partition({"kernel": O.inject_hyperparams(O.adam)(0.5), "*": O.sgd(0.1, 0.9)})
    )
    state = optimizer.init(PARAMS)
    assert O.get_state(state, "learning_rate") == 0.5
    changed = jax.jit(lambda s, rate: O.set_state(s, "learning_rate", rate))(state, 0.25)
    assert jax.tree.structure(changed) == jax.tree.structure(state)
    assert O.get_state(changed, "hyperparams/learning_rate") == 0.25
    moved = [optimizer.update(PARAMS, s, PARAMS)[0]["kernel"] for s in (state, changed)]
    np.testing.assert_allclose(moved[0], 2 * moved[1], rtol=1e-6)
    trace = O.get_state(state, "trace")
    again = O.get_state(O.set_state(state, "trace", jax.tree.map(jnp.ones_like, trace)), "trace")
    assert (again["bias"] == 1).all()


def test_of_optax_and_of_abstract_states():
    optax = pytest.importorskip("optax")
    state = optax.chain(optax.clip(1.0), optax.adam(0.1)).init(PARAMS)
    assert O.get_state(state, "mu")["bias"].shape == (3,)
    assert O.set_state(state, "1/0/count", 7)[1][0].count == 7
    abstract = jax.eval_shape(O.adam(0.1).init, PARAMS)
    assert O.get_state(abstract, "nu")["kernel"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nothing", 1, "name is 'nothing', of which state has nothing"),
        ("count", 1, "state has '0/count', '1/count'"),
        ("", 1, "name is ''"),
        ("0/mu", {"kernel": 1.0}, "lacks 'bias'"),
        ("0/mu/bias", jnp.ones(4), r"value has shape \(4,\), expected the shape \(3,\)"),
    ],
)
def test_wrong_names_and_values(name, value, message):
    state = O.chain(O.scale_by_adam(), O.scale_by_schedule(lambda count: 0.1)).init(PARAMS)
    with pytest.raises(ValueError, match=message):
        O.set_state(state, name, value)


@pytest.mark.parametrize(("name", "value"), [("count", 1.5), ("mu/bias", jnp.ones(3, complex))])
def test_values_that_would_lose_something(name, value):
    with pytest.raises(TypeError, match=r"set_state: value has dtype (float|complex)\w+, expected"):
        O.set_state(O.scale_by_adam().init(PARAMS), name, value)


def test_named_chain_is_chain_with_names():
    parts = {"clip": O.clip(0.5), "adam": O.adam(0.1)}
    named, chained = O.named_chain(*parts.items()), O.chain(*parts.values())
    updates, state = named.update(PARAMS, named.init(PARAMS), PARAMS)
    expected, _ = chained.update(PARAMS, chained.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["kernel"], expected["kernel"])
    assert O.get_state(state["adam"], "count") == 1
    with pytest.raises(ValueError, match="each once"):
        O.named_chain(("a", O.clip(0.5)), ("a", O.clip(0.5)))
    with pytest.raises(TypeError, match=r"transformations\[0\] is"):
        O.named_chain(O.clip(0.5))
    with pytest.raises(ValueError, match="state has"):
        named.update(PARAMS, {"clip": ()}, PARAMS)
