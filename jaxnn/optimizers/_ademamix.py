"""AdEMAMix: Adam with a second, slow mean of the gradients."""

from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain, value_at
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class ScaleByAdemamixState(NamedTuple):
    """The step count, twice, the fast and the slow first moment, and the second moment."""

    count: jax.Array  # type: ignore[assignment]
    count_m2: jax.Array
    m1: PyTree
    m2: PyTree
    nu: PyTree


@constructor
def scale_by_ademamix(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Rescale updates by AdEMAMix' moments: `u = (m̂1 + alpha m2) / (√(v̂ + eps_root) + eps)`.

    See `ademamix` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdemamixState(count, count_m2, m1, m2, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_ademamix(b3=0.75)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([2.5], dtype=float32)
    """
    check.decay_rates("scale_by_ademamix", b1=b1, b2=b2, b3=b3)
    check.nonnegative("scale_by_ademamix", alpha=alpha, eps=eps, eps_root=eps_root)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdemamixState(
            moments.zero_count(),
            moments.zero_count(),
            moments.zeros(params, mu_dtype),
            moments.zeros(params, mu_dtype),
            moments.zero_squares(params),
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        count = moments.next_count(state.count)
        b3_now, alpha_now = (value_at(value, state.count_m2) for value in (b3, alpha))

        def rule(
            g: jax.Array, m1: jax.Array, m2: jax.Array, nu: jax.Array
        ) -> tuple[jax.Array, ...]:
            m1 = moments.moving_average(m1, g, b1)
            m2 = moments.moving_average(m2, g, b3_now)
            nu = moments.moving_average(nu, moments.abs_square(g), b2)
            mixed = moments.bias_corrected(m1, b1, count) + hyperparameter(alpha_now, m2.dtype) * m2
            square = moments.bias_corrected(nu, b2, count)
            return moments.over_root(mixed, square, eps, eps_root), m1, m2, nu

        updates, *accumulators = leafwise(
            "scale_by_ademamix", rule, updates, state.m1, state.m2, state.nu
        )
        return updates, ScaleByAdemamixState(
            count, moments.next_count(state.count_m2), *accumulators
        )

    return Optimizer(init, update)


@constructor
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """AdEMAMix: Adam with a second, slow exponential moving average of the gradients.

    `w = w - learning_rate ((m̂1 + alpha m2) / (√(v̂ + eps_root) + eps) + weight_decay w)`. m̂1 and v̂
    are the bias-corrected moments of `adam`; the slow average, `m2 = b3 m2 + (1 - b3) g`, remembers
    some ten thousand gradients and is not bias-corrected. The paper warms up `alpha` and `b3` by
    schedules; give them as functions of the step count.

    Paper: Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer: Better, Faster, Older,
    https://arxiv.org/abs/2409.03137

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the fast first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        b3: decay rate of the slow first moment, in [0, 1] (may be traced), or a schedule.
        alpha: the weight of the slow first moment (may be traced), or a schedule.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        mu_dtype: dtype of the first moments; None for float32 or wider.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> rising = lambda count: 5.0 * jnp.minimum(count / 1000, 1)
        >>> optimizer = nn.optimizers.ademamix(0.1, alpha=rising)
        >>> w = jnp.zeros(1)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(w), w)[0]
        Array([-0.1], dtype=float32)
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
