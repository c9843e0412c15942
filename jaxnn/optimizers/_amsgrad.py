"""AMSGrad: Adam whose steps do not grow again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate


class ScaleByAmsgradState(NamedTuple):
    """The step count, the first and the second moment, and the largest second moment so far."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


@constructor
def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    maximum_first: bool = False,
) -> Optimizer:
    """Rescale updates by AMSGrad's moments: `u = m̂ / (√(v_max + eps_root) + eps)`.

    See `amsgrad` for the update rule and the arguments.

    Args:
        maximum_first: whether to apply bias correction to the maximum (as in torch) rather than to
            the second moments that it is taken of (as in optax).

    Returns:
        An `Optimizer` with state `ScaleByAmsgradState(count, mu, nu, nu_max)`.

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

    def rule(
        count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array, nu_max: jax.Array
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

    return leafwise_transformation("scale_by_amsgrad", init, rule)


@constructor
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Optimizer:
    """AMSGrad: Adam that divides by the largest second moment so far.

    `w = w - learning_rate m̂ / (√(v_max + eps_root) + eps)` with `v_max = max(v_max, v̂)` and the
    bias-corrected moments m̂ and v̂ of `adam`.

    The paper has no bias correction (`bias_correction_mu=False, bias_correction_nu=False`). torch's
    `Adam(amsgrad=True)` takes the maximum of v and corrects it afterwards, so that the first, often
    largest, gradients do not count for ever: that is `adam(amsgrad=True)` here.

    Paper: Reddi, Kale and Kumar, On the Convergence of Adam and Beyond,
    https://arxiv.org/abs/1904.09237

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        bias_correction_mu: whether to apply bias correction to the first moment.
        bias_correction_nu: whether to apply bias correction to the second moment.

    Returns:
        An `Optimizer` with state `(ScaleByAmsgradState(count, mu, nu, nu_max), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

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
