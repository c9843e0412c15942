"""Positions: rotations of pairs of features, waves, and linear biases."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


@in_float64
def rotary(
    x: Array,
    positions: Array,
    base: float = 10000.0,
    fraction: float = 1.0,
    interleaved: bool = False,
    scaling: Callable[[Array], Array] = lambda frequencies: frequencies,
) -> tuple[Array, Callable]:
    """Each pair (a, b) of a position p turns by t = p w: (a cos t - b sin t, a sin t + b cos t).

    A rotation is undone by its transpose, the rotation by -t, which is also what takes dy to dx.
    As d(a', b')/dt = (-b', a'), the position gets sum_pairs w (a' db - b' da).
    """
    rotated = int(x.shape[-1] * fraction)
    n = rotated // 2
    frequencies = scaling(np.array([base ** (-i / n) for i in range(n)]))
    pairs = [(2 * i, 2 * i + 1) if interleaved else (i, i + n) for i in range(n)]
    by_example = np.broadcast_to(positions, x.shape[:-2])

    def turn(x: Array, sign: float) -> Array:
        y = x.copy()
        for place in np.ndindex(x.shape[:-2]):
            for i, (a, b) in enumerate(pairs):
                angle = sign * by_example[place] * frequencies[i]
                rotation = np.array(
                    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                )
                y[place][:, [a, b]] = x[place][:, [a, b]] @ rotation.T
        return y

    y = turn(x, 1.0)

    def backward(dy: Array) -> tuple[Array, Array | None]:
        if positions.dtype.kind != "f":
            return turn(dy, -1.0), None
        dpositions = np.zeros(x.shape[:-2])
        for i, (a, b) in enumerate(pairs):
            swing = y[..., a] * dy[..., b] - y[..., b] * dy[..., a]
            dpositions += frequencies[i] * swing.sum(-1)
        shared = tuple(range(dpositions.ndim - positions.ndim))
        return turn(dy, -1.0), dpositions.sum(shared)

    return y, backward


@in_float64
def fourier_features(x: Array, frequencies: Array) -> tuple[Array, Callable]:
    """[cos a, sin a] with a = 2 pi x B.

    da = -sin(a) d(cos a) + cos(a) d(sin a), dx = 2 pi da B.T, and dB the sum of 2 pi x.T da.
    """
    n = frequencies.shape[1]
    angles = 2 * np.pi * (x @ frequencies)
    y = np.concatenate([np.cos(angles), np.sin(angles)], -1)

    def backward(dy: Array) -> tuple[Array, Array]:
        dangles = np.cos(angles) * dy[..., n:] - np.sin(angles) * dy[..., :n]
        dfrequencies = x.reshape(-1, x.shape[-1]).T @ dangles.reshape(-1, n)
        return 2 * np.pi * dangles @ frequencies.T, 2 * np.pi * dfrequencies

    return y, backward


@in_float64
def llama3_scaling(
    frequencies: Array, factor: float, original_length: int, low: float, high: float
) -> tuple[Array, Callable]:
    """Three cases of r = L w / (2 pi): w / f below low, w above high, linear in r between.

    Between, y = w (s + (1 - s) / f) with s = (r - low) / (high - low), so dy/dw = s + (1 - s) / f +
    (1 - 1 / f) r / (high - low).
    """
    y, slope = np.zeros(len(frequencies)), np.zeros(len(frequencies))
    for i, w in enumerate(frequencies):
        turns = original_length * w / (2 * np.pi)
        if turns < low:
            y[i], slope[i] = w / factor, 1 / factor
        elif turns > high:
            y[i], slope[i] = w, 1
        else:
            s = (turns - low) / (high - low)
            y[i] = w * (s + (1 - s) / factor)
            slope[i] = s + (1 - s) / factor + (1 - 1 / factor) * turns / (high - low)
    return y, lambda dy: (slope * dy,)


def yarn_scaling(
    features: int, base: float, factor: float, original_length: int, fast: float, slow: float
) -> Array:
    """The frequencies themselves, by the indices at which base^(-2 i / d) turns so many times."""

    def index_of(turns: float) -> float:
        return features * np.log(original_length / (2 * np.pi * turns)) / (2 * np.log(base))

    low, high = max(np.floor(index_of(fast)), 0), min(np.ceil(index_of(slow)), features - 1)
    y = np.zeros(features // 2)
    for i in range(features // 2):
        w = base ** (-2 * i / features)
        s = min(max((i - low) / (high - low), 0), 1)
        y[i] = (1 - s) * w + s * w / factor
    return y


@in_float64
def sinusoidal(positions: Array, features: int, base: float = 10000.0) -> tuple[Array, Callable]:
    """y[2 i] = sin(w_i p), y[2 i + 1] = cos(w_i p), w_i = base^(-2 i / features).

    dp = sum_i w_i (cos(w_i p) dy[2 i] - sin(w_i p) dy[2 i + 1]).
    """
    y = np.zeros((*positions.shape, features))
    rates = np.array([base ** (-2 * i / features) for i in range(features // 2)])
    for i, rate in enumerate(rates):
        y[..., 2 * i] = np.sin(rate * positions)
        y[..., 2 * i + 1] = np.cos(rate * positions)

    def backward(dy: Array) -> tuple[Array | None]:
        if positions.dtype.kind != "f":
            return (None,)
        sines, cosines = y[..., ::2], y[..., 1::2]
        return ((rates * (cosines * dy[..., ::2] - sines * dy[..., 1::2])).sum(-1),)

    return y, backward


def alibi_slopes(heads: int) -> tuple[Array, Callable]:
    """A power of two n has 2^(-8/n), 2^(-16/n), ...; others interleave those of two powers."""
    if heads & (heads - 1) == 0:
        slopes = 2.0 ** (-8 / heads * np.arange(1, heads + 1))
    else:
        smaller = 1 << (heads.bit_length() - 1)
        every_other = alibi_slopes(2 * smaller)[0][::2]
        slopes = np.concatenate([alibi_slopes(smaller)[0], every_other[: heads - smaller]])
    return slopes, lambda dy: ()


@in_float64
def alibi_bias(
    slopes: Array, query_positions: Array, key_positions: Array
) -> tuple[Array, Callable]:
    """y[h, q, k] = -slope_h |p_q - p_k|.

    dslope_h = -sum |p_q - p_k| dy, and the positions get -slope_h sign(p_q - p_k) dy and its
    opposite; at equal positions, 0.
    """
    shape = (len(slopes), len(query_positions), len(key_positions))
    y = np.zeros((1, *shape))
    for h, q, k in np.ndindex(shape):
        y[0, h, q, k] = -slopes[h] * abs(query_positions[q] - key_positions[k])

    def backward(dy: Array) -> tuple[Array, Array | None, Array | None]:
        dslopes, dquery, dkey = (np.zeros(n) for n in shape)
        for h, q, k in np.ndindex(shape):
            distance = float(query_positions[q] - key_positions[k])
            dslopes[h] -= abs(distance) * dy[0, h, q, k]
            slope = -slopes[h] * np.sign(distance) * dy[0, h, q, k]
            dquery[q] += slope
            dkey[k] -= slope
        return (
            dslopes,
            dquery if query_positions.dtype.kind == "f" else None,
            dkey if key_positions.dtype.kind == "f" else None,
        )

    return y, backward
