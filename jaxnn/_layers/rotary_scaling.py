"""Rotary encodings for longer sequences than a model was trained on: other frequencies."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import LEAST_POSITIVE, check_range
from jaxnn._core.construction import constructor


@constructor
def llama3_scaling(
    factor: float,
    *,
    original_length: int,
    low_frequency_factor: float = 1.0,
    high_frequency_factor: float = 4.0,
) -> Callable[[jax.Array], jax.Array]:
    """The frequencies of Llama 3.1 for `nn.rotary(scaling=...)`: low ones are divided by `factor`.

    A frequency `w` that turns `r = original_length * w / (2 pi)` times in the original length
    becomes `w (s + (1 - s) / factor)`, where `s` goes from 0 at `r = low_frequency_factor` to 1 at
    `r = high_frequency_factor`, linearly in `r`, and stays constant beyond.

    Paper: Grattafiori et al., The Llama 3 Herd of Models, https://arxiv.org/abs/2407.21783

    Args:
        factor: by how much the lowest frequencies are divided, at least 1.
        original_length: the number of positions that the model was trained on before.
        low_frequency_factor: the turns up to which a frequency is divided by all of `factor`.
        high_frequency_factor: the turns from which on a frequency stays as it is.

    Returns:
        A function from frequencies, in radians a position, to frequencies.

    Raises:
        ValueError: `factor` is less than 1, another number is not positive, or
            `high_frequency_factor` is not above `low_frequency_factor`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> scaling = nn.llama3_scaling(8.0, original_length=8192)
        >>> print(scaling(jnp.array([1.0, 1e-3, 1e-5])))
        [1.0000000e+00 2.1360753e-04 1.2500000e-06]
        >>> nn.rotary(base=500000.0, scaling=scaling)
        rotary(base=500000.0, scaling=llama3_scaling(8.0, original_length=8192))
    """
    check_range("llama3_scaling", "factor", factor, 1)
    check_range("llama3_scaling", "original_length", original_length, 1)
    check_range("llama3_scaling", "low_frequency_factor", low_frequency_factor, LEAST_POSITIVE)
    if not high_frequency_factor > low_frequency_factor:
        raise ValueError(
            f"llama3_scaling: high_frequency_factor is {high_frequency_factor}, expected more than "
            f"low_frequency_factor, {low_frequency_factor}"
        )

    def scaling(frequencies: jax.Array) -> jax.Array:
        turns = original_length / (2 * math.pi) * frequencies
        between = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor)
        return _divided(frequencies, factor, 1 - jnp.clip(between, 0, 1))

    return scaling


@constructor
def yarn_scaling(
    factor: float,
    *,
    original_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Callable[[jax.Array], jax.Array]:
    """The frequencies of YaRN for `nn.rotary(scaling=...)`: low ones are divided by `factor`.

    Frequency `i` of a geometric series becomes `w_i ((1 - s) + s / factor)`, where `s` goes from 0
    to 1, linearly in `i`, between the frequencies that turn `beta_fast` and `beta_slow` times in
    the original length, as in the authors' code (in the paper: linearly in the turns). YaRN also
    sharpens attention: give `nn.attention` `scale=(0.1 ln(factor) + 1)^2 / sqrt(head_dim)`.

    Paper: Peng et al., YaRN: Efficient Context Window Extension, https://arxiv.org/abs/2309.00071

    Args:
        factor: by how much the lowest frequencies are divided, at least 1.
        original_length: the number of positions that the model was trained on before.
        beta_fast: the turns from which on a frequency stays as it is.
        beta_slow: the turns up to which a frequency is divided by all of `factor`.
        truncate: whether the two ends of the slope are rounded outwards to whole `i`.

    Returns:
        A function from frequencies, in radians a position, to frequencies.

    Raises:
        ValueError: `factor` is less than 1, another number is not positive, or `beta_fast` is not
            above `beta_slow`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> scaling = nn.yarn_scaling(4.0, original_length=64)
        >>> print(scaling(jnp.array([1.0, 0.1, 0.01, 0.001])))
        [1.00e+00 6.25e-02 2.50e-03 2.50e-04]
    """
    check_range("yarn_scaling", "factor", factor, 1)
    check_range("yarn_scaling", "original_length", original_length, 1)
    check_range("yarn_scaling", "beta_slow", beta_slow, LEAST_POSITIVE)
    if not beta_fast > beta_slow:
        raise ValueError(
            f"yarn_scaling: beta_fast is {beta_fast}, expected more than beta_slow, {beta_slow}"
        )

    def scaling(frequencies: jax.Array) -> jax.Array:
        (n,) = frequencies.shape
        if n < 2:
            return frequencies
        step = jnp.log(frequencies[0] / frequencies[1])

        def index_of(turns: float) -> jax.Array:
            return jnp.log(original_length / (2 * math.pi * turns) * frequencies[0]) / step

        low, high = index_of(beta_fast), index_of(beta_slow)
        if truncate:
            low, high = jnp.floor(low), jnp.ceil(high)
        low, high = jnp.maximum(low, 0), jnp.minimum(high, 2 * n - 1)
        high = jnp.where(low == high, high + 0.001, high)
        slope = (jnp.arange(n, dtype=frequencies.dtype) - low) / (high - low)
        return _divided(frequencies, factor, jnp.clip(slope, 0, 1))

    return scaling


def _divided(frequencies: jax.Array, factor: float, share: jax.Array) -> jax.Array:
    """A share of each frequency divided by the factor, and the rest as it is."""
    return frequencies * (1 - share + share / factor)
