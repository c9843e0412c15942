"""A run that keeps its best epoch."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count
from jaxnn._core.types import PyTree
from jaxnn._training.measuring import Metrics
from jaxnn._training.run import Carry, Row, Run, choose


class EarlyStopping(NamedTuple):
    """What `early_stopping` returns; a `patience` of None waits for ever.

    A `mode` of None asks the metric whether less or more is better.
    """

    metric: str
    patience: int | None
    min_delta: float
    mode: Literal["min", "max"] | None


@checked
def early_stopping(
    metric: str = "val_loss",
    *,
    patience: int = 5,
    min_delta: float = 0.0,
    mode: Literal["min", "max"] | None = None,
) -> EarlyStopping:
    """Stop when a metric has not improved for some epochs, and go back to the best.

    For the argument `early_stopping` of `fit` and `training_run`, which look inside of the
    compiled program: networks trained side by side by `jax.vmap` stop each at its own time.

    Args:
        metric: the metric's name in the history.
        patience: the epochs in a row without improvement after which training stops, at least 1.
        min_delta: by how much a value has to be better than the best to improve on it, at least 0.
        mode: "min" if less is better, "max" if more is; None asks the metric (losses and penalties
            are better when less). What `record` or a loss function of your own adds to the history
            has no direction of its own. A value that is infinite or NaN is
            never better.

    Returns:
        An `EarlyStopping`.

    Raises:
        TypeError: `patience` is not an integer.
        ValueError: an argument is out of range; in training, the history has no such metric, it
            is not one number, or nobody knows its direction.

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
        best = Best(no_value(), before, jnp.zeros((), jnp.int32), *copies)
        return carry.keep(best=best)

    def finish(carry: Carry, sums: dict[str, PyTree]) -> tuple[Carry, Row]:
        after, row = run.finish(carry, sums)
        best: Best = carry.kept["best"]
        value = value_of(wanted, row)
        better = is_better(wanted, value, best.value, best.epoch < 0)
        if not wanted.metric.startswith("val_"):  # it is of the params before the last step
            better &= ~_has_nan(carry.train.params)
        now = Best(value, best.epochs, best.epochs, *run.last(carry))
        best = choose(better, now, best)._replace(epochs=best.epochs + 1)
        return after.keep(best=best), row

    def result(carry: Carry) -> tuple[PyTree, PyTree]:
        last = run.result(carry)
        if wanted.patience is None:
            return last
        best: Best = carry.kept["best"]
        chosen: tuple[PyTree, PyTree] = choose(best.epoch >= 0, (best.params, best.state), last)
        return chosen

    def resume(carry: Carry, epoch: jax.Array, fresh: frozenset[str]) -> Carry:
        carry = run.resume(carry, epoch, fresh)
        best: Best = carry.kept["best"]
        if "best" not in fresh:
            return carry
        return carry.keep(best=best._replace(epochs=jnp.array(epoch, copy=True)))

    return run._replace(init=init, finish=finish, result=result, resume=resume)


def _has_nan(params: PyTree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.any(jnp.array([jnp.any(jnp.isnan(leaf)) for leaf in leaves], bool))


def check_not_of_validation(wanted: EarlyStopping) -> None:
    """Raise if early stopping looks at a value of the validation set, where there is none."""
    metric = getattr(wanted, "metric", "")
    if metric.startswith("val_"):
        raise ValueError(
            f"fit: early_stopping looks at {metric!r} and validation is None, expected "
            f"validation=(x, y), or nn.early_stopping({metric.removeprefix('val_')!r})"
        )


def no_value() -> jax.Array:
    """What stands for the best value before there is one."""
    return jnp.zeros((), jnp.result_type(float))


def value_of(wanted: EarlyStopping, row: Row) -> jax.Array:
    """The value of an epoch that is looked at."""
    name = wanted.metric
    if name not in row or jnp.ndim(row[name]) != 0:
        single = sorted(key for key, value in row.items() if jnp.ndim(value) == 0)
        hint = "; 'val_...' needs a validation set" * name.startswith("val_")
        raise ValueError(
            f"the best epoch is told by {name!r}, expected a metric with one value: {single}{hint}"
        )
    return row[name].astype(jnp.result_type(float))


def is_better(
    wanted: EarlyStopping, value: jax.Array, best: jax.Array, is_first: jax.Array
) -> jax.Array:
    """Whether a value improves on the best, or is the first that is finite."""
    if wanted.mode == "max":
        improves = value > best + wanted.min_delta
    else:
        improves = value < best - wanted.min_delta
    return jnp.isfinite(value) & (is_first | improves)


def with_direction(
    function: str, wanted: EarlyStopping, metrics: Metrics, others: tuple[str, ...] | None
) -> EarlyStopping:
    """`wanted` with a mode, that of the metric if none was given.

    `others` are the names of what has no direction; None for all that are not known.
    """
    if wanted.mode is not None:
        return wanted
    name = wanted.metric.removeprefix("val_")
    of_metrics = {name: metric.better for name, metric in metrics}
    directions = {"loss": "less", "penalty": "less", **of_metrics}
    if others is not None:
        directions = dict.fromkeys(others) | directions
        if name not in directions:  # there is no such metric: training names those that there are
            return wanted._replace(mode="min")
    better = directions.get(name)
    if better is None:
        raise ValueError(
            f"{function}: the best epoch is told by {wanted.metric!r}, of which nobody says "
            "whether less or more is better, expected mode='min' or mode='max' beside its name"
        )
    return wanted._replace(mode="min" if better == "less" else "max")
