"""AdaBelief: Adam that divides by how far the gradients are from their mean."""

from typing import NamedTuple

import jax

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate


class ScaleByBeliefState(NamedTuple):
    """The step count, the first moment, and the variance of the gradients around it."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree


@constructor
def scale_by_belief(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Rescale updates by AdaBelief's bias-corrected moments: `u = m̂ / (√v̂ + eps)`.

    See `adabelief` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByBeliefState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_belief(b1=0.5)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    check.decay_rates("scale_by_belief", b1=b1, b2=b2)
    check.nonnegative("scale_by_belief", eps=eps, eps_root=eps_root)

    def init(params: PyTree) -> PyTree:
        return ScaleByBeliefState(
            moments.zero_count(), moments.zeros(params), moments.zero_squares(params)
        )

    def rule(count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu = moments.moving_average(mu, g, b1)
        nu = moments.moving_average(nu, moments.abs_square(g - mu), b2) + hyperparameter(
            eps_root, nu.dtype
        )
        mean = moments.bias_corrected_mean(mu, g, b1, count, nesterov=nesterov)
        square = moments.bias_corrected(nu, b2, count)
        return moments.over_root(mean, square, eps), mu, nu

    return leafwise_transformation("scale_by_belief", init, rule)


@constructor
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """AdaBelief: Adam with the variance of the gradients as second moment.

    `w = w - learning_rate m̂ / (√v̂ + eps)` as in `adam`, but with
    `v = b2 v + (1 - b2) (g - m)² + eps_root`: the step is large where the gradients are close to
    their moving average ("as believed"), however large they are.

    Paper: Zhuang et al., AdaBelief Optimizer, https://arxiv.org/abs/2010.07468

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added to the second moment at each step, so that it accumulates.
        nesterov: whether to use Nesterov momentum.

    Returns:
        An `Optimizer` with state `(ScaleByBeliefState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adabelief(0.1)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for sign in (1, -1, 1, -1):              # steady, and back and forth
        ...     updates, state = optimizer.update(jnp.array([1.0, sign]), state)
        >>> [round(u, 2) for u in updates.tolist()]
        [-0.13, 0.01]
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
