"""Normalisation against torch and by its invariances, at its edges, and over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import normalization
from tests.parameters import quick_first
from tests.scripts import on_devices
from tests.table.normalization import grouped
from tests.test_errors_layers import check as check_error
from tests.test_torch_parity import compare, normal

f = nn.functional
ones = jnp.ones


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


# Against torch


@pytest.mark.parametrize(("axis", "use_scale"), [(-1, True), ((-2, -1), True), (-1, False)])
def test_rms_norm(torch, axis, use_scale):
    x = normal(0, 3, 4, 5)
    normalised = x.shape[np.min(axis) :]
    arguments = (x, normal(1, *normalised)) if use_scale else (x,)

    def ours(x, scale=None):
        return f.rms_norm(x, scale, axis=axis, epsilon=1e-3)

    def theirs(x, scale=None):
        return torch.nn.functional.rms_norm(x, normalised, scale, 1e-3)

    compare(ours, theirs, arguments, torch)


@pytest.mark.parametrize(
    ("shape", "num_groups"), [((3, 6), 2), ((2, 6, 5), 3), ((2, 6, 3, 2), 1), ((2, 6, 3, 2), 6)]
)
def test_group_norm(torch, shape, num_groups):
    def ours(x, scale, bias):
        return f.group_norm(x, num_groups, scale, bias, axis=1, epsilon=1e-3)

    def theirs(x, scale, bias):
        return torch.nn.functional.group_norm(x, num_groups, scale, bias, 1e-3)

    compare(ours, theirs, (3 + normal(0, *shape), normal(1, 6), normal(2, 6)), torch)


def test_group_norm_without_parameters(torch):
    def theirs(x):
        return torch.nn.functional.group_norm(x, 2)

    compare(
        functools.partial(f.group_norm, num_groups=2, axis=1), theirs, (normal(0, 2, 4, 3),), torch
    )


@pytest.mark.parametrize(
    ("shape", "affine"),
    [((2, 4, 5), True), ((2, 4, 3, 2), True), ((2, 4, 3, 2), False), ((2, 4, 3, 2, 2), True)],
)
def test_instance_norm(torch, shape, affine):
    parameters = (normal(1, 4), normal(2, 4)) if affine else ()
    kinds = {3: torch.nn.InstanceNorm1d, 4: torch.nn.InstanceNorm2d, 5: torch.nn.InstanceNorm3d}
    module = kinds[len(shape)](4, eps=1e-3, affine=affine)
    layer = nn.instance_norm(axis=1, epsilon=1e-3, use_scale=affine, use_bias=affine)

    def ours(x, *parameters):
        params = dict(zip(("scale", "bias"), parameters, strict=False))
        return layer.apply(params, {}, x)[0]

    def theirs(x, *parameters):
        if affine:
            del module.weight, module.bias
            module.weight, module.bias = parameters
        return module(x)

    compare(ours, theirs, (3 + normal(0, *shape), *parameters), torch)


@pytest.mark.parametrize(("axis", "epsilon"), [(-1, 1e-12), (-1, 2.0), (0, 2.0), ((0, 2), 1e-12)])
def test_unit_norm(torch, axis, epsilon):
    def ours(x):
        return f.unit_norm(x, axis=axis, epsilon=epsilon)

    def theirs(x):
        return torch.nn.functional.normalize(x, dim=axis, eps=epsilon)

    compare(ours, theirs, (normal(0, 3, 4, 5),), torch)


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 5, 3), 1), ((2, 5, 3), 3), ((2, 5, 3, 2), 4), ((2, 5, 3), 9)]
)
def test_local_response_norm(torch, shape, size):
    def ours(x):
        return f.local_response_norm(x, size, alpha=0.3, beta=0.6, k=1.5, axis=1)

    def theirs(x):
        return torch.nn.functional.local_response_norm(x, size, alpha=0.3, beta=0.6, k=1.5)

    compare(ours, theirs, (2 * normal(0, *shape),), torch)


def test_local_response_norm_has_the_defaults_of_torch(torch):
    theirs = functools.partial(torch.nn.functional.local_response_norm, size=5)
    compare(lambda x: f.local_response_norm(x, axis=1), theirs, (50 * normal(0, 2, 7, 3),), torch)


@pytest.mark.parametrize(("use_scale", "use_bias"), [(True, False), (False, True), (False, False)])
def test_batch_norm_without_one_of_its_parameters(torch, use_scale, use_bias):
    layer = nn.batch_norm(axis=1, epsilon=1e-3, use_scale=use_scale, use_bias=use_bias)
    x = normal(0, 2, 3, 4, 2, 2)
    names = [n for n, used in (("scale", use_scale), ("bias", use_bias)) if used]
    params, state = layer.init(jax.random.key(0), x)
    assert sorted(params) == sorted(names)

    def ours(x, *parameters):
        return layer.apply(dict(zip(names, parameters, strict=True)), state, x, train=True)[0]

    def theirs(x, *parameters):
        given = dict(zip(names, parameters, strict=True))
        mean, var = torch.zeros(3), torch.ones(3)
        return torch.nn.functional.batch_norm(
            x, mean, var, given.get("scale"), given.get("bias"), training=True, eps=1e-3
        )

    compare(ours, theirs, (x, *(normal(i, 3) for i, _ in enumerate(names))), torch)


def test_running_statistics_over_many_steps(torch):
    layer, module = nn.batch_norm(decay=0.7), torch.nn.BatchNorm1d(3, momentum=0.3)
    params, state = layer.init(jax.random.key(0), ones((1, 3)))
    train = fast_jit(functools.partial(layer.apply, train=True))
    for step, batch in enumerate((8, 2, 8, 5)):
        x = step + normal(step, batch, 3)
        _, state = train(params, state, x)
        module(torch.tensor(x))
    np.testing.assert_allclose(state["mean"], module.running_mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], module.running_var, rtol=1e-5)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("decay", [0.7, None])
def test_running_statistics_of_images(torch, name, decay):
    momentum = None if decay is None else 1 - decay
    if name == "batch_norm":
        layer = nn.batch_norm(axis=1, decay=decay)
        module = torch.nn.BatchNorm1d(3, momentum=momentum)
    else:
        layer = nn.instance_norm(axis=1, decay=decay, use_running_statistics=True)
        # torch's own of InstanceNorm with momentum=None leaves them as they are.
        module = torch.nn.InstanceNorm1d(
            3, momentum=momentum, affine=True, track_running_stats=True
        )
    params, state = layer.init(jax.random.key(0), ones((1, 3, 4)))
    train = fast_jit(functools.partial(layer.apply, train=True))
    means = []
    for step in range(3):
        x = step + normal(step, 2, 3, 4)
        _, state = train(params, state, x)
        means.append(x.mean((0, 2)))
        module(torch.tensor(x))
    if name == "batch_norm" or decay is not None:
        np.testing.assert_allclose(state["mean"], module.running_mean, rtol=1e-5)
        np.testing.assert_allclose(state["var"], module.running_var, rtol=1e-5)
        module.eval()
        evaluated = layer.apply(params, state, x)[0]
        np.testing.assert_allclose(
            evaluated, module(torch.tensor(x)).detach(), rtol=1e-4, atol=1e-5
        )
    else:
        np.testing.assert_allclose(state["mean"], np.mean(means, 0), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.75, None])
def test_running_statistics_of_instances_that_count(decay):
    """Of the unbiased variances of what counts, over examples in which something does."""
    layer = nn.instance_norm(use_running_statistics=True, decay=decay)
    x = 3 + normal(0, 3, 5, 2)
    mask = np.ones((3, 5, 2), bool)
    mask[0, 2:] = False
    mask[1, :, 0] = False
    mask[:, :, 1] = False
    params, state = layer.init(jax.random.key(0), x)
    train = fast_jit(functools.partial(layer.apply, train=True))
    _, new = train(params, state, np.where(mask, x, np.nan), mask=mask)
    mean = (x[0, :2, 0].mean() + x[2, :, 0].mean()) / 2
    var = (x[0, :2, 0].var(ddof=1) + x[2, :, 0].var(ddof=1)) / 2
    old = 0.0 if decay is None else decay
    np.testing.assert_allclose(new["mean"], [(1 - old) * mean, 0], rtol=1e-5)
    np.testing.assert_allclose(new["var"], [old + (1 - old) * var, 1], rtol=1e-5)
    if decay is None:
        np.testing.assert_array_equal(new["count"], [1, 0])


def test_running_statistics_of_instances_over_mapped_axes_are_those_of_the_whole_batch():
    """Examples of which nothing counts lie on one of the two devices alone."""
    whole = nn.instance_norm(use_running_statistics=True)
    spread = nn.instance_norm(use_running_statistics=True, axis_name="devices")
    x, mask = normal(0, 4, 5, 2), np.ones((4, 5, 2), bool)
    mask[:1], mask[1:, 3:] = False, False
    params, state = whole.init(jax.random.key(0), x)
    y, new = fast_jit(functools.partial(whole.apply, train=True))(params, state, x, mask=mask)

    def on_each(x, mask):
        return spread.apply(params, state, x, train=True, mask=mask)

    parts, after = fast_jit(jax.vmap(on_each, axis_name="devices"))(
        x.reshape(2, 2, 5, 2), mask.reshape(2, 2, 5, 2)
    )
    np.testing.assert_allclose(np.reshape(parts, y.shape), y, rtol=1e-6)
    for name, value in new.items():
        np.testing.assert_allclose(after[name], [value, value], rtol=1e-6)


def test_running_variances_are_double_where_the_data_are(x64):
    x = np.random.default_rng(0).standard_normal((3, 5, 2))
    mask = np.ones((3, 5, 1), bool)
    mask[:, 4] = False
    for layer, expected in (
        (nn.instance_norm(use_running_statistics=True, decay=0), x[:, :4].var(1, ddof=1).mean(0)),
        (nn.batch_norm(decay=0), x[:, :4].reshape(-1, 2).var(0, ddof=1)),
    ):
        params, state = layer.init(jax.random.key(0), x)
        _, new = fast_jit(functools.partial(layer.apply, train=True))(params, state, x, mask=mask)
        np.testing.assert_allclose(new["var"], expected, rtol=1e-13)


def test_the_mean_of_very_many_batches_stays_one():
    """Float32 cannot count further than 2^24; the mean must stay within what came."""
    layer = nn.batch_norm(decay=None)
    x = 3 + normal(0, 5, 2)
    batch = {"mean": x.mean(0), "var": x.var(0, ddof=1)}
    state = {**batch, "count": np.full(2, 2.0**24, np.float32)}
    params, _ = layer.init(jax.random.key(0), x)

    @fast_jit
    def after(state):
        return jax.lax.fori_loop(
            0, 20_000, lambda _, s: layer.apply(params, s, x, train=True)[1], state
        )

    new = after(jax.tree.map(jnp.asarray, state))
    for name, value in batch.items():
        np.testing.assert_allclose(new[name], value, rtol=1e-5)


# Traps


NORMS = {
    "layer_norm": f.layer_norm,
    "rms_norm": f.rms_norm,
    "group_norm": lambda x: f.group_norm(x, 2),
    "instance_norm": f.instance_norm,
    "unit_norm": f.unit_norm,
    "local_response_norm": f.local_response_norm,
    "batch_norm": lambda x: f.batch_norm(x, *f.batch_statistics(x)),
}


@quick_first(4)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_constant_input_has_finite_value_and_derivatives(norm):
    @fast_jit
    def derived(x):
        def total(x):
            return jnp.sum(jnp.sin(norm(x)))

        gradient = jax.grad(total)
        return total(x), jax.jvp(gradient, (x,), (jnp.ones_like(x),))

    for value in (0.0, 1.0, -1e6):
        for result in jax.tree.leaves(derived(np.full((2, 3, 4), value, np.float32))):
            assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("dtype", "step"), [("bfloat16", 8.0), ("float32", 0.125)], ids=["bfloat16", "float32"]
)
def test_two_passes_at_a_large_mean(dtype, step):
    x = jnp.asarray(1448 + step * np.tile([-1, 0, 1], 2).reshape(2, 3, 1), dtype)
    for y in fast_jit(lambda x: (f.group_norm(x, 1), f.instance_norm(x)))(x):
        np.testing.assert_allclose(y[0, :, 0].astype(jnp.float32), [-1.2247, 0, 1.2247], atol=5e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_long_sums_in_low_precision(dtype):
    # In bfloat16 a sum of ones stops at 256; in float16 the squares of 300 overflow.
    x = jnp.tile(jnp.asarray([[[299.0], [-301.0]]], dtype), (1, 2000, 1))

    @fast_jit
    def normalised(x):
        unit = f.unit_norm(x, axis=1) * np.sqrt(4000).astype(x.dtype)
        return f.rms_norm(x, axis=1), f.group_norm(x, 1), f.instance_norm(x), unit

    for low, high in zip(normalised(x), normalised(x.astype(jnp.float32)), strict=True):
        assert low.dtype == dtype
        np.testing.assert_allclose(low.astype(jnp.float32), high, rtol=1e-2)
        np.testing.assert_allclose(np.std(high), 1, rtol=1e-3)


def test_unit_norm_at_any_length():
    lengths = np.array([0.0, 1e-20, 1e-3, 1.0, 1e15], np.float32)
    x = lengths[:, None] * np.array([0.6, 0.8], np.float32)
    y, pullback = jax.vjp(f.unit_norm, x)
    expected = np.minimum(lengths / 1e-6, 1)[:, None] * [0.6, 0.8]
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert np.isfinite(pullback(jnp.ones_like(y))[0]).all()


def test_local_response_norm_divides_alpha_by_the_size():
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    y = f.local_response_norm(x, 4, alpha=0.8, beta=2.0, k=3.0)  # windows c - 2 ... c + 1
    squares = np.array([1 + 4, 1 + 4 + 9, 1 + 4 + 9 + 16, 4 + 9 + 16])
    np.testing.assert_allclose(y, x / (3 + 0.2 * squares) ** 2, rtol=1e-6)


def test_groups_are_neighbouring_channels():
    x = jnp.array([[0.0, 2.0, 10.0, 30.0]])
    np.testing.assert_allclose(f.group_norm(x, 2), [[-1, 1, -1, 1]], atol=1e-4)


def test_group_norm_between_layer_norm_and_instance_norm():
    x = normal(0, 2, 3, 2, 4)
    all_channels, layer, each_channel, instance = fast_jit(
        lambda x: (
            f.group_norm(x, 1),
            f.layer_norm(x, axis=(1, 2, 3)),
            f.group_norm(x, 4),
            f.instance_norm(x),
        )
    )(x)
    np.testing.assert_allclose(all_channels, layer, atol=1e-6)
    np.testing.assert_allclose(each_channel, instance, atol=1e-6)


def test_group_and_instance_norm_know_each_example_alone():
    x = normal(0, 3, 4, 2)
    for norm in (f.instance_norm, lambda x: f.group_norm(x, 2)):
        together, alone = fast_jit(lambda x, norm=norm: (norm(x), norm(x[1:2])))(x)
        np.testing.assert_allclose(together[1:2], alone, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [functools.partial(nn.group_norm, 3), nn.instance_norm, nn.local_response_norm],
    ids=["group_norm", "instance_norm", "local_response_norm"],
)
def test_channels_on_a_negative_axis(make):
    x = normal(0, 2, 6, 3)
    params, _ = make(axis=-2).init(jax.random.key(0), x)
    assert {leaf.shape for leaf in params.values()} <= {(6,)}
    one, other = fast_jit(lambda x: [make(axis=a).apply(params, {}, x)[0] for a in (-2, 1)])(x)
    np.testing.assert_array_equal(one, other)


# Masks: x of shape (examples, positions, channels), of which a third does not count

MASK = (np.arange(12).reshape(3, 4, 1) % 3 > 0) & (np.arange(3) != 1)[:, None, None]
MASKED_NORMS = {
    "batch_norm": lambda x, scale, bias: f.batch_norm(
        x, *f.batch_statistics(x, mask=MASK), scale, bias, mask=MASK, epsilon=0.0
    ),
    "layer_norm": lambda x, scale, bias: f.layer_norm(x, scale, bias, mask=MASK, epsilon=0.0),
    "rms_norm": lambda x, scale, bias: f.rms_norm(x, scale, mask=MASK, epsilon=0.0),
    "group_norm": lambda x, scale, bias: f.group_norm(x, 2, scale, bias, mask=MASK, epsilon=0.0),
    "instance_norm": lambda x, scale, bias: f.instance_norm(x, scale, bias, mask=MASK, epsilon=0.0),
}


@pytest.mark.parametrize("norm", MASKED_NORMS.values(), ids=MASKED_NORMS)
def test_what_does_not_count_changes_nothing(norm):
    """Nor does it get a gradient, with a whole example masked and no epsilon."""

    @fast_jit
    def run(x, scale, bias):
        y, pullback = jax.vjp(norm, x, scale, bias)
        return y, pullback(jnp.cos(jnp.arange(48.0)).reshape(y.shape))

    x, scale, bias = normal(0, 3, 4, 4), normal(1, 4), normal(2, 4)
    expected = run(x, scale, bias)
    for bad in (np.nan, np.inf, 1e30):
        got = run(np.where(MASK, x, np.float32(bad)), scale, bias)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    y, (dx, *_) = expected
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    for values in (y, dx):
        np.testing.assert_array_equal(np.where(MASK, 0, values), 0)
    assert np.all(np.where(MASK, y, 1) != 0)


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "instance_norm"])
def test_masked_norms_are_those_of_flax(name):
    linen = pytest.importorskip("flax.linen")
    theirs, ours = {
        "batch_norm": (linen.BatchNorm(use_running_average=False), nn.batch_norm()),
        "group_norm": (linen.GroupNorm(2, epsilon=1e-5), nn.group_norm(2)),
        "instance_norm": (linen.InstanceNorm(epsilon=1e-5), nn.instance_norm()),
    }[name]
    x = normal(0, 3, 4, 4)
    params, state = ours.init(jax.random.key(0), x)
    with jax.numpy_rank_promotion("allow"):
        expected, _ = theirs.init_with_output(
            jax.random.key(0), x, mask=np.broadcast_to(MASK, x.shape)
        )
    y, _ = ours.apply(params, state, x, mask=MASK, train=True)
    np.testing.assert_allclose(y, np.where(MASK, expected, 0), rtol=1e-4, atol=1e-5)


def test_running_statistics_of_what_counts():
    x, layer = normal(0, 3, 4, 2), nn.batch_norm(decay=0.75)
    params, state = layer.init(jax.random.key(0), x)
    _, whole = layer.apply(params, state, x[MASK[:, :, 0]], train=True)
    _, masked = layer.apply(params, state, np.where(MASK, x, np.nan), train=True, mask=MASK)
    for name in ("mean", "var"):
        np.testing.assert_allclose(masked[name], whole[name], rtol=1e-5)
    y, same = layer.apply(params, masked, x, train=True, mask=np.zeros((3, 1, 1), bool))
    jax.tree.map(np.testing.assert_array_equal, same, masked)
    np.testing.assert_array_equal(y, 0)
    y, same = layer.apply(params, masked, np.where(MASK, x, np.nan), mask=MASK)
    jax.tree.map(np.testing.assert_array_equal, same, masked)
    np.testing.assert_allclose(y, np.where(MASK, layer.apply(params, masked, x)[0], 0), rtol=1e-6)


def test_masked_batch_norm_over_a_mapped_axis_is_that_of_the_whole_batch():
    x = normal(0, 3, 4, 2) + 5 * np.arange(3, dtype=np.float32)[:, None, None]
    whole, spread = nn.batch_norm(), nn.batch_norm(axis_name="devices")
    params, state = whole.init(jax.random.key(0), x)

    @fast_jit
    def run(x, mask):
        def loss(layer, x, mask):
            y, new_state = layer.apply(params, state, x, train=True, mask=mask)
            return jnp.sum(jnp.sin(y)), (y, new_state)

        mapped = jax.vmap(functools.partial(loss, spread), axis_name="devices")
        parts = jax.grad(lambda x: (lambda v, aux: (v.sum(), aux))(*mapped(x, mask)), has_aux=True)
        return parts(x), jax.grad(functools.partial(loss, whole), has_aux=True)(x, mask)

    (dx, (y, states)), (expected_dx, (expected_y, new_state)) = run(x, MASK)
    np.testing.assert_allclose(y, expected_y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(states[name], np.stack([new_state[name]] * 3), rtol=1e-5)


def test_masks_pass_through_what_wraps_a_norm():
    def forward(g, x, *, mask=None):
        return g.norms(g.first(x, mask=mask), mask=mask)

    model = nn.compose(forward, first=nn.batch_norm(), norms=nn.stack(nn.layer_norm(), 2))
    x = np.where(MASK, normal(0, 3, 4, 4), np.nan)
    params, state = model.init(jax.random.key(0), x)
    y, state = model.apply(params, state, x, mask=MASK, train=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, state)))


# Batch norm


def test_batch_of_one_example():
    layer = nn.batch_norm(decay=0.75)
    x = jnp.array([[3.0, 5.0]])
    params, state = layer.init(jax.random.key(0), x)
    params["bias"] = jnp.array([1.0, 2.0])

    def loss(params, x):
        y, new_state = layer.apply(params, state, x, train=True)
        return jnp.sum(jnp.sin(y)), (y, new_state)

    gradients, (y, new_state) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    np.testing.assert_array_equal(y, [[1, 2]])
    np.testing.assert_array_equal(new_state["mean"], [0.75, 1.25])
    np.testing.assert_array_equal(new_state["var"], [0.75, 0.75])
    np.testing.assert_allclose(gradients[0]["bias"], np.cos([1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(gradients[0]["scale"], 0)
    np.testing.assert_array_equal(gradients[1], 0)


def train_whole(layer, params, state, x, weights):
    """Loss, new state and gradients in (params, x) of a training step of batch norm."""

    def loss(params, x):
        y, new_state = layer.apply(params, state, x, train=True)
        return jnp.sum(weights * jnp.sin(y.astype(jnp.float32))), new_state

    (value, new_state), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return value, new_state, gradients


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_norm_over_two_mapped_axes_is_that_of_the_whole_batch(dtype):
    x = (normal(0, 2, 3, 4, 2) + 5 * np.arange(3)[:, None, None]).astype(np.float32)
    x, weights = jnp.asarray(x, dtype), normal(1, 2, 3, 4, 2)
    whole, spread = nn.batch_norm(), nn.batch_norm(axis_name=("rows", "columns"))
    _, state = whole.init(jax.random.key(0), x[0, 0])
    params = {"scale": normal(2, 2), "bias": normal(3, 2)}

    @fast_jit
    def both(x):
        part = functools.partial(train_whole, spread, params, state)
        mapped = jax.vmap(jax.vmap(part, axis_name="columns"), axis_name="rows")
        flat = x.reshape(24, 2), weights.reshape(24, 2)
        return mapped(x, weights), train_whole(whole, params, state, *flat)

    (values, states, (dparams, dx)), expected = both(x)
    value, new_state, (expected_dparams, expected_dx) = expected
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.02, "atol": 0.01}
    np.testing.assert_allclose(values.sum(), value, **tolerance)
    np.testing.assert_allclose(
        dx.reshape(24, 2).astype(jnp.float32), expected_dx.astype(jnp.float32), **tolerance
    )
    for name in ("mean", "var"):  # every part has the statistics of the whole
        np.testing.assert_allclose(
            states[name], jnp.broadcast_to(new_state[name], (2, 3, 2)), rtol=1e-5
        )
    for name in ("scale", "bias"):
        np.testing.assert_allclose(dparams[name].sum((0, 1)), expected_dparams[name], **tolerance)


@pytest.mark.slow
def test_batch_norm_on_two_devices():
    on_devices(2, "batch_norm_on_two_devices")


# Second derivatives, against central differences of the hand-derived gradients


@quick_first(3)
@pytest.mark.parametrize(
    ("function", "reference", "shapes"),
    [
        (f.layer_norm, normalization.layer_norm, ((3, 4), (4,), (4,))),
        (f.rms_norm, normalization.rms_norm, ((3, 4), (4,))),
        (
            functools.partial(grouped(f.group_norm), num_groups=2),
            functools.partial(grouped(normalization.group_norm), num_groups=2),
            ((2, 3, 4), (4,), (4,)),
        ),
        (f.instance_norm, normalization.instance_norm, ((2, 3, 2), (2,), (2,))),
        (f.unit_norm, normalization.unit_norm, ((3, 4),)),
        (f.local_response_norm, normalization.local_response_norm, ((2, 7),)),
        (
            lambda x, scale, bias: f.batch_norm(x, *f.batch_statistics(x), scale, bias),
            normalization.batch_norm_training,
            ((5, 3), (3,), (3,)),
        ),
    ],
    ids=[
        "layer_norm",
        "rms_norm",
        "group_norm",
        "instance_norm",
        "unit_norm",
        "local_response_norm",
        "batch_norm",
    ],
)
def test_second_derivatives(function, reference, shapes, x64):
    rng = np.random.default_rng(0)
    point = tuple(rng.standard_normal(shape) for shape in shapes)
    direction = tuple(rng.standard_normal(shape) for shape in shapes)
    dy = rng.standard_normal(shapes[0])

    def gradients(*point):
        return jax.vjp(function, *point)[1](dy)

    got = fast_jit(lambda *point: jax.jvp(gradients, point, direction)[1])(*point)

    def expected_gradients(t):
        moved = (a + t * d for a, d in zip(point, direction, strict=True))
        return reference(*moved)[1](dy)

    step = 1e-5
    ahead, behind = expected_gradients(step), expected_gradients(-step)
    for g, a, b in zip(got, ahead, behind, strict=True):
        np.testing.assert_allclose(g, (a - b) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "norm", [nn.batch_norm, nn.layer_norm, nn.group_norm, nn.instance_norm, nn.rms_norm]
)
def test_initializers_of_scale_and_bias(norm):
    inits = {"scale_init": nn.initializers.constant(2.0), "bias_init": nn.initializers.normal()}
    if norm is nn.rms_norm:
        del inits["bias_init"]
    params, _ = norm(**inits).init(jax.random.key(0), ones((2, 3, 64)))
    assert params.keys() == {name.removesuffix("_init") for name in inits}
    assert (params["scale"] == 2).all()
    assert len(set(params.get("bias", np.arange(64)).tolist())) == 64


# Errors

BAD_CALLS = {
    "mask_dtype": (
        lambda: f.layer_norm(ones((4, 3)), mask=ones((4, 3))),
        TypeError,
        ("layer_norm: mask has dtype float32", "expected bool"),
    ),
    "mask_rank": (
        lambda: f.batch_statistics(ones((2, 4, 3)), mask=ones((2, 4), bool)),
        ValueError,
        (
            "batch_statistics: mask has shape (2, 4)",
            "3 axes",
            "mask[..., None] adds one",
            "(2, 4, 3)",
        ),
    ),
    "mask_size": (
        lambda: nn.group_norm(1).apply(
            {"scale": ones(3), "bias": ones(3)}, {}, ones((2, 3)), mask=ones((2, 2), bool)
        ),
        ValueError,
        ("group_norm: mask has shape (2, 2)", "2 axes", "(2, 3)"),
    ),
    "rms_norm_axis": (
        lambda: f.rms_norm(ones((4, 3)), axis=2),
        ValueError,
        ("rms_norm: axis 2 is out of range", "2 axes"),
    ),
    "rms_norm_scale": (
        lambda: f.rms_norm(ones((4, 3)), ones(4)),
        ValueError,
        ("rms_norm: scale has shape (4,)", "expected shape (3,)"),
    ),
    "rms_norm_init": (
        lambda: nn.rms_norm(axis=3).init(jax.random.key(0), ones((4, 3))),
        ValueError,
        ("rms_norm: axis 3 is out of range",),
    ),
    "group_norm_groups": (
        lambda: f.group_norm(ones((2, 6)), 4),
        ValueError,
        ("group_norm: x has 6 channels in axis -1", "expected a multiple of num_groups=4"),
    ),
    "group_norm_groups_at_init": (
        lambda: nn.group_norm().init(jax.random.key(0), ones((2, 6))),
        ValueError,
        ("group_norm: x has 6 channels", "num_groups=32"),
    ),
    "group_norm_batch_axis": (
        lambda: f.group_norm(ones((4, 3)), 2, axis=-2),
        ValueError,
        ("group_norm: axis is -2, the first of x of shape (4, 3)", "expected another"),
    ),
    "group_norm_bias": (
        lambda: f.group_norm(ones((2, 4)), 2, bias=ones(2)),
        ValueError,
        ("group_norm: bias has shape (2,)", "expected shape (4,)"),
    ),
    "group_norm_fraction": (
        lambda: nn.group_norm(2.0),
        TypeError,
        ("group_norm: num_groups is 2.0", "expected an integer"),
    ),
    "group_norm_none": (
        lambda: nn.group_norm(0),
        ValueError,
        ("group_norm: num_groups is 0", "at least 1"),
    ),
    "instance_norm_positions": (
        lambda: f.instance_norm(ones((4, 3))),
        ValueError,
        ("instance_norm: x has shape (4, 3)", "expected axes besides batch and channels"),
    ),
    "instance_norm_at_init": (
        lambda: nn.instance_norm().init(jax.random.key(0), ones((4, 3))),
        ValueError,
        ("instance_norm: x has shape (4, 3)", "expected axes besides batch and channels"),
    ),
    "instance_norm_batch_axis": (
        lambda: f.instance_norm(ones((4, 3, 2)), axis=0),
        ValueError,
        ("instance_norm: axis is 0, the first",),
    ),
    "instance_norm_scale": (
        lambda: f.instance_norm(ones((4, 3, 2)), ones(3)),
        ValueError,
        ("instance_norm: scale has shape (3,)", "expected shape (2,)"),
    ),
    "unit_norm_axis": (
        lambda: f.unit_norm(ones(3), axis=(0, 1)),
        ValueError,
        ("unit_norm: axis (0, 1) is out of range", "1 axes"),
    ),
    "local_response_norm_size": (
        lambda: nn.local_response_norm(0),
        ValueError,
        ("local_response_norm: size is 0", "at least 1"),
    ),
    "local_response_norm_fraction": (
        lambda: f.local_response_norm(ones(3), 2.5),
        TypeError,
        ("local_response_norm: size is 2.5", "expected an integer"),
    ),
    "local_response_norm_axis": (
        lambda: f.local_response_norm(ones(3), axis=1),
        ValueError,
        ("local_response_norm: axis 1 is out of range",),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    check_error(*case)
