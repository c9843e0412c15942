"""ADOPT: Adam that divides by the mean square of the gradients before this one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._adam import ScaleByAdamState
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate


def fourth_root(count: Any) -> Any:
    """The clipping threshold of ADOPT after `count` updates, as the paper chose it."""
    return count**0.25


@constructor
def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Any] = fourth_root,
) -> Optimizer:
    """Rescale updates by ADOPT's rule: `u = m`.

    See `adopt` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adopt(b1=0.5)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (8.0, 4.0):
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        >>> updates                                  # half of 4 / 8
        Array([0.25], dtype=float32)
    """
    check.decay_rates("scale_by_adopt", b1=b1, b2=b2)
    check.nonnegative("scale_by_adopt", eps=eps)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdamState(
            moments.zero_count(), moments.zeros(params, mu_dtype), moments.zero_squares(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        is_first = state.count == 0

        def rule(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
            smallest = hyperparameter(eps, nu.dtype)
            normalised = g / jnp.maximum(moments.safe_sqrt(nu), smallest).astype(g.dtype)
            if use_clipping:
                limit = hyperparameter(clip_value_fn(state.count.astype(nu.dtype)), nu.dtype)
                normalised = moments.clipped(normalised, limit)

            def averaged(mean: jax.Array) -> jax.Array:
                return jnp.where(is_first, mean, moments.moving_average(mean, normalised, b1))

            mu = averaged(mu)
            square = moments.abs_square(g)
            nu = jnp.where(is_first, square, moments.moving_average(nu, square, b2))
            return averaged(mu) if nesterov else mu, mu, nu

        updates, mu, nu = leafwise("scale_by_adopt", rule, updates, state.mu, state.nu)
        return updates, ScaleByAdamState(moments.next_count(state.count), mu, nu)

    return Optimizer(init, update)


@constructor
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Any] = fourth_root,
) -> Optimizer:
    """ADOPT: Adam that normalizes before the momentum, by the second moment of earlier gradients.

    `m = b1 m + (1 - b1) clip(g / max(√v, eps), ±c)`, `w = w - learning_rate m`, and only then
    `v = b2 v + (1 - b2) g²`; the first gradient sets `v = g²` and makes no step. The clipping
    threshold c is the fourth root of the step count. It converges for any b2.

    Paper: Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate,
    https://arxiv.org/abs/2411.02853

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: the smallest denominator.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        nesterov: whether to use Nesterov momentum.
        use_clipping: whether to clip the normalized gradients.
        clip_value_fn: the clipping threshold, a function of the step count (a float).

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adopt(0.1, b1=0.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (8.0, 4.0):
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        ...     print(updates)
        [-0.]
        [-0.05]
    """
    return chain(
        scale_by_adopt(
            b1,
            b2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
        ),
        scale_by_learning_rate(learning_rate),
    )
