"""Pooling: torch's numbers and gradients, ties, padding, dtypes and errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.functional import _windows
from tests.compiling import fast_jit
from tests.numpy_reference import pooling as reference
from tests.parameters import each_value_once, quick_first

f = nn.functional
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(*shape):
    """Normal numbers in float32."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def few(*shape):
    """Integers of which many are equal, as float32."""
    return np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)


def derived(function, x):
    """Value and gradient, for a cotangent that differs from place to place."""

    @fast_jit
    def both(x):
        y, pullback = jax.vjp(function, x)
        return y, pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]

    return both(x)


def compare(torch, ours, theirs, x):
    """Value and gradient against torch, which has the channels before the spatial axes."""
    y, gradient = derived(ours, x)
    tensor = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    expected = theirs(tensor)
    np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), 1e-6, 1e-6)
    dy = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
    np.testing.assert_allclose(gradient, np.moveaxis(tensor.grad.numpy(), 1, -1), 1e-5, 1e-5)


# torch: window, strides, padding, dilation

SPATIAL = {1: (11,), 2: (9, 8), 3: (5, 4, 6)}
WINDOWS = [
    pytest.param(1, 2, None, 0, 1, marks=slow),
    (1, 3, 2, 1, 2),
    pytest.param(2, 2, None, 0, 1, marks=slow),
    (2, 3, 2, 1, 1),
    pytest.param(2, 3, 1, 1, 1, marks=slow),
    pytest.param(2, 2, 3, 0, 2, marks=slow),
    (2, (3, 2), (1, 2), (1, 0), (2, 1)),
    (2, (7, 6), (2, 1), (3, 2), 1),
    (3, 2, None, 0, 1),
    pytest.param(3, (2, 3, 2), (1, 2, 1), (1, 1, 0), (1, 1, 2), marks=slow),
    pytest.param(3, 4, 1, 2, 1, marks=slow),
]
windows = pytest.mark.parametrize(
    ("rank", "window_shape", "strides", "padding", "window_dilation"),
    WINDOWS,
)


def each(window_shape, rank):
    """A number for each axis."""
    return (window_shape,) * rank if isinstance(window_shape, int) else window_shape


def explicit(padding):
    """Our form of torch's padding of each axis."""
    return padding if isinstance(padding, int) else [(p, p) for p in padding]


@windows
def test_max_pool_is_that_of_torch(torch, rank, window_shape, strides, padding, window_dilation):
    theirs = getattr(torch.nn.functional, f"max_pool{rank}d")
    compare(
        torch,
        lambda x: f.max_pool(
            x,
            each(window_shape, rank),
            strides=strides,
            padding=explicit(padding),
            window_dilation=window_dilation,
        ),
        lambda x: theirs(x, window_shape, strides, padding, window_dilation),
        few(2, *SPATIAL[rank], 3),  # with ties
    )


@pytest.mark.parametrize("count_include_pad", [True, False])
@windows
def test_avg_pool_is_that_of_torch(
    torch, rank, window_shape, strides, padding, window_dilation, count_include_pad
):
    theirs = getattr(torch.nn.functional, f"avg_pool{rank}d")
    compare(
        torch,
        lambda x: f.avg_pool(
            x,
            each(window_shape, rank),
            strides=strides,
            padding=explicit(padding),
            count_include_pad=count_include_pad,
        ),
        lambda x: theirs(x, window_shape, strides, padding, count_include_pad=count_include_pad),
        normal(2, *SPATIAL[rank], 3),
    )


@pytest.mark.parametrize(
    ("rank", "window_shape", "strides", "p"), [(1, 3, 1, 2), (2, 2, None, 4), (2, (3, 2), 2, 3)]
)
def test_lp_pool_is_that_of_torch(torch, rank, window_shape, strides, p):
    theirs = getattr(torch.nn.functional, f"lp_pool{rank}d")
    x = normal(2, *SPATIAL[rank], 3)
    compare(
        torch,
        lambda x: f.lp_pool(x, each(window_shape, rank), p, strides=strides),
        lambda x: theirs(x, p, window_shape, strides),
        abs(x) if p % 2 else x,
    )


