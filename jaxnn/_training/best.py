"""A run that keeps its best epoch."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import check_count
from jaxnn._core.types import PyTree
from jaxnn._training.run import Carry, Row, Run, choose


class EarlyStopping(NamedTuple):
    """What `early_stopping` returns; a `patience` of None waits for ever."""

    metric: str
    patience: int | None
    min_delta: float
    mode: str


def early_stopping(
    metric: str = "val_loss",
    *,
    patience: int = 5,
    min_delta: float = 0.0,
    mode: Literal["min", "max"] = "min",
) -> EarlyStopping:
    """Stop when a metric has not improved for some epochs, and go back to the best.

    For the argument `early_stopping` of `fit` and `training_run`, which look inside of the
    compiled program: networks trained side by side by `jax.vmap` stop each at its own time.

    Args:
        metric: the metric's name in the history.
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
    return EarlyStopping(metric, patience, min_delta, mode)


class Best(NamedTuple):
    """The best value so far, its epoch, params and state; and how many epochs there were."""

    value: jax.Array
    epoch: jax.Array  # counted from 0; -1 before the first
    epochs: jax.Array
    params: PyTree
    state: PyTree


def keeping_best(run: Run, wanted: EarlyStopping) -> Run:
    """The run that keeps its best epoch, and returns it if it is to stop early."""

    def init(*arguments: Any) -> Carry:
        carry = run.init(*arguments)
        copies = jax.tree.map(jnp.copy, (carry.train.params, carry.train.state))
        before = jnp.full((), -1, jnp.int32)
        best = Best(worst_value(wanted), before, jnp.zeros((), jnp.int32), *copies)
        return carry._replace(kept=carry.kept | {"best": best})

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        best: Best = carry.kept["best"]
        value = value_of(wanted, row)
        better = is_better(wanted, value, best.value)
        now = Best(value, best.epochs, best.epochs, *run.last(carry))
        best = choose(better, now, best)._replace(epochs=best.epochs + 1)
        return after._replace(kept=after.kept | {"best": best}), row

    def result(carry: Carry) -> tuple[PyTree, PyTree]:
        last = run.result(carry)
        if wanted.patience is None:
            return last
        best: Best = carry.kept["best"]
        chosen: tuple[PyTree, PyTree] = choose(best.epoch >= 0, (best.params, best.state), last)
        return chosen

    return run._replace(init=init, finish=finish, result=result)


def worst_value(wanted: EarlyStopping) -> jax.Array:
    """What every value is better than."""
    worst = jnp.inf if wanted.mode == "min" else -jnp.inf
    return jnp.full((), worst, jnp.result_type(float))


def value_of(wanted: EarlyStopping, row: Row) -> jax.Array:
    """The value of an epoch that is looked at."""
    name = wanted.metric
    if name not in row or jnp.ndim(row[name]) != 0:
        single = sorted(key for key, value in row.items() if jnp.ndim(value) == 0)
        raise ValueError(
            f"early_stopping: metric is {name!r}, expected a metric with one value: {single}"
        )
    return row[name].astype(jnp.result_type(float))


def is_better(wanted: EarlyStopping, value: jax.Array, best: jax.Array) -> jax.Array:
    """Whether a value improves on the best."""
    if wanted.mode == "min":
        return value < best - wanted.min_delta
    return value > best + wanted.min_delta
