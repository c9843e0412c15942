"""Augmentation: inputs that differ each time they are seen, as layers at the start of a model."""

from collections.abc import Sequence
from functools import partial

from jaxnn import functional
from jaxnn._core.arrays import check_range
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer
from jaxnn._core.types import Scalar
from jaxnn._layers.noise import in_training


@constructor
def random_crop(size: int | Sequence[int], *, padding: int | Sequence[int] = 0) -> Layer:
    """Cut a window out of each example, at a random place in training.

    `y[b, i, j] = x'[b, i + t_b, j + l_b]`, where `x'` is `x` with zeros around it and `(t_b, l_b)`
    is the corner of the window; all corners are as likely. In evaluation the window is that in the
    middle: with `padding`, for images of that size, the images as they are.

    Args:
        size: of the window, an integer for each spatial axis, or one for all.
        padding: how many zeros are added before and behind the elements of each spatial axis.

    Returns:
        A `Layer` without parameters over `(batch, *spatial, channels)`. With `train=True` it needs
        a key.

    Raises:
        ValueError: the window is larger than the padded input; a number is out of range; training
            without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.random_crop(32, padding=4)
        >>> x = jnp.ones((8, 32, 32, 3))
        >>> y, _ = layer.apply({}, {}, x, key=jax.random.key(0), train=True)
        >>> y.shape, bool((layer.apply({}, {}, x)[0] == x).all())
        ((8, 32, 32, 3), True)
    """
    crop = partial(functional.random_crop, padding=padding)
    center = partial(functional.center_crop, size=size, padding=padding)
    return in_training("random_crop", crop, size, center)


@constructor
def random_shift(distance: int | Sequence[int]) -> Layer:
    """Move each example by up to so many elements along each spatial axis; zeros come in.

    `y[b, i, j] = x[b, i + s_b, j + t_b]`, `s_b` and `t_b` uniform over `-distance .. distance`. In
    evaluation it is the identity.

    Args:
        distance: an integer of at least 0 for each spatial axis, or one for all.

    Returns:
        A `Layer` without parameters over `(batch, *spatial, channels)`. With `train=True` it needs
        a key.

    Raises:
        ValueError: a distance is negative; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.random_shift((2, 0))  # up and down
        >>> y, _ = layer.apply({}, {}, jnp.ones((8, 28, 28, 1)), key=jax.random.key(0), train=True)
        >>> y.shape
        (8, 28, 28, 1)
    """
    return in_training("random_shift", functional.random_shift, distance)


@constructor
def random_flip(rate: Scalar = 0.5, *, axis: int = -2) -> Layer:
    """Turn examples round along an axis in training, each with probability `rate`.

    `y_b = x_b[:, ::-1]` with probability `rate`, and `x_b` otherwise. In evaluation it is the
    identity.

    Args:
        rate: the probability that an example is turned, in [0, 1]; may be traced.
        axis: which axis; -2, the width of `(batch, height, width, channels)`, swaps left and
            right.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; `axis` is out of range for `x`, or that of
            the batch; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.random_flip(1.0)
        >>> x = jnp.array([[[1.0], [2.0]]])
        >>> layer.apply({}, {}, x, key=jax.random.key(0), train=True)[0].ravel()
        Array([2., 1.], dtype=float32)
    """
    check_range("random_flip", "rate", rate, 0, 1)
    return in_training("random_flip", partial(functional.random_flip, axis=axis), rate)


@constructor
def cutout(size: int | Sequence[int], *, rate: Scalar = 1.0) -> Layer:
    """Set a window of each example to zero in training, around a random element.

    `y[b, i, j] = 0` where `c_b <= i + size // 2 < c_b + size`, and so for `j`, and `x` elsewhere,
    with every center as likely: the window may reach over the border. In evaluation it is the
    identity.

    Paper: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
    https://arxiv.org/abs/1708.04552

    Args:
        size: of the window, an integer for each spatial axis, or one for all.
        rate: the probability that an example loses a window, in [0, 1]; may be traced.

    Returns:
        A `Layer` without parameters over `(batch, *spatial, channels)`. With `train=True` it needs
        a key.

    Raises:
        ValueError: a number is out of range; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.cutout(8)
        >>> x = jnp.ones((4, 32, 32, 3))
        >>> y, _ = layer.apply({}, {}, x, key=jax.random.key(0), train=True)
        >>> bool(((y == 0).sum(axis=(1, 2)) <= 64).all())
        True
    """
    check_range("cutout", "rate", rate, 0, 1)
    return in_training("cutout", partial(functional.cutout, rate=rate), size)


@constructor
def time_masking(max_width: int, *, num_masks: int = 1) -> Layer:
    """Set stretches of time to zero in training, all features at once (SpecAugment).

    `y[b, i] = 0` where `s_b <= i < s_b + w_b`, with the width `w_b` uniform over `0 .. max_width`,
    and then the start `s_b` over the places at which it fits. In evaluation it is the identity.

    Paper: Park et al., SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition, https://arxiv.org/abs/1904.08779

    Args:
        max_width: the greatest length of a stretch, at most that of the sequence.
        num_masks: how many stretches are drawn, which may overlap.

    Returns:
        A `Layer` without parameters over `(batch, time, ...)`. With `train=True` it needs a key.

    Raises:
        ValueError: a number is out of range; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.time_masking(20, num_masks=2)
        >>> speech = jnp.ones((2, 100, 80))
        >>> y, _ = layer.apply({}, {}, speech, key=jax.random.key(0), train=True)
        >>> bool((y.std(axis=2) == 0).all())
        True
    """
    return _masking("time_masking", max_width, num_masks, axis=1)


@constructor
def frequency_masking(max_width: int, *, num_masks: int = 1) -> Layer:
    """Set bands of frequencies to zero in training, at all times (SpecAugment).

    `y[b, :, k] = 0` where `s_b <= k < s_b + w_b`, with the width `w_b` uniform over
    `0 .. max_width`, and then the start `s_b` over the places at which it fits. In evaluation it is
    the identity.

    Paper: Park et al., SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition, https://arxiv.org/abs/1904.08779

    Args:
        max_width: the greatest width of a band, at most the number of frequencies.
        num_masks: how many bands are drawn, which may overlap.

    Returns:
        A `Layer` without parameters over `(batch, time, frequency, ...)`. With `train=True` it
        needs a key.

    Raises:
        ValueError: a number is out of range; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.frequency_masking(20)
        >>> speech = jnp.ones((2, 100, 80))
        >>> y, _ = layer.apply({}, {}, speech, key=jax.random.key(0), train=True)
        >>> bool((y.std(axis=1) == 0).all())
        True
    """
    return _masking("frequency_masking", max_width, num_masks, axis=2)


def _masking(name: str, max_width: int, num_masks: int, axis: int) -> Layer:
    mask = partial(functional.random_masking, axis=axis, num_masks=num_masks)
    return in_training(name, mask, max_width)
