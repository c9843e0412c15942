"""What augmentation draws: each example by itself, all places and widths as they should be."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

N = 600
EDGES = 4.5  # standard deviations


def numbered(*shape):
    """Examples that number their elements, from 1 on, so that zeros are those put in."""
    one = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape, 1)
    return np.repeat(one, N, axis=0)


def is_uniform(values, possible):
    """Whether each possible value comes as often as others, as far as chance allows."""
    counts = collections.Counter(values)
    share = 1 / len(possible)
    spread = EDGES * np.sqrt(N * share * (1 - share))
    return counts.keys() <= set(possible) and all(
        abs(counts[value] - N * share) < spread for value in possible
    )


def test_crops_are_windows_at_all_places(key):
    x = numbered(5, 4)
    y = np.asarray(
        fast_jit(lambda key: nn.functional.random_crop(key, x, (3, 4), padding=(0, 1)))(key)
    )
    padded = np.pad(x[0], [(0, 0), (1, 1), (0, 0)])
    windows = {padded[i : i + 3, j : j + 4].tobytes(): (i, j) for i in range(3) for j in range(3)}
    assert is_uniform([windows[one.tobytes()] for one in y], list(windows.values()))
    np.testing.assert_array_equal(
        nn.functional.center_crop(x[:1], (3, 4), padding=(0, 1))[0], padded[1:4, 1:5]
    )


def test_evaluation_crops_in_the_middle():
    layer, x = nn.random_crop(2), numbered(5, 4)[:1]
    np.testing.assert_array_equal(layer.apply({}, {}, x)[0][0], x[0, 1:3, 1:3])


def test_shifts_reach_the_distance_in_each_direction(key):
    x = numbered(6)
    y = np.asarray(nn.functional.random_shift(key, x, 2))[..., 0]
    places = {np.pad(x[0, :, 0], 2)[2 + s : 8 + s].tobytes(): s for s in range(-2, 3)}
    assert is_uniform([places[one.tobytes()] for one in y], range(-2, 3))


def test_flips_are_of_one_axis_and_have_their_rate():
    x, keys = numbered(2, 3), iter(jax.random.split(jax.random.key(0), 4))
    for axis, flipped in [(-2, x[:, :, ::-1]), (1, x[:, ::-1])]:
        y = np.asarray(nn.functional.random_flip(next(keys), x, 0.3, axis=axis))
        is_flipped = np.all(y == flipped, axis=(1, 2, 3))
        np.testing.assert_array_equal(y[~is_flipped], x[~is_flipped])
        assert abs(np.mean(is_flipped) - 0.3) < EDGES * np.sqrt(0.3 * 0.7 / N)
    for rate, expected in [(0.0, x), (1.0, x[:, :, ::-1])]:
        np.testing.assert_array_equal(nn.functional.random_flip(next(keys), x, rate), expected)


@pytest.mark.parametrize("size", [4, pytest.param(3, marks=pytest.mark.slow)])
def test_windows_are_cut_out_around_every_element(size, key):
    x = numbered(7)
    is_cut = np.asarray(nn.functional.cutout(key, x, size, rate=0.8))[..., 0] == 0
    before = size // 2
    expected = {
        tuple(bool(-before <= i - c < size - before) for i in range(7)): c for c in range(7)
    }
    assert len(expected) == 7
    touched = is_cut[is_cut.any(axis=1)]
    assert abs(len(touched) / N - 0.8) < EDGES * np.sqrt(0.8 * 0.2 / N)
    assert {expected[tuple(map(bool, one))] for one in touched} == set(range(7))


def test_widths_of_bands_are_uniform_and_bands_fit(key):
    x = numbered(6)
    is_masked = np.asarray(nn.functional.random_masking(key, x, 3))[..., 0] == 0
    widths = is_masked.sum(axis=1)
    assert is_uniform(widths, range(4))
    for width in (1, 2, 3):
        starts = is_masked[widths == width].argmax(axis=1)
        assert set(starts) == set(range(7 - width))
        assert all(np.diff(np.flatnonzero(one)).max(initial=1) == 1 for one in is_masked)


def test_masks_of_time_and_of_frequency_lie_across_their_axes(key):
    x = np.ones((8, 6, 5), np.float32)
    for layer, axis in [(nn.time_masking(4, num_masks=2), 2), (nn.frequency_masking(3), 1)]:
        y = np.asarray(layer.apply({}, {}, x, key=jax.random.clone(key), train=True)[0])
        assert np.all(y.std(axis=axis) == 0)
        assert len(np.unique(y.mean(axis=axis), axis=0)) > 1  # each example has its own


def test_shares_of_mixtures_are_those_of_the_beta_distribution(key):
    ends = np.arange(N)[:, None] % 2 * np.ones(2, np.float32)
    x, y = nn.functional.mixup(key, ends, ends, 0.4)
    np.testing.assert_array_equal(x, y)
    share = np.where(ends == 1, x, 1 - x)[:, 0]
    variance = 1 / (4 * (2 * 0.4 + 1))
    assert abs(share.mean() - 0.5) < EDGES * np.sqrt(variance / N)
    assert abs(share.var() - variance) < 0.02


def test_labels_are_mixed_as_images_are(key):
    labels = np.arange(8) % 3
    images = np.stack([labels == k for k in range(3)], axis=-1).astype(np.float32)
    x, y = nn.functional.mixup(key, images, jax.nn.one_hot(labels, 3), 1.0)
    np.testing.assert_allclose(x, y, rtol=1e-6)
    with pytest.raises(TypeError, match=r"mixup: y has dtype int.*one_hot"):
        nn.functional.mixup(key, images, labels)
    with pytest.raises(ValueError, match=r"mixup: x has shape \(8, 3\) and y \(7, 3\)"):
        nn.functional.mixup(key, images, images[1:])
    with pytest.raises(ValueError, match=r"mixup: alpha is 0\.0"):
        nn.functional.mixup(key, images, images, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, k, x: f.random_crop(k, x, 5), r"random_crop: size is 5, expected at most \(4, "),
        (lambda f, k, x: f.random_crop(k, x, (1, 2, 3)), "random_crop: size .* 2 spatial axes"),
        (lambda f, k, x: f.random_crop(k, x, 0), "random_crop: size is 0, expected .* at least 1"),
        (lambda f, k, x: f.random_shift(k, x, -1), "random_shift: distance is -1"),
        (lambda f, k, x: f.random_flip(k, x, axis=0), "random_flip: axis is that of the batch"),
        (lambda f, k, x: f.random_flip(k, x, 1.5), r"random_flip: rate is 1\.5"),
        (
            lambda f, k, x: f.cutout(k, x[0, 0], 1),
            "cutout: x has shape .*expected .batch, .spatial",
        ),
        (lambda f, k, x: f.random_masking(k, x, 5), r"random_masking: max_width is 5.* \[0, 4\]"),
    ],
)
def test_what_cannot_be_drawn(call, message, key):
    with pytest.raises(ValueError, match=message):
        call(nn.functional, key, jnp.ones((2, 4, 4, 1)))
