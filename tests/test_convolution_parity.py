"""Convolutions with torch's and flax's numbers and gradients, weights carried over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

f = nn.functional
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def channels_first(x):
    """`(batch, *spatial, channels)` in torch's order."""
    return np.moveaxis(x, -1, 1).copy()


def conv_kernel(kernel):
    """`(*spatial, in / groups, out)` as torch's `(out, in / groups, *spatial)`."""
    return np.moveaxis(kernel, (-1, -2), (0, 1)).copy()


def transposed_kernel(kernel, feature_group_count):
    """`(*spatial, in / groups, out)` as torch's `(in, out / groups, *spatial)`, by group."""
    by_group = [
        np.moveaxis(k, (-2, -1), (0, 1)) for k in np.split(kernel, feature_group_count, axis=-1)
    ]
    return np.concatenate(by_group)


def compare(torch, ours, theirs, arguments, to_torch):
    """Compare value and gradients of x, kernel and bias for a cotangent that is no constant."""

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jnp.cos(y))

    y, gradients = derived(*arguments)
    tensors = [
        torch.tensor(convert(a), requires_grad=True)
        for convert, a in zip(to_torch, arguments, strict=True)
    ]
    expected = theirs(*tensors)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=3e-5)
    close(channels_first(y), expected.detach())
    expected.backward(torch.cos(expected.detach()))
    for convert, gradient, tensor in zip(to_torch, gradients, tensors, strict=True):
        close(convert(np.asarray(gradient)), tensor.grad)


SPATIAL = {1: (9,), 2: (7, 6), 3: (4, 5, 6)}
TAPS = {1: (3,), 2: (3, 2), 3: (2, 1, 3)}


def explicit(padding):
    """Our form of torch's padding of each axis."""
    return padding if isinstance(padding, int) else [(p, p) for p in padding]


