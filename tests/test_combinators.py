"""Depth, ensembles, rematerialisation and mixed precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import quick_first

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def assert_close(got, expected, tolerance=1e-6):
    """Compare two trees to rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance)


def copy(tree, i):
    """Copy i of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def scale_by(forward_keyword):
    """A layer with a keyword, which multiplies."""

    def forward(f, x, *, factor=1.0):
        return f.dense(x) * factor

    return nn.compose(forward, dense=nn.dense(forward_keyword))


# stack


def test_stack_is_the_layers_one_after_the_other(key):
    block = nn.residual(nn.serial(nn.dense(4), nn.batch_norm(), nn.tanh))
    model = nn.stack(block, 3)
    params, state = model.init(key, X)
    y, new_state = model.apply(params, state, X, train=True)
    expected = X
    for i in range(3):
        expected, one = block.apply(copy(params, i), copy(state, i), expected, train=True)
        assert_close(copy(new_state, i), one)
    assert_close(y, expected)


def test_what_is_compiled_does_not_grow_with_depth(key):
    def program(depth):
        model = nn.stack(nn.serial(nn.dense(4), nn.dropout(0.1), nn.tanh), depth)

        def step(key, x):
            params, state = model.init(key, x)
            return jax.grad(lambda p: model.apply(p, state, x, key=key, train=True)[0].sum())(
                params
            )

        with jax.debug_key_reuse(False):
            return jax.jit(step).lower(key, X).as_text()

    assert program(24).count("\n") == program(3).count("\n")


def test_layers_of_a_stack_differ_in_their_parameters_and_draws(key):
    model = nn.stack(nn.dense(4), 3)
    kernel = model.init(key, X)[0]["kernel"]
    assert len(np.unique(kernel)) == kernel.size
    drops = nn.stack(nn.elementwise(lambda x: x), 1), nn.stack(nn.dropout(0.5), 2)
    ones = jnp.ones((1, 64))
    y, _ = drops[1].apply({}, {}, ones, key=key, train=True)
    assert set(np.unique(y)) == {0.0, 4.0}
    assert 4 < np.count_nonzero(y) < 32  # a quarter: the two masks are not one
    np.testing.assert_array_equal(drops[0].apply({}, {}, ones)[0], ones)


def test_a_layer_of_a_stack_keeps_its_parameters_when_the_stack_grows(key):
    short, tall = (nn.stack(nn.dense(4), n).init(key, X)[0] for n in (2, 5))
    assert_close(jax.tree.map(lambda leaf: leaf[:2], tall), short, 0)


def test_a_stack_refuses_a_layer_that_changes_the_shape(key):
    with pytest.raises(
        ValueError, match=r"stack: dense\(3\) makes float32\[5, 3\] of float32\[5, 4\]"
    ):
        nn.stack(nn.dense(3), 2).init(key, X)


@pytest.mark.parametrize("make", [nn.stack, nn.ensemble])
def test_copies_of_another_number_are_refused(make, key):
    params, state = make(nn.dense(4), 3).init(key, X)
    with pytest.raises(ValueError, match=r"params\['bias'\] has shape \(3, 4\).* axis of size 2"):
        make(nn.dense(4), 2).apply(params, state, X)


@pytest.mark.parametrize("make", [nn.stack, nn.ensemble])
@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_numbers_of_copies(make, n, error):
    with pytest.raises(error, match=f"{make.__name__}: .* is {n}"):
        make(nn.dense(4), n)


# Keywords reach the layer inside


@quick_first(3)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: nn.stack(layer, 1),
        lambda layer: nn.ensemble(layer, 1),
        nn.remat,
        lambda layer: nn.mixed_precision(layer, "float32"),
        lambda layer: nn.remat(nn.stack(nn.residual(layer), 1)),
    ],
    ids=["stack", "ensemble", "remat", "mixed_precision", "nested"],
)
def test_keywords_are_passed_on_and_unknown_ones_refused(wrap, key):
    model = wrap(scale_by(4))
    params, state = model.init(key, X)
    plain, _ = model.apply(params, state, X)
    scaled, _ = model.apply(params, state, X, factor=jnp.float32(3.0))
    assert float(jnp.abs(scaled - plain).max()) > 0.1
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        model.apply(params, state, X, mask=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        model.init(key, X, mask=None)


def test_keywords_of_init_reach_a_layer_deep_inside(key):
    def inner(f, x, *, memory):
        return f.dense(jnp.concatenate([x, memory], axis=-1))

    def outer(f, x, *, memory):
        return f.block(x, memory=memory)

    block = nn.residual(nn.compose(inner, dense=nn.dense(4)))
    model = nn.compose(outer, block=nn.stack(nn.remat(block), 2))
    memory = jnp.ones((5, 7))
    params, state = model.init(key, X, memory=memory)
    assert params["block"]["layer"]["dense"]["kernel"].shape == (2, 11, 4)
    assert model.apply(params, state, X, memory=memory)[0].shape == X.shape


def test_a_keyword_that_is_no_array_stays_a_python_value(key):
    def forward(f, x, *, double=False):
        return f.dense(x) * (2 if double else 1)

    def outer(f, x, *, double=False):
        return f.inner(x, double=double)

    inner = nn.compose(forward, dense=nn.dense(4))
    model = nn.compose(outer, inner=nn.remat(nn.stack(inner, 1)))
    params, state = model.init(key, X, double=True)
    once, twice = (model.apply(params, state, X, double=d)[0] for d in (False, True))
    assert_close(twice, 2 * once)


# ensemble


def test_members_are_the_layers_by_themselves(key):
    layer = nn.serial(nn.dense(3), nn.batch_norm())
    model = nn.ensemble(layer, 4)
    params, state = model.init(key, X)
    y, new_state = model.apply(params, state, X, train=True)
    assert y.shape == (4, 5, 3)
    for i in range(4):
        alone = layer.init(jax.random.fold_in(key, i), X)
        assert_close((copy(params, i), copy(state, i)), alone)
        assert_close((y[i], copy(new_state, i)), layer.apply(*alone, X, train=True))


def test_members_drop_differently(key):
    y, _ = nn.ensemble(nn.dropout(0.5), 2).apply({}, {}, jnp.ones(32), key=key, train=True)
    assert np.any(y[0] != y[1])


# remat


def test_remat_keeps_the_input_alone(key):
    def residuals(layer):
        params, state = layer.init(key, X)
        _, pullback = jax.vjp(lambda x: layer.apply(params, state, x)[0], X)
        shapes = [leaf.shape for leaf in jax.tree.leaves(pullback)]
        return shapes.count((5, 64))

    layer = nn.serial(nn.dense(64), nn.tanh, nn.dense(64), nn.tanh)
    assert residuals(layer) > 0
    assert residuals(nn.remat(layer)) == 0
    everything = jax.checkpoint_policies.everything_saveable
    assert residuals(nn.remat(layer, policy=everything)) > 0


def kept_shapes(layer, x, **keywords):
    """The shapes of what a backward pass needs besides the parameters."""
    params, state = layer.init(jax.random.key(0), x)
    _, pullback = jax.vjp(lambda x: layer.apply(params, state, x, **keywords)[0], x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(pullback)]
    return [shape for shape in shapes if shape not in {p.shape for p in jax.tree.leaves(params)}]


def test_a_stack_keeps_what_takes_long_to_compute():
    x = jnp.zeros((2, 6, 160))
    mlp = nn.serial(nn.layer_norm(), nn.dense(200), nn.gelu, nn.dense(160))
    block = nn.serial(nn.residual(nn.attention(2, head_dim=8)), nn.residual(mlp))
    kept = kept_shapes(nn.stack(block, 3), x)
    wide = [shape for shape in kept if 200 in shape]
    assert wide == [(3, 12, 200)]  # neither what gelu needs nor what it gives
    assert not any(shape[-2:] == (6, 6) for shape in kept)  # no logits or weights of attention


def test_a_stack_keeps_random_numbers():
    def noisy(x, *, key=None, train=False):
        return x + jax.nn.sigmoid(x) * jax.random.normal(key, x.shape)

    layer = nn.Layer(
        lambda key, x: ({}, {}),
        lambda params, state, x, *, key=None, train=False: (noisy(x, key=key), state),
    )
    text = str(
        jax.make_jaxpr(
            jax.grad(lambda x: nn.stack(layer, 2).apply({}, {}, x, key=jax.random.key(0))[0].sum())
        )(jnp.ones(4))
    )
    assert text.count("random_bits[") == 1


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.residual])
def test_a_stack_leaves_the_choice_to_remat(wrap):
    x = jnp.zeros((5, 160))
    layer = nn.serial(nn.dense(200), nn.gelu, nn.dense(160))
    assert (3, 5, 200) in kept_shapes(nn.stack(layer, 3), x)
    kept = kept_shapes(nn.stack(wrap(nn.remat(layer)), 3), x)
    assert not any(200 in shape for shape in kept)
    everything = nn.remat(layer, policy=jax.checkpoint_policies.everything_saveable)
    assert kept_shapes(nn.stack(wrap(everything), 3), x).count((3, 5, 200)) > 1


def test_remat_in_a_stack_has_the_gradient_of_the_stack(key):
    block = nn.residual(nn.serial(nn.layer_norm(), nn.dense(4), nn.dropout(0.2), nn.tanh))
    params, state = nn.stack(block, 3).init(key, X)

    @fast_jit
    def gradients(params):
        def loss(model):
            return lambda p: jnp.sum(
                model.apply(p, state, X, key=jax.random.key(7), train=True)[0] ** 2
            )

        models = nn.stack(block, 3), nn.stack(nn.remat(block), 3), nn.remat(nn.stack(block, 3))
        return [jax.grad(loss(model))(params) for model in models]

    plain, inside, outside = gradients(params)
    assert_close(inside, plain, 1e-5)
    assert_close(outside, plain, 1e-5)


# mixed precision


@pytest.mark.parametrize("compute", ["bfloat16", "float16"])
def test_mixed_precision_computes_narrowly_and_keeps_everything_wide(compute, key):
    seen = []

    def spy(x):
        seen.append(x.dtype)
        return x

    layer = nn.serial(nn.dense(8), spy, nn.batch_norm(), spy, nn.dense(2))
    model = nn.mixed_precision(layer, compute)
    params, state = model.init(key, X)
    seen.clear()

    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params):
        y, new_state = model.apply(params, state, X, train=True)
        return y.sum(), (y, new_state)

    (_, (y, new_state)), gradients = fast_jit(total)(params)
    assert set(seen) == {jnp.dtype(compute)}
    kept = jax.tree.leaves((y, params, state, new_state, gradients))
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
    expected, expected_state = layer.apply(params, state, X, train=True)
    np.testing.assert_allclose(y, expected, atol=0.05)
    assert_close(new_state, expected_state, 0.05)


def test_mixed_precision_narrows_keywords_too(key):
    def forward(f, x, *, memory, mask):
        assert x.dtype == memory.dtype == jnp.bfloat16
        assert mask.dtype == jnp.bool_
        return f.dense(jnp.where(mask, x + memory, 0))

    model = nn.mixed_precision(nn.compose(forward, dense=nn.dense(4)))
    keywords = {"memory": jnp.ones_like(X), "mask": jnp.ones(X.shape, bool)}
    wide = nn.compose(
        lambda f, x, *, memory, mask: f.dense(jnp.where(mask, x + memory, 0)), dense=nn.dense(4)
    )
    params, state = wide.init(key, X, **keywords)
    y, _ = model.apply(params, state, X, **keywords)
    np.testing.assert_allclose(y, wide.apply(params, state, X, **keywords)[0], atol=0.05)


def test_mixed_precision_output(key):
    model = nn.mixed_precision(nn.dense(3), output_dtype="bfloat16")
    params, state = model.init(key, X)
    assert model.apply(params, state, X)[0].dtype == jnp.bfloat16
    assert model.apply(params, state, jnp.ones((2, 4), jnp.int32))[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["compute_dtype", "output_dtype"])
def test_mixed_precision_refuses_integers(name):
    with pytest.raises(TypeError, match=f"mixed_precision: {name} is 'int8', expected a floating"):
        nn.mixed_precision(nn.dense(3), **{name: "int8"})
