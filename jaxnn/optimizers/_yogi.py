"""Yogi: Adam whose mean square changes little at a time."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import accumulator_dtype, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._adam import ScaleByAdamState
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate


@constructor
def scale_by_yogi(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: Scalar = 1e-6,
) -> Optimizer:
    """Rescale updates by Yogi's moments: `u = m̂ / (√(v̂ + eps_root) + eps)`.

    See `yogi` for the update rule and the arguments.

    Args:
        eps_root: a small constant added inside the square root.
        initial_accumulator_value: the initial value of both moments.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_yogi(eps=1.0, initial_accumulator_value=0.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([0.75], dtype=float32)
    """
    check.decay_rates("scale_by_yogi", b1=b1, b2=b2)
    check.nonnegative(
        "scale_by_yogi",
        eps=eps,
        eps_root=eps_root,
        initial_accumulator_value=initial_accumulator_value,
    )

    def init(params: PyTree) -> PyTree:
        mu = jax.tree.map(
            lambda p: jnp.full_like(
                p, initial_accumulator_value, accumulator_dtype(jnp.result_type(p))
            ),
            params,
        )
        return ScaleByAdamState(
            moments.zero_count(), mu, moments.zero_squares(params, initial_accumulator_value)
        )

    def rule(count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu = moments.moving_average(mu, g, b1)
        square = moments.abs_square(g)
        nu = nu - (1 - hyperparameter(b2, nu.dtype)) * jnp.sign(nu - square) * square
        mean = moments.bias_corrected(mu, b1, count)
        second = moments.bias_corrected(nu, b2, count)
        return moments.over_root(mean, second, eps, eps_root), mu, nu

    return leafwise_transformation("scale_by_yogi", init, rule)


@constructor
def yogi(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
) -> Optimizer:
    """Yogi: Adam with a second moment that changes slowly, `v = v - (1 - b2) sign(v - g²) g²`.

    `w = w - learning_rate m̂ / (√v̂ + eps)` as in `adam`. When the gradients become small, Adam's
    second moment falls by a factor at each step, and the effective learning rate grows as fast;
    here it falls by no more than `(1 - b2) g²`. As in optax, both moments start at 1e-6, and have
    bias correction as if they had started at 0.

    Paper: Zaheer et al., Adaptive Methods for Nonconvex Optimization,
    https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: one less the largest relative change of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> squares = {}
        >>> for name in ("adam", "yogi"):            # a large gradient, then none
        ...     optimizer = getattr(nn.optimizers, name)(0.1, b2=0.5)
        ...     _, state = optimizer.update(jnp.array([2.0]), optimizer.init(jnp.zeros(1)))
        ...     _, state = optimizer.update(jnp.array([0.0]), state)
        ...     squares[name] = round(state[0].nu.item(), 2)
        >>> squares
        {'adam': 1.0, 'yogi': 2.0}
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
