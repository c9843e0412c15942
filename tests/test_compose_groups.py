"""Lists and dicts of children in `compose`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def forward(f, x):
    for block in f.blocks:
        x = x + block(x)
    return f.heads["left"](x) + f.heads.right(f.blocks[-1](x)) + f["shift"]()


CHILDREN = {
    "blocks": [nn.dense(3), nn.serial(nn.dense(3), nn.batch_norm())],
    "heads": {"left": nn.dense(3), "right": nn.relu},
    "shift": nn.parameter((4, 3), nn.initializers.ones),
}


def test_members_of_lists_and_dicts_are_called(key):
    model = nn.compose(forward, **CHILDREN)
    assert nn.compose(forward, **CHILDREN) == model
    params, state = model.init(key, X)
    assert [type(params[name]) for name in ("blocks", "heads")] == [tuple, dict]
    assert sorted(params["heads"]) == ["left", "right"]
    assert jax.tree.map(jnp.shape, state) == {"blocks": {"1": {"1": {"mean": (3,), "var": (3,)}}}}

    def dense(p, x):
        return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p["bias"], np.float64)

    first, (second, _) = params["blocks"]
    x = np.asarray(X, np.float64)
    x = x + dense(first, x)
    normed = [dense(second, x)]
    x = x + (normed[0] - normed[0].mean(0)) / np.sqrt(normed[0].var(0) + 1e-5)
    normed.append(dense(second, x))
    again = (normed[1] - normed[1].mean(0)) / np.sqrt(normed[1].var(0) + 1e-5)
    expected = dense(params["heads"]["left"], x) + np.maximum(again, 0) + 1
    y, new_state = jax.jit(lambda p, s, x: model.apply(p, s, x, train=True))(params, state, X)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    means = 0.9 * (0.1 * normed[0].mean(0)) + 0.1 * normed[1].mean(0)  # threaded through both
    np.testing.assert_allclose(new_state["blocks"]["1"]["1"]["mean"], means, atol=1e-5)


def test_each_member_has_a_key_and_a_path(key):
    def drop(f, x):
        return [f.blocks[0](x), *(block(x) for block in f.blocks[1:])]

    model = nn.compose(drop, blocks=[nn.dropout(0.5), nn.dropout(0.5)])
    a, b = model.apply(*model.init(key, X), X, key=key, train=True)[0]
    assert (a != b).any()
    rows = nn.summary(nn.compose(forward, **CHILDREN), X)
    assert all(path in rows for path in ("blocks/0", "blocks/1/1", "heads/left", "shift"))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda f, x: f.blocks[2](x), IndexError, r"forward calls 'blocks/2', expected one of"),
        (lambda f, x: f.blocks["0"](x), KeyError, "forward calls 'blocks/0'"),
        (lambda f, x: f.heads["top"](x), KeyError, "forward calls 'heads/top'.*'heads/left'"),
        (lambda f, x: f.heads.top(x), AttributeError, "forward calls 'heads/top'"),
        (lambda f, x: f.blocks[0](x), ValueError, r"never calls \['blocks/1', 'heads/left'"),
    ],
)
def test_wrong_members(wrong, error, message, key):
    with pytest.raises(error, match=message):
        nn.compose(wrong, **CHILDREN).init(key, X)


def test_wrong_children_and_params(key):
    with pytest.raises(TypeError, match="compose: 'blocks/1' is the constructor dense"):
        nn.compose(forward, blocks=[nn.dense(3), nn.dense])
    model = nn.compose(forward, **CHILDREN)
    params, state = model.init(key, X)
    with pytest.raises(ValueError, match=r"compose: 'blocks': params has entries for \['0'\]"):
        model.apply(params | {"blocks": params["blocks"][:1]}, state, X)
