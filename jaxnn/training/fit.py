"""The host's view of a training run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._arrays import PyTree, check_count, check_key
from jaxnn.callbacks import Callback, Event
from jaxnn.layer import as_layer
from jaxnn.metrics import Metric
from jaxnn.optimizers.averaging import evaluation_params
from jaxnn.optimizers.base import check_optimizer
from jaxnn.training import engine, program
from jaxnn.training.checks import check_labels, check_metrics
from jaxnn.training.data import effective_batch_size, on_device
from jaxnn.training.evaluation import Loss
from jaxnn.training.host import Host
from jaxnn.training.monitor import check_monitor
from jaxnn.training.progress import progress_callback


class FitResult(NamedTuple):
    """What `fit` returns: `history` has an array for each metric, one value per finished epoch."""

    params: PyTree
    state: PyTree
    history: dict[str, np.ndarray]
    opt_state: PyTree


def fit(
    model: Any,
    data: Any,
    *,
    loss: Loss,
    optimizer: Any,
    key: jax.Array,
    epochs: int,
    batch_size: int | None = None,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    regularizer: Callable[[PyTree], Any] | None = None,
    shuffle: bool = True,
    monitor: Sequence[str] = (),
    callbacks: Sequence[Callback | Callable[[Event], Any]] = (),
    progress: bool | str | None = None,
    params: PyTree = None,
    state: PyTree = None,
) -> FitResult:
    """Train a model: `training_run` as seen from the host, with progress and callbacks.

    The run is one compiled program that is told how many steps to take. `fit` calls it with as
    many as fill a fifth of a second, so that a tiny network does not wait for the host and a large
    one is not silent; how a run is cut never changes a number. With the same key, the result
    equals that of `training_run` to rounding. A second call with the same model, loss, optimizer,
    metrics and shapes compiles nothing.

    Args:
        model: a `Layer`, or a plain function of arrays.
        data: a pair `(x, y)` of arrays, or pytrees of arrays, with the examples along axis 0.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            objective is their mean.
        optimizer: an `Optimizer` or optax transformation.
        key: a typed PRNG key: initial parameters, order of the examples and noise follow from it.
        epochs: how many times to go through the data.
        batch_size: the examples in a step; None for all of them. If it does not divide their
            number, the last batch of an epoch is smaller.
        validation: a pair `(x, y)` on which loss and metrics are evaluated after each epoch.
        metrics: `nn.metrics` by name, for the history.
        regularizer: a penalty on the params that is added to the objective, as any of
            `nn.regularizers`.
        shuffle: whether each epoch has its own random order.
        monitor: what else is in the history, the mean over the steps of each epoch: any of
            "learning_rate", "gradient_norm" and "update_norm", see `train_step`.
        callbacks: `nn.callbacks.Callback`s, or plain functions of an `Event`, called after each
            epoch; a true result stops training.
        progress: True for a bar (with the extra `progress`) in a terminal and lines elsewhere,
            False for nothing, None for a bar in a terminal and nothing elsewhere, "bar" or "lines"
            for either anywhere.
        params: initial parameters; None to make them.
        state: initial state, if `params` is given.

    Returns:
        A `FitResult`: `params`, `state`, `history` and `opt_state`. The history has "loss"
        (without the penalty), "penalty" and each metric, as seen in training, and with "val_"
        before the name on the validation set. The params that are validated, given to callbacks
        and returned are those of `nn.optimizers.evaluation_params`: an average, if the optimizer
        keeps one.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range; the data's lengths differ; a label is outside the
            classes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> result = nn.fit(nn.serial(nn.dense(16), nn.tanh, nn.dense(1)), (x, x ** 2),
        ...                 loss=nn.losses.squared_error, optimizer=nn.optimizers.adam(1e-2),
        ...                 key=jax.random.key(0), epochs=100, batch_size=16, progress=False)
        >>> result.history["loss"].shape, bool(result.history["loss"][-1] < 0.01)
        ((100,), True)
    """
    check_key("fit", key)
    check_count("fit", "epochs", epochs)
    check_optimizer(optimizer, "fit: optimizer")
    if not callable(loss):
        raise TypeError(f"fit: loss is {loss!r}, expected a function of (predictions, y)")
    task = engine.Task(
        as_layer(model, "fit: model"),
        loss,
        optimizer,
        regularizer,
        check_metrics("fit", metrics),
        batch_size,
        shuffle,
        check_monitor("fit", monitor),
    )
    hooks = [_as_callback(callback) for callback in callbacks]
    data, n = on_device("fit", "data", data)
    epoch = engine.Epoch(n, effective_batch_size("fit", batch_size, n))
    if validation is not None:
        validation, _ = on_device("fit", "validation", validation)
    if params is not None:
        params, state = _copy(params), _copy({} if state is None else state)

    check_labels("fit", task.model, loss, data=data, validation=validation)
    bar = progress_callback(progress, epoch.steps * epochs)

    run = Host(epoch, epochs, [*hooks, *([bar] if bar else [])])
    carry, history = program.start(task, epochs, key, data, validation, params, state)
    while run.step < run.steps and not run.stopped:
        target = run.next_target()
        carry, history, running_loss = program.run_until(
            task, epoch, carry, history, key, data, validation, target
        )
        run.advance(target, carry, history, running_loss)
    run.end(carry, history)
    finished = run.step // epoch.steps
    rows = {name: np.array(values)[:finished] for name, values in history.items()}
    train = carry.train
    params = evaluation_params(train.opt_state, train.params)
    return FitResult(params, train.state, rows, train.opt_state)


def _as_callback(callback: Any) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if callable(callback):
        return Callback(on_epoch=callback)
    raise TypeError(
        f"fit: callbacks has {callback!r}, expected a Callback or a function of an Event"
    )


def _copy(tree: PyTree) -> PyTree:
    """Arrays of our own, since the run gives their memory to its results."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
