"""AMSGrad: Adam whose steps do not grow again."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import PyTree
from jaxnn._core.construction import constructor
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, ScalarOrSchedule, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate


class ScaleByAmsgradState(NamedTuple):
    """The number of updates so far, the mean, the mean square, and its largest value so far."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


@constructor
def scale_by_amsgrad(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    maximum_first: bool = False,
) -> Optimizer:
    """Scale by AMSGrad's moments: `u = μ̂ / (√(ν_max + eps_root) + eps)`, see `amsgrad`.

    Args:
        b1: the weight of the old mean, in [0, 1]; may be traced.
        b2: the weight of the old mean square, in [0, 1]; may be traced.
        eps: added to the root.
        eps_root: added inside the root.
        mu_dtype: the dtype that μ is kept in; None for float32 or wider.
        bias_correction_mu: whether μ is divided by `1 - b1^t`.
        bias_correction_nu: whether ν is divided by `1 - b2^t`.
        maximum_first: whether that division is of the maximum (as in torch) rather than of what
            the maximum is taken of (as in optax).

    Returns:
        An `Optimizer` with state `ScaleByAmsgradState(count, mu, nu, nu_max)`.

    Raises:
        ValueError: a hyperparameter is known and out of range; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_amsgrad(b1=0.0, b2=0.0)
        >>> _, state = optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))
        >>> optimizer.update(jnp.array([2.0]), state)[0]
        Array([0.25], dtype=float32)
    """
    check.decay_rates("scale_by_amsgrad", b1=b1, b2=b2)
    check.nonnegative("scale_by_amsgrad", eps=eps, eps_root=eps_root)

    def init(params: PyTree) -> PyTree:
        mu = moments.zeros(params, mu_dtype)
        return ScaleByAmsgradState(
            moments.zero_count(), mu, moments.zero_squares(params), moments.zero_squares(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        count = moments.next_count(state.count)

        def rule(
            g: jax.Array, mu: jax.Array, nu: jax.Array, nu_max: jax.Array
        ) -> tuple[jax.Array, ...]:
            mu = moments.moving_average(mu, g, b1)
            nu = moments.moving_average(nu, moments.abs_square(g), b2)
            mean = moments.bias_corrected(mu, b1, count) if bias_correction_mu else mu
            if maximum_first:
                nu_max = jnp.maximum(nu_max, nu)
                square = moments.bias_corrected(nu_max, b2, count) if bias_correction_nu else nu_max
            else:
                square = moments.bias_corrected(nu, b2, count) if bias_correction_nu else nu
                nu_max = square = jnp.maximum(nu_max, square)
            return moments.over_root(mean, square, eps, eps_root), mu, nu, nu_max

        updates, *accumulators = leafwise(
            "scale_by_amsgrad", rule, updates, state.mu, state.nu, state.nu_max
        )
        return updates, ScaleByAmsgradState(count, *accumulators)

    return Optimizer(init, update)


@constructor
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Optimizer:
    """AMSGrad: Adam that divides by the largest mean square so far.

    `ν_max = max(ν_max, ν / (1 - b2^t))` and `w = w - learning_rate μ̂ / (√(ν_max + eps_root) + eps)`
    with Adam's μ̂ and ν.

    The paper corrects neither moment (`bias_correction_mu=False, bias_correction_nu=False`).
    torch's `Adam(amsgrad=True)` takes the maximum of ν and corrects it afterwards, so that the
    first, often largest, gradients do not rule for ever: that is `adam(amsgrad=True)` here.

    Paper: Reddi, Kale and Kumar, On the Convergence of Adam and Beyond,
    https://arxiv.org/abs/1904.09237

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: the weight of the old mean, in [0, 1]; may be traced.
        b2: the weight of the old mean square, in [0, 1]; may be traced.
        eps: added to the root, in float32 or wider.
        eps_root: added inside the root.
        mu_dtype: the dtype that μ is kept in; None for float32 or wider.
        bias_correction_mu: whether μ is divided by `1 - b1^t`.
        bias_correction_nu: whether ν is divided by `1 - b2^t`.

    Returns:
        An `Optimizer` with state `(ScaleByAmsgradState(count, mu, nu, nu_max), ...)`.

    Raises:
        ValueError: a hyperparameter is known and out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.amsgrad(0.1)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (8.0, 0.01):                    # a small gradient after a large one
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        >>> state[0].nu_max
        Array([64.], dtype=float32)
    """
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu),
        scale_by_learning_rate(learning_rate),
    )