@pytest.mark.parametrize(
    "output_size",
    [
        (3, 5),
        (None, 4),
        (12, 11),
        *(pytest.param(n, marks=slow) for n in ((1, 1), (9, 8), (18, 8))),
    ],
)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_adaptive_pools_are_those_of_torch(torch, kind, output_size):
    ours = getattr(f, f"adaptive_{kind}_pool")
    theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool2d")
    compare(
        torch, lambda x: ours(x, output_size), lambda x: theirs(x, output_size), normal(2, 9, 8, 3)
    )


@slow
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_adaptive_pools_of_other_ranks_are_those_of_torch(torch, kind, rank):
    ours = getattr(f, f"adaptive_{kind}_pool")
    theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool{rank}d")
    compare(
        torch, lambda x: ours(x, (3,) * rank), lambda x: theirs(x, 3), normal(2, *SPATIAL[rank], 3)
    )


CEIL_MODE = [
    (1, 4, 3, 1, 1),
    (2, (3, 2), (2, 3), (1, 0), 1),
    pytest.param(3, 2, 3, 1, 1, marks=slow),
    pytest.param(2, 3, 2, 1, 2, marks=slow),
]


@pytest.mark.parametrize(("rank", "window", "strides", "padding", "dilation"), CEIL_MODE)
def test_ceil_mode_is_that_of_torch(torch, rank, window, strides, padding, dilation):
    options = {"strides": strides, "padding": explicit(padding), "ceil_mode": True}
    shape, functional = each(window, rank), torch.nn.functional

    pads = (True, False) if dilation == 1 else ()  # a mean has no dilation

    def ours(x):
        maximum = f.max_pool(x, shape, window_dilation=dilation, **options)
        means = [f.avg_pool(x, shape, count_include_pad=p, **options) for p in pads]
        return jnp.concatenate([maximum, *means], -1)

    def theirs(x):
        pool, mean = (getattr(functional, f"{kind}_pool{rank}d") for kind in ("max", "avg"))
        maximum = pool(x, window, strides, padding, dilation, True)
        means = [mean(x, window, strides, padding, True, p) for p in pads]
        return torch.cat([maximum, *means], 1)

    compare(torch, ours, theirs, few(2, *SPATIAL[rank], 3))


