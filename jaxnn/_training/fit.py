"""The host's view of a training run."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn._combinators.copies import copy_keys
from jaxnn._core.arrays import PyTree, check_count, check_key
from jaxnn._core.layer import child_key
from jaxnn._training import engine, program
from jaxnn._training.best import EarlyStopping
from jaxnn._training.checks import check_labels
from jaxnn._training.data.arrays import check_set, effective_batch_size, on_device
from jaxnn._training.data.sources import as_source, is_streamed
from jaxnn._training.host.checkpoints import Checkpoints, best_to_keep
from jaxnn._training.host.feeds import Feed, Resident, Streamed
from jaxnn._training.host.interrupts import interruptible
from jaxnn._training.host.loop import Host
from jaxnn._training.host.progress import progress_callback
from jaxnn._training.nonfinite import CHOICES, described
from jaxnn._training.task import Task, check_initial, checked_task
from jaxnn.callbacks import Callback, Event
from jaxnn.metrics import Metric


class FitResult(NamedTuple):
    """What `fit` returns: `history` has an array for each metric, one value per finished epoch.

    `reason` says why training ended: "epochs" if all were done, "early_stopping", "callback",
    "interrupted" by Ctrl-C, or "nonfinite".
    """

    params: PyTree
    state: PyTree
    history: dict[str, np.ndarray]
    opt_state: PyTree
    reason: str


def fit(
    model: Any,
    data: Any,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    optimizer: Any,
    key: jax.Array,
    epochs: int,
    batch_size: int | None = None,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    regularizer: Callable[[PyTree], Any] | None = None,
    shuffle: bool = True,
    monitor: Sequence[str] = (),
    early_stopping: EarlyStopping | None = None,
    on_nonfinite: str | None = None,
    callbacks: Sequence[Callback | Callable[[Event], Any]] = (),
    progress: bool | str | None = None,
    params: PyTree = None,
    state: PyTree = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
) -> FitResult:
    """Train a model: `training_run` as seen from the host, with progress and callbacks.

    For data in memory, the run is one compiled program that is told how many steps to take. `fit`
    calls it with as many as fill a fifth of a second, so that a tiny network does not wait for
    the host and a large one is not silent; how a run is cut never changes a number. With the same
    key, the result equals that of `training_run` to rounding. A second call with the same model,
    loss, optimizer, metrics and shapes compiles nothing. The first Ctrl-C ends training after the
    steps under way and `fit` returns what was learned.

    Args:
        model: a `Layer`, or a plain function of arrays. An `ensemble` trains its members side by
            side, each as it would be alone. Without `loss`, a whole loss function,
            `loss_fn(params, state, batch, key) -> (loss, (state, metrics))` as in `train_step`:
            its `metrics` are averaged over the examples of an epoch, and on a validation set its
            `key` is None.
        data: `(x, y)` or `(x, y, weights)`, arrays or pytrees of arrays with the examples along
            axis 0; for a loss function, any pytree of such arrays. Data with an `np.memmap` are
            read batch by batch. Or batches that somebody else makes: an iterable, or a function
            of the number of the epoch that returns one; a thread draws them ahead.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            objective is their mean, by the weights of the examples if there are any.
        optimizer: an `Optimizer` or optax transformation.
        key: a typed PRNG key: initial parameters, order of the examples and noise follow from it.
        epochs: how many times to go through the data.
        batch_size: the examples in a step; None for all of them. If it does not divide their
            number, the last batch of an epoch is smaller. Batches of an iterable are what they are.
        validation: as `data`; loss and metrics are evaluated on it after each epoch.
        metrics: `nn.metrics` by name, for the history.
        regularizer: a penalty on the params that is added to the objective, as any of
            `nn.regularizers`.
        shuffle: whether each epoch has its own random order; that of an iterable is its own.
        monitor: what else is in the history, the mean over the steps of each epoch: any of
            "learning_rate", "gradient_norm" and "update_norm", see `train_step`.
        early_stopping: `nn.early_stopping(...)`: the params and state of the best epoch are
            returned.
        on_nonfinite: what to do about a step whose loss or gradient is infinite or NaN: None for
            nothing; "raise", an error that names the step and the leaves; "skip" to leave it out
            (the history counts them as "skipped"); "stop" to end training before it.
        callbacks: `nn.callbacks.Callback`s, or plain functions of an `Event`, called after each
            epoch; a true result stops training.
        progress: True for a bar (with the extra `progress`) in a terminal and lines elsewhere,
            False for nothing, None for a bar in a terminal and nothing elsewhere, "bar" or "lines"
            for either anywhere.
        params: initial parameters; None to make them.
        state: initial state, if `params` is given.
        checkpoint: a directory. `last.safetensors` in it is written about once a minute and at
            the end and has all that is needed to go on; `best.safetensors` has
            `{"params": ..., "state": ...}` of the best epoch so far, by `early_stopping`, else by
            the loss on the validation set, if there is one, else by the loss.
        resume: whether to go on from what is in `checkpoint`, if anything is: on the same machine
            with the same versions, bit for bit as if training had never been interrupted. The
            other arguments must be those of the first call, but for `epochs`. An iterable, or
            function, must give the same batches again.

    Returns:
        A `FitResult`: `params`, `state`, `history`, `opt_state` and `reason`. The history has
        "loss" (without the penalty), "penalty" and each metric, as seen in training, and with
        "val_" before the name on the validation set; for an ensemble each array has a second axis
        for the members. The params that are validated, given to callbacks and returned are those
        of `nn.optimizers.evaluation_params`: an average, if the optimizer keeps one.

    Raises:
        FileExistsError: `checkpoint` has a run, and `resume` is false.
        FloatingPointError: `on_nonfinite` is "raise", and a loss or gradient is not finite.
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range; the data's lengths differ; a label is outside the
            classes; the checkpoint is damaged, or of another run.

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
    task = checked_task(
        "fit",
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
        outcomes=CHOICES,
    )
    check_initial("fit", task, params)
    if resume and checkpoint is None:
        raise ValueError("fit: resume is True and checkpoint is None, expected a directory")
    if checkpoint is not None and task.best is None:
        task = task._replace(best=best_to_keep(validation is not None))
    hooks = [_as_callback(callback) for callback in callbacks]
    keys = key if task.members is None else copy_keys("fit", key, task.members)
    feed = _feed(task, epochs, keys, data, validation)
    if params is not None and state is None:
        state = {}
    bar = progress_callback(progress, feed.steps_per_epoch, epochs)
    host = Host(task, feed, feed.start(keys, params, state), epochs, hooks, bar)
    keeper = None if checkpoint is None else Checkpoints(checkpoint, host, key, resume)
    with interruptible() as interrupt:
        try:
            while not host.is_over and not interrupt.is_set():
                host.advance()
                if keeper is not None:
                    keeper.save_if_due()
        finally:
            feed.close()
        if keeper is not None:
            keeper.save()
    host.end()
    carry = host.run.carry
    if on_nonfinite == "raise" and carry.trouble is not None and np.any(carry.trouble.step >= 0):
        raise FloatingPointError(f"fit: {described(carry.trouble, carry.train.params)}")
    params, state = program.results(task, carry)
    return FitResult(params, state, host.history(), carry.train.opt_state, host.reason)


