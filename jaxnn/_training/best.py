"""The best epoch so far, and when to stop waiting for a better one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import PyTree, check_count


class EarlyStopping(NamedTuple):
    """What `early_stopping` returns; a `patience` of None waits for ever."""

    monitor: str
    patience: int | None
    min_delta: float
    mode: str


def early_stopping(
    monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, mode: str = "min"
) -> EarlyStopping:
    """Stop when a metric has not improved for some epochs, and go back to the best.

    For the argument `early_stopping` of `fit` and `training_run`, which look inside of the
    compiled program: networks trained side by side by `jax.vmap` stop each at its own time.

    Args:
        monitor: the metric's name in the history.
        patience: the epochs in a row without improvement after which training stops, at least 1.
        min_delta: by how much a value has to be better than the best to improve on it, at least 0.
        mode: "min" if smaller is better, "max" if larger is. NaN is never better.

    Returns:
        An `EarlyStopping`.

    Raises:
        TypeError: `patience` is not an integer.
        ValueError: an argument is out of range; in training, the history has no such metric, or
            it is not one number.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> result = nn.fit(nn.dense(1), (x, x), loss=nn.losses.squared_error,
        ...                 optimizer=nn.optimizers.sgd(0.5), key=jax.random.key(0), epochs=1000,
        ...                 early_stopping=nn.early_stopping("loss", patience=3, min_delta=1e-6))
        >>> result.reason, len(result.history["loss"]) < 100
        ('early_stopping', True)
    """
    check_count("early_stopping", "patience", patience)
    if not min_delta >= 0:
        raise ValueError(f"early_stopping: min_delta is {min_delta}, expected at least 0")
    if mode not in ("min", "max"):
        raise ValueError(f"early_stopping: mode is {mode!r}, expected 'min' or 'max'")
    return EarlyStopping(monitor, patience, min_delta, mode)


class Best(NamedTuple):
    """The best value so far, its epoch (counted from 0), params and state, the epochs since."""

    value: jax.Array
    epoch: jax.Array
    waited: jax.Array
    params: PyTree
    state: PyTree


def nothing_yet(wanted: EarlyStopping, params: PyTree, state: PyTree) -> Best:
    """What there is before the first epoch."""
    worst = jnp.inf if wanted.mode == "min" else -jnp.inf
    copies = jax.tree.map(jnp.copy, (params, state))
    value = jnp.full((), worst, jnp.result_type(float))
    return Best(value, jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32), *copies)


def better_of(
    wanted: EarlyStopping, best: Best, row: dict[str, Any], params: PyTree, state: PyTree
) -> tuple[Best, jax.Array]:
    """The best after one more epoch, and whether patience is at its end."""
    name = wanted.monitor
    if name not in row or jnp.ndim(row[name]) != 0:
        single = sorted(key for key, value in row.items() if jnp.ndim(value) == 0)
        raise ValueError(
            f"early_stopping: monitor is {name!r}, expected a metric with one value: {single}"
        )
    value = row[name].astype(best.value.dtype)
    if wanted.mode == "min":
        improved = value < best.value - wanted.min_delta
    else:
        improved = value > best.value + wanted.min_delta
    epoch = best.epoch + best.waited + 1
    waited = jnp.where(improved, 0, best.waited + 1)
    kept = jax.tree.map(
        lambda new, old: jnp.where(improved, new, old), (params, state), (best.params, best.state)
    )
    now = Best(
        jnp.where(improved, value, best.value),
        jnp.where(improved, epoch, best.epoch),
        waited,
        *kept,
    )
    over = jnp.zeros((), bool) if wanted.patience is None else waited >= wanted.patience
    return now, over
