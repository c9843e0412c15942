"""Upsampling and pixel shuffling: torch's and jax.image's numbers, inverses, dtypes and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

f = nn.functional
ones = jnp.ones


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(*shape):
    """Normal numbers in float32."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def compare(torch, ours, theirs, x, tolerance=1e-6):
    """Compare value and gradient with torch, which has the channels before the spatial axes."""

    @fast_jit
    def derived(x):
        y, pullback = jax.vjp(ours, x)
        return y, pullback(jnp.cos(y))[0]

    y, gradient = derived(x)
    tensor = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    expected = theirs(tensor)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach(), tolerance, tolerance)
    expected.backward(torch.cos(expected.detach()))
    np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), tensor.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [(3,), pytest.param((4, 1), marks=pytest.mark.slow), (2, 3, 2)])
def test_upsample_is_interpolate_of_torch(torch, scale, method):
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(scale)]

    def theirs(x):
        if method == "nearest":
            return torch.nn.functional.interpolate(x, scale_factor=scale)
        return torch.nn.functional.interpolate(
            x, scale_factor=scale, mode=mode, align_corners=False
        )

    def ours(x):
        return f.upsample(x, scale, method=method)

    compare(torch, ours, theirs, normal(2, *(5, 3, 2)[: len(scale)], 2))


RESIZES = [
    ((7, 3), "nearest", False),
    ((4, 9), "bilinear", False),
    ((4, 9), "bilinear", True),
    ((4, 9), "bicubic", False),
    ((4, 9), "bicubic", True),
    ((4, 9), "area", False),
]


@pytest.mark.parametrize(("output_size", "method", "antialias"), RESIZES)
def test_resize_is_interpolate_of_torch(torch, output_size, method, antialias):
    mode = "nearest-exact" if method == "nearest" else method
    compare(
        torch,
        lambda x: f.resize(x, output_size, method=method, antialias=antialias),
        lambda x: torch.nn.functional.interpolate(x, output_size, mode=mode, antialias=antialias),
        normal(2, 11, 5, 3),
        tolerance=1e-5,  # torch has the places in float32
    )


@pytest.mark.parametrize(
    ("method", "antialias"),
    [("nearest", False), ("linear", False), ("linear", True), ("cubic", True)],
)
def test_resize_is_that_of_jax_image(method, antialias):
    x, shape = normal(2, 11, 5, 3), (2, 4, 9, 3)

    @fast_jit
    def both(x):
        ours = f.resize(x, shape[1:3], method=method, antialias=antialias)
        return ours, jax.image.resize(x, shape, method, antialias=antialias)

    np.testing.assert_allclose(*both(x), rtol=1e-5, atol=1e-5)


def test_resize_by_whole_factors_is_upsample():
    x = normal(2, 3, 2)
    for method in ("nearest", "linear"):
        y = f.resize(x, (12,), method=method)
        np.testing.assert_allclose(y, f.upsample(x, (4,), method=method), rtol=1e-5, atol=1e-6)
    same = f.resize(np.arange(6).reshape(1, 6, 1), (None,), method="nearest")
    np.testing.assert_array_equal(same.ravel(), np.arange(6))


def test_resize_of_integers_and_low_precision():
    labels = np.array([[3], [250], [7]], np.uint8)
    y = f.resize(labels, (6,), method="nearest")
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y.ravel(), [3, 3, 250, 250, 7, 7])
    assert f.resize(labels, (2,)).dtype == jnp.float32
    y = f.resize(jnp.ones((1000, 1), jnp.bfloat16), (1,), antialias=True)
    assert y.dtype == jnp.bfloat16
    assert y.ravel() == 1


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_is_that_of_torch(torch, factor):
    x = normal(2, 6, 12, 2 * factor**2)
    for name in ("pixel_shuffle", "pixel_unshuffle"):
        ours, theirs = getattr(f, name), getattr(torch, name)
        compare(torch, lambda x: ours(x, (factor,) * 2), lambda x: theirs(x, factor), x)  # noqa: B023


