"""Positional encodings: rotary, sinusoidal, and biases of attention."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    absolute,
    along,
    check_count,
    check_range,
    floating,
    hyperparameter,
    is_inexact,
    refuse_complex,
    widen,
)
from jaxnn._core.types import Scalar


@checked
def rotary(
    x: ArrayLike,
    positions: ArrayLike,
    *,
    base: Scalar = 10000.0,
    fraction: float = 1.0,
    interleaved: bool = False,
    scaling: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Rotate pairs of features by angles that grow with the position (RoPE).

    Pair `i` of `n` turns by `positions * base ** (-i / n)`, in float32 or wider, so that the
    product of a rotated query with a rotated key depends on the distance of the two alone.

    Paper: Su et al., RoFormer, https://arxiv.org/abs/2104.09864

    Args:
        x: queries or keys, shape `(..., time, num_heads, head_dim)`, floating.
        positions: integers, or floating of 32 bits or more, shape `(time,)`, or `(..., time)` if
            they differ by example.
        base: the base of the geometric series of frequencies; may be traced.
        fraction: the fraction of the head dimension that is rotated, from the first feature on, in
            (0, 1].
        interleaved: False pairs feature `i` with `i + n` (GPT-NeoX, Llama), True feature `2 i` with
            `2 i + 1` (the paper, GPT-J). Weights of one convention do not fit the other.
        scaling: a function from the frequencies `base ** (-i / n)` to those that are used.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `positions` are of 16 bits, which would round them, or an array is complex.
        ValueError: `base` is not positive; `fraction` is outside (0, 1] or leaves an odd number of
            features to rotate; the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 2)
        >>> nn.functional.rotary(x, jnp.array([jnp.pi / 2])).round(3).ravel() + 0.0
        Array([0., 1.], dtype=float32)
    """
    x, positions = floating(x), _exact("rotary", "positions", positions)
    refuse_complex("rotary", "x", x)
    if x.ndim < 3 or positions.shape not in (x.shape[-3:-2], x.shape[:-2]):
        raise ValueError(
            f"rotary: x has shape {x.shape} and positions {positions.shape}, expected "
            "(..., time, num_heads, head_dim) and (time,) or (..., time)"
        )
    rotated = rotated_features("rotary", x.shape[-1], fraction)
    dtype = widen(x).dtype
    pairs = widen(x[..., :rotated])
    shape = pairs.shape[:-1]
    pairs = (
        pairs.reshape(*shape, rotated // 2, 2)
        if interleaved
        else pairs.reshape(*shape, 2, rotated // 2)
    )
    axis = -1 if interleaved else -2
    first, second = jnp.moveaxis(pairs, axis, 0)

    frequencies = _frequencies("rotary", rotated, base, dtype)
    if scaling is not None:
        frequencies = scaling(frequencies)
    angles = _angles(positions.astype(dtype), frequencies)[..., None, :]
    angles = angles.reshape((1,) * (x.ndim - angles.ndim) + angles.shape)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    turned = jnp.stack([first * cos - second * sin, first * sin + second * cos], axis)
    turned = turned.reshape(*shape, rotated).astype(x.dtype)
    return jnp.concatenate([turned, x[..., rotated:]], axis=-1)


@checked
def sinusoidal(positions: ArrayLike, features: int, *, base: Scalar = 10000.0) -> jax.Array:
    """Sinusoidal encoding: `sin(w_i p)` in feature `2 i`, `cos(w_i p)` in feature `2 i + 1`.

    `w_i = base ** (-2 i / features)`, as in the paper; tensor2tensor has all sines first. It serves
    for times as well, such as the noise levels of a diffusion model.

    Paper: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762

    Args:
        positions: any shape, integers, or floating of 32 bits or more.
        features: the number of features, even.
        base: the base of the geometric series of frequencies; may be traced.

    Returns:
        Shape `(*positions.shape, features)` in the floating dtype of the positions (integers give
        the default float).

    Raises:
        TypeError: `features` is not an integer; `positions` are floating of 16 bits, or complex.
        ValueError: `features` is not even, or `base` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> y = nn.functional.sinusoidal(jnp.arange(3), 4)
        >>> print(jnp.array_str(y, precision=2))
        [[ 0.    1.    0.    1.  ]
         [ 0.84  0.54  0.01  1.  ]
         [ 0.91 -0.42  0.02  1.  ]]
    """
    check_even("sinusoidal", features)
    positions = floating(_exact("sinusoidal", "positions", positions))
    wide = widen(positions)
    angles = _angles(wide, _frequencies("sinusoidal", features, base, wide.dtype))
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return waves.reshape(*positions.shape, features).astype(positions.dtype)


@checked
def fourier_features(x: ArrayLike, frequencies: ArrayLike) -> jax.Array:
    """Waves along several directions: `[cos(2 pi x @ frequencies), sin(2 pi x @ frequencies)]`.

    By these a network learns functions of coordinates that vary much faster than it would by the
    coordinates themselves. Angles are in float32 or wider.

    Paper: Tancik et al., Fourier Features Let Networks Learn High Frequency Functions,
    https://arxiv.org/abs/2006.10739

    Args:
        x: coordinates, shape `(..., in)`.
        frequencies: shape `(in, num_frequencies)`, in periods for each unit of `x`.

    Returns:
        Shape `(..., 2 * num_frequencies)`, all cosines first, in the floating dtype of `x`.

    Raises:
        TypeError: an array is complex.
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x, frequencies = jnp.array([0.25]), jnp.array([[1.0, 2.0]])
        >>> nn.functional.fourier_features(x, frequencies).round(3) + 0.0
        Array([ 0., -1.,  1.,  0.], dtype=float32)
    """
    x, frequencies = floating(x), jnp.asarray(frequencies)
    refuse_complex("fourier_features", "x", x)
    refuse_complex("fourier_features", "frequencies", frequencies)
    if x.ndim < 1 or frequencies.ndim != 2 or x.shape[-1] != frequencies.shape[0]:
        raise ValueError(
            f"fourier_features: x has shape {x.shape} and frequencies {frequencies.shape}, "
            "expected (..., in) and (in, num_frequencies)"
        )
    wide = widen(x)
    # The product of an accelerator's 16 bits would be off by whole periods.
    turns = jnp.matmul(wide, frequencies.astype(wide.dtype), precision=jax.lax.Precision.HIGHEST)
    angles = 2 * math.pi * turns
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).astype(x.dtype)


@checked
def alibi_slopes(num_heads: int) -> jax.Array:
    """The slope of ALiBi in each head: `2 ** (-8 h / num_heads)`, `h` from 1.

    If `num_heads` is no power of two, the slopes of the next smaller one are followed by every
    other slope of the next larger one, as in the paper's code.

    Paper: Press et al., Train Short, Test Long, https://arxiv.org/abs/2108.12409

    Args:
        num_heads: the number of heads.

    Returns:
        Shape `(num_heads,)`, the default float.

    Raises:
        TypeError: `num_heads` is not an integer.
        ValueError: `num_heads` is less than 1.

    Example:
        >>> import jaxnn as nn
        >>> nn.functional.alibi_slopes(4)
        Array([0.25      , 0.0625    , 0.015625  , 0.00390625], dtype=float32)
    """
    num_heads = check_count("alibi_slopes", "num_heads", num_heads)
    smaller = 2 ** (num_heads.bit_length() - 1)
    exponents = [8 * (h + 1) / smaller for h in range(smaller)]
    exponents += [8 * (h + 0.5) / smaller for h in range(num_heads - smaller)]
    return jnp.exp2(-jnp.asarray(exponents, jnp.result_type(float)))


@checked
def alibi_bias(
    slopes: ArrayLike, query_positions: ArrayLike, key_positions: ArrayLike
) -> jax.Array:
    """Attention with linear biases: `-slope * |query position - key position|` for each head.

    Paper: Press et al., Train Short, Test Long, https://arxiv.org/abs/2108.12409

    Args:
        slopes: shape `(num_heads,)`, as from `alibi_slopes`.
        query_positions: shape `(queries,)`, integers, or floating of 32 bits or more.
        key_positions: shape `(keys,)`, likewise.

    Returns:
        Shape `(1, num_heads, queries, keys)`, a `bias` of `dot_product_attention`, in the
        dtype of the slopes, float32 at least.

    Raises:
        TypeError: positions are floating of 16 bits, which would round them, or complex.
        ValueError: an argument does not have one axis.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.alibi_bias(jnp.array([0.5, 0.1]), jnp.array([3]), jnp.arange(3))
        Array([[[[-1.5, -1. , -0.5]],
                [[-0.3, -0.2, -0.1]]]], dtype=float32)
    """
    given = {"slopes": slopes, "query_positions": query_positions, "key_positions": key_positions}
    for name, value in given.items():
        if jnp.ndim(value) != 1:
            raise ValueError(f"alibi_bias: {name} has shape {np.shape(value)}, expected one axis")
    slopes = widen(slopes)
    queries = _exact("alibi_bias", "query_positions", query_positions).astype(slopes.dtype)
    keys = _exact("alibi_bias", "key_positions", key_positions).astype(slopes.dtype)
    distances = absolute(queries[:, None] - keys[None, :])
    return (-slopes[:, None, None] * distances[None])[None]


def rotated_features(function: str, head_dim: int, fraction: float) -> int:
    """How many of the features of a head are rotated."""
    rotated = int(head_dim * fraction)
    if not 0 < fraction <= 1 or rotated == 0 or rotated % 2:
        raise ValueError(
            f"{function}: fraction {fraction} of {head_dim} features is {head_dim * fraction:g}, "
            "expected a fraction in (0, 1] that gives an even number"
        )
    return rotated


def check_even(function: str, features: int) -> None:
    """Raise unless `features` is an even number of at least 2."""
    if check_count(function, "features", features) % 2:
        raise ValueError(f"{function}: features is {features}, expected an even number")


def _exact(function: str, name: str, positions: ArrayLike) -> jax.Array:
    """Positions, in a dtype that can tell them apart: in bfloat16, 257 is 256."""
    positions = jnp.asarray(positions)
    refuse_complex(function, name, positions)
    if is_inexact(positions.dtype) and widen(positions).dtype != positions.dtype:
        raise TypeError(
            f"{function}: {name} has dtype {positions.dtype}, which rounds them, expected integers "
            "or float32; under nn.mixed_precision, integers stay as they are"
        )
    return positions


def _frequencies(function: str, features: int, base: Scalar, dtype: Any) -> jax.Array:
    """The geometric series of the frequencies of `features / 2` waves."""
    check_range(function, "base", base, LEAST_POSITIVE)
    exponents = -jnp.arange(0, features, 2, dtype=dtype) / features
    return jnp.power(hyperparameter(base, dtype), exponents)


def _angles(positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """The angle of each wave at each position, along a new last axis."""
    return positions[..., None] * along(frequencies, [positions.ndim], positions.ndim + 1)
