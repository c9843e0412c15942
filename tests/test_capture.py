"""What layers inside of a model put out, and gradients with respect to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
KEY = jax.random.key(0)


def made(model, x=X):
    return model, *model.init(KEY, x)


def seen_in(model, x=X, **options):
    """The output, and what was seen, in one compiled program that checks itself against apply."""
    model, params, state = made(model, x)

    @fast_jit
    def both(params):
        y, after, seen = nn.capture(model, params, state, x, **options)
        plain, plain_after = model.apply(params, state, x)
        return (y, after), (plain, plain_after), seen

    ours, plain, seen = both(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    return jax.tree.map(np.asarray, (params, ours[0], seen))


def copy_of(params, i):
    return jax.tree.map(lambda leaf: leaf[i], params)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def relu(x):
    return np.maximum(x, 0)


def test_children_by_their_path_each_before_those_inside_of_it():
    model = nn.serial(a=nn.serial(nn.dense(3), nn.relu), b=nn.residual(nn.dense(3)))
    model, params, state = made(model)
    y, _, seen = nn.capture(model, params, state, X)
    assert list(seen) == ["a", "a/0", "a/1", "b", "b/layer"]
    first = dense(jax.tree.map(np.asarray, params["a"][0]), X)
    np.testing.assert_allclose(seen["a/0"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen["a"], relu(first), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen["b"], y)


def test_a_stack_has_a_leading_axis_and_its_layers_own_outputs():
    block = nn.residual(nn.serial(nn.dense(4), nn.relu))
    params, y, seen = seen_in(nn.serial(nn.stack(nn.remat(block), 3)))
    assert set(seen) == {"0", "0/each", "0/layer", "0/layer/0", "0/layer/1"}
    h = X
    for i in range(3):
        z = dense(copy_of(params[0]["layer"][0], i), h)
        h = h + relu(z)
        np.testing.assert_allclose(seen["0/layer/0"][i], z, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen["0/each"][i], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, h, rtol=1e-4, atol=1e-5)


def test_sequences_have_their_time_where_the_output_has_it():
    cell = nn.stacked_cell(rnn=nn.rnn_cell(3), out=nn.dense(2))
    x = X.reshape(1, 5, 4)
    _, _, seen = seen_in(nn.serial(one=nn.recurrent(cell), two=nn.relu), x)
    assert {path: a.shape for path, a in seen.items()} == {
        **{"one": (1, 5, 2), "one/rnn": (1, 5, 3), "one/out": (1, 5, 2), "two": (1, 5, 2)}
    }
    np.testing.assert_allclose(seen["one/out"], seen["one"], rtol=1e-6)


def test_members_experts_wrappers_and_second_calls():
    def forward(f, x):
        return f.mixture(f.shared(f.shared(x)))

    expert = nn.serial(up=nn.dense(6), act=nn.relu, down=nn.dense(4))
    model = nn.compose(
        forward,
        shared=nn.mixed_precision(nn.serial(nn.dense(4)), jnp.float32),
        mixture=nn.mixture_of_experts(expert, num_experts=2, top_k=1),
    )
    params, _, seen = seen_in(nn.ensemble(model, 2))
    assert seen["shared"].shape == seen["shared#2/0"].shape == (2, 5, 4)
    members, experts, _, features = seen["mixture/experts/act"].shape
    assert (members, experts, features) == (2, 2, 6)
    for i in range(2):
        own = copy_of(params["shared"][0], i)
        np.testing.assert_allclose(seen["shared"][i], dense(own, X), rtol=1e-5, atol=1e-6)
        again = dense(own, dense(own, X))
        np.testing.assert_allclose(seen["shared#2"][i], again, rtol=1e-4, atol=1e-5)


def test_gradients_with_respect_to_intermediates_are_those_of_what_is_added():
    block = nn.residual(nn.tanh)
    model, params, state = made(nn.serial(first=nn.dense(3), deep=nn.stack(block, 2), out=nn.tanh))

    @fast_jit
    def gradients(params):
        seen = nn.capture(model, params, state, X)[2]

        def loss(add):
            return nn.capture(model, params, state, X, add=add)[0].sum()

        return seen, jax.grad(loss)(jax.tree.map(jnp.zeros_like, seen))

    seen, found = jax.tree.map(np.asarray, gradients(params))
    at_output = 1 - seen["out"] ** 2
    np.testing.assert_array_equal(found["out"], np.ones_like(at_output))
    np.testing.assert_allclose(found["deep"], at_output, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["deep/each"][1], at_output, rtol=1e-5, atol=1e-6)
    at_first = at_output * (2 - seen["deep/layer"][1] ** 2)
    np.testing.assert_allclose(found["deep/each"][0], at_first, rtol=1e-4, atol=1e-6)
    at_input = at_first * (2 - seen["deep/layer"][0] ** 2)
    np.testing.assert_allclose(found["first"], at_input, rtol=1e-4, atol=1e-6)


def test_it_is_vmapped_and_takes_state_keys_and_keywords():
    def forward(f, x, *, scale):
        return f.drop(f.norm(x * scale))

    model = nn.compose(forward, norm=nn.batch_norm(), drop=nn.dropout(0.5))
    params, state = model.init(KEY, X, scale=jnp.float32(2))

    def run(key):
        return nn.capture(
            *(model, params, state, X), key=key, train=True, keywords={"scale": jnp.float32(2)}
        )

    y, after, seen = jax.vmap(run)(jax.random.split(KEY, 2))
    assert seen["drop"].shape == (2, 5, 4)
    np.testing.assert_array_equal(y, seen["drop"])
    centred = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(seen["norm"][1], centred, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after["norm"]["mean"][0], 0.2 * X.mean(0), rtol=1e-3)


def test_what_runs_in_a_transformation_of_the_model_s_own_is_left_out():
    def forward(f, x):
        return f.out(jax.vmap(f.row)(x))

    model, params, state = made(nn.compose(forward, row=nn.serial(nn.dense(3)), out=nn.relu))
    assert list(nn.capture(model, params, state, X)[2]) == ["out"]


def test_globs_choose_and_nothing_else_is_kept():
    model, params, state = made(nn.serial(a=nn.relu, b=nn.serial(nn.tanh, nn.relu)))
    assert list(nn.capture(model, params, state, X, where=["a", "b/*"])[2]) == ["a", "b/0", "b/1"]
    with pytest.raises(ValueError, match=r"capture: where: 'c/\*' match.*nearest are"):
        nn.capture(model, params, state, X, where="c/*")
    with pytest.raises(ValueError, match=r"capture: add: 'c' match"):
        nn.capture(model, params, state, X, add={"c": 0.0})
    with pytest.raises(ValueError, match=r"added at 'a' has the shapes \[\(2,\)\], expected \[\(5"):
        nn.capture(model, params, state, X, add={"a": jnp.ones(2)})


def test_a_plain_function_has_no_layers_inside():
    y, _, seen = nn.capture(nn.relu, {}, {}, X)
    assert (seen, y.shape) == ({}, X.shape)