def _feed(task: Task, epochs: int, key: jax.Array, data: Any, validation: Any) -> Feed:
    """What brings the data: from the device's memory, unless some are streamed."""
    supervised = task.model is not None
    if is_streamed(data) or is_streamed(validation):
        order_key = child_key(key, "shuffle") if task.shuffle and task.members is None else None
        source = as_source("fit", "data", data, batch_size=task.batch_size, shuffle_key=order_key)
        check_set("fit", "data", source.example, supervised)
        if is_streamed(validation):
            validation = as_source(
                "fit", "validation", validation, batch_size=task.batch_size, shuffle_key=None
            )
        elif validation is not None:
            validation, _ = on_device("fit", "validation", validation, supervised)
        return Streamed(task, epochs, source, validation)
    data, n = on_device("fit", "data", data, supervised)
    if validation is not None:
        validation, _ = on_device("fit", "validation", validation, supervised)
    if task.model is not None:
        check_labels("fit", task.model, task.loss, data=data, validation=validation)
    epoch = engine.Epoch(n, effective_batch_size("fit", task.batch_size, n))
    return Resident(task, epochs, epoch, key, data, validation)


def _as_callback(callback: Any) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if callable(callback):
        return Callback(on_epoch=callback)
    raise TypeError(
        f"fit: callbacks has {callback!r}, expected a Callback or a function of an Event"
    )
