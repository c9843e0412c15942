"""A recurrent cell that is linear in what it carries."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    accumulator_dtype,
    check_count,
    check_key,
    check_range,
    compute_dtype,
    promoted,
    spread,
    widen,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Cell, param_dtype, shape_of
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw
from jaxnn.functional._scans import linear_step


@constructor
def lru_cell(
    hidden_features: int,
    *,
    min_radius: float = 0.9,
    max_radius: float = 0.999,
    max_phase: float = 6.28,
    kernel_init: Initializer = initializers.variance_scaling(0.5, "fan_in", "normal"),  # noqa: B008
    output_kernel_init: Initializer = initializers.variance_scaling(2.0, "fan_in", "normal"),  # noqa: B008
    skip_init: Initializer = initializers.normal(1.0),  # noqa: B008
) -> Cell:
    """A linear recurrent unit: a diagonal linear recurrence of complex numbers between two kernels.

        h' = exp(-exp(log_decay) + i exp(log_phase)) * h + exp(log_scale) * (x @ W)
        y = [Re h', Im h'] @ C + scale * x

    No parameters let h grow. `nn.recurrent` runs it over a sequence by
    `functional.linear_recurrence`, without a loop over time on an accelerator. As it is linear,
    models have nonlinear layers between such cells:
    `nn.residual(nn.serial(nn.layer_norm(), nn.recurrent(nn.lru_cell(64)), nn.feed_forward(128)))`.

    Paper: Orvieto et al., Resurrecting Recurrent Neural Networks for Long Sequences,
    https://arxiv.org/abs/2303.06349

    Args:
        hidden_features: the number of complex numbers that are carried.
        min_radius: the least absolute value, in [0, 1), of the factors of h at initialisation,
            which are drawn uniformly from a ring in the complex plane.
        max_radius: the greatest, less than 1. The nearer to 1, the longer is the memory.
        max_phase: the greatest angle of the factors, in radians; small for long sequences.
        kernel_init: initializer of W, shape `(features, 2 * hidden_features)`: the real parts, then
            the imaginary ones.
        output_kernel_init: initializer of C, shape `(2 * hidden_features, features)`.
        skip_init: initializer of the factors of `x`, shape `(features,)`.

    Returns:
        A `Cell` from `(..., features)` to `(..., features)` with params `{"input": {"kernel",
        "log_scale"}, "recurrent": {"log_decay", "log_phase"}, "output": {"kernel"}, "skip":
        {"scale"}}`. The carry is h, complex, initially zeros, of 32 bits or more for each part.
        `log_scale` begins so that h has the variance of `x @ W`.

    Raises:
        TypeError: `hidden_features` is not an integer.
        ValueError: `hidden_features` is less than 1; a radius or `max_phase` is out of range; `x`
            has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell, x = nn.lru_cell(16), jnp.ones((2, 5, 3))
        >>> layer = nn.recurrent(cell)
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> ys, _ = layer.apply(params, state, x)
        >>> carry = cell.initial_carry(params, (2,), x.dtype)  # the same step by step
        >>> carry, y = cell.step(params, carry, x[:, 0])
        >>> ys.shape, carry.shape, bool(jnp.allclose(y, ys[:, 0], atol=1e-5))
        ((2, 5, 3), (2, 16), True)
    """
    check_count("lru_cell", "hidden_features", hidden_features)
    check_range("lru_cell", "min_radius", min_radius, 0, 1)
    check_range("lru_cell", "max_radius", max_radius, 0, 1)
    check_range("lru_cell", "max_phase", max_phase, LEAST_POSITIVE)
    if not min_radius < max_radius < 1:
        raise ValueError(
            f"lru_cell: min_radius is {min_radius} and max_radius {max_radius}, expected "
            "0 <= min_radius < max_radius < 1"
        )

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        check_key("lru_cell", key)
        shape, dtype = shape_of("lru_cell", x_t), param_dtype(x_t)
        if not shape:
            raise ValueError("lru_cell: x is a scalar, expected shape (..., features)")
        features, keys = shape[-1], jax.random.split(key, 5)

        def uniform(key: jax.Array) -> jax.Array:
            return jax.random.uniform(key, (hidden_features,), dtype, LEAST_POSITIVE, 1.0)

        square = uniform(keys[0]) * (max_radius**2 - min_radius**2) + min_radius**2
        sizes = (features, 2 * hidden_features), (2 * hidden_features, features)
        return {
            "input": {
                "kernel": draw(kernel_init, keys[1], sizes[0], dtype),
                "log_scale": jnp.log1p(-square) / 2,
            },
            "recurrent": {
                "log_decay": jnp.log(-jnp.log(square) / 2),
                "log_phase": jnp.log(max_phase * uniform(keys[2])),
            },
            "output": {"kernel": draw(output_kernel_init, keys[3], sizes[1], dtype)},
            "skip": {"scale": draw(skip_init, keys[4], (features,), dtype)},
        }

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        wide = promoted(accumulator_dtype(dtype), jnp.complex64)
        return jnp.zeros((*batch_shape, hidden_features), wide)

    def coefficients(params: PyTree, x: PyTree) -> tuple[jax.Array, jax.Array]:
        recurrent = params["recurrent"]
        decay, phase = (jnp.exp(widen(recurrent[leaf])) for leaf in ("log_decay", "log_phase"))
        halves = widen(functional.linear(x, params["input"]["kernel"]))
        real, imaginary = jnp.split(halves, 2, axis=-1)
        scale = jnp.exp(params["input"]["log_scale"].astype(real.dtype))
        scale = spread(scale, (real.ndim - 1,), real.shape)
        factor = jnp.exp(jax.lax.complex(-decay, phase))
        return factor, jax.lax.complex(scale * real, scale * imaginary)

    def output(params: PyTree, h: jax.Array, x: PyTree) -> jax.Array:
        kernel = params["output"]["kernel"]
        x = jnp.asarray(x)
        x = x.astype(compute_dtype(x, kernel))
        parts = jnp.concatenate([jnp.real(h), jnp.imag(h)], axis=-1).astype(x.dtype)
        skip = spread(params["skip"]["scale"].astype(x.dtype), (x.ndim - 1,), x.shape)
        y: jax.Array = functional.linear(parts, kernel) + skip * x
        return y

    return Cell(init, initial_carry, linear_step(coefficients, output))
