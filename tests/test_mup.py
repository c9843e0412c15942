"""The maximal update parametrization: its factors, and that features move alike at all widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5)).astype(np.float32)
Y = RNG.normal(size=(8, 2)).astype(np.float32)
BASE, WIDTHS = 16, (16, 256)


def model(width):
    return nn.mlp([width, width, 2], activation=nn.tanh)


def shapes(layer, x=X):
    return jax.eval_shape(layer.init, jax.random.key(0), x)[0]


# Table 3 of Tensor Programs V, the width four times that of the base: initial scale beside the
# usual 1 / √inputs, rate of SGD, rate of Adam.
TABLE = {"input": (1, 4, 1), "hidden": (1, 1, 1 / 4), "output": (1 / 2, 1 / 4, 1 / 4)}


@pytest.mark.parametrize("column", ["initial", "sgd", "adam"])
def test_factors_are_those_of_the_table(column):
    base, ones = shapes(model(BASE)), jax.tree.map(jnp.ones_like, shapes(model(4 * BASE)))
    if column == "initial":
        factors = nn.optimizers.mup_initial_params(ones, base)
    else:
        factors = nn.optimizers.scale_by_mup(base, column).update(ones, ())[0]
    which = ("initial", "sgd", "adam").index(column)
    bias = TABLE["input"][which]
    for i, kind in enumerate(TABLE):
        layer = factors[f"dense_{i}"]
        np.testing.assert_array_equal(layer["kernel"], TABLE[kind][which])
        np.testing.assert_array_equal(layer["bias"], 1 if kind == "output" else bias)


def test_factors_of_stacks_convolutions_embeddings_and_norms():
    def network(width):
        block = nn.transformer_block(nn.attention(width // 8), nn.feed_forward(2 * width))
        return nn.serial(nn.embedding(7, width), nn.stack(block, 2), nn.conv(width, (3,)))

    x = np.zeros((1, 4), np.int32)
    base, wide = (shapes(network(width), x) for width in (16, 64))
    ones = jax.tree.map(jnp.ones_like, wide)
    factors, _ = nn.optimizers.scale_by_mup(base).update(ones, ())
    for path, leaf in jax.tree_util.tree_leaves_with_path(factors):
        is_kernel = "kernel" in jax.tree_util.keystr(path)
        np.testing.assert_array_equal(leaf, 1 / 4 if is_kernel else 1)


def change(width, optimizer, rule, is_mup):
    """How far three steps move the features of each layer of a model of some width."""
    layer, base = model(width), shapes(model(BASE))
    params, _ = layer.init(jax.random.key(width), X)
    if is_mup:
        params = nn.optimizers.mup_initial_params(params, base)
        optimizer = nn.optimizers.chain(optimizer, nn.optimizers.scale_by_mup(base, rule))

    def features(params):
        h, found = X, []
        for i in range(3):
            one = params[f"dense_{i}"]
            h = (jnp.tanh(h) if i else h) @ one["kernel"] + one["bias"][None]
            found.append(h)
        return found

    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(lambda p: jnp.mean((features(p)[-1] - Y) ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (nn.optimizers.apply_updates(params, updates), opt_state), None

    @fast_jit
    def moved(params):
        (after, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=3)
        pairs = zip(features(after), features(params), strict=True)
        return jnp.stack([jnp.abs(new - old).mean() for new, old in pairs])

    return moved(params)


@pytest.mark.parametrize("rule", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
def test_features_move_alike_at_all_widths(rule):
    optimizer = {"adam": nn.optimizers.adam(0.01), "sgd": nn.optimizers.sgd(0.3)}[rule]
    moved = np.array([change(width, optimizer, rule, is_mup=True) for width in WIDTHS])
    growth = moved[-1] / moved[0]
    assert np.all((growth > 1 / 2) & (growth < 2)), growth
    usual = [change(width, optimizer, rule, is_mup=False) for width in WIDTHS]
    assert np.max(np.abs(np.log(usual[1] / usual[0]))) > np.log(3), usual


BAD = {
    "structure": ({"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, "differ in structure"),
    "axes": ({"kernel": jnp.ones(4)}, r"has shape \(4,\) at 'kernel' where params has \(8, 8, 3\)"),
    "two": ({"kernel": jnp.ones((4, 4, 3))}, "the last and one other differ"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    base, message = BAD[case]
    wide = {"kernel": jnp.ones((8, 8, 3))}
    with pytest.raises(ValueError, match=f"scale_by_mup: .*{message}"):
        nn.optimizers.scale_by_mup(base).update(wide, ())
    with pytest.raises(ValueError, match=f"mup_initial_params: .*{message}"):
        nn.optimizers.mup_initial_params(wide, base)


def test_the_rule_is_one_of_two():
    with pytest.raises(ValueError, match="scale_by_mup: rule is 'lion', expected 'adam' or 'sgd'"):
        nn.optimizers.scale_by_mup({}, "lion")
