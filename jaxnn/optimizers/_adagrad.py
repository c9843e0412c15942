"""Adagrad."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate


class ScaleByRssState(NamedTuple):
    """The sum of the squared gradients."""

    sum_of_squares: PyTree


@constructor
def scale_by_rss(
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """Divide by the root of the sum of all squared gradients: `s = s + g²`, `u = g / √(s + eps)`.

    See `adagrad` for the arguments.

    Returns:
        An `Optimizer` with state `ScaleByRssState(sum_of_squares)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_rss(initial_accumulator_value=9.0)
        >>> optimizer.update(jnp.array([4.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([0.8], dtype=float32)
    """
    check.nonnegative("scale_by_rss", initial_accumulator_value=initial_accumulator_value, eps=eps)

    def init(params: PyTree) -> PyTree:
        return ScaleByRssState(moments.zero_squares(params, initial_accumulator_value))

    def rule(g: jax.Array, total: jax.Array) -> tuple[jax.Array, ...]:
        total = total + moments.abs_square(g)
        epsilon = hyperparameter(eps, total.dtype)
        root = (
            moments.safe_sqrt(total + epsilon)
            if eps_in_sqrt
            else moments.safe_sqrt(total) + epsilon
        )
        # Where all gradients were zero the update is, whatever eps.
        return g / jnp.where(total > 0, root, 1).astype(g.dtype), total

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        updates, total = leafwise("scale_by_rss", rule, updates, state.sum_of_squares)
        return updates, ScaleByRssState(total)

    return Optimizer(init, update)


@constructor
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """Adagrad: `s = s + g²`, `w = w - learning_rate g / √(s + eps)`.

    The effective learning rate of each parameter falls with its accumulated squared gradients.
    torch's Adagrad is `adagrad(learning_rate, 0.0, 1e-10, eps_in_sqrt=False)`.

    Paper: Duchi, Hazan and Singer, Adaptive Subgradient Methods,
    https://jmlr.org/papers/v12/duchi11a.html

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        initial_accumulator_value: the initial value of s, at least 0; may be traced.
        eps: a small constant added to the sum, or to its square root if not `eps_in_sqrt`.
        eps_in_sqrt: whether `eps` is inside the square root (torch: outside).

    Returns:
        An `Optimizer` with state `(ScaleByRssState(sum_of_squares), ...)`.

    Raises:
        ValueError: a hyperparameter is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adagrad(1.0, initial_accumulator_value=0.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for _ in range(4):                       # by the same gradient: 1 / √t
        ...     updates, state = optimizer.update(jnp.array([8.0]), state)
        >>> updates
        Array([-0.5], dtype=float32)
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
