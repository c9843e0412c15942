"""Convolutions: the adjoint, sizes, padding, groups, dtypes, initial kernels and errors."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import convolution as reference
from tests.parameters import quick_first

f = nn.functional
slow = pytest.mark.slow


def integers(seed, *shape):
    """Small integers as float32, of which sums and products are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


# Many sizes, strides and paddings


PADDINGS = ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE")


@st.composite
def geometries(draw):
    """The sizes of x and of a kernel, and options, that need not fit together."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    amounts = tuple(zip(each(0, 3), each(0, 3), strict=True))
    options = {
        "strides": each(1, 3),
        "kernel_dilation": each(1, 3),
        "padding": draw(st.sampled_from([*PADDINGS, amounts])),
        "feature_group_count": draw(st.integers(1, 2)),
    }
    return each(1, 6 if rank < 3 else 3), each(1, 4 if rank < 3 else 2), options


def tried(make):
    """The result, unless the arguments do not fit: then hypothesis looks for others."""
    try:
        return make()
    except ValueError:
        hypothesis.reject()


def check_adjoint(sizes, taps, options):
    """conv against the loops in NumPy, and <conv(x), y> = <x, conv_transpose(y)>, exactly."""
    feature_group_count = options["feature_group_count"]
    x, kernel = (
        integers(0, 2, *sizes, 2 * feature_group_count),
        integers(1, *taps, 2, 3 * feature_group_count),
    )
    forward = tried(lambda: f.conv(x, kernel, **options))
    np.testing.assert_array_equal(forward, reference.conv(x, kernel, **options)[0])

    y = integers(2, *forward.shape)
    by_group = [np.swapaxes(k, -1, -2) for k in np.split(kernel, feature_group_count, axis=-1)]
    swapped = np.concatenate(by_group, axis=-1)
    back = f.conv_transpose(y, swapped, **options, output_size=sizes)
    assert back.shape == x.shape
    assert np.sum(forward * y) == np.sum(x * back)


def check_gradients(function, reference, sizes, taps, options):
    """Gradients in float32, which XLA compiles in another way than the float64 of the table."""
    feature_group_count = options["feature_group_count"]
    x, kernel = (
        integers(0, 2, *sizes, 2 * feature_group_count),
        integers(1, *taps, 2, 3 * feature_group_count),
    )
    y, pullback = tried(lambda: jax.vjp(functools.partial(function, **options), x, kernel))
    expected, backward = reference(x, kernel, **options)
    np.testing.assert_array_equal(y, expected)
    dy = integers(2, *y.shape)
    for got, wanted in zip(pullback(dy), backward(dy)[:2], strict=True):
        np.testing.assert_array_equal(got, wanted)


def check_default_size(sizes, taps, options):
    """The default of conv_transpose is a size of which conv makes that of x."""
    feature_group_count = options["feature_group_count"]
    example = jax.ShapeDtypeStruct((*sizes, feature_group_count), jnp.float32)
    kernel = jnp.zeros((*taps, 1, feature_group_count))

    def size_of(function, x):
        return jax.eval_shape(functools.partial(function, kernel=kernel, **options), x)

    always_fits = options["padding"] in ("SAME", "VALID", "CIRCULAR", "REPLICATE")
    make = functools.partial(size_of, f.conv_transpose, example)
    wide = make() if always_fits else tried(make)
    assert size_of(f.conv, wide) == example


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True)
@hypothesis.given(geometry=geometries())
def test_conv_transpose_is_the_adjoint(geometry):
    check_adjoint(*geometry)


@slow
@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(geometry=geometries())
def test_conv_transpose_is_the_adjoint_for_many_geometries(geometry):
    check_adjoint(*geometry)


@slow
@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(geometry=geometries())
def test_gradients_in_float32_are_those_of_the_loops(name, geometry):
    check_gradients(getattr(f, name), getattr(reference, name), *geometry)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_gradients_with_padding_wider_than_the_kernel(name):
    options = {"padding": ((3, 1),), "feature_group_count": 1}
    check_gradients(getattr(f, name), getattr(reference, name), (4,), (3,), options)


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(geometry=geometries())
def test_default_output_size_belongs_to_x(geometry):
    check_default_size(*geometry)


@slow
@hypothesis.settings(max_examples=1000, deadline=None)
@hypothesis.given(geometry=geometries())
def test_default_output_size_belongs_to_x_for_many_geometries(geometry):
    check_default_size(*geometry)


def test_neither_kernel_is_flipped():
    impulse = jnp.zeros((5, 1)).at[2].set(1)
    kernel = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    np.testing.assert_array_equal(f.conv(impulse, kernel).ravel(), [0, 3, 2, 1, 0])
    np.testing.assert_array_equal(f.conv_transpose(impulse, kernel).ravel(), [0, 1, 2, 3, 0])


@pytest.mark.parametrize(
    ("padding", "outputs"),
    [
        ("SAME", 4),
        ("CIRCULAR", 4),
        ("REFLECT", 4),
        ("REPLICATE", 4),
        ("CAUSAL", 4),
        ("VALID", 2),
        (1, 3),
    ],
)
def test_sizes(padding, outputs):
    x, kernel = jnp.zeros((2, 7, 1)), jnp.zeros((3, 1, 1))
    make = functools.partial(f.conv, strides=2, padding=padding, kernel_dilation=2)
    assert jax.eval_shape(make, x, kernel).shape == (2, outputs, 1)


# Padding


def jacobian(function, size):
    """Of a function of one channel, shape (outputs, inputs)."""
    return jax.jacobian(lambda x: function(x[:, None]).ravel())(jnp.zeros(size))


@pytest.mark.parametrize("kernel_dilation", [1, 2])
def test_causal_outputs_depend_on_no_later_input(kernel_dilation):
    kernel = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    options = {"padding": "CAUSAL", "kernel_dilation": kernel_dilation}
    looks_back = jacobian(lambda x: f.conv(x, kernel, **options), 6)
    np.testing.assert_array_equal(looks_back, np.tril(looks_back))
    np.testing.assert_array_equal(np.diagonal(looks_back), 3)
    looks_ahead = jacobian(lambda x: f.conv_transpose(x, kernel, **options), 6)
    np.testing.assert_array_equal(looks_ahead, looks_back.T)


@pytest.mark.parametrize("strides", [1, 2])
def test_circular_convolution_of_a_rolled_input_is_the_rolled_output(strides):
    x, kernel = integers(0, 1, 8, 6, 2), integers(1, 3, 4, 2, 3)
    convolve = fast_jit(functools.partial(f.conv, strides=strides, padding="CIRCULAR"))
    rolled = convolve(np.roll(x, (strides, 2 * strides), (1, 2)), kernel)
    np.testing.assert_array_equal(rolled, np.roll(convolve(x, kernel), (1, 2), (1, 2)))


def test_circular_padding_may_go_round_more_than_once():
    x, kernel = jnp.array([[1.0], [10.0]]), jnp.ones((7, 1, 1))
    y = f.conv(x, kernel, padding="CIRCULAR")
    np.testing.assert_array_equal(y.ravel(), [3 * 1 + 4 * 10, 4 * 1 + 3 * 10])


def test_reflection_leaves_the_first_and_last_element_single():
    x = jnp.array([[1.0], [10.0], [100.0]])
    y = f.conv(x, jnp.ones((5, 1, 1)), padding="REFLECT")
    np.testing.assert_array_equal(y.ravel(), [221, 131, 122])


# Batches, groups, dtypes


@quick_first(1)
@pytest.mark.parametrize("function", [f.conv, f.conv_transpose])
def test_any_number_of_batch_axes(function):
    x, kernel, bias = integers(0, 2, 3, 4, 5, 2), integers(1, 3, 2, 2, 3), integers(2, 3)
    convolve = fast_jit(functools.partial(function, strides=2))
    y = convolve(x, kernel, bias)
    np.testing.assert_array_equal(convolve(x[1, 2], kernel, bias), y[1, 2])
    np.testing.assert_array_equal(convolve(x[1], kernel, bias), y[1])
    assert convolve(x[:0], kernel, bias).shape == (0, *y.shape[1:])


def test_groups_are_convolutions_side_by_side():
    x, kernel = integers(0, 2, 5, 6), integers(1, 3, 2, 9)
    for function in (f.conv, f.conv_transpose):
        parts = [
            function(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3]) for g in range(3)
        ]
        np.testing.assert_array_equal(
            function(x, kernel, feature_group_count=3), np.concatenate(parts, -1)
        )


def test_depthwise_conv_makes_neighbouring_outputs_of_each_channel():
    layer = nn.depthwise_conv((3, 2), depth_multiplier=2)
    x = integers(0, 1, 4, 4, 3)
    params = {"kernel": integers(1, 3, 2, 1, 6), "bias": integers(2, 6)}
    y, _ = layer.apply(params, {}, x)
    for c, m in itertools.product(range(3), range(2)):
        out = slice(2 * c + m, 2 * c + m + 1)
        alone = f.conv(x[..., c : c + 1], params["kernel"][..., out], params["bias"][out])
        np.testing.assert_array_equal(y[..., out], alone)


def test_separable_conv_is_a_conv_whose_kernel_is_a_product():
    layer = nn.separable_conv(3, (3, 3), depth_multiplier=2, strides=2)
    x = integers(0, 1, 5, 4, 2)
    depthwise, pointwise = integers(1, 3, 3, 1, 4), integers(2, 1, 1, 4, 3)
    bias = integers(3, 3)
    params = {"depthwise": {"kernel": depthwise}, "pointwise": {"kernel": pointwise, "bias": bias}}
    by_channel = np.einsum(
        "hwcm,cmo->hwco", depthwise.reshape(3, 3, 2, 2), pointwise.reshape(2, 2, 3)
    )
    y, _ = layer.apply(params, {}, x)
    np.testing.assert_array_equal(y, f.conv(x, by_channel, bias, strides=2))


@pytest.mark.parametrize("function", [f.conv, f.conv_transpose])
def test_dtypes(function):
    def dtype(x, kernel):
        x, kernel = jnp.ones((4, 2), x), jnp.ones((3, 2, 2), kernel)
        return jax.eval_shape(function, x, kernel, kernel[0, 0]).dtype

    assert dtype("bfloat16", "float32") == "bfloat16"
    assert dtype("float32", "bfloat16") == "float32"
    assert dtype("int32", "bfloat16") == "bfloat16"
    assert dtype("uint8", "int32") == "float32"


@pytest.mark.parametrize("function", [f.conv, f.conv_transpose])
def test_members_of_an_ensemble_have_kernels_of_their_own(function):
    x, kernels = integers(0, 2, 5, 2), integers(1, 3, 3, 1, 4)
    convolve = functools.partial(function, x, feature_group_count=2, padding="CIRCULAR")
    together = fast_jit(jax.vmap(convolve))(kernels)
    np.testing.assert_array_equal(together[2], fast_jit(convolve)(kernels[2]))


@pytest.mark.parametrize("function", [f.conv, f.conv_transpose])
def test_export_for_other_devices(function):
    def loss(x, kernel):
        return jnp.sum(
            function(x, kernel, strides=2, feature_group_count=2, padding="REFLECT") ** 2
        )

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 4, 4, 4), (3, 3, 2, 4))]
    exported = export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=["cpu", "cuda", "tpu"])
    assert [value.shape for value in exported(*shapes).out_avals] == [s.shape for s in shapes]


# Initial kernels


@pytest.mark.parametrize(
    ("layer", "channels", "fan_in"),
    [
        (nn.conv(128, (5, 5), feature_group_count=4), 32, 5 * 5 * 8),
        (nn.conv_transpose(128, (5, 5), feature_group_count=4), 32, 5 * 5 * 8),
        (nn.depthwise_conv((5, 5), depth_multiplier=4), 128, 5 * 5),
    ],
    ids=["grouped", "transposed", "depthwise"],
)
def test_variance_of_kernels_is_that_of_their_inputs(layer, channels, fan_in):
    params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, channels), "float32"))
    np.testing.assert_allclose(np.std(params["kernel"]), fan_in**-0.5, rtol=0.03)
    np.testing.assert_array_equal(params["bias"], 0)


def test_parts_of_a_separable_conv_have_kernels_of_their_inputs():
    layer = nn.separable_conv(64, (5, 5), depth_multiplier=2)
    params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 64), "float32"))
    np.testing.assert_allclose(np.std(params["depthwise"]["kernel"]), 25**-0.5, rtol=0.03)
    np.testing.assert_allclose(np.std(params["pointwise"]["kernel"]), 128**-0.5, rtol=0.03)
    assert params["depthwise"].keys() == {"kernel"}


def test_a_kernel_size_for_each_axis_tells_the_batch_axes():
    layer = nn.conv(3, (3,))
    example = jax.ShapeDtypeStruct((4, 5, 6, 2), "float32")
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), example)
    assert params["kernel"].shape == (3, 2, 3)
    y, _ = jax.eval_shape(layer.apply, params, {}, example)
    assert y.shape == (4, 5, 6, 3)


# Errors


def key():
    """A key that no other call has used."""
    return jax.random.key(0)


ones = jnp.ones

BAD_CALLS = {
    "kernel_rank": (
        lambda: f.conv(ones((4, 2)), ones((2, 3))),
        ValueError,
        ("conv: kernel has shape (2, 3)", "(*spatial, in / groups, out)", "1 to 3 spatial axes"),
    ),
    "empty_kernel": (
        lambda: f.conv(ones((4, 2)), ones((0, 2, 3))),
        ValueError,
        ("conv: kernel has shape (0, 2, 3)", "expected no empty axis"),
    ),
    "groups_of_outputs": (
        lambda: f.conv(ones((4, 4)), ones((3, 2, 3)), feature_group_count=2),
        ValueError,
        ("conv: kernel has shape (3, 2, 3)", "outputs that 2 groups divide"),
    ),
    "channels": (
        lambda: f.conv(ones((4, 3)), ones((3, 2, 4)), feature_group_count=2),
        ValueError,
        ("conv: x has shape (4, 3)", "(*batch, *spatial, 4)", "(3, 2, 4) and 2 groups"),
    ),
    "rank": (
        lambda: f.conv(ones((5, 2)), ones((3, 3, 2, 4))),
        ValueError,
        ("conv: x has shape (5, 2)", "2 spatial axes", "(3, 3, 2, 4)"),
    ),
    "feature_group_count": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), feature_group_count=0),
        ValueError,
        ("conv: feature_group_count is 0", "at least 1"),
    ),
    "bias": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), ones(3)),
        ValueError,
        ("conv: bias has shape (3,)", "expected shape (4,)"),
    ),
    "strides": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), strides=(1, 2)),
        ValueError,
        ("conv: strides is (1, 2)", "a number for each of 1 spatial axes"),
    ),
    "kernel_dilation": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), kernel_dilation=1.5),
        TypeError,
        ("conv: kernel_dilation is 1.5", "expected an integer"),
    ),
    "padding_name": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), padding="same"),
        ValueError,
        (
            "conv: padding is 'same'",
            "'SAME', 'VALID', 'CAUSAL', 'CIRCULAR', 'REFLECT', 'REPLICATE' or numbers",
        ),
    ),
    "padding_pairs": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), padding=(1, 2)),
        ValueError,
        ("conv: padding is (1, 2)", "a pair (low, high) of integers >= 0 for each of 1"),
    ),
    "negative_padding": (
        lambda: f.conv(ones((5, 2)), ones((3, 2, 4)), padding=-1),
        ValueError,
        ("conv: padding is -1", "integers >= 0"),
    ),
    "causal_images": (
        lambda: f.conv(ones((5, 5, 2)), ones((3, 3, 2, 4)), padding="CAUSAL"),
        ValueError,
        ("conv: padding is 'CAUSAL' for 2 spatial axes", "expected one"),
    ),
    "no_output": (
        lambda: f.conv(
            ones((2, 9, 4, 2)), ones((3, 3, 2, 4)), padding=((0, 0), 1), kernel_dilation=3
        ),
        ValueError,
        ("conv: spatial axis 1 of (9, 4)", "4 elements and 2 of padding", "at least 7 in all"),
    ),
    "no_input": (
        lambda: f.conv(ones((0, 2)), ones((3, 2, 4))),
        ValueError,
        ("conv: spatial axis 0 of (0,) has 0 elements",),
    ),
    "reflection": (
        lambda: f.conv(ones((2, 2)), ones((5, 2, 4)), padding="REFLECT"),
        ValueError,
        ("conv: spatial axis 0 of (2,) has 2 elements", "expected more than 2", "reflects"),
    ),
    "transposed_channels": (
        lambda: f.conv_transpose(ones((4, 3)), ones((3, 2, 4))),
        ValueError,
        ("conv_transpose: x has shape (4, 3)", "(*batch, *spatial, 2)", "(3, 2, 4)"),
    ),
    "transposed_bias": (
        lambda: f.conv_transpose(ones((4, 2)), ones((3, 2, 4)), ones(2)),
        ValueError,
        ("conv_transpose: bias has shape (2,)", "expected shape (4,)"),
    ),
    "output_size": (
        lambda: f.conv_transpose(ones((4, 2)), ones((3, 2, 4)), strides=2, output_size=9),
        ValueError,
        ("conv_transpose: output_size is (9,)", "makes (5,)", "expected a size", "(4,)"),
    ),
    "output_size_of_nothing": (
        lambda: f.conv_transpose(ones((1, 2)), ones((3, 2, 4)), padding=2),
        ValueError,
        ("conv_transpose: x has spatial shape (1,)", "padding 2 leaves (-1,)", "at least 1"),
    ),
    "transposed_reflection": (
        lambda: f.conv_transpose(ones((2, 2)), ones((5, 2, 4)), padding="REFLECT"),
        ValueError,
        ("conv_transpose: spatial axis 0 of (2,) has 2 elements", "expected more than 2"),
    ),
    "features": (lambda: nn.conv(0, (3, 3)), ValueError, ("conv: features is 0", "at least 1")),
    "kernel_size": (
        lambda: nn.conv_transpose(2, (3, 0)),
        ValueError,
        ("conv_transpose: kernel_size is 0", "at least 1"),
    ),
    "kernel_size_type": (
        lambda: nn.depthwise_conv((2.0,)),
        TypeError,
        ("depthwise_conv: kernel_size is (2.0,)", "expected an integer"),
    ),
    "depth_multiplier": (
        lambda: nn.separable_conv(3, (3, 3), depth_multiplier=0),
        ValueError,
        ("depthwise_conv: depth_multiplier is 0",),
    ),
    "groups_of_features": (
        lambda: nn.conv_transpose(5, (3, 3), feature_group_count=2),
        ValueError,
        ("conv_transpose: features is 5", "a multiple of feature_group_count=2"),
    ),
    "groups_of_inputs": (
        lambda: nn.conv(4, (3, 3), feature_group_count=2).init(key(), ones((1, 5, 5, 3))),
        ValueError,
        ("conv: x has 3 channels", "a multiple of feature_group_count=2"),
    ),
    "no_spatial_axis": (
        lambda: nn.conv(4, (3, 3)).init(key(), ones((5, 3))),
        ValueError,
        ("conv: x has shape (5, 3)", "expected (batch, height, width, channels)"),
    ),
    "few_axes": (
        lambda: nn.depthwise_conv((3, 3)).init(key(), ones((5, 3))),
        ValueError,
        ("depthwise_conv: x has shape (5, 3)", "expected (batch, height, width, channels)"),
    ),
    "key": (lambda: nn.conv(4, (3,)).init(0, ones((1, 5, 3))), TypeError, ("conv: key is int",)),
    "positional": (lambda: nn.conv(4, (3, 3), 2), TypeError, ("conv", "positional")),
}


@pytest.mark.parametrize(("call", "kind", "parts"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_are_refused(call, kind, parts):
    with pytest.raises(kind) as error:
        call()
    for part in parts:
        assert part in str(error.value)
