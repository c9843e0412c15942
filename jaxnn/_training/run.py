"""A whole training run as one pure function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._combinators.copies import copy_keys
from jaxnn._core.arrays import PyTree, check_count, check_key
from jaxnn._core.construction import refuse_constructor
from jaxnn._core.layer import Layer
from jaxnn._training import engine
from jaxnn._training.best import EarlyStopping
from jaxnn._training.data.arrays import (
    check_set,
    count_examples,
    effective_batch_size,
    example_of,
    take_batch,
)
from jaxnn._training.task import Task, check_initial, checked_task
from jaxnn.metrics import Metric
from jaxnn.optimizers._base import identity, is_optimizer


def training_run(
    model: Any,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    optimizer: Any,
    epochs: int,
    batch_size: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    regularizer: Callable[[PyTree], Any] | None = None,
    shuffle: bool = True,
    monitor: Sequence[str] = (),
    early_stopping: EarlyStopping | None = None,
    on_nonfinite: str | None = None,
) -> Callable[..., tuple[PyTree, PyTree, dict[str, jax.Array]]]:
    """A whole training run as one pure function, to be jitted, vmapped or differentiated.

    Whatever depends on hyperparameters is made inside of a function of them, which may be traced
    as any other: `model` and `optimizer` may be such functions, and for a loss, a regularizer or
    anything else `training_run` itself is called inside of one.

    Args:
        model: a `Layer`, or a function of the hyperparameters that returns one. An `ensemble`
            trains its members side by side, each as it would be alone. Without `loss`, a whole
            loss function, `loss_fn(params, state, batch, key) -> (loss, (state, metrics))` as in
            `train_step`: its `metrics` are averaged over the examples of an epoch, and on a
            validation set its `key` is None.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            objective is their mean, by the weights of the examples if there are any.
        optimizer: an `Optimizer` or optax transformation, or a function of the hyperparameters
            that returns one.
        epochs: how many times to go through the data.
        batch_size: the examples in a step; None for all of them. If it does not divide their
            number, the last batch of an epoch is smaller.
        metrics: `nn.metrics` by name, for the history.
        regularizer: a penalty on the params that is added to the objective, as any of
            `nn.regularizers`.
        shuffle: whether each epoch has its own random order.
        monitor: what else is in the history, the mean over the steps of each epoch: any of
            "learning_rate", "gradient_norm" and "update_norm", see `train_step`.
        early_stopping: `nn.early_stopping(...)`: after it the history is NaN, and the params and
            state of the best epoch are returned.
        on_nonfinite: what to do about a step whose loss or gradient is infinite or NaN: None for
            nothing, "skip" to leave it out (the history counts them as "skipped"), "stop" to end
            training before it, the history being NaN from that epoch on.

    Returns:
        `train(key, data, hyperparams=None, validation=None, *, params=None, state=None) ->
        (params, state, history)`. `data` and `validation` are `(x, y)` or `(x, y, weights)`,
        arrays or pytrees of arrays with the examples along axis 0; for a loss function, any
        pytree of such arrays. `params` and `state` are where to begin, if given. `history` has an
        array of length `epochs` for "loss" (without the penalty), "penalty" and each metric, as
        seen in training, and with "val_" before the name for the validation set, after each
        epoch; for an ensemble each array has a second axis for the members. The params that are
        validated and returned are those of `nn.optimizers.evaluation_params`: an average, if the
        optimizer keeps one.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `epochs` or `batch_size` is less than 1; a name is unknown; there is nothing
            to begin with: a loss function, and no `params`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> train = nn.training_run(nn.serial(nn.dense(16), nn.tanh, nn.dense(1)),
        ...                         loss=nn.losses.squared_error, optimizer=nn.optimizers.adam,
        ...                         epochs=100, batch_size=16)
        >>> rates = jnp.array([1e-5, 1e-2])
        >>> run = jax.jit(jax.vmap(train, in_axes=(None, None, 0)))  # one network for each rate
        >>> _, _, history = run(jax.random.key(0), (x, x ** 2), rates)
        >>> history["loss"].shape, bool(history["loss"][1, -1] < 0.01)
        ((2, 100), True)
    """
    check_count("training_run", "epochs", epochs)

    def task_of(model: Any, optimizer: Any) -> Task:
        return checked_task(
            "training_run",
            model,
            loss,
            optimizer,
            metrics=metrics,
            regularizer=regularizer,
            batch_size=batch_size,
            shuffle=shuffle,
            monitor=monitor,
            early_stopping=early_stopping,
            on_nonfinite=on_nonfinite,
            outcomes=("skip", "stop"),
        )

    makes_model = loss is not None and callable(model) and not isinstance(model, Layer)
    makes_optimizer = callable(optimizer) and not is_optimizer(optimizer)
    if makes_model:
        refuse_constructor(model, "training_run: model")
    task_of((lambda x: x) if makes_model else model, identity() if makes_optimizer else optimizer)

    def train(
        key: jax.Array,
        data: PyTree,
        hyperparams: Any = None,
        validation: PyTree = None,
        *,
        params: PyTree = None,
        state: PyTree = None,
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        check_key("training_run", key)
        task = task_of(
            model(hyperparams) if makes_model else model,
            optimizer(hyperparams) if makes_optimizer else optimizer,
        )
        check_initial("training_run", task, params)
        data, n = as_arrays(task, "data", data)
        epoch = engine.Epoch(n, effective_batch_size("training_run", batch_size, n))
        if validation is not None:
            validation, _ = as_arrays(task, "validation", validation)
        if params is not None and state is None:
            state = {}

        def one(key: jax.Array, params: PyTree, state: PyTree) -> Any:
            return run_of_one(task, epoch, epochs, key, data, validation, params, state)

        if task.members is None:
            return one(key, params, state)  # type: ignore[no-any-return]
        keys = copy_keys("training_run", key, task.members)
        params, state, history = jax.vmap(one)(keys, params, state)
        return params, state, {name: jnp.moveaxis(rows, 0, 1) for name, rows in history.items()}

    return train


def as_arrays(task: Task, name: str, data: Any) -> tuple[PyTree, int]:
    """A data set, perhaps traced, as arrays, and the number of its examples."""
    check_set("training_run", name, data, supervised=task.model is not None)
    arrays = jax.tree.map(jnp.asarray, tuple(data) if isinstance(data, list) else data)
    return arrays, count_examples("training_run", name, arrays)


def run_of_one(
    task: Task,
    epoch: engine.Epoch,
    epochs: int,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    params: PyTree,
    state: PyTree,
) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
    """The run of one network, or of one member of an ensemble."""
    Done = tuple[engine.Carry, engine.Row]

    def train_on(carry: engine.Carry, seeds: jax.Array | None) -> Done:
        def one_step(carry: engine.Carry, position: Any, size: int = epoch.size) -> Any:
            first = position * epoch.size
            batch = take_batch(data, epoch.n, first, size, seeds)
            return engine.step(task, carry, batch, first), None

        if epoch.full == 1:
            carry, _ = one_step(carry, 0)
        else:
            carry, _ = lax.scan(one_step, carry, jnp.arange(epoch.full))
        if epoch.rest:
            carry, _ = one_step(carry, epoch.full, epoch.rest)
        return engine.finish(task, carry, validation)

    def unless_stopped(carry: engine.Carry, seeds: jax.Array | None) -> Done:
        """`train_on`, or nothing; keys stay outside of the choice, which would count as a use."""
        key = carry.train.key
        key_data, key_impl = jax.random.key_data(key), jax.random.key_impl(key)

        def trained() -> Done:
            own_key = jax.random.wrap_key_data(key_data, impl=key_impl)
            after, row = train_on(engine.with_key(carry, own_key), seeds)
            return engine.with_key(after, None), row

        _, row = jax.eval_shape(trained)
        nothing = {name: jnp.full(v.shape, jnp.nan, v.dtype) for name, v in row.items()}
        after, row = lax.cond(
            carry.stopped, lambda: (engine.with_key(carry, None), nothing), trained
        )
        return engine.with_key(after, key), row

    def one_epoch(carry: engine.Carry, number: jax.Array) -> Done:
        seeds = engine.order(task, epoch, key, number)
        fresh = carry._replace(sums=jax.tree.map(jnp.zeros_like, sums))
        after, row = (unless_stopped if engine.can_stop(task) else train_on)(fresh, seeds)
        return after._replace(sums={}), row

    carry = engine.start(task, key, example_of(data), epoch.n, params, state)

    def some_epochs(carry: engine.Carry, numbers: jax.Array) -> Done:
        return lax.scan(one_epoch, carry, numbers)

    at_hand = max(rows for rows in range(1, engine.ROWS_AT_HAND + 1) if epochs % rows == 0)
    sums, carry = carry.sums, carry._replace(sums={})  # which do not outlive an epoch
    carry, history = lax.scan(some_epochs, carry, jnp.arange(epochs).reshape(-1, at_hand))
    params, state = engine.result(task, carry)
    return params, state, {name: lax.collapse(rows, 0, 2) for name, rows in history.items()}
