"""Smaller steps when the loss stops falling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range, concrete, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer
from jaxnn.optimizers._rates import rate, with_rates
from jaxnn.optimizers._scaling import scaled


class ReduceLROnPlateauState(NamedTuple):
    """The factor of the learning rate, the best mean value, and the counts.

    `plateau_count` counts means without improvement, `cooldown_count` those that are still left of
    the cooldown, `count` the values in the mean `avg_value`.
    """

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: jax.Array  # type: ignore[assignment]
    avg_value: jax.Array


@constructor
def reduce_on_plateau(
    factor: Scalar = 0.1,
    patience: Scalar = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: Scalar = 0,
    accumulation_size: Scalar = 1,
    min_scale: Scalar = 0.0,
) -> Optimizer:
    """Reduce the learning rate whenever the loss has stopped falling.

    Updates are multiplied by a scale, 1 at first. Each mean of `accumulation_size` values is
    compared with the best so far; it has improved if it is less than `(1 - rtol) best - atol`.
    After `patience` means without improvement, the scale is multiplied by `factor`; during the next
    `cooldown` means, none are counted.

    The values are the keyword `value` of `update`. `train_step`, `fit` and `training_run` pass the
    loss of each batch: with `accumulation_size` set to the steps per epoch, epochs are compared.

    Args:
        factor: what the scale is multiplied by, in (0, 1); may be traced, as all others.
        patience: how many means without improvement are tolerated, at least 1.
        rtol: the relative improvement that counts, in [0, 1].
        atol: the absolute improvement that counts, at least 0.
        cooldown: how many means to pass over after a reduction, at least 0.
        accumulation_size: the number of values per mean, at least 1.
        min_scale: the smallest scale, at least 0.

    Returns:
        An `Optimizer` with state `ReduceLROnPlateauState(scale, best_value, plateau_count,
        cooldown_count, count, avg_value)`, to be put after another in a `chain`. (In wrappers of
        optax, `optax.GradientTransformationExtraArgs(*it)`, so that they pass on `value`.)

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without `value`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.chain(
        ...     nn.optimizers.sgd(1.0), nn.optimizers.reduce_on_plateau(0.5, patience=2))
        >>> state = optimizer.init(jnp.ones(1))
        >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
        ...     updates, state = optimizer.update(jnp.ones(1), state, value=loss)
        ...     print(updates)
        [-1.]
        [-1.]
        [-1.]
        [-0.5]
        [-0.5]
    """
    name = "reduce_on_plateau"
    check_range(name, "factor", factor, 0, 1)
    if (known := concrete(factor)) is not None and not 0 < known < 1:
        raise ValueError(f"{name}: factor is {factor}, expected a number between 0 and 1")
    check_range(name, "rtol", rtol, 0, 1)
    check.nonnegative(name, atol=atol, min_scale=min_scale)
    check.whole(name, 0, cooldown=cooldown)
    check.whole(name, 1, patience=patience, accumulation_size=accumulation_size)

    def init(params: PyTree) -> PyTree:
        dtype = precision.widest_real_dtype(params)
        return ReduceLROnPlateauState(
            scale=jnp.ones((), dtype),
            best_value=jnp.full((), jnp.finfo(dtype).max, dtype),
            plateau_count=moments.zero_count(),
            cooldown_count=moments.zero_count(),
            count=moments.zero_count(),
            avg_value=jnp.zeros((), dtype),
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.keywords(name, "update(..., value=loss)", value=value)
        dtype = state.scale.dtype
        count = moments.next_count(state.count)
        gain = (hyperparameter(value, dtype) - state.avg_value) / count.astype(dtype)
        state = state._replace(count=count, avg_value=state.avg_value + gain)
        is_full = count >= hyperparameter(accumulation_size, count.dtype)
        compared = _compared(state, factor, patience, rtol, atol, cooldown, min_scale)
        state = jax.tree.map(lambda new, old: jnp.where(is_full, new, old), compared, state)
        return scaled(updates, state.scale), state

    return Optimizer(init, with_rates(update, lambda _, after: {"": rate(after.scale)}))


def _compared(
    state: ReduceLROnPlateauState,
    factor: Scalar,
    patience: Scalar,
    rtol: Scalar,
    atol: Scalar,
    cooldown: Scalar,
    min_scale: Scalar,
) -> ReduceLROnPlateauState:
    """The state after a full mean has been compared with the best."""

    def real(value: ArrayLike) -> jax.Array:
        return hyperparameter(value, state.scale.dtype)

    def integer(value: ArrayLike) -> jax.Array:
        return hyperparameter(value, jnp.int32)

    # The margin is a part of the size of the best value, which may be negative.
    part = jnp.where(state.best_value > 0, 1 - real(rtol), 1 + real(rtol))
    is_better = state.avg_value < part * state.best_value - real(atol)
    is_cooling = state.cooldown_count > 0
    waited = jnp.where(is_better | is_cooling, 0, moments.next_count(state.plateau_count))
    reduces = waited >= integer(patience)
    cooling = jnp.where(reduces, integer(cooldown), jnp.maximum(state.cooldown_count - 1, 0))
    reduced = jnp.where(reduces, state.scale * real(factor), state.scale)
    return ReduceLROnPlateauState(
        scale=jnp.where(is_cooling, state.scale, jnp.maximum(reduced, real(min_scale))),
        best_value=jnp.where(is_better, state.avg_value, state.best_value),
        plateau_count=jnp.where(reduces, 0, waited),
        cooldown_count=cooling,
        count=jnp.zeros_like(state.count),
        avg_value=jnp.zeros_like(state.avg_value),
    )