def test_ceil_mode_gives_as_many_windows_as_torch(torch):
    for size, window, stride in itertools.product(range(1, 8), range(1, 6), range(1, 6)):
        for padding in range(window // 2 + 1):
            pool = functools.partial(
                f.max_pool, window_shape=(window,), strides=stride, padding=padding, ceil_mode=True
            )
            x = torch.zeros(1, 1, size)
            try:
                expected = torch.nn.functional.max_pool1d(x, window, stride, padding, 1, True)
            except RuntimeError:  # no window
                with pytest.raises(ValueError, match="expected at least"):
                    jax.eval_shape(pool, jax.ShapeDtypeStruct((size, 1), np.float32))
            else:
                outputs = jax.eval_shape(pool, jax.ShapeDtypeStruct((size, 1), np.float32)).shape
                assert outputs == (expected.shape[-1], 1), (size, window, stride, padding)


def test_lp_pool_with_ceil_mode_takes_the_norm_of_what_there_is():
    y = f.lp_pool(np.array([[3.0], [4.0], [5.0]], np.float32), (2,), ceil_mode=True)
    np.testing.assert_allclose(y.ravel(), [5, 5])


# Windows as channels


@pytest.mark.parametrize(
    ("window", "strides", "padding", "dilation"), [((2, 3), (2, 1), (1, 0), 1), ((2, 2), 1, 1, 2)]
)
def test_unfold_and_fold_are_those_of_torch(torch, window, strides, padding, dilation):
    options = {"strides": strides, "padding": explicit(padding), "window_dilation": dilation}
    theirs = {"stride": strides, "padding": padding, "dilation": dilation}
    sizes = SPATIAL[2]

    def unfolded(x):
        y = f.unfold(x, window, **options)
        return y.reshape(len(y), -1, y.shape[-1])  # torch has the windows along one axis

    def smoothed(x):
        return f.fold(f.unfold(x, window, **options), sizes, window, **options)

    def theirs_smoothed(x):
        windows = torch.nn.functional.unfold(x, window, **theirs)
        return torch.nn.functional.fold(windows, sizes, window, **theirs)

    x = normal(2, *sizes, 3)
    compare(torch, unfolded, lambda x: torch.nn.functional.unfold(x, window, **theirs), x)
    compare(torch, smoothed, theirs_smoothed, x)


def test_unfold_by_whole_windows_is_pixel_unshuffle():
    x = normal(2, 4, 6, 3)
    y = f.unfold(x, (2, 3), strides=(2, 3))
    np.testing.assert_array_equal(y, f.pixel_unshuffle(x, (2, 3)))
    np.testing.assert_array_equal(f.fold(y, (4, 6), (2, 3), strides=(2, 3)), x)


def test_long_windows_are_those_that_are_sliced(monkeypatch):
    def both(x):
        y = f.unfold(x, (10, 2), strides=(3, 1), padding=((1, 2), (0, 1)))
        return y, f.fold(y, (14, 3), (10, 2), strides=(3, 1), padding=((1, 2), (0, 1)))

    x = few(2, 14, 3, 2)
    taken = fast_jit(both)(x)
    monkeypatch.setattr(_windows, "UNROLLED", 10)
    jax.tree.map(np.testing.assert_array_equal, taken, fast_jit(lambda x: both(x))(x))


def test_sums_of_windows_of_bfloat16_are_rounded_once():
    windows = jnp.array([[0, 0, 256], [0, 1, 0], [1, 0, 0]], jnp.bfloat16)
    y = f.fold(windows, (5,), (3,))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.ravel().astype(float), [0, 0, 258, 0, 0])


# Ties


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: f.max_pool(x, (2, 2)), reference.max_pool(few(2, 6, 4, 3), (2, 2))),
        (
            lambda x: f.max_pool(x, (3, 3), strides=1, padding="SAME"),
            reference.max_pool(few(2, 6, 4, 3), (3, 3), 1, "SAME"),
        ),
        (
            lambda x: f.adaptive_max_pool(x, (4, 3)),
            reference.adaptive_max_pool(few(2, 6, 4, 3), (4, 3)),
        ),
        (
            lambda x: f.adaptive_max_pool(x, (2, 2)),
            reference.adaptive_max_pool(few(2, 6, 4, 3), (2, 2)),
        ),
        (f.global_max_pool, reference.global_max_pool(few(2, 6, 4, 3))),
    ],
    ids=["max_pool", "overlapping", "adaptive_overlapping", "adaptive", "global"],
)
def test_the_first_of_equal_maxima_gets_the_gradient(function, expected):
    y, gradient = derived(function, few(2, 6, 4, 3))
    expected_y, backward = expected
    np.testing.assert_array_equal(y, expected_y)
    dy = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    np.testing.assert_allclose(gradient, backward(dy)[0], 1e-6, 1e-6)


def test_equal_elements_of_one_window():
    gradient = jax.grad(lambda x: f.max_pool(x, (2, 2)).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 0])
    tangent = jax.jvp(
        lambda x: f.max_pool(x, (2,)), (jnp.zeros((2, 1)),), (jnp.array([[3.0], [5]]),)
    )
    np.testing.assert_array_equal(tangent[1], [[3]])


