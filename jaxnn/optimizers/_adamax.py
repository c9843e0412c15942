"""Adamax: Adam with the infinity norm."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import absolute, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._adam import ScaleByAdamState
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


@constructor
def scale_by_adamax(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """Divide the first moment by the exponentially weighted infinity norm: `u = m̂ / v`.

    See `adamax` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adamax()
        >>> optimizer.update(jnp.array([8.0, -0.5]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 1., -1.], dtype=float32)
    """
    check.decay_rates("scale_by_adamax", b1=b1, b2=b2)
    check.nonnegative("scale_by_adamax", eps=eps)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdamState(
            moments.zero_count(), moments.zeros(params), moments.zero_squares(params)
        )

    def rule(count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu = moments.moving_average(mu, g, b1)
        size = absolute(g) + hyperparameter(eps, nu.dtype)
        nu = jnp.maximum(size, hyperparameter(b2, nu.dtype) * nu)
        return moments.bias_corrected(mu, b1, count) / nu.astype(mu.dtype), mu, nu

    return leafwise_transformation("scale_by_adamax", init, rule)


@constructor
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """Adamax: Adam with the infinity norm, `w = w - learning_rate m̂ / v`.

    `v = max(b2 v, |g| + eps)` takes the place of Adam's second moment; m̂ is the bias-corrected
    first moment of `adam`. torch's Adamax is the same.

    Paper: Kingma and Ba, Adam, section 7.1, https://arxiv.org/abs/1412.6980

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the infinity norm, in [0, 1]; may be traced.
        eps: a small constant added to the absolute value of the gradient.

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adamax(0.1, b1=0.0, b2=0.5)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for g in (8.0, 1.0):
        ...     updates, state = optimizer.update(jnp.array([g]), state)
        >>> updates                                  # 0.1 * 1 / max(0.5 * 8, 1)
        Array([-0.025], dtype=float32)
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@constructor
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
) -> Optimizer:
    """Adamax with decoupled weight decay: `w = w - learning_rate (u + weight_decay w)`.

    `u` is the rescaled gradient of `adamax`. Unlike optax's, the weight decay leaves out biases and
    scales.

    Papers: Kingma and Ba, Adam, section 7.1, https://arxiv.org/abs/1412.6980; Loshchilov and
    Hutter, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the infinity norm, in [0, 1]; may be traced.
        eps: a small constant added to the absolute value of the gradient.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adamaxw(0.1, weight_decay=0.5)
        >>> w = jnp.full((1, 1), 2.0)
        >>> optimizer.update(jnp.ones((1, 1)), optimizer.init(w), w)[0]
        Array([[-0.2]], dtype=float32)
    """
    return chain(
        scale_by_adamax(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