@pytest.mark.parametrize("method", ["nearest", "linear", "bilinear", "trilinear"])
def test_methods_are_those_of_resize_of_jax(method):
    x = normal(2, 3, 4, 2)
    y = fast_jit(lambda x: f.upsample(x, (2, 1), method=method))(x)
    expected = fast_jit(lambda x: jax.image.resize(x, (2, 6, 4, 2), method))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_upsample_of_integers_and_booleans():
    labels = jnp.array([[3], [7]])
    y = f.upsample(labels, (2,))
    assert y.dtype == labels.dtype
    np.testing.assert_array_equal(y.ravel(), [3, 3, 7, 7])
    assert f.upsample(labels > 3, (2,)).dtype == jnp.bool_
    y = f.upsample(labels, (2,), method="linear")
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y.ravel(), [3, 4, 6, 7])


def test_interpolation_of_low_precision_is_rounded_once():
    @fast_jit
    def interpolated(x):
        return f.upsample(x, (3, 3), method="linear")

    x = jnp.asarray(normal(1, 6, 1), jnp.bfloat16)
    y, exact = interpolated(x), interpolated(x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_upsample_of_no_examples(method):
    assert f.upsample(ones((0, 3, 2)), (2,), method=method).shape == (0, 6, 2)


@pytest.mark.parametrize(
    ("factor", "shape"),
    [((2, 2), (3, 4, 6, 8)), ((3,), (2, 2, 6, 3)), ((1, 2, 3), (2, 2, 3, 6))],
)
def test_unshuffling_is_the_inverse_of_shuffling(factor, shape):
    @fast_jit
    def there_and_back(x):
        shuffled, unshuffled = f.pixel_shuffle(x, factor), f.pixel_unshuffle(x, factor)
        return f.pixel_unshuffle(shuffled, factor), f.pixel_shuffle(unshuffled, factor)

    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    for y in there_and_back(x):
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, x)


BAD_CALLS = {
    "resize_method": (
        lambda: nn.resize((2, 2), method="lanczos3"),
        ValueError,
        ("resize: method is 'lanczos3'", "'cubic'"),
    ),
    "resize_antialias": (
        lambda: f.resize(ones((2, 2)), (4,), method="nearest", antialias=True),
        ValueError,
        ("resize: method is 'nearest' with antialias=True", "expected 'linear' or 'cubic'"),
    ),
    "resize_none": (
        lambda: f.resize(ones((2, 0, 1)), (4,)),
        ValueError,
        ("resize: x has shape (2, 0, 1)", "no elements"),
    ),
    "method": (
        lambda: f.upsample(ones((1, 2, 1)), (2,), method="cubic"),
        ValueError,
        ("upsample: method is 'cubic'", "'nearest', 'linear'"),
    ),
    "scale_type": (
        lambda: f.upsample(ones((1, 2, 1)), (1.5,)),
        TypeError,
        ("upsample: scale is (1.5,)", "expected an integer"),
    ),
    "scale_of_nothing": (
        lambda: f.upsample(ones((1, 2, 1)), (0,)),
        ValueError,
        ("upsample: scale is 0", "at least 1"),
    ),
    "scale_axes": (
        lambda: f.upsample(ones((2, 1)), (2, 2)),
        ValueError,
        ("upsample: x has shape (2, 1) and scale is (2, 2)", "(*batch, *spatial, channels)"),
    ),
    "empty_axis": (
        lambda: f.upsample(ones((1, 0, 2)), (2,), method="linear"),
        ValueError,
        ("upsample: x has shape (1, 0, 2)", "expected elements"),
    ),
    "shuffled_channels": (
        lambda: f.pixel_shuffle(ones((1, 2, 2, 6)), (2, 2)),
        ValueError,
        ("pixel_shuffle: x has shape (1, 2, 2, 6)", "channels that 4 divides"),
    ),
    "shuffled_axes": (
        lambda: f.pixel_shuffle(ones((2, 8)), (2, 2)),
        ValueError,
        ("pixel_shuffle: x has shape (2, 8) and factor is (2, 2)",),
    ),
    "unshuffled_sizes": (
        lambda: f.pixel_unshuffle(ones((1, 4, 5, 2)), (2, 2)),
        ValueError,
        ("pixel_unshuffle: x has spatial shape (4, 5)", "sizes that factor (2, 2) divides"),
    ),
    "layer_method": (lambda: nn.upsample((2, 2), method="area"), ValueError, ("upsample: method",)),
}


@pytest.mark.parametrize(("call", "kind", "parts"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_are_refused(call, kind, parts):
    with pytest.raises(kind) as error:
        call()
    for part in parts:
        assert part in str(error.value)