@quick_first(1)
@pytest.mark.parametrize(
    "options",
    [
        {"window_shape": (3, 5), "strides": 2, "padding": ((2, 1), (0, 3))},
        {"window_shape": (6, 2), "strides": (1, 3)},
        {"window_shape": (2, 3), "window_dilation": (3, 2)},
    ],
    ids=["padded", "long", "dilated"],
)
def test_large_windows_agree_with_small_ones(options, monkeypatch):
    x = few(2, 9, 8, 3)
    monkeypatch.setattr(_windows, "UNROLLED", 100)
    small = [derived(functools.partial(f.max_pool, **options), x)]
    mean = {k: v for k, v in options.items() if k != "window_dilation"}
    small.append(derived(functools.partial(f.avg_pool, **mean), x))
    monkeypatch.setattr(_windows, "UNROLLED", 0)
    large = [derived(functools.partial(f.max_pool, **options), x)]
    large.append(derived(functools.partial(f.avg_pool, **mean), x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-6), large, small)


# NaN, padding and extremes


@each_value_once
@pytest.mark.parametrize(
    "function",
    [
        lambda x: f.max_pool(x, (2,)),
        lambda x: f.avg_pool(x, (2,)),
        lambda x: f.lp_pool(x, (2,)),
        lambda x: f.adaptive_max_pool(x, (3,)),
        lambda x: f.adaptive_avg_pool(x, (3,)),
    ],
    ids=["max", "avg", "lp", "adaptive_max", "adaptive_avg"],
)
@pytest.mark.parametrize("place", [2, 3])
def test_nan_and_infinity_stay_in_their_window(function, place):
    for bad in (np.nan, np.inf):
        x = np.ones((6, 1), np.float32)
        x[place] = bad
        before, hit, after = np.asarray(function(x)).ravel()
        np.testing.assert_array_equal(hit, bad)
        assert np.isfinite([before, after]).all()


@pytest.mark.parametrize("function", [f.global_max_pool, lambda x: f.max_pool(x, (9,), strides=1)])
def test_maximum_with_nan_is_nan(function):
    x = np.arange(9, dtype=np.float32).reshape(1, 9, 1)
    x[0, 4] = np.nan
    assert np.isnan(function(x)).all()


def test_padding_is_never_the_maximum():
    x = -np.ones((1, 3, 3, 1), np.float32)
    for padding in ("SAME", 1):
        np.testing.assert_array_equal(f.max_pool(x, (2, 2), padding=padding), -1)
    np.testing.assert_array_equal(f.max_pool(x.astype(np.int8) * 100, (2, 2), padding=1), -100)


def test_window_of_padding_alone():
    y, gradient = derived(lambda x: f.max_pool(x, (1,), padding=1), np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(y.ravel(), [-np.inf, 1, 1, -np.inf])
    assert np.isfinite(gradient).all()
    for count_include_pad in (True, False):
        y = f.avg_pool(np.ones((2, 1)), (1,), padding=1, count_include_pad=count_include_pad)
        np.testing.assert_array_equal(y.ravel(), [0, 1, 1, 0])


def test_same_padding_gives_a_window_for_each_stride():
    for size in range(1, 8):
        for window_shape in range(1, 5):
            for strides in range(1, 4):
                x = jax.ShapeDtypeStruct((size, 1), np.float32)
                pool = functools.partial(
                    f.avg_pool, window_shape=(window_shape,), strides=strides, padding="SAME"
                )
                assert jax.eval_shape(pool, x).shape == (-(-size // strides), 1)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3.0])
def test_lp_pool_of_zeros_has_gradient_0(p):
    def pool(x):
        return f.lp_pool(x, (2,), p)

    zeros = jnp.zeros((4, 1))
    y, gradient = derived(pool, zeros)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(jax.jvp(pool, (zeros,), (zeros + 1,))[1], 0)


def test_second_derivative_of_lp_pool_beside_a_zero():
    hessian = fast_jit(jax.hessian(lambda x: f.lp_pool(x, (2,)).sum()))(jnp.array([[0.0], [2.0]]))
    np.testing.assert_allclose(hessian[:, 0, :, 0], [[0.5, 0], [0, 0]], atol=1e-6)


def test_lp_pool_in_float16_does_not_overflow():
    y = f.lp_pool(np.full((2, 1), 300, np.float16), (2,))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, 424.26, rtol=1e-3)


@quick_first(1)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: f.avg_pool(x, (1000,)),
        lambda x: f.adaptive_avg_pool(x, (1,)),
        lambda x: f.global_avg_pool(x, axis=0),
    ],
    ids=["avg", "adaptive", "global"],
)
def test_means_of_bfloat16_are_summed_in_float32(function):
    y = function(jnp.ones((1000, 1), jnp.bfloat16))  # 1000 ones are 256 in bfloat16
    assert y.dtype == jnp.bfloat16
    assert y.ravel() == 1


