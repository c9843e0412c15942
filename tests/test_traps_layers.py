"""One test for each correctness trap of layers, losses, combinators and keys that bit elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once
from tests.table import LAYERS, draw_layer

INF = np.inf
CLASSES = jnp.array([0, 2])
PROBABILITIES = jnp.array([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])


def normal(seed, shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_finite_in_both_modes(function, x):
    """Value, gradient and directional derivative are finite, and the two modes agree."""

    @fast_jit
    def both_modes(x):
        def total(x):
            return jnp.sum(function(x))

        return *jax.value_and_grad(total)(x), jax.jvp(total, (x,), (jnp.ones_like(x),))[1]

    y, gradient, tangent = both_modes(x)
    assert np.isfinite(y)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(tangent, jnp.sum(gradient), atol=1e-6)


# Losses


@each_value_once
@pytest.mark.parametrize("labels", [CLASSES, PROBABILITIES], ids=["classes", "distributions"])
@pytest.mark.parametrize("extreme", [1e4, 1e30, INF])
def test_softmax_cross_entropy_at_extreme_logits(labels, extreme):
    logits = jnp.array([[0.0, -extreme, 1.0], [-1.0, -extreme, 2.0]])
    assert_finite_in_both_modes(lambda z: nn.losses.softmax_cross_entropy(z, labels), logits)


def test_softmax_cross_entropy_is_exact_where_softmax_rounds_to_0_or_1():
    logits = jnp.array([[1000.0, 0.0], [1000.0, 0.0]])
    loss = nn.losses.softmax_cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_array_equal(loss, [0.0, 1000.0])


def test_sigmoid_cross_entropy_at_extreme_logits():
    logits = jnp.array([1e4, -1e4, 1e30, -1e30, INF, -INF])
    labels = jnp.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    loss = functools.partial(nn.losses.sigmoid_binary_cross_entropy, labels=labels)
    assert_finite_in_both_modes(loss, logits)
    np.testing.assert_array_equal(loss(logits), [1e4, 1e4, 0, 0, 0, 0])


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_label_outside_the_classes_gives_nan(label):
    loss = nn.losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.array([label, 0]))
    np.testing.assert_array_equal(np.isnan(loss), [True, False])


def test_masked_example_may_have_a_padding_label():
    where = jnp.array([[True] * 3, [False] * 3])
    labels = jnp.array([0, -1])

    def total(logits):
        return nn.losses.softmax_cross_entropy(logits, labels, where=where).sum()

    loss, gradient = jax.value_and_grad(total)(jnp.zeros((2, 3)))
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)
    np.testing.assert_array_equal(gradient[1], 0)


@pytest.mark.parametrize(
    "loss",
    [
        nn.losses.squared_error,
        nn.losses.absolute_error,
        nn.losses.huber_loss,
        nn.losses.sigmoid_binary_cross_entropy,
    ],
)
def test_masked_nan_reaches_neither_loss_nor_gradient(loss):
    x, where = jnp.array([1.0, np.nan]), jnp.array([True, False])

    def total(x):
        return jnp.sum(loss(x, jnp.array([0.0, np.nan]), where=where))

    y, gradient = jax.value_and_grad(total)(x)
    assert np.isfinite(y)
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0


@pytest.mark.parametrize(
    "loss",
    [
        nn.losses.squared_error,
        nn.losses.absolute_error,
        nn.losses.huber_loss,
        nn.losses.sigmoid_binary_cross_entropy,
    ],
)
def test_predictions_n_1_against_targets_n_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        loss(jnp.zeros((4, 1)), jnp.zeros(4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_of_low_precision_are_computed_in_float32(dtype):
    x = jnp.asarray([3.0, -200.0], dtype)
    for loss in (nn.losses.squared_error, nn.losses.absolute_error, nn.losses.huber_loss):
        assert loss(x, jnp.zeros_like(x)).dtype == jnp.float32
    assert nn.losses.squared_error(x)[1] == np.float32(x[1]) ** 2
    logits = jnp.ones((1, 1000), dtype)  # a sum of 1000 ones stops at 256 in bfloat16
    loss = nn.losses.softmax_cross_entropy(logits, jnp.array([0]))
    np.testing.assert_allclose(loss, np.log(1000), rtol=1e-5)


def test_regularizer_sums_low_precision_in_float32():
    params = {"kernel": jnp.ones((100, 10), jnp.bfloat16)}
    assert nn.regularizers.l1(1.0)(params) == 1000
    assert nn.regularizers.l2(1.0)(params).dtype == jnp.float32


@pytest.mark.parametrize(
    "call",
    [
        lambda one, w: nn.losses.huber_loss(w, w, delta=one),
        lambda one, w: nn.regularizers.l2(one)({"kernel": w}),
    ],
    ids=["huber_delta", "l2_strength"],
)
def test_hyperparameter_array_of_a_narrower_dtype(call, x64):
    assert call(jnp.float32(1), jnp.zeros(3)).dtype == jnp.float64


# Normalisation


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_layer_norm_at_a_large_mean(dtype):
    layer = nn.layer_norm()
    x = jnp.asarray([[1440.0, 1448.0, 1456.0]], dtype)
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x)
    np.testing.assert_allclose(y.astype(jnp.float32), [[-1.2247, 0, 1.2247]], atol=5e-3)


def test_layer_norm_at_mean_1449():
    y = nn.functional.layer_norm(jnp.array([1448.0, 1449.0, 1450.0]))
    np.testing.assert_allclose(y, [-1.2247, 0, 1.2247], atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_statistics_of_long_batches_are_summed_in_float32(dtype):
    x = jnp.tile(jnp.asarray([[99.0], [101.0]], dtype), (5000, 1))
    mean, var = nn.functional.batch_statistics(x)
    assert mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose((mean[0], var[0]), (100, 1), rtol=1e-5)


def test_constant_features_have_finite_gradients():
    for norm in (
        nn.functional.layer_norm,
        lambda x: nn.functional.batch_norm(x, *nn.functional.batch_statistics(x)),
    ):
        assert_finite_in_both_modes(norm, jnp.ones((4, 3)))


def test_batch_norm_tracks_the_unbiased_and_normalises_with_the_biased_variance():
    layer = nn.batch_norm(decay=0.75, epsilon=0.0)
    x = jnp.array([[1.0], [3.0], [5.0], [7.0]])  # biased variance 5, unbiased 20/3
    params, state = layer.init(jax.random.key(0), x)
    y, new_state = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, (x - 4) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(new_state["mean"], [0.25 * 4])
    np.testing.assert_allclose(new_state["var"], [0.75 * 1 + 0.25 * 20 / 3], rtol=1e-6)


def test_batch_norm_begins_with_mean_0_and_variance_1():
    _, state = nn.batch_norm().init(jax.random.key(0), jnp.zeros((1, 2)))
    np.testing.assert_array_equal(state["mean"], [0, 0])
    np.testing.assert_array_equal(state["var"], [1, 1])


@pytest.mark.parametrize(("decay", "weight_of_the_batch"), [(1.0, 0), (0.0, 1)])
def test_batch_norm_decay_is_the_weight_of_the_old(decay, weight_of_the_batch):
    layer = nn.batch_norm(decay=decay)
    x = jnp.array([[2.0], [2.0]])
    params, state = layer.init(jax.random.key(0), x)
    _, state = layer.apply(params, state, x, train=True)
    np.testing.assert_array_equal(state["mean"], [2.0 * weight_of_the_batch])


def test_batch_norm_uses_the_batch_in_training_and_the_running_statistics_in_evaluation():
    layer = nn.batch_norm(epsilon=0.0)
    x = normal(0, (8, 3))
    params, _ = layer.init(jax.random.key(0), x)
    state = {"mean": jnp.array([10.0, 20, 30]), "var": jnp.array([4.0, 9, 16])}
    trained, _ = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(trained, (x - x.mean(0)) / x.std(0), atol=1e-5)
    evaluated, _ = layer.apply(params, state, x, train=False)
    np.testing.assert_allclose(evaluated, (x - [10, 20, 30]) / np.array([2, 3, 4]), atol=1e-5)


def test_axis_may_be_a_numpy_integer():
    x = normal(0, (2, 3))
    expected = nn.functional.layer_norm(x, axis=1)
    np.testing.assert_array_equal(nn.functional.layer_norm(x, axis=np.int64(1)), expected)


def test_batch_norm_with_a_negative_axis():
    x = normal(0, (4, 3, 5))
    layer = nn.batch_norm(axis=-2)
    params, state = layer.init(jax.random.key(0), x)
    assert params["scale"].shape == state["mean"].shape == (3,)
    y, _ = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(np.mean(y, (0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(y, (0, 2)), 1, atol=1e-4)


def loss_and_state(layer, params, state, x):
    """A loss that depends on each output differently, the new state, and the gradient in x."""

    def loss(x):
        y, new_state = layer.apply(params, state, x, train=True)
        return jnp.sum(jnp.sin(y)), new_state

    (value, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    return value, new_state, gradient


@pytest.mark.parametrize("offset", [0.0, 5.0], ids=["equal_means", "different_means"])
def test_batch_norm_over_mapped_parts_is_that_of_the_whole_batch(offset):
    x = normal(0, (3, 4, 2)) + offset * np.arange(3, dtype=np.float32)[:, None, None]
    whole = nn.batch_norm()
    params, state = whole.init(jax.random.key(0), x[0])
    all_at_once = fast_jit(functools.partial(loss_and_state, whole, params, state))
    value, new_state, gradient = all_at_once(x.reshape(12, 2))

    spread = functools.partial(loss_and_state, nn.batch_norm(axis_name="parts"), params, state)
    values, new_states, gradients = fast_jit(jax.vmap(spread, axis_name="parts"))(x)
    np.testing.assert_allclose(values.sum(), value, rtol=1e-5)
    np.testing.assert_allclose(gradients.reshape(12, 2), gradient, atol=1e-5)
    for part in range(3):
        for name in ("mean", "var"):
            np.testing.assert_allclose(new_states[name][part], new_state[name], rtol=1e-5)


def test_batch_norm_under_shard_map():
    x = normal(0, (4, 2))
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, copied = jax.sharding.PartitionSpec("devices"), jax.sharding.PartitionSpec()
    whole = nn.batch_norm()
    params, state = whole.init(jax.random.key(0), x)

    def train(x):
        return nn.batch_norm(axis_name="devices").apply(params, state, x, train=True)

    sharded = fast_jit(jax.shard_map(train, mesh=mesh, in_specs=rows, out_specs=(rows, copied)))
    y, new_state = sharded(x)
    expected_y, expected_state = whole.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, expected_y, atol=1e-6)
    np.testing.assert_allclose(new_state["var"], expected_state["var"], rtol=1e-6)


# Dropout


def test_dropout_rate_is_the_probability_of_dropping():
    y = nn.functional.dropout(jax.random.key(0), jnp.ones(10_000), 0.2)
    np.testing.assert_allclose(np.mean(y == 0), 0.2, atol=0.02)
    np.testing.assert_allclose(np.unique(y), [0, 1.25])


def test_dropout_rate_1_gives_zeros_and_finite_gradients():
    def drop(x):
        return nn.functional.dropout(jax.random.key(0), x, 1.0)

    x = jnp.array([1.0, -2.0, INF])
    np.testing.assert_array_equal(drop(x), 0)
    np.testing.assert_array_equal(jax.grad(lambda x: drop(x).sum())(x), 0)


def test_gradient_of_dropout_in_its_rate_is_finite_at_0_and_1():
    def drop(rate):
        return nn.functional.dropout(jax.random.key(0), jnp.ones(5), rate).sum()

    assert np.isfinite([jax.grad(drop)(rate) for rate in (0.0, 0.5, 1.0)]).all()


def test_dropout_rate_0_is_the_identity():
    x = normal(0, (100,))
    np.testing.assert_array_equal(nn.functional.dropout(jax.random.key(0), x, 0.0), x)


def test_evaluation_with_a_key_does_not_drop():
    x = jnp.ones(100)
    y, _ = nn.dropout(0.9).apply({}, {}, x, key=jax.random.key(0), train=False)
    np.testing.assert_array_equal(y, x)


def test_dropout_rate_may_be_traced():
    @jax.jit
    @jax.vmap
    def dropped(rate):
        y, _ = nn.dropout(rate).apply({}, {}, jnp.ones(2000), key=jax.random.key(0), train=True)
        return jnp.mean(y == 0)

    np.testing.assert_allclose(dropped(jnp.array([0.0, 0.3, 1.0])), [0, 0.3, 1], atol=0.05)


@pytest.mark.parametrize("rate", [0.001, 0.1])
def test_dropout_in_bfloat16_keeps_rate_and_mean(rate):
    x = jnp.ones(1_000_000, jnp.bfloat16)
    y = nn.functional.dropout(jax.random.key(0), x, rate)
    dropped = np.mean(np.asarray(y == 0))
    np.testing.assert_allclose(dropped, rate, rtol=0.1)
    np.testing.assert_allclose(y.astype(jnp.float32).mean(), 1, atol=3e-3)  # 1 / 0.9 is rounded


# Keys


def test_the_suite_refuses_a_reused_key(keys_are_used_once):
    key, x = jax.random.key(0), jnp.ones(3)
    nn.functional.dropout(key, x, 0.5)
    with pytest.raises(jax.errors.KeyReuseError):
        nn.functional.dropout(key, x, 0.5)


MODEL = nn.serial(nn.dense(3), nn.dropout(0.5))
RAW_KEY = jax.random.key_data(jax.random.key(0))


@pytest.mark.parametrize("key", [0, RAW_KEY], ids=["integer", "PRNGKey"])
@pytest.mark.parametrize(
    "call",
    [
        lambda key: nn.functional.dropout(key, jnp.ones(3), 0.5),
        lambda key: nn.dropout(0.5).apply({}, {}, jnp.ones(3), key=key, train=True),
        lambda key: nn.dense(2).init(key, jnp.ones(3)),
        lambda key: MODEL.init(key, jnp.ones(3)),
        lambda key: nn.parallel(nn.dense(3)).init(key, jnp.ones(3)),
        lambda key: nn.residual(nn.dense(3)).init(key, jnp.ones(3)),
        lambda key: nn.compose(lambda f, x: f.a(x), a=nn.dense(3)).init(key, jnp.ones(3)),
    ],
    ids=["functional", "dropout", "dense", "serial", "parallel", "residual", "compose"],
)
def test_raw_key_is_refused(call, key):
    with pytest.raises(TypeError, match=r"expected a typed PRNG key as made by jax\.random\.key"):
        call(key)


@pytest.mark.parametrize("key", [0, RAW_KEY], ids=["integer", "PRNGKey"])
def test_raw_key_is_refused_by_apply_of_a_combinator(key):
    x = jnp.ones((2, 3))
    params, state = MODEL.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match=r"expected a typed PRNG key as made by jax\.random\.key"):
        MODEL.apply(params, state, x, key=key, train=True)


def test_inserting_a_layer_leaves_the_randomness_of_the_others():
    x = jnp.ones((2, 50))
    drop = nn.dropout(0.5)
    short = nn.serial(drop=drop, out=nn.dense(50))
    long = nn.serial(first=nn.relu, drop=drop, extra=nn.identity, out=nn.dense(50))
    outputs, kernels = [], []
    for model in (short, long):
        params, state = model.init(jax.random.key(0), x)
        kernels.append(params["out"]["kernel"])
        outputs.append(model.apply(params, state, x, key=jax.random.key(1), train=True)[0])
    np.testing.assert_array_equal(*kernels)
    np.testing.assert_array_equal(*outputs)


def test_children_and_calls_draw_differently():
    x = jnp.ones(200)
    drop = nn.dropout(0.5)
    for model in (
        nn.parallel(drop, drop),
        nn.compose(lambda f, x: (f.drop(x), f.drop(x)), drop=drop),
    ):
        params, state = model.init(jax.random.key(0), x)
        (a, b), _ = model.apply(params, state, x, key=jax.random.key(1), train=True)
        assert np.any(a != b)
    params, _ = nn.serial(nn.dense(3), nn.dense(3)).init(jax.random.key(0), jnp.ones(3))
    assert np.any(params[0]["kernel"] != params[1]["kernel"])


# Combinators


def recorder(seen):
    """A layer that notes the mode it runs in."""

    def apply(params, state, x, *, key=None, train=False):
        seen.append(train)
        return x, state

    return nn.Layer(lambda key, x: ({}, {}), apply)


@pytest.mark.parametrize("train", [False, True])
def test_train_reaches_every_child(train):
    seen = []
    child = recorder(seen)
    model = nn.serial(
        nn.serial(inner=child),
        nn.residual(child, shortcut=child),
        nn.parallel(child, nn.parallel(b=child)),
        lambda ys: ys[0],
        nn.compose(lambda f, x: f.c(x), c=child),
    )
    x = jnp.ones(3)
    params, state = model.init(jax.random.key(0), x)
    seen.clear()
    model.apply(params, state, x, train=train)
    assert seen == [train] * 6


def test_checkpoint_takes_train_by_closure():
    layer = nn.serial(nn.dense(4), nn.batch_norm(), nn.dropout(0.5))
    x = normal(0, (5, 3))
    params, state = layer.init(jax.random.key(0), x)

    def loss(params, wrap):
        apply = wrap(functools.partial(layer.apply, train=True))
        return jnp.sum(jnp.sin(apply(params, state, x, key=jax.random.key(1))[0]))

    plain = fast_jit(lambda params: jax.grad(loss)(params, lambda f: f))(params)
    checkpointed = fast_jit(lambda params: jax.grad(loss)(params, jax.checkpoint))(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), checkpointed, plain)


def test_order_of_the_params_dict_does_not_matter():
    model = nn.serial(z=nn.dense(3), a=nn.dense(2), m=nn.dense(4))
    x = normal(0, (2, 5))
    params, state = model.init(jax.random.key(0), x)
    sorted_by_jit = jax.jit(lambda params: params)(params)
    reversed_by_user = dict(reversed(params.items()))
    expected, _ = model.apply(params, state, x)
    for same in (sorted_by_jit, reversed_by_user):
        np.testing.assert_array_equal(model.apply(same, state, x)[0], expected)


def test_state_of_a_stateless_model_is_empty_however_it_is_composed():
    model = nn.serial(nn.residual(nn.dense(3)), nn.parallel(a=nn.relu), lambda ys: ys["a"])
    _, state = model.init(jax.random.key(0), jnp.ones(3))
    assert state == {}


def test_params_of_another_structure_are_refused():
    model = nn.serial(a=nn.dense(3), b=nn.dense(3))
    params, state = model.init(jax.random.key(0), jnp.ones(3))
    with pytest.raises(ValueError, match=r"entries for \['a'\], expected \['a', 'b'\]"):
        model.apply({"a": params["a"]}, state, jnp.ones(3))


# Conventions


def test_gelu_is_the_tanh_approximation_unless_told_otherwise():
    x = jnp.array([2.0])
    assert nn.gelu is jax.nn.gelu
    np.testing.assert_array_equal(nn.gelu(x), nn.gelu(x, approximate=True))
    assert abs(nn.gelu(x) - nn.gelu(x, approximate=False)) > 1e-5


# Parameters and states of another kind


@pytest.mark.parametrize("row", LAYERS, ids=[row.name for row in LAYERS])
def test_missing_parameters_and_state_are_named(row):
    layer, params, state, x = draw_layer(row)
    for name, whole, given in (
        ("params", params, ({}, state)),
        ("params", params, (None, state)),
        ("state", state, (params, {})),
        ("state", state, (params, None)),
    ):
        if not jax.tree.leaves(whole):
            continue
        apply = functools.partial(layer.apply, *given, key=jax.random.key(0), train=True)
        with pytest.raises(ValueError, match=rf"\w.*: {name} (lacks|has) .*expected"):
            jax.eval_shape(apply, x)


def test_each_missing_leaf_is_named():
    layer = nn.serial(hidden=nn.dense(3), norm=nn.batch_norm())
    x = jnp.ones((2, 4))
    params, state = layer.init(jax.random.key(0), x)
    for child, leaves in params.items():
        for leaf in leaves:
            rest = {name: value for name, value in leaves.items() if name != leaf}
            with pytest.raises(ValueError, match=f"params lacks '{leaf}'") as error:
                layer.apply({**params, child: rest}, state, x)
            assert error.value.__notes__ == [f"in layer '{child}'"]


@pytest.mark.parametrize("layer", [nn.dense(3, use_bias=False), nn.conv(3, (1,), use_bias=False)])
def test_a_bias_that_is_not_used_is_refused(layer):
    x = jnp.ones((2, 5, 4))
    params, state = layer.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"params has 'bias', expected none with use_bias=False"):
        layer.apply({**params, "bias": jnp.ones(3)}, state, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.serial(*nn.dense(3)), r"serial: '0' is a function of dense\(3\), expected"),
        (lambda: nn.parallel(*nn.dense(3)), r"expected dense\(3\) itself, without '\*'"),
        (lambda: nn.stacked_cell(*nn.gru_cell(3)), r"a function of gru_cell\(3\)"),
        (lambda: nn.elementwise(nn.dense(3).apply), r"elementwise: function is a function of"),
        (lambda: nn.remat(lambda params, x: x), r"takes \(params, x\), expected a Layer or"),
    ],
)
def test_functions_of_a_layer_are_no_layers(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_an_error_of_ones_own_in_a_layer_stays_what_it_is():
    layer = nn.serial(nn.dense(3), lambda x: {}["missing"])
    params, state = nn.serial(nn.dense(3), nn.relu).init(jax.random.key(0), jnp.ones((1, 2)))
    with pytest.raises(KeyError, match="missing"):
        layer.apply(params, state, jnp.ones((1, 2)))


@pytest.mark.parametrize("container", [tuple, list])
def test_merge_lora_looks_into_lists_and_tuples(container):
    one = {
        "layer": {"kernel": jnp.eye(2)},
        "down": {"kernel": jnp.ones((2, 1))},
        "up": {"kernel": jnp.ones((1, 2))},
    }
    merged = nn.merge_lora({"blocks": container([one, {"other": one}])})
    assert isinstance(merged["blocks"], container)
    for kernel in (merged["blocks"][0]["kernel"], merged["blocks"][1]["other"]["kernel"]):
        np.testing.assert_array_equal(kernel, [[2, 1], [1, 2]])


# One number says nothing of how many spatial axes there are


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: nn.conv(4, 3), "conv: kernel_size"),
        (lambda: nn.conv_transpose(4, 3), "conv_transpose: kernel_size"),
        (lambda: nn.depthwise_conv(3), "depthwise_conv: kernel_size"),
        (lambda: nn.separable_conv(4, 3), "separable_conv: kernel_size"),
        (lambda: nn.conv_lstm_cell(4, 3, (8, 8)), "conv_lstm_cell: kernel_size"),
        (lambda: nn.conv_lstm_cell(4, (3, 3), 3), "conv_lstm_cell: spatial_shape"),
        (lambda: nn.functional.max_pool(jnp.ones((2, 8, 8)), 3), "max_pool: window_shape"),
        (lambda: nn.functional.avg_pool(jnp.ones((2, 8, 8)), 3), "avg_pool: window_shape"),
        (lambda: nn.functional.lp_pool(jnp.ones((2, 8, 8)), 3), "lp_pool: window_shape"),
        (lambda: nn.max_pool(3), "max_pool: window_shape"),
        (lambda: nn.avg_pool(3), "avg_pool: window_shape"),
        (lambda: nn.lp_pool(3), "lp_pool: window_shape"),
        (lambda: nn.adaptive_max_pool(3), "adaptive_max_pool: output_size"),
        (lambda: nn.adaptive_avg_pool(3), "adaptive_avg_pool: output_size"),
        (lambda: nn.upsample(3), "upsample: scale"),
        (lambda: nn.pixel_shuffle(3), "pixel_shuffle: factor"),
        (lambda: nn.pixel_unshuffle(3), "pixel_unshuffle: factor"),
    ],
)
def test_one_number_for_the_spatial_axes_is_refused(call, name):
    with pytest.raises(
        TypeError, match=rf"{name} is 3, .*\(3,\) for one axis, \(3, 3\) for images"
    ):
        call()
