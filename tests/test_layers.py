"""What every layer promises, whatever it computes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxnn as nn
from jaxnn._core.construction import _constructing
from tests.compiling import fast_jit
from tests.table import LAYERS, cases, draw_layer, rng_for


def modes(params):
    """Each case in evaluation and training; training that does the same is a slow case."""
    for case in params:
        for train, mode in ((False, "evaluation"), (True, "training")):
            marks = [*case.marks]
            if train and not case.values[0].differs_in_training:
                marks.append(pytest.mark.slow)
            yield pytest.param(*case.values, train, id=f"{case.id}-{mode}", marks=marks)


def with_dtypes(params):
    """Each case with each dtype, of which one is not a slow case."""
    dtypes = ("bfloat16", "float64", "float16", "float32")
    for place, case in enumerate(params):
        for dtype in dtypes:
            marks = [*case.marks] if dtype == dtypes[place % 3] else [pytest.mark.slow]
            yield pytest.param(*case.values, dtype, id=f"{case.id}-{dtype}", marks=marks)


VARIANTS = [pytest.param(row, id=row.name) for row in LAYERS]

each_layer = pytest.mark.parametrize("row", cases(LAYERS))
each_layer_and_mode = pytest.mark.parametrize(("row", "train"), list(modes(cases(LAYERS))))
each_variant = pytest.mark.parametrize("row", VARIANTS)
FLOATING = cases([row for row in LAYERS if row.vocabulary is None])
each_floating_layer = pytest.mark.parametrize("row", FLOATING)


def by_turns(turn):
    """Each layer of floats; of two one is quick."""
    slow = [pytest.mark.slow]
    marks = [[*case.marks, *slow * (place % 2 != turn)] for place, case in enumerate(FLOATING)]
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(*case.values, id=case.id, marks=those)
            for case, those in zip(FLOATING, marks, strict=True)
        ],
    )


each_layer_of_examples = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[] if is_fast else [pytest.mark.slow])
        for row in LAYERS
        if row.has_examples
        for is_fast in [row.name == "dense" or row.couples_examples]
    ],
)


def quick_for(names):
    """Each row; those of other names are slow cases."""
    marks = {row.name: [] if row.name in names else [pytest.mark.slow] for row in LAYERS}
    return pytest.mark.parametrize(
        "row", [pytest.param(row, id=row.name, marks=marks[row.name]) for row in LAYERS]
    )


# Those with rules of their own for derivatives, or loops, or branches.
OWN_DERIVATIVES = ["embedding", "conv", "depthwise_conv", "max_pool", "attention", "recurrent_lstm"]
OWN_DERIVATIVES += ["linear_attention", "stack", "remat", "mixture_of_experts"]
each_layer_with_own_derivatives = quick_for(OWN_DERIVATIVES)
# Docstrings initialize the others without jit, and `test_jit_agrees_with_eager` applies them.
each_layer_that_may_differ_in_a_trace = quick_for(
    ["dense", "batch_norm", "dropout", "serial_named"]
)
each_mode = pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])

drawn = functools.cache(draw_layer)


@functools.cache
def evaluation(row):
    """The compiled function of an input that gives y."""
    layer, params, state, _ = drawn(row)
    return fast_jit(lambda x: layer.apply(params, state, x)[0])


@functools.cache
def training_pass(row):
    """The compiled function of an input and a seed that gives `(y, state)`."""
    layer, params, state, _ = drawn(row)

    @fast_jit
    def apply(x, seed):
        return layer.apply(params, state, x, key=new_key(seed), train=True)

    return apply


def new_key(seed=1):
    """A key that no other call has used."""
    return jax.random.key(seed)


def keys(n):
    """The same n keys at each call."""
    return jax.random.split(new_key(), n)


def abstract(tree):
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def assert_equal(got, expected):
    """Compare two trees of arrays bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def assert_close(got, expected, tolerance=1e-6):
    """Compare two trees of arrays to rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance)


def apply_abstractly(row, dtype, train):
    """The shapes and dtypes of x, of the parameters and the state, of the output and its state."""
    layer = row.make()
    x = row.abstract_x(dtype)
    params, state = jax.eval_shape(layer.init, new_key(), x)
    apply = functools.partial(layer.apply, key=new_key(), train=train)
    return x, params, state, *jax.eval_shape(apply, params, state, x)


# Shapes and dtypes


@each_layer_that_may_differ_in_a_trace
def test_init_and_apply_have_the_shapes_of_their_abstract_evaluation(row):
    layer, _, _, x = drawn(row)
    params, state = layer.init(new_key(), x)
    assert abstract((params, state)) == jax.eval_shape(layer.init, new_key(), x)
    result = layer.apply(params, state, x)
    assert abstract(result) == jax.eval_shape(layer.apply, params, state, x)


@each_layer
def test_init_looks_at_the_shape_of_x_alone(row):
    layer, _, _, x = drawn(row)
    given_x, given_shape = (
        str(jax.make_jaxpr(lambda key, x=x: layer.init(key, x))(new_key()))
        for x in (x, jax.ShapeDtypeStruct(x.shape, x.dtype))
    )
    assert given_x == given_shape


@pytest.mark.parametrize(("row", "train", "dtype"), list(with_dtypes(modes(VARIANTS))))
def test_dtypes(row, train, dtype, x64):
    x, params, state, y, new_state = apply_abstractly(row, dtype, train)
    integers = row.vocabulary is not None
    wide = jnp.dtype("float64" if dtype == "float64" or integers else "float32")
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} <= {wide}
    assert {leaf.dtype for leaf in jax.tree.leaves(y)} == {wide if integers else x.dtype}
    assert new_state == state


@by_turns(0)
def test_bfloat16_agrees_with_float32(row):
    x = drawn(row).x.astype(jnp.bfloat16)
    low = jax.tree.map(lambda y: np.asarray(y, np.float32), evaluation(row)(x))
    assert_close(low, evaluation(row)(x.astype(np.float32)), row.bfloat16_tolerance)


@by_turns(1)
def test_integers_give_what_floats_give(row):
    x = np.round(3 * drawn(row).x)
    assert_close(evaluation(row)(x.astype(np.int32)), evaluation(row)(x))


@each_layer_that_may_differ_in_a_trace
@pytest.mark.parametrize(
    "dtype",
    [pytest.param(np.float32, marks=pytest.mark.slow), np.float64],
    ids=["float32", "float64"],
)
def test_numpy_arrays_give_what_jax_arrays_give(row, dtype):
    layer, params, state, x = drawn(row)
    on_device = jax.tree.map(jnp.asarray, (params, state, x))
    assert_equal(layer.apply(params, state, x.astype(dtype)), layer.apply(*on_device))
    assert_equal(layer.init(new_key(), x.astype(dtype)), layer.init(new_key(), on_device[2]))


# State and randomness


@each_layer
@each_mode
def test_scan_accepts_the_state(row, train):
    layer, params, state, x = drawn(row)

    def step(state, key):
        y, state = layer.apply(params, state, x, key=key, train=train)
        return state, y

    scan = functools.partial(jax.lax.scan, step)
    final, _ = jax.eval_shape(scan, state, jax.random.split(new_key(), 3))
    assert final == abstract(state)


@each_layer
def test_evaluation_leaves_the_state_and_needs_no_key(row):
    layer, params, state, x = drawn(row)
    _, new_state = layer.apply(params, state, x, train=False)
    assert_equal(new_state, state)
    assert bool(jax.tree.leaves(state)) == row.has_state


@each_layer
def test_training_moves_all_of_the_state(row):
    _, _, state, x = drawn(row)
    _, new_state = training_pass(row)(x, 1)
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), state, new_state)
    assert set(jax.tree.leaves(moved)) <= {not row.keeps_state}


@each_layer
def test_randomness_follows_the_key(row):
    run = functools.partial(training_pass(row), drawn(row).x)
    assert_equal(run(1), run(1))
    one, other = jax.tree.leaves(run(1)[0]), jax.tree.leaves(run(2)[0])
    differs = not all(map(np.array_equal, one, other))
    assert differs == row.is_random


@each_layer
def test_training_asks_for_a_key_where_it_is_random(row):
    layer, params, state, x = drawn(row)
    if not row.is_random:
        layer.apply(params, state, x, train=True)
        return
    with pytest.raises(ValueError, match=r"needs a key; pass key=jax\.random\.key"):
        layer.apply(params, state, x, train=True)


# Transformations


@each_layer_and_mode
def test_jit_agrees_with_eager(row, train):
    layer, params, state, x = drawn(row)
    eager = layer.apply(params, state, x, key=new_key(), train=train)
    if train:
        assert_close(training_pass(row)(x, 1), eager)
    else:
        assert_close(evaluation(row)(x), eager[0])


@each_floating_layer
def test_vmap_agrees_with_a_loop(row):
    x = drawn(row).x
    xs, seeds = np.stack([x, 2 - x]), np.arange(2)
    looped = [training_pass(row)(x, seed) for x, seed in zip(xs, seeds, strict=True)]
    stacked = jax.tree.map(lambda *ys: np.stack(ys), *looped)
    assert_close(fast_jit(jax.vmap(training_pass(row).__wrapped__))(xs, seeds), stacked, 5e-6)


def test_vmapped_init_agrees_with_a_loop():
    layer = nn.serial(nn.dense(3), nn.batch_norm())
    x = jnp.zeros((1, 2))
    looped = jax.tree.map(lambda *leaves: np.stack(leaves), *(layer.init(k, x) for k in keys(2)))
    assert_close(fast_jit(jax.vmap(lambda key: layer.init(key, x)))(keys(2)), looped)


def scalar_of(layer, state, train):
    """A function of (params, x) that depends on every output, not linearly."""

    def scalar(params, x):
        y, _ = layer.apply(params, state, x, key=new_key(), train=train)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))

    return scalar


@each_layer_with_own_derivatives
def test_second_derivatives_exist_and_are_symmetric(row, x64):
    layer, params, state, x = drawn(row, dtype=np.float64)
    rng = rng_for(row.name)
    point = tuple((params, x)[i] for i in row.differentiable)
    u, v = (
        jax.tree.map(lambda leaf: np.asarray(rng.standard_normal(leaf.shape)), point)
        for _ in range(2)
    )
    gradient = jax.grad(scalar_of(layer, state, train=True), row.differentiable)

    def gradient_at(*point):
        return gradient(*point, *(params, x)[len(point) :])

    @fast_jit
    def product(u, v):
        hessian_v = jax.jvp(gradient_at, point, v)[1]
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), u, hessian_v)))

    assert np.isfinite(product(u, v))
    np.testing.assert_allclose(product(u, v), product(v, u), rtol=1e-9, atol=1e-9)


@each_layer_of_examples
def test_gradients_of_single_examples_sum_to_that_of_the_batch(row, x64):
    """`vmap(grad)` over batches of one; training is compared where no key decides."""
    layer, params, state, x = drawn(row, dtype=np.float64)

    @functools.partial(fast_jit, static_argnums=2)
    def both(params, x, train):
        gradient = jax.grad(scalar_of(layer, state, train), row.differentiable)
        of_params, *of_x = jax.vmap(gradient, (None, 0))(params, x[:, None])
        summed = jax.tree.map(lambda leaf: leaf.sum(0), of_params)
        return (summed, *(leaf[:, 0] for leaf in of_x)), gradient(params, x)

    for train in {False, row.differs_in_training and not row.is_random}:
        summed, whole = both(params, x, train)
        if train in row.couples_examples:
            with pytest.raises(AssertionError):
                assert_close(summed, whole, 1e-9)
        else:
            assert_close(summed, whole, 1e-9)


@each_layer_with_own_derivatives
def test_checkpoint_leaves_the_gradient(row):
    layer, params, state, x = drawn(row)
    scalar = scalar_of(layer, state, train=True)

    @fast_jit
    def both(params, x):
        both = scalar, jax.checkpoint(scalar)
        return [jax.grad(f, row.differentiable)(params, x) for f in both]

    plain, checkpointed = both(params, x)
    assert_close(checkpointed, plain, 1e-5)


EXPORTED = [row for row in LAYERS if row.name in ("dense", "dropout", "compose_stateful")]


@pytest.mark.parametrize("row", EXPORTED, ids=[row.name for row in EXPORTED])
def test_export_and_ahead_of_time_compilation(row):
    layer, params, state, x = drawn(row)

    @jax.jit
    def train(params, state, x, seed):
        return layer.apply(params, state, x, key=new_key(seed), train=True)

    arguments = params, state, x, np.int32(1)
    expected = train(*arguments)
    assert_close(train.lower(*abstract(arguments)).compile()(*arguments), expected)

    exported = export.export(train, platforms=["cpu", "cuda", "tpu"])(*abstract(arguments))
    assert_close(exported.call(*arguments), expected)


# Errors and repr


@each_layer
def test_unknown_keyword_is_refused_by_name(row):
    layer, params, state, x = drawn(row)
    with pytest.raises(TypeError, match="unheard_of") as error:
        layer.apply(params, state, x, unheard_of=None)
    assert row.call in str(error.value)


@each_variant
def test_repr_is_the_call(row):
    assert repr(row.make()) == row.call
    assert repr(row.evaluate_call()) == row.call


@each_variant
def test_equal_calls_are_equal(row):
    layer = row.make()
    assert row.evaluate_call() == layer


def program(layer, row, dtype):
    """The text of the program of `init` and of training, and the arrays that it holds."""
    x = row.abstract_x(dtype)
    shapes = jax.eval_shape(layer.init, new_key(), x)

    def both(key, params, state, x):
        made, used = jax.random.split(key)
        return layer.init(made, x), layer.apply(params, state, x, key=used, train=True)

    traced = jax.jit(both).trace(new_key(), *shapes, x).jaxpr
    return re.sub("0x[0-9a-f]+", "", str(traced)), [np.asarray(array) for array in traced.consts]


@each_variant
def test_keys_are_used_once(row, keys_are_used_once):
    program(row.make(), row, np.float32)


@each_layer
def test_a_layer_does_not_know_where_it_was_made(row):
    """Equal calls share what the first one made, be it in a trace or in double precision."""
    traced = []
    with _constructing:  # which makes everything anew
        plain = row.make()
        jax.eval_shape(lambda: traced.append(row.make()))
        with jax.enable_x64(True):
            double = row.make()
    assert plain != traced[0] != double
    expected = program(plain, row, np.float32)
    assert_equal(program(traced[0], row, np.float32), expected)
    assert_equal(program(double, row, np.float32), expected)


def test_repr_of_a_layer_made_by_hand_shows_its_functions():
    def init(key, x):
        return {}, {}

    def apply(params, state, x, *, key=None, train=False):
        return x, state

    assert "apply" in repr(nn.Layer(init, apply))