@each_value_once
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: f.max_pool(x, (2,), padding=1),
        lambda x: f.adaptive_max_pool(x, (3,)),
        f.global_max_pool,
    ],
    ids=["max", "adaptive", "global"],
)
def test_maxima_of_integers_keep_the_dtype(function, dtype):
    x = jnp.asarray([[0], [1], [1], [0]], dtype)
    y = function(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, function(x.astype(jnp.float32)).astype(dtype))


# Shapes


POOLS = (f.max_pool, f.avg_pool, f.lp_pool, f.adaptive_max_pool, f.adaptive_avg_pool)


@pytest.mark.parametrize("pool", POOLS)
def test_several_batch_axes_and_none(pool):
    @fast_jit
    def by_window_and_by_example(x):
        return pool(x, (2, 2)), jax.vmap(lambda x: pool(x, (2, 2)))(x), pool(x[0, 0], (2, 2))

    x = normal(2, 3, 4, 6, 2)
    y, same, one = by_window_and_by_example(x)
    assert y.shape == (2, 3, 2, 2 if "adaptive" in pool.__name__ else 3, 2)
    np.testing.assert_allclose(y, same, 1e-6)
    np.testing.assert_allclose(y[0, 0], one, 1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_empty_batch(pool):
    x = np.zeros((0, 4, 4, 2), np.float32)
    assert fast_jit(lambda x: pool(x, (2, 2)))(x).shape == (0, 2, 2, 2)


def test_adaptive_pool_to_divisors_is_a_pool():
    @fast_jit
    def run(x):
        means = f.adaptive_avg_pool(x, (3, 2)), f.avg_pool(x, (2, 2))
        maxima = f.adaptive_max_pool(x, (3, 2)), f.max_pool(x, (2, 2))
        return means, maxima, (f.adaptive_max_pool(x, (6, None)), x)

    for got, expected in run(normal(2, 6, 4, 3)):
        np.testing.assert_allclose(got, expected, 1e-6)


def test_global_pools():
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(f.global_max_pool(x), x.max((1, 2)))
    np.testing.assert_allclose(
        f.global_avg_pool(x, keepdims=True), x.mean((1, 2), keepdims=True), 1e-5
    )
    np.testing.assert_array_equal(f.global_max_pool(x, axis=(-2, 0)), x.max((0, 2)))
    np.testing.assert_array_equal(f.global_max_pool(x[:, 0, 0]), x[:, 0, 0])


# Errors

X = jnp.zeros((2, 5, 6, 3))
BAD_CALLS = {
    "window_axes": (
        lambda: f.max_pool(X, (2, 2, 2, 2)),
        ValueError,
        (
            "max_pool: x has shape (2, 5, 6, 3) and window_shape is (2, 2, 2, 2)",
            "(*batch, *spatial, chan",
        ),
    ),
    "no_spatial_axis": (
        lambda: f.avg_pool(jnp.zeros((2, 3)), (2, 2)),
        ValueError,
        ("avg_pool: x has",),
    ),
    "window_0": (
        lambda: f.max_pool(X, (0, 0)),
        ValueError,
        ("max_pool: window_shape is 0", "at least 1"),
    ),
    "window_float": (
        lambda: f.lp_pool(X, (2.0, 2)),
        TypeError,
        ("lp_pool: window_shape is (2.0, 2)", "integer"),
    ),
    "strides": (
        lambda: f.avg_pool(X, (2, 2), strides=(1,)),
        ValueError,
        ("avg_pool: strides is (1,)", "each of 2 spatial axes"),
    ),
    "window_dilation": (
        lambda: f.max_pool(X, (2, 2), window_dilation=0),
        ValueError,
        ("max_pool: window_dilation is 0",),
    ),
    "padding_name": (
        lambda: f.max_pool(X, (2, 2), padding="same"),
        ValueError,
        ("max_pool: padding is 'same'", "'SAME', 'VALID'"),
    ),
    "padding_pairs": (
        lambda: f.max_pool(X, (2, 2), padding=((1, 1),)),
        ValueError,
        ("max_pool: padding is ((1, 1),)", "each of 2 spatial axes"),
    ),
    "padding_negative": (
        lambda: f.avg_pool(X, (2, 2), padding=-1),
        ValueError,
        ("padding is -1", ">= 0"),
    ),
    "padding_float": (lambda: f.avg_pool(X, (2, 2), padding=1.5), ValueError, ("padding is 1.5",)),
    "fold_channels": (
        lambda: f.fold(X, (6, 7), (2, 2)),
        ValueError,
        ("fold: x has shape (2, 5, 6, 3)", "channels that 4 divides"),
    ),
    "fold_size": (
        lambda: f.fold(X, (6, 7), (3, 1)),
        ValueError,
        ("fold: x has spatial shape (5, 6), expected (4, 7)", "(6, 7)"),
    ),
    "nothing_fits": (
        lambda: f.max_pool(X, (2, 3), padding=((0, 0), (0, 1)), window_dilation=4),
        ValueError,
        (
            "max_pool: axis 2 of x with shape (2, 5, 6, 3) has 6 elements and 1 of padding",
            "at least 9",
        ),
    ),
    "complex": (
        lambda: f.max_pool(X.astype(complex), (2, 2)),
        TypeError,
        ("max_pool: x has dtype complex64",),
    ),
    "lp_complex": (
        lambda: f.lp_pool(X.astype(complex), (2, 2)),
        TypeError,
        ("lp_pool: x has dtype complex64",),
    ),
    "p_small": (lambda: f.lp_pool(X, (2, 2), 0.5), ValueError, ("lp_pool: p is 0.5", ">= 1")),
    "p_infinite": (
        lambda: f.lp_pool(X, (2, 2), np.inf),
        ValueError,
        ("lp_pool: p is inf", "finite"),
    ),
    "output_size": (
        lambda: f.adaptive_avg_pool(X, (3, 0)),
        ValueError,
        ("adaptive_avg_pool: output_size is 0", "at least 1"),
    ),
    "output_size_axes": (
        lambda: f.adaptive_max_pool(X, (3,) * 4),
        ValueError,
        ("adaptive_max_pool: x has shape (2, 5, 6, 3) and output_size is (3, 3, 3, 3)",),
    ),
    "empty_axis": (
        lambda: f.adaptive_max_pool(X[:, :0], (2, 2)),
        ValueError,
        ("adaptive_max_pool: x has shape (2, 0, 6, 3), axis 1 has no elements",),
    ),
    "global_axis": (
        lambda: f.global_max_pool(X, axis=4),
        ValueError,
        ("global_max_pool: axis 4 is out of range", "4 axes"),
    ),
    "global_rank": (
        lambda: f.global_avg_pool(jnp.zeros(3)),
        ValueError,
        ("global_avg_pool: x has shape (3,)", "(batch, *spatial, channels)"),
    ),
    "in_a_layer": (
        lambda: (
            nn.max_pool((7, 7)).init(jax.random.key(0), X) and nn.max_pool((7, 7)).apply({}, {}, X)
        ),
        ValueError,
        ("max_pool: axis 1 of x with shape (2, 5, 6, 3) has 5 elements",),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    call, exception, fragments = case
    with pytest.raises(exception) as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)
