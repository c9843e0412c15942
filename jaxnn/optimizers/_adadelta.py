"""Adadelta."""

from typing import Any, NamedTuple

import jax

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.paths import named_mask
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class ScaleByAdaDeltaState(NamedTuple):
    """Moving averages of the squared gradients and of the squared updates."""

    e_g: PyTree
    e_x: PyTree


@constructor
def scale_by_adadelta(rho: Scalar = 0.9, eps: Scalar = 1e-6) -> Optimizer:
    """Rescale updates by Adadelta's ratio: `u = g √(e_x + eps) / √(e_g + eps)`.

    See `adadelta` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdaDeltaState(e_g, e_x)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adadelta(rho=0.75)
        >>> optimizer.update(jnp.array([8.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([0.002], dtype=float32)
    """
    check.decay_rates("scale_by_adadelta", rho=rho)
    check.nonnegative("scale_by_adadelta", eps=eps)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdaDeltaState(moments.zero_squares(params), moments.zero_squares(params))

    def rule(g: jax.Array, e_g: jax.Array, e_x: jax.Array) -> tuple[jax.Array, ...]:
        epsilon = hyperparameter(eps, e_g.dtype)
        e_g = moments.moving_average(e_g, moments.abs_square(g), rho)
        u = g * (moments.safe_sqrt(e_x + epsilon) / moments.safe_sqrt(e_g + epsilon)).astype(
            g.dtype
        )
        return u, e_g, moments.moving_average(e_x, moments.abs_square(u), rho)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        updates, e_g, e_x = leafwise("scale_by_adadelta", rule, updates, state.e_g, state.e_x)
        return updates, ScaleByAdaDeltaState(e_g, e_x)

    return Optimizer(init, update)


@constructor
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adadelta: `w = w - learning_rate u`, `u = g √(e_x + eps) / √(e_g + eps)`.

    Exponential moving averages of the squared gradients, `e_g = rho e_g + (1 - rho) g²`, and of the
    squared updates, `e_x = rho e_x + (1 - rho) u²` (taken after the update), give the updates the
    units of the parameters. Weight decay is added to the gradient. torch's Adadelta is the same,
    except which leaves decay; without a learning rate, optax's ascends and this one descends.

    Paper: Zeiler, ADADELTA, https://arxiv.org/abs/1212.5701

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`; None
            for 1, as in the paper.
        rho: decay rate of both moving averages, in [0, 1]; may be traced.
        eps: a small constant added inside the square roots; it sets the size of the first updates.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        weight_decay_mask: the leaves with weight decay, see `add_decayed_weights`; None for those
            of ndim >= 2.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adadelta(rho=0.75)
        >>> w = jnp.zeros(2)
        >>> optimizer.update(jnp.array([8.0, -8.0]), optimizer.init(w), w)[0]
        Array([-0.002,  0.002], dtype=float32)
    """
    decaying = named_mask(weight_decay_mask, "adadelta: weight_decay_mask")
    return chain(
        add_decayed_weights(weight_decay, decaying),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(1.0 if learning_rate is None else learning_rate),
    )