def compare_conv(torch, rank, strides, padding, kernel_dilation, feature_group_count, taps=None):
    def ours(x, kernel, bias):
        pads = padding.upper() if isinstance(padding, str) else explicit(padding)
        return f.conv(
            x,
            kernel,
            bias,
            strides=strides,
            padding=pads,
            kernel_dilation=kernel_dilation,
            feature_group_count=feature_group_count,
        )

    def theirs(x, kernel, bias):
        function = getattr(torch.nn.functional, f"conv{rank}d")
        return function(x, kernel, bias, strides, padding, kernel_dilation, feature_group_count)

    kernel = normal(1, *(taps or TAPS[rank]), 4 // feature_group_count, 6)
    arguments = normal(0, 2, *SPATIAL[rank], 4), kernel, normal(2, 6)
    compare(torch, ours, theirs, arguments, (channels_first, conv_kernel, np.copy))


@pytest.mark.parametrize(
    ("rank", "strides", "padding", "kernel_dilation", "feature_group_count"),
    [
        (1, 2, 1, 2, 2),
        (1, 1, "same", 3, 1),
        (2, (2, 1), (1, 2), (1, 3), 2),
        (2, 3, 0, 1, 1),
        (3, (1, 2, 1), (1, 0, 2), (2, 1, 1), 2),
    ],
)
def test_conv_is_that_of_torch(torch, rank, strides, padding, kernel_dilation, feature_group_count):
    compare_conv(torch, rank, strides, padding, kernel_dilation, feature_group_count)


@slow
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("feature_group_count", [1, 2])
@pytest.mark.parametrize("kernel_dilation", [1, 2])
@pytest.mark.parametrize(
    ("strides", "padding"), [(1, 0), (1, 2), (1, "valid"), (1, "same"), (2, 0), (2, 2)]
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_is_that_of_torch_for_all_options(
    torch, rank, strides, padding, kernel_dilation, feature_group_count
):
    compare_conv(torch, rank, strides, padding, kernel_dilation, feature_group_count)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_same_padding_of_an_even_kernel_is_that_of_torch(torch):
    compare_conv(torch, 1, 1, "same", 1, 1, taps=(4,))


@pytest.mark.parametrize(
    ("rank", "mode", "strides", "kernel_dilation"),
    [
        (1, "circular", 1, 2),
        (2, "reflect", 2, 1),
        pytest.param(1, "reflect", 1, 2, marks=slow),
        pytest.param(2, "circular", 1, 1, marks=slow),
        pytest.param(2, "circular", 2, 1, marks=slow),
        pytest.param(3, "circular", 1, 1, marks=slow),
        pytest.param(3, "reflect", 2, 1, marks=slow),
    ],
)
def test_padding_modes_are_those_of_torch(torch, rank, mode, strides, kernel_dilation):
    # With odd kernels and odd sizes SAME pads by the same amounts on both sides: torch's padding.
    kinds = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
    taps, sizes = (3, 5, 3)[:rank], (7, 9, 5)[:rank]
    padding = tuple(kernel_dilation * (t - 1) // 2 for t in taps)
    module = kinds[rank](2, 3, taps, strides, padding, kernel_dilation, padding_mode=mode)

    def ours(x, kernel, bias):
        return f.conv(
            x, kernel, bias, strides=strides, padding=mode.upper(), kernel_dilation=kernel_dilation
        )

    def theirs(x, kernel, bias):
        del module.weight, module.bias
        module.weight, module.bias = kernel, bias
        return module(x)

    arguments = normal(0, 2, *sizes, 2), normal(1, *taps, 2, 3), normal(2, 3)
    compare(torch, ours, theirs, arguments, (channels_first, conv_kernel, np.copy))


def compare_conv_transpose(
    torch, rank, strides, padding, output_padding, kernel_dilation, feature_group_count
):
    sizes, taps = SPATIAL[rank], TAPS[rank]

    def theirs(x, kernel, bias):
        function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        return function(
            x, kernel, bias, strides, padding, output_padding, feature_group_count, kernel_dilation
        )

    def ours(x, kernel, bias):
        return f.conv_transpose(
            x,
            kernel,
            bias,
            strides=strides,
            padding=explicit(padding),
            kernel_dilation=kernel_dilation,
            feature_group_count=feature_group_count,
            output_size=output_size,
        )

    each = [
        v if isinstance(v, tuple) else (v,) * rank
        for v in (strides, padding, output_padding, kernel_dilation)
    ]
    output_size = [
        (n - 1) * s - 2 * p + d * (t - 1) + o + 1
        for n, t, s, p, o, d in zip(sizes, taps, *each, strict=True)
    ]
    if not any(each[2]):
        assert (
            output_size
            == list(  # it is the default
                f.conv_transpose(
                    np.zeros((1, *sizes, feature_group_count)),
                    np.zeros((*taps, 1, feature_group_count)),
                    strides=strides,
                    padding=explicit(padding),
                    kernel_dilation=kernel_dilation,
                    feature_group_count=feature_group_count,
                ).shape[1:-1]
            )
        )
    kernel = normal(1, *taps, 4 // feature_group_count, 6)
    arguments = normal(0, 2, *sizes, 4), kernel, normal(2, 6)
    to_torch = (
        channels_first,
        functools.partial(transposed_kernel, feature_group_count=feature_group_count),
        np.copy,
    )
    compare(torch, ours, theirs, arguments, to_torch)


@pytest.mark.parametrize(
    ("rank", "strides", "padding", "output_padding", "kernel_dilation", "feature_group_count"),
    [
        (1, 3, 1, 2, 1, 2),
        (1, 1, 2, 0, 2, 1),
        (2, (2, 3), (1, 0), (1, 2), (2, 1), 2),
        (2, 2, 0, 0, 1, 1),
        (3, (2, 1, 2), 0, (0, 0, 1), 1, 2),
    ],
)
def test_conv_transpose_is_that_of_torch(
    torch, rank, strides, padding, output_padding, kernel_dilation, feature_group_count
):
    compare_conv_transpose(
        torch, rank, strides, padding, output_padding, kernel_dilation, feature_group_count
    )


@slow
@pytest.mark.parametrize("feature_group_count", [1, 2])
@pytest.mark.parametrize("kernel_dilation", [1, 2])
@pytest.mark.parametrize("output_padding", [0, 1])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("strides", [2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose_is_that_of_torch_for_all_options(
    torch, rank, strides, padding, output_padding, kernel_dilation, feature_group_count
):
    compare_conv_transpose(
        torch, rank, strides, padding, output_padding, kernel_dilation, feature_group_count
    )


def test_output_padding_of_torch_is_a_smaller_high(torch):
    def ours(x, kernel, bias):
        return f.conv_transpose(x, kernel, bias, strides=2, padding=((1, 0),))

    def theirs(x, kernel, bias):
        return torch.nn.functional.conv_transpose1d(x, kernel, bias, 2, 1, output_padding=1)

    arguments = normal(0, 2, 5, 2), normal(1, 3, 2, 3), normal(2, 3)
    to_torch = channels_first, functools.partial(transposed_kernel, feature_group_count=1), np.copy
    compare(torch, ours, theirs, arguments, to_torch)


# flax and lax, which do not flip the kernel of a transposed convolution unless told so


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("taps", "strides"), [(3, 2), pytest.param(4, 2, marks=slow), (3, 3)])
def test_conv_transpose_is_that_of_flax_with_the_kernel_flipped(padding, taps, strides):
    linen = pytest.importorskip("flax.linen")
    module = linen.ConvTranspose(5, (taps, taps), (strides, strides), padding)
    x, kernel, bias = normal(0, 2, 3, 4, 2), normal(1, taps, taps, 2, 5), normal(2, 5)
    params = {"kernel": jnp.asarray(kernel[::-1, ::-1]), "bias": jnp.asarray(bias)}
    with jax.numpy_rank_promotion("allow"):
        expected = module.apply({"params": params}, x)
    y = f.conv_transpose(x, kernel, bias, strides=strides, padding=padding)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_by_elements_of_x_is_that_of_torch(torch, mode):
    def theirs(x, kernel, bias):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode)
        return torch.nn.functional.conv2d(padded, kernel, bias)

    def ours(x, kernel, bias):
        return f.conv(x, kernel, bias, padding=mode.upper())

    arguments = normal(0, 2, 5, 4, 3), normal(1, 3, 3, 3, 4), normal(2, 4)
    compare(torch, ours, theirs, arguments, (channels_first, conv_kernel, np.copy))


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR", "CAUSAL"])
def test_conv_is_that_of_flax(padding):
    linen = pytest.importorskip("flax.linen")
    module = linen.Conv(4, (3,), strides=1, padding=padding, kernel_dilation=2)
    x, kernel, bias = normal(0, 2, 8, 3), normal(1, 3, 3, 4), normal(2, 4)
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    with jax.numpy_rank_promotion("allow"):
        expected = module.apply({"params": params}, x)
    y = f.conv(x, kernel, bias, padding=padding, kernel_dilation=2)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
