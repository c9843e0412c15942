"""Gradient descent, plain and with momentum."""

from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import PyTree, check_range, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, ScalarOrSchedule, chain, identity
from jaxnn.optimizers._scaling import scale_by_learning_rate


class TraceState(NamedTuple):
    """The velocity of each parameter."""

    trace: PyTree


@constructor
def trace(
    decay: ArrayLike,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    averaged: bool = False,
) -> Optimizer:
    """Momentum: `v = decay * v + g`, `u = v`.

    With `averaged`, the new gradient counts `1 - decay`: `v = decay * v + (1 - decay) * g`.
    With `nesterov`, the velocity is looked up a step ahead: `u = decay * v + g` (or
    `decay * v + (1 - decay) * g`).

    Args:
        decay: the weight of the old velocity, in [0, 1]; may be traced.
        nesterov: whether to look ahead.
        accumulator_dtype: the dtype of the velocity; None for float32 or wider.
        averaged: whether the velocity is an average of gradients rather than a sum.

    Returns:
        An `Optimizer` with state `TraceState(trace)`.

    Raises:
        ValueError: `decay` is known and outside [0, 1]; the structures differ.

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
        same_structure("trace", state=state.trace, updates=updates)

        def push(g: jax.Array, v: jax.Array) -> jax.Array:
            g = widen(g)
            b = hyperparameter(decay, g.dtype)
            return b * v.astype(g.dtype) + ((1 - b) * g if averaged else g)

        velocity = jax.tree.map(push, updates, state.trace)
        ahead = jax.tree.map(push, updates, velocity) if nesterov else velocity
        new_trace = jax.tree.map(precision.cast_like, velocity, state.trace)
        return jax.tree.map(precision.cast_like, ahead, updates), TraceState(new_trace)

    return Optimizer(init, update)


def check_momentum(optimizer: str, momentum: ArrayLike | None, **variants: bool) -> None:
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
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    averaged: bool = False,
) -> Optimizer:
    """Stochastic gradient descent: `w = w - learning_rate * v`.

    - plain: `v = g`;
    - with `momentum` β: `v = β v + g`, which gathers speed up to `1 / (1 - β)` times the gradient;
    - with `averaged` as well: `v = β v + (1 - β) g`, which does not;
    - with `nesterov`, `β v + g` (or `β v + (1 - β) g`) takes the place of `v` in the update.

    Paper: Sutskever et al., On the importance of initialization and momentum in deep learning,
    https://proceedings.mlr.press/v28/sutskever13.html

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        momentum: β, in [0, 1], or None; may be traced.
        nesterov: whether to look ahead.
        accumulator_dtype: the dtype of the velocity; None for float32 or wider.
        averaged: whether the velocity is an average of gradients rather than a sum.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: a hyperparameter is known and out of range, or `nesterov` or `averaged` is
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
    velocity = (
        identity()
        if momentum is None
        else trace(momentum, nesterov, accumulator_dtype, averaged=averaged)
    )
    return chain(velocity, scale_by_learning_rate(learning_rate))
