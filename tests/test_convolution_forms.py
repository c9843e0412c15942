"""The forms that convolutions take on CPU: the right numbers, whatever the arguments."""

import itertools
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnn as nn
from jaxnn.functional import _convolution_forms as forms
from tests.compiling import fast_jit
from tests.numpy_reference import convolution as reference
from tests.parameters import quick_first

SMALL_CHUNKS = {"CHUNK_BYTES": 1, "CHUNK_IMAGES": 1}  # as large images have them
CHUNKS = [{name: getattr(forms, name) for name in SMALL_CHUNKS}, SMALL_CHUNKS]


@st.composite
def convolutions(draw):
    """A convolution with its batch, channels and dtype."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    sizes, window, strides, dilation = each(1, 6), each(1, 3), each(1, 3), each(1, 3)
    pads = tuple(
        (draw(st.integers(0, 3)), draw(st.integers(0, 3)) + max(0, d * (k - 1) + 1 - n))
        for n, k, d in zip(sizes, window, dilation, strict=True)
    )
    groups = draw(st.sampled_from([1, 1, 2, forms.UNROLLED_GROUPS + 1]))
    channels = draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    dtype = draw(st.sampled_from(["bfloat16", "float16", "float32", "float64"]))
    c = forms.Convolution(sizes, window, strides, dilation, pads, groups)
    return c, draw(st.integers(0, 4)), channels, dtype, draw(st.sampled_from(CHUNKS))


def operands(c, batch, channels, dtype):
    """x, the kernel and a gradient of y."""
    rng = np.random.default_rng(0)
    shapes = (
        (batch, *c.sizes, channels[0] * c.groups),
        (*c.window, *channels),
        (batch, *c.outputs, channels[1]),
    )
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def assert_forms_agree(c, batch, channels, dtype, chunks):
    with jax.enable_x64(True), mock.patch.multiple(forms, **chunks):
        x, kernel, y = operands(c, batch, channels, dtype)
        ours = fast_jit(
            lambda: (
                forms.output(c, x, kernel),
                forms.input_gradient(c, y, kernel),
                forms.kernel_gradient(c, x, y),
            )
        )()
    x, kernel, y = (np.asarray(a, np.float64) for a in (x, kernel, y))
    exact = by_hand(c, x, kernel, y)
    for result, expected in zip(ours, exact, strict=True):
        assert result.shape == expected.shape
        assert result.dtype == dtype
        error = np.max(np.abs(np.asarray(result, np.float64) - expected), initial=0)
        scale = np.max(np.abs(expected), initial=1)
        assert error <= 8 * float(jnp.finfo(dtype).eps) * scale


def by_hand(c, x, kernel, y):
    """In NumPy: XLA's own gradients with groups, strides and dilation do not always compile."""
    options = dict(
        strides=c.strides,
        padding=c.pads,
        kernel_dilation=c.dilation,
        feature_group_count=c.groups,
    )
    output, backward = reference.conv(x, kernel, None, **options)
    return output, *backward(y)[:2]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(convolutions())
def test_the_forms_agree_with_numpy(case):
    assert_forms_agree(*case)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_the_forms_agree_with_numpy_for_many_arguments(case):
    assert_forms_agree(*case)


KINDS = {
    "plain": {"kernel": (3, 3, 2, 3)},
    "one channel": {"kernel": (2, 2, 1, 6)},
    "strided": {"kernel": (4, 4, 2, 3), "strides": 2},
    "pointwise": {"kernel": (1, 1, 2, 3)},
    "volumes": {"kernel": (2, 3, 3, 2, 3)},
    "groups": {"kernel": (3, 3, 1, 4), "feature_group_count": 2},
    "depthwise": {"kernel": (3, 3, 1, 9), "feature_group_count": 9},
}


def kind_of(name, function):
    """A function of x and a kernel alone, and both."""
    options = dict(KINDS[name])
    *window, a, _ = shape = options.pop("kernel")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, *(5 for _ in window), a * options.get("feature_group_count", 1)))
    return lambda x, kernel: function(x, kernel, **options), x, rng.standard_normal(shape)


# Of each way that the gradients are formed one; the forms alone are compared with NumPy above.
QUICK = {
    ("one channel", "conv"),
    ("strided", "conv"),
    ("groups", "conv_transpose"),
    ("pointwise", "conv_transpose"),
}
PAIRS = [
    pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow, id="-".join(pair))
    for pair in itertools.product(KINDS, ("conv", "conv_transpose"))
]


@quick_first(2)
@pytest.mark.parametrize(("name", "function"), PAIRS)
def test_all_derivatives_are_those_of_xla(function, name, monkeypatch, x64):
    """The same program with the forms of each platform, those for CPU as large images have them."""
    for constant, value in SMALL_CHUNKS.items():
        monkeypatch.setattr(forms, constant, value)

    def derivatives(x, kernel):
        f, *_ = kind_of(name, getattr(nn.functional, function))

        def scalar(x, kernel):
            return jnp.sum(jnp.sin(f(x, kernel)))

        both = (0, 1)
        grad = jax.grad(scalar, both)
        ones = (jnp.ones_like(x), jnp.ones_like(kernel))
        return (
            grad(x, kernel),
            jax.jvp(f, (x, kernel), ones),
            jax.jvp(grad, (x, kernel), ones),  # forward over reverse
            jax.grad(lambda *a: sum(jnp.sum(jnp.cos(g)) for g in grad(*a)), both)(x, kernel),
            jax.vmap(grad)(jnp.stack([x, x + 1]), jnp.stack([kernel, kernel - 1])),
        )

    _, x, kernel = kind_of(name, None)
    ours = fast_jit(derivatives)(x, kernel)
    by_xla = {"convolution": forms.xla_output, "transposed_convolution": forms.xla_input_gradient}
    for attribute, value in by_xla.items():
        monkeypatch.setattr(f"jaxnn.functional._convolution.{attribute}", value)
    theirs = fast_jit(lambda *a: derivatives(*a))(x, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs
    )


@pytest.mark.parametrize("name", ["plain", "strided", "groups", "volumes"])
def test_no_convolution_in_a_loop_is_in_an_order_that_is_slow(name):
    f, x, kernel = kind_of(name, nn.functional.conv)

    def train(x, kernel):
        def step(pair, _):
            gradients = jax.grad(lambda *pair: jnp.sum(jnp.sin(f(*pair))), (0, 1))(*pair)
            return jax.tree.map(jnp.subtract, pair, gradients), None

        return jax.lax.scan(step, (x, kernel), length=3)[0]

    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    program = jax.jit(train).lower(*arrays).compile().as_text()
    orders = set(re.findall(r"dim_labels=(\S+?)[,\s]", program))
    assert orders == {"b01f_01io->b01f"}


def test_the_gradient_of_a_kernel_copies_a_part_of_the_batch_at_a_time():
    c = forms.Convolution((14, 14), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    x, y = (jax.ShapeDtypeStruct((128, 14, 14, n), jnp.float32) for n in (32, 64))
    gradient = jax.jit(lambda x, y: forms.kernel_gradient(c, x, y))
    needed = gradient.lower(x, y).compile().memory_analysis().temp_size_in_bytes
    assert needed < (x.size + y.size) * 4 / 3


def test_a_program_for_several_platforms_has_the_forms_of_each():
    f, x, kernel = kind_of("strided", nn.functional.conv)
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    gradient = jax.jit(jax.grad(lambda *pair: jnp.sum(f(*pair) ** 2), (0, 1)))
    exported = jax.export.export(gradient, platforms=["cpu", "cuda"])(*arrays)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        exported.call(*arrays),
        gradient(*arrays),
    )
