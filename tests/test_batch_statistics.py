"""Running statistics for parameters that were not trained as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

RNG = np.random.default_rng(0)
X = 100 + 3 * RNG.normal(size=(11, 4)).astype(np.float32)
MODEL = nn.serial(
    nn.dense(3), nn.batch_norm(decay=0.99), nn.relu, nn.dropout(0.0), nn.batch_norm(decay=0.5)
)


def initial(model, x=X):
    """Params and a state far from what the params have."""
    params, state = model.init(jax.random.key(0), x)
    return params, jax.tree.map(lambda leaf: leaf + 7, state)


def by_hand(params, batches):
    """The means over the batches, by their examples, in float64."""
    moments = []
    for x in batches:
        h = x.astype(np.float64) @ np.float64(params[0]["kernel"]) + np.float64(params[0]["bias"])
        y = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
        moments.append([(layer.mean(0), layer.var(0, ddof=1)) for layer in (h, y)])
    sizes = [len(x) for x in batches]
    first, second = np.average(np.array(moments), axis=0, weights=sizes)
    return {"1": dict(zip(("mean", "var"), first, strict=True))} | {
        "4": dict(zip(("mean", "var"), second, strict=True))
    }


@pytest.mark.parametrize("streamed", [False, True])
def test_statistics_are_the_means_of_those_of_the_batches(streamed):
    params, state = initial(MODEL)
    batches = [X[:4], X[4:8], X[8:]]
    given = {"x": iter(batches)} if streamed else {"x": X, "batch_size": 4}
    renewed = nn.update_batch_norm(MODEL, params, state, key=jax.random.key(1), **given)
    expected = by_hand(params, batches)
    assert jax.tree.structure(renewed) == jax.tree.structure(state)
    for layer, statistics in expected.items():
        for name, value in statistics.items():
            np.testing.assert_allclose(renewed[layer][name], value, rtol=2e-4, atol=2e-4)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    params, state = initial(MODEL)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3)
    )
    with torch.no_grad():
        theirs[0].weight.copy_(torch.tensor(np.asarray(params[0]["kernel"]).T))
        theirs[0].bias.copy_(torch.tensor(np.asarray(params[0]["bias"])))
    batches = torch.tensor(X[:10]).split(5)
    torch.optim.swa_utils.update_bn(batches, theirs)
    renewed = nn.update_batch_norm(
        MODEL, params, state, X[:10], batch_size=5, key=jax.random.key(1)
    )
    for ours, layer in ((renewed["1"], theirs[1]), (renewed["4"], theirs[3])):
        np.testing.assert_allclose(ours["mean"], layer.running_mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours["var"], layer.running_var, rtol=1e-3)


def test_in_stacks_and_where_a_layer_is_called_twice():
    block = nn.serial(nn.dense(4), nn.batch_norm())
    model = nn.compose(
        lambda f, x: f.norm(f.blocks(f.norm(x))), norm=nn.batch_norm(), blocks=nn.stack(block, 2)
    )
    params, state = initial(model)
    renewed = nn.update_batch_norm(model, params, state, X)
    for leaf, old in zip(*map(jax.tree.leaves, (renewed, state)), strict=True):
        assert leaf.shape == old.shape
    # By decay 0.9: the first call counts for 0.09, the second, of features without mean, for 0.1.
    np.testing.assert_allclose(renewed["norm"]["mean"], X.mean(0) * 0.09 / 0.19, rtol=1e-4)
    np.testing.assert_allclose(renewed["blocks"]["1"]["mean"][0].shape, (4,))


def test_all_else_stays_and_evaluation_is_right_for_an_average():
    """A decay of 1 keeps its statistics for ever; quantised kernels are in the state too."""
    model = nn.serial(nn.quantized(nn.dense(3)), nn.batch_norm(), nn.batch_norm(decay=1.0))
    params, state = initial(model)
    renewed = nn.update_batch_norm(model, params, state, X)
    for name in ("0", "2"):
        jax.tree.map(np.testing.assert_array_equal, renewed[name], state[name])
    y, _ = model.apply(params, {**renewed, "2": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}, X)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(0, ddof=1), 1, rtol=1e-3)


@pytest.mark.parametrize("seen", [0.0, 1e6, 2.0**24])
def test_means_of_all_batches_begin_anew(seen):
    layer = nn.batch_norm(decay=None)
    params, state = layer.init(jax.random.key(0), X)
    state = {**state, "count": jnp.full(4, seen)}
    renewed = nn.update_batch_norm(layer, params, state, X, batch_size=4)
    batches = np.float64(X[:4]), np.float64(X[4:8]), np.float64(X[8:])
    for name, values in (
        ("mean", [x.mean(0) for x in batches]),
        ("var", [x.var(0, ddof=1) for x in batches]),
    ):
        expected = np.average(values, axis=0, weights=[4, 4, 3])
        np.testing.assert_allclose(renewed[name], expected, rtol=1e-5)
    np.testing.assert_array_equal(renewed["count"], state["count"])


def test_bad_input():
    params, state = initial(nn.dense(3))
    with pytest.raises(ValueError, match=r"state has leaves at \[\], expected 'mean' and 'var'"):
        nn.update_batch_norm(nn.dense(3), params, state, X)
    noisy = nn.serial(nn.batch_norm(), nn.dropout(0.5))
    with pytest.raises(ValueError, match="key"):
        nn.update_batch_norm(noisy, *initial(noisy), X)
    with pytest.raises(TypeError, match="update_batch_norm: key is int"):
        nn.update_batch_norm(noisy, *initial(noisy), X, key=3)
