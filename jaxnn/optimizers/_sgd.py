"""Gradient descent, plain and with momentum."""

from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from jaxnn._core.arrays import check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, chain, identity
from jaxnn.optimizers._scaling import scale_by_learning_rate


class TraceState(NamedTuple):
    """The momentum of each parameter."""

    trace: PyTree


@constructor
def trace(
    decay: Scalar,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    averaged: bool = False,
) -> Optimizer:
    """Momentum: `m = decay m + g`, `u = m`.

    With `averaged` an exponential moving average, `m = decay m + (1 - decay) g`. With `nesterov`,
    the momentum of the next step: `u = decay m + g` (or `decay m + (1 - decay) g`).

    Args:
        decay: decay rate of the momentum, in [0, 1]; may be traced.
        nesterov: whether to use Nesterov momentum.
        accumulator_dtype: dtype of the momentum; None for float32 or wider.
        averaged: whether the momentum is an average of gradients rather than a sum.

    Returns:
        An `Optimizer` with state `TraceState(trace)`.

    Raises:
        ValueError: `decay` is outside [0, 1]; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> momentum = nn.optimizers.trace(0.9)
        >>> state = momentum.init(jnp.zeros(1))
        >>> u, state = momentum.update(jnp.ones(1), state)
        >>> momentum.update(jnp.ones(1), state)[0]
        Array([1.9], dtype=float32)
    """
    check_range("trace", "decay", decay, 0, 1)

    def init(params: PyTree) -> PyTree:
        return TraceState(moments.zeros(params, accumulator_dtype))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.gradients("trace", updates)
        same_structure("trace", state=state.trace, updates=updates)

        def push(g: jax.Array, v: jax.Array) -> jax.Array:
            g = widen(g)
            b = hyperparameter(decay, g.dtype)
            return b * v.astype(g.dtype) + ((1 - b) * g if averaged else g)

        momentum = jax.tree.map(push, updates, state.trace)
        ahead = jax.tree.map(push, updates, momentum) if nesterov else momentum
        new_trace = jax.tree.map(precision.cast_like, momentum, state.trace)
        return jax.tree.map(precision.cast_like, ahead, updates), TraceState(new_trace)

    return Optimizer(init, update)


def check_momentum(optimizer: str, momentum: Scalar | None, **variants: bool) -> None:
    """Raise unless `momentum` is in [0, 1], or None and no variant of it is asked for."""
    asked_for = [name for name, wanted in variants.items() if wanted]
    if momentum is not None:
        check_range(optimizer, "momentum", momentum, 0, 1)
    elif asked_for:
        raise ValueError(
            f"{optimizer}: {asked_for[0]} is True and momentum None, expected a number"
        )


@constructor
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    averaged: bool = False,
) -> Optimizer:
    """Stochastic gradient descent: `w = w - learning_rate g`, or with momentum m in place of g.

    - with `momentum` β: `m = β m + g`, up to `1 / (1 - β)` times the gradient;
    - with `averaged` as well: an exponential moving average, `m = β m + (1 - β) g`;
    - with `nesterov`, `β m + g` (or `β m + (1 - β) g`) takes the place of `m` in the update.

    Paper: Sutskever et al., On the importance of initialization and momentum in deep learning,
    https://proceedings.mlr.press/v28/sutskever13.html

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        momentum: decay rate β of the momentum, in [0, 1], or None; may be traced.
        nesterov: whether to use Nesterov momentum.
        accumulator_dtype: dtype of the momentum; None for float32 or wider.
        averaged: whether the momentum is an average of gradients rather than a sum.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: a hyperparameter is out of range, or `nesterov` or `averaged` is
            asked for without `momentum`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.sgd(0.1, momentum=0.9)
        >>> w = jnp.array([1.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(2):                       # minimises w², whose gradient is 2w
        ...     updates, state = optimizer.update(2 * w, state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> round(w.item(), 4)
        0.46
    """
    check_momentum("sgd", momentum, nesterov=nesterov, averaged=averaged)
    descent = (
        identity()
        if momentum is None
        else trace(momentum, nesterov, accumulator_dtype, averaged=averaged)
    )
    return chain(descent, scale_by_learning_rate(learning_rate))
