"""Adan: Nesterov's momentum from the differences of the gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class ScaleByAdanState(NamedTuple):
    """The moments m, v and n, the last gradient g, and the step count t; see `adan`."""

    m: PyTree
    v: PyTree
    n: PyTree
    g: PyTree
    t: jax.Array


@constructor
def scale_by_adan(
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> Optimizer:
    """Rescale updates by Adan's bias-corrected moments: `u = (m̂ + b2 v̂) / (√(n̂ + eps_root) + eps)`.

    See `adan` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdanState(m, v, n, g, t)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adan()
        >>> optimizer.update(jnp.array([8.0, -0.5]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 1., -1.], dtype=float32)
    """
    check.decay_rates("scale_by_adan", b1=b1, b2=b2, b3=b3)
    check.nonnegative("scale_by_adan", eps=eps, eps_root=eps_root)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdanState(
            moments.zeros(params),
            moments.zeros(params),
            moments.zero_squares(params),
            moments.zeros(params),
            moments.zero_count(),
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        t = moments.next_count(state.t)

        def rule(
            g: jax.Array, m: jax.Array, v: jax.Array, n: jax.Array, last: jax.Array
        ) -> tuple[jax.Array, ...]:
            change = jnp.where(state.t == 0, 0, g - last)
            weight = hyperparameter(b2, g.dtype)
            m = moments.moving_average(m, g, b1)
            v = moments.moving_average(v, change, b2)
            n = moments.moving_average(n, moments.abs_square(g + weight * change), b3)
            ahead = moments.bias_corrected(m, b1, t) + weight * moments.bias_corrected(v, b2, t)
            square = moments.bias_corrected(n, b3, t)
            return moments.over_root(ahead, square, eps, eps_root), m, v, n, g

        updates, m, v, n, g = leafwise(
            "scale_by_adan", rule, updates, state.m, state.v, state.n, state.g
        )
        return updates, ScaleByAdanState(m, v, n, g, t)

    return Optimizer(init, update)


@constructor
def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Adan: Nesterov momentum from the differences of successive gradients.

    `w = w - learning_rate ((m̂ + b2 v̂) / (√(n̂ + eps_root) + eps) + weight_decay w)`. With the
    difference `d = g - g_before` (0 at first), the exponential moving averages
    `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) d` and `n = b3 n + (1 - b3) (g + b2 d)²` are
    bias-corrected as in `adam`.

    The paper's β are `1 - b`, and its weight decay is proximal:
    `w = (w - learning_rate u) / (1 + learning_rate weight_decay)`. optax (up to 0.2.8) has 1 - b2
    in the place of b2 in `m̂ + b2 v̂` and `g + b2 d`, unlike its documentation, the paper and the
    authors' code: the same for b2 = 0.5 only.

    Paper: Xie et al., Adan: Adaptive Nesterov Momentum Algorithm, https://arxiv.org/abs/2208.06677

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment m, in [0, 1]; may be traced.
        b2: decay rate of the gradient differences v, in [0, 1]; may be traced.
        b3: decay rate of the second moment n, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adan(0.1, b2=0.5)
        >>> w = jnp.zeros(1)
        >>> state = optimizer.init(w)
        >>> for g in (8.0, 4.0):
        ...     updates, state = optimizer.update(jnp.array([g]), state, w)
        >>> state[0].v                               # half of the change from 8 to 4
        Array([-2.], dtype=float32)
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
