"""RAdam: Adam that does without the mean square until it is known well enough."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._adam import ScaleByAdamState
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate


@constructor
def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Rescale updates by RAdam's rectified moments: `u = r m̂ / (√(v̂ + eps_root) + eps)`.

    In the first steps `u = m̂`. See `radam` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_radam()
        >>> optimizer.update(jnp.array([8.0, -0.5]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 8. , -0.5], dtype=float32)
    """
    check.decay_rates("scale_by_radam", b1=b1, b2=b2)
    check.nonnegative("scale_by_radam", eps=eps, eps_root=eps_root, threshold=threshold)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdamState(
            moments.zero_count(), moments.zeros(params), moments.zero_squares(params)
        )

    def rule(count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu = moments.moving_average(mu, g, b1)
        nu = moments.moving_average(nu, moments.abs_square(g), b2)
        mean = moments.bias_corrected_mean(mu, g, b1, count, nesterov=nesterov)
        r, is_known = _rectification(hyperparameter(b2, nu.dtype), count, threshold)
        adaptive = moments.over_root(mean, moments.bias_corrected(nu, b2, count), eps, eps_root)
        return jnp.where(is_known, r.astype(mean.dtype) * adaptive, mean), mu, nu

    return leafwise_transformation("scale_by_radam", init, rule)


def _rectification(
    b2: jax.Array, count: jax.Array, threshold: Scalar
) -> tuple[jax.Array, jax.Array]:
    """r at step `count`, and whether ρ has come to the threshold.

    ρ is a small difference of large numbers: `1 - b2^t` without `expm1` is too rough in float32.
    """
    rest = 1 - b2
    log_power = count.astype(b2.dtype) * jnp.log1p(-rest)
    last = 2 / rest - 1
    rho = last + 2 * count.astype(b2.dtype) * jnp.exp(log_power) / jnp.expm1(log_power)
    is_known = rho >= hyperparameter(threshold, rho.dtype)
    square = jnp.where(is_known, (rho - 4) * (rho - 2) * last, 1)
    return moments.safe_sqrt(
        square / jnp.where(is_known, (last - 4) * (last - 2) * rho, 1)
    ), is_known


@constructor
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Rectified Adam: `w = w - learning_rate r m̂ / (√(v̂ + eps_root) + eps)`.

    m̂ and v̂ are the bias-corrected moments of `adam`. `ρ = ρ∞ - 2 t b2^t / (1 - b2^t)` with
    `ρ∞ = 2 / (1 - b2) - 1` measures how many gradients v̂ is an average of, and
    `r = √((ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ))` rectifies its variance. As long as ρ is less
    than `threshold` (five steps for the usual b2), `w = w - learning_rate m̂`: a built-in warm-up.
    torch's RAdam divides by `√v̂ + eps / √(1 - b2^t)`.

    Paper: Liu et al., On the Variance of the Adaptive Learning Rate and Beyond,
    https://arxiv.org/abs/1908.03265

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        threshold: the ρ from which on v̂ is used, at least 0; the paper has 4, optax and
            torch 5.
        nesterov: whether to use Nesterov momentum.

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.radam(1.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> sizes = []
        >>> for _ in range(8):                       # by the same gradient
        ...     updates, state = optimizer.update(jnp.array([8.0]), state)
        ...     sizes.append(round(-updates.item(), 3))
        >>> sizes
        [8.0, 8.0, 8.0, 8.0, 8.0, 0.026, 0.033, 0.039]
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
