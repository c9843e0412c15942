"""Random changes of inputs under which their labels stay, drawn for each example by itself."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    canonical_axes,
    check_count,
    check_key,
    check_range,
    floating,
    hyperparameter,
    real_dtype,
    widen,
)
from jaxnn._core.meshes import automatic
from jaxnn._core.types import Scalar


@checked
def random_crop(
    key: jax.Array, x: ArrayLike, size: int | Sequence[int], *, padding: int | Sequence[int] = 0
) -> jax.Array:
    """Cut a window out of each example at a random place, all places being as likely.

    `y[b, i, j] = x'[b, i + t_b, j + l_b]`, where `x'` is `x` with zeros around it and `(t_b, l_b)`
    is the corner of the window.

    Args:
        key: a typed PRNG key.
        x: shape `(batch, *spatial, channels)`, with any number of spatial axes.
        size: of the window, an integer for each spatial axis, or one for all.
        padding: how many zeros are added before and behind the elements of each spatial axis.

    Returns:
        Shape `(batch, *size, channels)` in the floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: the window is larger than the padded input; `x` has no spatial axis; a number
            is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.ones((8, 32, 32, 3))
        >>> nn.functional.random_crop(jax.random.key(0), x, 32, padding=4).shape
        (8, 32, 32, 3)
    """
    check_key("random_crop", key)
    x = _spatial("random_crop", x)
    return _crop(key, *_padded("random_crop", x, size, padding))


@checked
def center_crop(
    x: ArrayLike, size: int | Sequence[int], *, padding: int | Sequence[int] = 0
) -> jax.Array:
    """Cut the window in the middle out of each example: what `random_crop` is in evaluation.

    `y[b, i, j] = x'[b, i + t, j + l]` with `t = (height - size[0]) // 2`, and so on.

    Args:
        x: as for `random_crop`.
        size: the same.
        padding: the same.

    Returns:
        Shape `(batch, *size, channels)` in the floating dtype of `x`.

    Raises:
        ValueError: as for `random_crop`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.center_crop(jnp.arange(5.0).reshape(1, 5, 1), 3).ravel()
        Array([1., 2., 3.], dtype=float32)
    """
    x, sizes = _padded("center_crop", _spatial("center_crop", x), size, padding)
    for axis, length in enumerate(sizes, start=1):
        start = (x.shape[axis] - length) // 2
        x = lax.slice_in_dim(x, start, start + length, axis=axis)
    return x


@checked
def random_shift(key: jax.Array, x: ArrayLike, distance: int | Sequence[int]) -> jax.Array:
    """Move each example by up to so many elements along each spatial axis; zeros come in.

    `y[b, i, j] = x[b, i + s_b, j + t_b]`, `s_b` and `t_b` uniform over `-distance .. distance`: a
    crop of the size of the input, out of the input with as much padding.

    Args:
        key: a typed PRNG key.
        x: shape `(batch, *spatial, channels)`, with any number of spatial axes.
        distance: an integer of at least 0 for each spatial axis, or one for all.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `x` has no spatial axis; a distance is negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.ones((2, 4, 1))
        >>> nn.functional.random_shift(jax.random.key(1), x, 2)[..., 0]
        Array([[...]], dtype=float32)
    """
    check_key("random_shift", key)
    x = _spatial("random_shift", x)
    return _crop(key, *_padded("random_shift", x, x.shape[1:-1], distance, "distance"))


@checked
def random_flip(key: jax.Array, x: ArrayLike, rate: Scalar = 0.5, *, axis: int = -2) -> jax.Array:
    """Turn examples round along an axis, each with probability `rate`.

    `y_b = x_b[:, ::-1]` with probability `rate`, and `x_b` otherwise.

    Args:
        key: a typed PRNG key.
        x: shape `(batch, ...)`.
        rate: the probability that an example is turned, in [0, 1]; may be traced.
        axis: which axis; -2, the width of `(batch, height, width, channels)`, swaps left and
            right.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `rate` is known and outside [0, 1]; `axis` is out of range, or that of the
            batch.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[[1.0], [2.0]]] * 4)
        >>> nn.functional.random_flip(jax.random.key(0), x)[..., 0].shape
        (4, 2)
    """
    check_key("random_flip", key)
    x = floating(x)
    axis = _example_axis("random_flip", x, axis)
    check_range("random_flip", "rate", rate, 0, 1)
    return jnp.where(_some_examples(key, x, rate), jnp.flip(x, axis), x)


@checked
def cutout(
    key: jax.Array, x: ArrayLike, size: int | Sequence[int], *, rate: Scalar = 1.0
) -> jax.Array:
    """Set a window of each example to zero, around a place at which every element is as likely.

    `y[b, i, j] = 0` where `c_b <= i + size // 2 < c_b + size`, and so for `j`; `x` elsewhere. The
    window may reach over the border, as in the paper, so that often only a part of it is seen.

    Paper: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
    https://arxiv.org/abs/1708.04552

    Args:
        key: a typed PRNG key.
        x: shape `(batch, *spatial, channels)`, with any number of spatial axes.
        size: of the window, an integer for each spatial axis, or one for all.
        rate: the probability that an example loses a window, in [0, 1]; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `x` has no spatial axis; a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.cutout(jax.random.key(0), jnp.ones((1, 6, 1)), 2)[..., 0]
        Array([[...]], dtype=float32)
    """
    check_key("cutout", key)
    x = _spatial("cutout", x)
    sizes = _each_axis("cutout", "size", size, x, least=1)
    check_range("cutout", "rate", rate, 0, 1)
    key, rate_key = jax.random.split(key)
    is_cut = _some_examples(rate_key, x, rate)
    for axis, length in enumerate(sizes, start=1):
        key, draw = jax.random.split(key)
        center = _up_to(x.shape[axis] - 1, draw, x)
        is_cut &= _band(x, axis, center - length // 2, length)
    return jnp.where(is_cut, 0, x)


@checked
def random_masking(
    key: jax.Array, x: ArrayLike, max_width: int, *, axis: int = 1, num_masks: int = 1
) -> jax.Array:
    """Set bands of each example to zero, such as stretches of time or of frequency (SpecAugment).

    `y[b, i] = 0` where `s_b <= i < s_b + w_b`, with the width `w_b` uniform over `0 .. max_width`,
    and then the start `s_b` over the places at which the band fits.

    Paper: Park et al., SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition, https://arxiv.org/abs/1904.08779

    Args:
        key: a typed PRNG key.
        x: shape `(batch, ...)`.
        max_width: the greatest width of a band, at most the length of the axis.
        axis: across which axis the bands lie; not that of the batch.
        num_masks: how many bands are drawn, which may overlap.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `axis` is out of range, or that of the batch; a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> speech = jnp.ones((2, 100, 80))  # (batch, time, frequency)
        >>> y = nn.functional.random_masking(jax.random.key(0), speech, 20)
        >>> bool(((y == 0).sum(axis=1) <= 20).all())
        True
    """
    check_key("random_masking", key)
    x = floating(x)
    axis = _example_axis("random_masking", x, axis)
    length = x.shape[axis]
    check_count("random_masking", "num_masks", num_masks)
    check_range("random_masking", "max_width", max_width, 0, length)
    for draw in jax.random.split(key, num_masks):
        width_key, start_key = jax.random.split(draw)
        width = _up_to(max_width, width_key, x)
        start = _up_to(length - width, start_key, x)
        x = jnp.where(_band(x, axis, start, width), 0, x)
    return x


@checked
def mixup(
    key: jax.Array, x: ArrayLike, y: ArrayLike, alpha: Scalar = 0.2
) -> tuple[jax.Array, jax.Array]:
    """Mix each example with the one before it, and their labels in the same proportion.

    `x'_b = l_b x_b + (1 - l_b) x_{b-1}` and `y'_b = l_b y_b + (1 - l_b) y_{b-1}` with
    `l_b ~ Beta(alpha, alpha)`; the first is mixed with the last. In shuffled batches the one before
    is any other.

    Paper: Zhang et al., mixup: Beyond Empirical Risk Minimization, https://arxiv.org/abs/1710.09412

    Args:
        key: a typed PRNG key.
        x: shape `(batch, ...)`.
        y: shape `(batch, ...)`, floating: values, or distributions over classes, which
            `jax.nn.one_hot` makes of labels.
        alpha: greater than 0; may be traced. The smaller, the less is mixed.

    Returns:
        `(x', y')`, of the same shapes and floating dtypes.

    Raises:
        TypeError: `key` is not a typed key; `y` is of integers, which cannot be mixed.
        ValueError: `alpha` is known and not positive; the numbers of examples differ.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x, labels = jnp.ones((4, 8, 8, 1)), jnp.array([0, 1, 2, 1])
        >>> x, y = nn.functional.mixup(jax.random.key(0), x, jax.nn.one_hot(labels, 3))
        >>> y.sum(axis=1)
        Array([1., 1., 1., 1.], dtype=float32)
    """
    check_key("mixup", key)
    check_range("mixup", "alpha", alpha, LEAST_POSITIVE)
    x, y = floating(x), jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.inexact):
        raise TypeError(
            f"mixup: y has dtype {y.dtype}, expected floating values or distributions over "
            "classes: jax.nn.one_hot(labels, num_classes)"
        )
    if x.ndim == 0 or y.ndim == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"mixup: x has shape {x.shape} and y {y.shape}, expected as many examples in each"
        )
    alpha = hyperparameter(alpha, real_dtype(widen(x).dtype))
    share = jax.random.beta(key, alpha, alpha, (x.shape[0],), alpha.dtype)

    def mixed(z: jax.Array) -> jax.Array:
        wide = widen(z)
        ours = share.astype(real_dtype(wide.dtype)).reshape(-1, *[1] * (z.ndim - 1))
        ours = ours.astype(wide.dtype)
        return (ours * wide + (1 - ours) * jnp.roll(wide, 1, axis=0)).astype(z.dtype)

    return mixed(x), mixed(y)


def _spatial(function: str, x: ArrayLike) -> jax.Array:
    x = floating(x)
    if x.ndim < 3:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected (batch, *spatial, channels): "
            "x[..., None] adds an axis of channels, x[None] one of a batch"
        )
    return x


def _each_axis(
    function: str, name: str, value: int | Sequence[int], x: jax.Array, least: int
) -> tuple[int, ...]:
    """A number for each spatial axis."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * (x.ndim - 2)
    if len(values) != x.ndim - 2 or any(number < least for number in values):
        raise ValueError(
            f"{function}: {name} is {value}, expected a number of at least {least} for each of the "
            f"{x.ndim - 2} spatial axes of x, of shape {x.shape}"
        )
    return values


def _example_axis(function: str, x: jax.Array, axis: int) -> int:
    """An axis as a number from 1 on, for 0 is the batch's."""
    (axis,) = canonical_axes(axis, x.ndim, f"{function}: axis")
    if axis == 0:
        raise ValueError(f"{function}: axis is that of the batch, expected another one")
    return axis


def _padded(
    function: str,
    x: jax.Array,
    size: int | Sequence[int],
    padding: int | Sequence[int],
    name: str = "padding",
) -> tuple[jax.Array, tuple[int, ...]]:
    """`x` with zeros around it, and the sizes of a window that fits."""
    margins = _each_axis(function, name, padding, x, least=0)
    x = jnp.pad(x, [(0, 0), *((margin, margin) for margin in margins), (0, 0)])
    sizes = _each_axis(function, "size", size, x, least=1)
    if any(length > room for length, room in zip(sizes, x.shape[1:-1], strict=True)):
        raise ValueError(
            f"{function}: size is {size}, expected at most {x.shape[1:-1]}, the size of x with its "
            "padding"
        )
    return x, sizes


def _crop(key: jax.Array, x: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    keys = jax.random.split(key, len(sizes))
    rooms = [have - want for have, want in zip(x.shape[1:-1], sizes, strict=True)]
    starts = [_up_to(room, draw, x) for room, draw in zip(rooms, keys, strict=True)]

    def window(x: jax.Array, *starts: jax.Array) -> jax.Array:
        return lax.dynamic_slice(x, (*starts, np.int32(0)), (*sizes, x.shape[-1]))

    y: jax.Array = automatic(jax.vmap(window), x, *starts, leading=1)
    return y


def _up_to(most: Any, key: jax.Array, x: jax.Array) -> jax.Array:
    """An integer from 0 to `most` for each example."""
    return jax.random.randint(key, (x.shape[0],), 0, most + 1, jnp.int32)


def _some_examples(key: jax.Array, x: jax.Array, rate: Scalar) -> jax.Array:
    """Which examples are changed, with an axis for each of `x`."""
    shape = (x.shape[0], *[1] * (x.ndim - 1))
    return jax.random.uniform(key, shape, jnp.float32) < hyperparameter(rate, jnp.float32)


def _band(x: jax.Array, axis: int, start: jax.Array, width: Any) -> jax.Array:
    """Whether an element lies in the band of its example across an axis."""
    places = lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:]), axis)
    first, end = (z.reshape(-1, *[1] * (x.ndim - 1)) for z in (start, start + width))
    return (first <= places) & (places < end)
