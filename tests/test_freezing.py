"""Layers that are not trained, and trees that are moved in and out of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

TRUNK = nn.serial(nn.dense(8), nn.batch_norm(), nn.relu, nn.dropout(0.5))
X = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
Y = np.arange(16) % 2


def parts(trunk=TRUNK):
    """A model of a trunk and a head."""
    return nn.serial(trunk=trunk, head=nn.dense(2))


def equal(got, expected):
    """Compare two trees bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_what_is_frozen_has_no_gradient_moment_or_decay_and_does_not_move():
    model = parts(nn.frozen(TRUNK))
    params, state = nn.freeze_params(*parts().init(jax.random.key(0), X), "trunk")
    equal(params["trunk"], {})
    optimizer = nn.optimizers.adamw(0.1, weight_decay=1.0)
    assert {leaf.shape for leaf in jax.tree.leaves(optimizer.init(params))} == {(), (2,), (8, 2)}
    result = nn.fit(
        model,
        (X, Y),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=optimizer,
        key=jax.random.key(1),
        epochs=2,
        batch_size=8,
        params=params,
        state=state,
        progress=False,
    )
    equal(result.state, state)
    assert np.any(result.params["head"]["kernel"] != params["head"]["kernel"])


def test_it_is_always_in_evaluation():
    params, state = TRUNK.init(jax.random.key(0), X)
    _, state = TRUNK.apply(params, state, X, key=jax.random.key(1), train=True)
    expected, _ = TRUNK.apply(params, state, X)
    given = nn.freeze_params(params, state)
    for train in (False, True):
        y, new_state = nn.frozen(TRUNK).apply(*given, X, key=jax.random.key(1), train=train)
        np.testing.assert_array_equal(y, expected)
        equal(new_state, given[1])


def test_freezing_gives_the_trees_of_the_frozen_model_and_back():
    model = parts()
    params, state = model.init(jax.random.key(0), X)
    frozen = nn.freeze_params(params, state, ["trunk", "head"])
    shapes = parts(nn.frozen(TRUNK)), nn.frozen(nn.dense(2))
    made = nn.serial(trunk=nn.frozen(TRUNK), head=shapes[1]).init(jax.random.key(0), X)
    assert jax.tree.structure(frozen) == jax.tree.structure(made)
    equal(nn.unfreeze_params(*frozen, ["head", "trunk"]), (params, state))


def test_a_path_through_positions():
    model = nn.serial(nn.serial(nn.dense(4), nn.batch_norm()), nn.dense(2))
    params, state = model.init(jax.random.key(0), X)
    frozen = nn.freeze_params(params, state, "0/1")
    other = nn.serial(nn.serial(nn.dense(4), nn.frozen(nn.batch_norm())), nn.dense(2))
    np.testing.assert_array_equal(other.apply(*frozen, X)[0], model.apply(params, state, X)[0])
    equal(nn.unfreeze_params(*frozen, "0/1"), (params, state))


@pytest.mark.parametrize("wrapper", [nn.remat, lambda layer: nn.stack(layer, 2)])
def test_in_other_wrappers(wrapper):
    layer = nn.serial(nn.dense(3), nn.batch_norm())
    plain, frozen = wrapper(layer), wrapper(nn.frozen(layer))
    params, state = plain.init(jax.random.key(0), X)
    given = nn.freeze_params(params, state)
    assert jax.tree.structure(given) == jax.tree.structure(frozen.init(jax.random.key(0), X))
    y, after = frozen.apply(*given, X, train=True)
    np.testing.assert_allclose(y, plain.apply(params, state, X)[0], rtol=1e-6)
    equal(after, given[1])


def test_a_function_without_parameters():
    layer = nn.serial(nn.frozen(nn.serial(nn.relu, nn.tanh)), nn.dense(2))
    params, state = layer.init(jax.random.key(0), X)
    assert state == {}
    assert layer.apply(params, state, X)[0].shape == (16, 2)


def test_keywords_are_passed_on():
    layer = nn.frozen(nn.attention(2))
    x, mask = jnp.ones((1, 3, 4)), jnp.eye(3, dtype=bool)[None, None]
    params, state = layer.init(jax.random.key(0), x)
    expected, _ = nn.attention(2).apply(state["params"], {}, x, mask=mask)
    np.testing.assert_array_equal(layer.apply(params, state, x, mask=mask)[0], expected)


PARAMS, STATE = parts().init(jax.random.key(0), X)
BAD_CALLS = {
    "path": (
        lambda: nn.freeze_params(PARAMS, STATE, "body"),
        r"freeze_params: path is 'body', expected 'body' to be one of \['head', 'trunk'\]",
    ),
    "leaf": (
        lambda: nn.freeze_params(PARAMS, STATE, "trunk/7"),
        r"expected '7' to be one of \['0', '1', '2', '3'\]",
    ),
    "not_frozen": (
        lambda: nn.unfreeze_params(PARAMS, STATE, "trunk"),
        r"unfreeze_params: path is 'trunk', whose layer has params .*expected a frozen one",
    ),
    "params": (
        lambda: nn.frozen(TRUNK).apply(PARAMS["trunk"], {}, X),
        r"frozen: params has '0/bias'.*expected none: nn.freeze_params",
    ),
    "state": (
        lambda: nn.frozen(nn.dense(2)).apply({}, {}, X),
        r"frozen\(dense\(2\)\): state lacks 'params/bias', 'params/kernel'",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
