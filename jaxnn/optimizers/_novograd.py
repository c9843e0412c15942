"""NovoGrad: gradients normalised leaf by leaf."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, chain, value_at
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import decaying_weights


class ScaleByNovogradState(NamedTuple):
    """The step count, the momentum, and a second moment for each leaf."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree


@constructor
def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    mask: Mask | None = None,
) -> Optimizer:
    """Momentum of gradients that are normalized leaf by leaf: `u = m`.

    See `novograd` for the update rule and the arguments.

    Args:
        mu_dtype: dtype of the momentum; None for float32 or wider.

    Returns:
        An `Optimizer` with state `ScaleByNovogradState(count, mu, nu)` whose `update` needs the
        params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_novograd()
        >>> w = jnp.zeros(2)
        >>> optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(w), w)[0]
        Array([0.6, 0.8], dtype=float32)
    """
    check.decay_rates("scale_by_novograd", b1=b1, b2=b2)
    check.nonnegative("scale_by_novograd", eps=eps, eps_root=eps_root, weight_decay=weight_decay)

    def init(params: PyTree) -> PyTree:
        nu = jax.tree.map(lambda p: jnp.zeros((), precision.real_dtype(jnp.result_type(p))), params)
        return ScaleByNovogradState(moments.zero_count(), moments.zeros(params, mu_dtype), nu)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("scale_by_novograd", params)
        decay = value_at(weight_decay, state.count)

        def rule(g: jax.Array, mu: jax.Array, nu: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
            square = jnp.sum(moments.abs_square(g))
            nu = jnp.where(state.count == 0, square, moments.moving_average(nu, square, b2))
            normalised = moments.over_root(g, nu, eps, eps_root)
            decayed = normalised + hyperparameter(decay, w.dtype) * w
            mu = hyperparameter(b1, mu.dtype) * mu + decayed
            return mu, mu, nu

        given = (decaying_weights(params, mask),)
        updates, mu, nu = leafwise(
            "scale_by_novograd", rule, updates, state.mu, state.nu, given=given
        )
        return updates, ScaleByNovogradState(moments.next_count(state.count), mu, nu)

    return Optimizer(init, update)


@constructor
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    mask: Mask | None = None,
) -> Optimizer:
    """NovoGrad: momentum of gradients that are normalized leaf by leaf, `w = w - learning_rate m`.

    `m = b1 m + g / (√(v + eps_root) + eps) + weight_decay w`, with one second moment for each leaf,
    `v = b2 v + (1 - b2) ‖g‖²` (at first `‖g‖²`): the state is half of Adam's. Unlike optax's, the
    weight decay leaves out biases and scales.

    Paper: Ginsburg et al., Training Deep Networks with Stochastic Normalized Gradient Descent,
    https://arxiv.org/abs/1905.11286

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the momentum, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` with state `(ScaleByNovogradState(count, mu, nu), ...)` whose `update` needs
        the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.novograd(0.1)
        >>> w = jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(w), w)
        >>> state[0].nu
        Array(25., dtype=float32)
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
