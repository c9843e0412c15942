"""RMSprop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, chain, identity
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._sgd import check_momentum, trace


class ScaleByRmsState(NamedTuple):
    """The moving average of the squared gradients."""

    nu: PyTree


class ScaleByRmsWithCountState(NamedTuple):
    """The step count and the moving average of the squared gradients."""

    count: jax.Array  # type: ignore[assignment]
    nu: PyTree


class ScaleByRStdDevState(NamedTuple):
    """The moving averages of the gradients and of their squares."""

    mu: PyTree
    nu: PyTree


class ScaleByRStdDevWithCountState(NamedTuple):
    """The step count, and the moving averages of the gradients and of their squares."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree


@constructor
def scale_by_rms(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer:
    """Divide by the root mean square of the gradients: `u = g / √(v + eps)`.

    See `rmsprop` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByRmsState(nu)`, or `ScaleByRmsWithCountState(count, nu)`
        with `bias_correction`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_rms(decay=0.75)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    return _scale_by_root("scale_by_rms", decay, eps, initial_scale, eps_in_sqrt, bias_correction)


@constructor
def scale_by_stddev(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer:
    """Divide by the standard deviation of the gradients: `u = g / √(v - m² + eps)`.

    `m = decay m + (1 - decay) g`. See `rmsprop` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByRStdDevState(mu, nu)`, or
        `ScaleByRStdDevWithCountState(count, mu, nu)` with `bias_correction`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_stddev(decay=0.5)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    return _scale_by_root(
        "scale_by_stddev", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=True
    )


def _scale_by_root(
    function: str,
    decay: Scalar,
    eps: Scalar,
    initial_scale: Scalar,
    eps_in_sqrt: bool,
    bias_correction: bool,
    centered: bool = False,
) -> Optimizer:
    check_range(function, "decay", decay, 0, 1)
    check_range(function, "eps", eps, 0)
    check_range(function, "initial_scale", initial_scale, 0)

    def packed(count: Any, mu: PyTree, nu: PyTree) -> PyTree:
        if centered:
            if bias_correction:
                return ScaleByRStdDevWithCountState(count, mu, nu)
            return ScaleByRStdDevState(mu, nu)
        return ScaleByRmsWithCountState(count, nu) if bias_correction else ScaleByRmsState(nu)

    def init(params: PyTree) -> PyTree:
        mu = moments.zeros(params) if centered else None
        return packed(moments.zero_count(), mu, moments.zero_squares(params, initial_scale))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients(function, updates)
        same_structure(function, state=state.nu, updates=updates)
        wide = jax.tree.map(widen, updates)
        count = moments.next_count(state.count) if bias_correction else None

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            return precision.cast_like(moments.moving_average(old, new, decay), old)

        nu = jax.tree.map(lambda n, g: average(n, moments.abs_square(g)), state.nu, wide)
        mu = jax.tree.map(average, state.mu, wide) if centered else None

        def debiased(moment: jax.Array) -> jax.Array:
            return moment if count is None else moments.bias_corrected(moment, decay, count)

        def scaled(g: jax.Array, n: jax.Array, m: jax.Array | None = None) -> jax.Array:
            variance = debiased(n)
            if m is not None:
                # Not below zero, where rounding takes it for constant gradients.
                variance = jnp.maximum(variance - moments.abs_square(debiased(m)), 0)
            epsilon = hyperparameter(eps, variance.dtype)
            if eps_in_sqrt:
                return g * lax.rsqrt(variance + epsilon).astype(g.dtype)
            return g / (moments.safe_sqrt(variance) + epsilon).astype(g.dtype)

        scaled_updates = jax.tree.map(scaled, wide, nu, *([mu] if centered else []))
        cast = jax.tree.map(precision.cast_like, scaled_updates, updates)
        return cast, packed(count, mu, nu)

    return Optimizer(init, update)


@constructor
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Optimizer:
    """RMSprop: `v = decay v + (1 - decay) g²`, `w = w - learning_rate g / √(v + eps)`.

    torch's RMSprop is `rmsprop(learning_rate, decay=0.99, eps_in_sqrt=False)`; with momentum it
    multiplies by the learning rate after the momentum, where this, as optax, does it before (the
    same for a constant learning rate).

    Source: Hinton, Overview of mini-batch gradient descent, 2012; centered: Graves, Generating
    Sequences With Recurrent Neural Networks, https://arxiv.org/abs/1308.0850

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        decay: decay rate of the moving average of the squared gradients, in [0, 1]; may be traced.
        eps: a small constant added to the mean square, or to its root if not `eps_in_sqrt`.
        initial_scale: the initial value of v.
        eps_in_sqrt: whether `eps` is inside the square root (torch: outside).
        centered: whether to divide by the standard deviation instead of the root mean square.
        momentum: decay rate of the momentum of the rescaled gradients, or None.
        nesterov: whether to use Nesterov momentum.
        bias_correction: whether to apply bias correction to the moving averages.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: a hyperparameter is out of range, or `nesterov` is asked for without
            `momentum`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.rmsprop(0.1, decay=0.75)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-0.2], dtype=float32)
    """
    check_momentum("rmsprop", momentum, nesterov=nesterov)
    scale_by = scale_by_stddev if centered else scale_by_rms
    return chain(
        scale_by(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )
