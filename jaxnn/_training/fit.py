"""The host's view of a training run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxnn._combinators.copies import copy_keys
from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.layer import LayerLike, as_layer, child_key
from jaxnn._core.processes import ALONE, Group
from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import Arrays, Data, Loss, LossFunction, OptimizerLike, PyTree, Regularizer
from jaxnn._training.best import EarlyStopping, check_not_of_validation
from jaxnn._training.checks import check_labels, warn_of_narrow_params, warn_of_side_by_side
from jaxnn._training.data.arrays import (
    check_set,
    check_steps,
    effective_batch_size,
    on_device,
)
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.data.placed import own_rows
from jaxnn._training.data.sources import as_source, is_streamed
from jaxnn._training.evaluation import reported
from jaxnn._training.guard import OnNonfinite, bad_steps_of, described
from jaxnn._training.host.checkpoints import Checkpoints
from jaxnn._training.host.clock import Clock
from jaxnn._training.host.feeds import Feed, InMemory, Streamed
from jaxnn._training.host.identity import Told, check_same, entire, sample, told
from jaxnn._training.host.interrupts import interruptible, is_preempted
from jaxnn._training.host.options import CheckpointOptions, as_options, best_to_keep
from jaxnn._training.host.owner import opened
from jaxnn._training.host.progress import progress_callback
from jaxnn._training.host.watchers import Watchers
from jaxnn._training.hyperparams import as_arrays, made, makes_model, makes_optimizer, names_of
from jaxnn._training.loop import Position
from jaxnn._training.measuring import MetricsByName
from jaxnn._training.outside import finder
from jaxnn._training.run import Carry, Run
from jaxnn._training.run_of import check_initial, checked_run
from jaxnn._training.stop import rows_that_count
from jaxnn.callbacks import Event
from jaxnn.callbacks._callbacks import CallbackLike

Reason = Literal["epochs", "early_stopping", "callback", "interrupted", "nonfinite"]


class FitResult(NamedTuple):
    """What `fit` returns: `history` has an array for each metric, one value per finished epoch.

    `reason` says why training ended: "epochs" if all were done, "early_stopping", "callback",
    "interrupted" by Ctrl-C, or "nonfinite". With `early_stopping` or a `checkpoint`, `best_epoch`
    is the number of the best epoch, counted from 0, and `best_value` what it was the best by; None
    without, or if no epoch had a finite value. With `members`, `best_epoch` and `best_value` are
    arrays, in which -1 and 0 stand for none; where a run may stop, the rows of each member after
    its end repeat its last one, and `history["epochs"]` says how many count.
    """

    params: PyTree
    state: PyTree
    history: dict[str, np.ndarray]
    opt_state: PyTree
    reason: Reason
    best_epoch: Any = None
    best_value: Any = None


@checked
def fit(
    model: LayerLike | LossFunction | Callable[[dict[str, Any]], LayerLike],
    data: Data,
    *,
    loss: Loss | None = None,
    optimizer: OptimizerLike | Callable[[dict[str, Any]], OptimizerLike],
    key: jax.Array,
    epochs: int,
    batch_size: int | None = None,
    hyperparams: Mapping[str, Arrays] | None = None,
    validation: Data | None = None,
    metrics: MetricsByName | None = None,
    regularizer: Regularizer | None = None,
    shuffle: bool = True,
    record: Sequence[str] = (),
    early_stopping: EarlyStopping | None = None,
    on_nonfinite: OnNonfinite | None = None,
    members: int | None = None,
    callbacks: Sequence[CallbackLike] = (),
    progress: bool | Literal["bar", "lines", "epochs"] | None = None,
    params: Arrays = None,
    state: Arrays = None,
    checkpoint: str | PathLike[str] | bytes | CheckpointOptions | None = None,
    resume: bool | Literal["changed"] = False,
    sharding: Sharding | None = None,
) -> FitResult:
    """Train a model: `training_run` as seen from the host, with progress and callbacks.

    For data in memory, the run is one compiled program, called with a number of steps. `fit` takes
    as many at a time as fill a fifth of a second, so that a tiny network does not wait for
    the host and a large one is not silent; how a run is cut never changes a number. With the same
    key, the result equals that of `training_run` to rounding. A second call with an equal model,
    loss, optimizer, metrics and shapes compiles nothing. The first Ctrl-C ends training after the
    steps under way and `fit` returns what was learned.

    Args:
        model: a `Layer`, or a plain function of arrays; with `hyperparams`, a `Layer`, or a
            function of them that returns one. Without `loss`, a whole loss function,
            `loss_fn(params, state, batch, key) -> (loss, (state, metrics))` as in `train_step`:
            its `metrics` are averaged over the examples of an epoch, and on a validation set its
            `key` is None.
        data: `(x, y)` or `(x, y, weights)`, arrays or pytrees of arrays with the examples along
            axis 0; for a loss function, any pytree of such arrays. Data with an `np.memmap` are
            read batch by batch. Or batches that somebody else makes: an iterable, or a function
            of the number of the epoch that returns one; a thread draws them ahead.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            objective is their mean, by the weights of the examples if there are any.
        optimizer: an `Optimizer` or optax transformation, or a function of `hyperparams` that
            returns one.
        key: a typed PRNG key: initial parameters, order of the examples and noise follow from it.
        epochs: how many times to go through the data.
        batch_size: the examples in a step; None for all of them. If it does not divide their
            number, the last batch of an epoch is smaller. Batches of an iterable are what they are.
        hyperparams: numbers or arrays by name, which are no constants of the compiled program: the
            next call with the same functions and other numbers of the same dtypes compiles nothing,
            nor does one in another process where JAX's cache of compiled programs is on. They are
            traced: no shape and no `if` can depend on them.
        validation: as `data`; loss and metrics are evaluated on it after each epoch.
        metrics: `nn.metrics` by name, for the history.
        regularizer: a penalty on the params that is added to the objective, as any of
            `nn.regularizers`.
        shuffle: whether each epoch has its own random order; that of an iterable is its own.
        record: what else is in the history, the mean over the steps of each epoch:
            "learning_rate", norms and outputs of layers, as "gradient_norm", "update_ratio/*" and
            "activation_std/*", see `train_step`.
        early_stopping: `nn.early_stopping(...)`: the params and state of the best epoch are
            returned.
        on_nonfinite: what to do about a step whose loss or gradient is infinite or NaN: None for
            nothing; "raise", an error that names the step and the leaves; "skip" to leave it out
            (the history counts them as "skipped"); "stop" to end training before it.
        members: how many copies of the model to train side by side, number `i` as it would be
            trained alone with the key `jax.random.fold_in(key, i)`; None for one.
        callbacks: `nn.callbacks.Callback`s, or plain functions of an `Event`, called after each
            epoch; the result True stops training.
        progress: True for a bar (with the extra `progress`) in a terminal or a notebook and lines
            elsewhere, False for nothing, None for a bar there and nothing elsewhere, "bar" or
            "lines" for either anywhere, "epochs" for a line for each epoch.
        params: initial parameters; None to make them.
        state: initial state, if `params` is given.
        checkpoint: a directory, or `nn.checkpoints(...)`. `last.safetensors` in it is written about
            once a minute, at the end, after Ctrl-C, SIGTERM, SIGHUP (a terminal was closed) and a
            notice of preemption, and before an error is raised, and has all that is needed to go
            on; the one before it is kept as well. `best.safetensors` has `{"params": ..., "state":
            ...}` of the best epoch so far, by `early_stopping`, else by the loss on the validation
            set, if there is one, else by the loss. A thread writes, while training goes on. What
            cannot be written is told by a warning, and the result is returned all the same.
        resume: whether to go on from what is in `checkpoint`, if anything is: on the same machine
            with the same versions, bit for bit as if training had never been interrupted. The
            other arguments must be those of the first call, also what is inside of functions of
            yours, and so must the data; or "changed", to accept differences, each with a warning.
            `epochs`, `early_stopping`, `on_nonfinite`, `callbacks` and `progress` may differ:
            whether training is over is decided anew. An iterator with `get_state` and `set_state`,
            as grain's, goes on from its state; of others, the batches that were seen are drawn
            again.
        sharding: `nn.sharding(...)`: how training is spread over many devices. Data in memory are
            whole on each of them unless they come spread over them; batches that are read are
            split. Over the devices of several processes, all call `fit`, with the same data in
            memory, or each with its part of the batches that somebody else makes.

    Returns:
        A `FitResult`: `params`, `state`, `history`, `opt_state` and `reason`. The history has
        "loss" (without the penalty), "penalty" and each metric, as seen in training, and with
        "val_" before the name on the validation set. The params that are validated, given to
        callbacks and returned are those of `nn.optimizers.evaluation_params`: an average, if the
        optimizer keeps one. With `members`, params and state have a leading axis for them, as
        those of `nn.ensemble(model, members)`, and each array of the history a second one.

    Raises:
        BlockingIOError: another run has the directory `checkpoint`.
        FileExistsError: `checkpoint` has a run, and `resume` is false.
        FloatingPointError: `on_nonfinite` is "raise", and a loss or gradient is not finite.
        RuntimeError: another process of the run raised an error.
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or differs between processes; the data's lengths
            differ; a label is outside the classes, or an id outside the table of an embedding, and
            the loss NaN for it; the checkpoint is damaged, or of another run.

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
    if members is not None or sharding is not None:
        warn_of_side_by_side("fit", key, stacklevel=4)
    check_count("fit", "epochs", epochs)
    if resume and checkpoint is None:
        raise ValueError(f"fit: resume is {resume} and checkpoint is None, expected a directory")
    makers = None
    if hyperparams is not None:
        makers = model, optimizer
        if not (makes_model(model, loss) or makes_optimizer(optimizer)):
            raise ValueError(
                f"fit: hyperparams has {names_of(hyperparams)} and neither model nor optimizer is "
                "a function, expected one of hyperparams that returns it"
            )
        hyperparams = as_arrays("fit", hyperparams)
        model, optimizer = made("fit", model, loss, optimizer, hyperparams)
    if loss is not None:
        model = as_layer(model, "fit: model")
    if early_stopping is not None and validation is None:
        check_not_of_validation(early_stopping)
    options = None if checkpoint is None else as_options(checkpoint)
    best = early_stopping
    if options is not None:
        best = best_to_keep(options, early_stopping, validation is not None)
    run = checked_run(
        "fit",
        model,
        loss,
        optimizer,
        makers=makers,
        metrics=metrics,
        regularizer=regularizer,
        batch_size=batch_size,
        record=record,
        best=best,
        on_nonfinite=on_nonfinite,
        members=members,
        sharding=sharding,
    )
    check_initial("fit", loss, params, state)
    group = ALONE if sharding is None else sharding.group
    with group.vote("fit"):
        feed = _feed(
            run, model, loss, key, data, validation, epochs, batch_size, shuffle, members, sharding
        )
        check_steps("fit", epochs, feed.steps_per_epoch)
    steps = None if feed.steps_per_epoch is None else feed.steps_per_epoch * epochs
    progress_shown = progress_callback(progress, steps) if group.is_first else None
    watchers = Watchers(callbacks, progress_shown, group)
    clock = Clock()

    def event() -> Event:
        """Where the run stands, for the callbacks."""
        at, position = feed.at, feed.at.position
        finished = int(position.epoch)
        history = position.history.items() if finished else ()
        row = {name: reported(np.asarray(v)[finished - 1]) for name, v in history}
        last_params, last_state = compiled(run.last)(position.carry)
        return Event(
            epoch=finished,
            epochs=epochs,
            step=at.step,
            steps=steps,
            examples=at.seen[0],
            seconds=clock.seconds,
            seconds_compiling=clock.seconds_compiling,
            metrics=row,
            running_loss=float(position.loss),
            params=last_params,
            state=last_state,
            process=jax.process_index() if group.has_others else 0,
        )

    told_of_run: dict[str, Told] = {}
    if options is not None or group.has_others:
        told_model, told_optimizer = makers or (model, optimizer)
        told_of_run = {
            "hyperparams": told(hyperparams),
            "model": told(told_model),
            "loss": told(loss),
            "optimizer": told(told_optimizer),
            "metrics": told(metrics),
            "regularizer": told(regularizer),
            "record": told(tuple(record)),
            "batch_size": told(batch_size),
            "shuffle": told(shuffle),
            "members": told(members),
            "steps in an epoch": told(feed.steps_per_epoch),
            "the key": told(np.asarray(jax.random.key_data(key)).tolist()),
            "data": sample(data),
            "validation": sample(validation),
            "the best epoch": told((best.metric, best.min_delta, best.mode) if best else None),
        }
    if group.has_others:
        whole = {"data": data, "validation": validation, "params": params, "state": state}
        options_told = {"epochs": told(epochs), "checkpoint": told(options), "resume": told(resume)}
        entire_data = {name: entire(tree) for name, tree in whole.items()}
        check_same(group, told_of_run | options_told | entire_data)
    if sharding is not None:
        params = None if params is None else sharding.put_params(params, members)
        state, hyperparams = sharding.put((state, hyperparams))

    with clock, ExitStack() as held:
        feed.start(params, {} if params is not None and state is None else state, hyperparams)
        begun = feed.at.position.carry
        warn_of_narrow_params("fit", begun.train.params, begun.train.opt_state, stacklevel=4)
        store: Checkpoints | None = None
        if options is not None:
            place = held.enter_context(opened(options, group))
            store = Checkpoints(options, place, told_of_run, watchers.of_user, begun, group)
            if store.found and not resume:
                raise FileExistsError(
                    f"fit: checkpoint has a run already, {store.found[0]}; expected resume=True to "
                    "go on with it, or another directory"
                )
            if store.found:
                clock.seconds_before = store.restore(run, feed, resume == "changed")
        reason = _trained(feed, epochs, clock, watchers, event, store, group)
    position = feed.at.position
    carry, bad_steps = position.carry, bad_steps_of(position.carry)
    if on_nonfinite == "raise" and bad_steps is not None and np.any(bad_steps.step >= 0):
        raise FloatingPointError(f"fit: {described(bad_steps, carry.train.params)}")
    params, state = compiled(run.result)(carry)
    history = position.history
    if run.may_stop and members is not None:
        history = compiled(rows_that_count)(carry, history)
    finished = int(position.epoch)
    on_host = {
        name: np.array(v if name == "epochs" else np.asarray(v)[:finished])
        for name, v in history.items()
    }
    return FitResult(params, state, on_host, carry.train.opt_state, reason, *_best_of(carry))


def _trained(
    feed: Feed,
    epochs: int,
    clock: Clock,
    watchers: Watchers,
    event: Callable[[], Event],
    store: Checkpoints | None,
    group: Group,
) -> Reason:
    """Take all steps, and say why they ended; whatever ends them, the run is saved before."""
    asked: Literal["callback", "interrupted"] | None = None
    want_epochs = watchers.want_epochs or (store is not None and store.wants_epochs)
    wake = feed.interrupt if store is not None else None
    chunk = clock.steps_per_chunk
    with interruptible(at_termination=wake) as wish:
        try:
            while (reason := _own_end(feed.at.position, epochs) or asked) is None:
                before, finished = feed.at, int(feed.at.position.epoch)
                chunk = watchers.most_steps(before.step, chunk)
                if store is not None:
                    chunk = min(chunk, store.most_steps(before) or chunk)
                clock.begin()
                with group.vote("fit", 5) as vote:
                    feed.advance(chunk, want_epochs)
                    at = feed.at
                    at.position.loss.block_until_ready()
                    clock.end(at.step - before.step)
                    is_new = int(at.position.epoch) > finished
                    wants_end = watchers.after_chunk(event, is_new_epoch=is_new)
                    vote.own[:2] = wants_end, wish.is_set
                    vote.own[2] = clock.steps_per_chunk
                    if store is not None:
                        vote.own[3:] = store.is_due(at), store.has_written
                chunk, is_due, _ = vote.all[0, 2:]
                if vote.all[:, 0].any():
                    asked = "callback"
                elif vote.all[:, 1].any() or is_preempted(at.step):
                    asked = "interrupted"
                if store is not None:
                    if vote.all[:, 4].all():
                        store.conclude()
                    if is_due:
                        store.save(at, clock.seconds)
        except BaseException:
            if store is not None:
                store.save_at_failure(feed, clock.seconds)
            watchers.at_failure(event)
            raise
        else:
            if store is not None:
                store.save_at_end(feed.at, clock.seconds)
        finally:
            feed.close()
        watchers.at_end(event)
    return reason


def _best_of(carry: Carry) -> tuple[Any, Any]:
    """The number of the best epoch and its value, None if there is none."""
    best = carry.kept.get("best")
    if best is None:
        return None, None
    epoch, value = np.array(best.epoch), np.array(best.value)
    if epoch.ndim:
        return epoch, value
    return (int(epoch), float(value)) if epoch >= 0 else (None, None)


def _own_end(position: Position, epochs: int) -> Reason | None:
    """Why the run is over, None if it is not."""
    if np.all(np.asarray(position.carry.stopped)):
        bad_steps = bad_steps_of(position.carry)
        is_bad = bad_steps is not None and np.all(np.asarray(bad_steps.step) >= 0)
        return "nonfinite" if is_bad else "early_stopping"
    return "epochs" if int(position.epoch) >= epochs else None


def _feed(
    run: Run,
    model: Any,
    loss: Callable[[Any, Any], Any] | None,
    key: jax.Array,
    data: Any,
    validation: Any,
    epochs: int,
    batch_size: int | None,
    shuffle: bool,
    members: int | None,
    sharding: Sharding | None,
) -> Feed:
    """What brings the data: from the device's memory, unless some are streamed."""
    supervised = loss is not None
    find_outside = None if loss is None else finder(model, loss, members)
    if is_streamed(data) or is_streamed(validation):
        order_key = child_key(key, "shuffle") if shuffle and members is None else None
        source = as_source(
            "fit",
            "data",
            data,
            batch_size=batch_size,
            shuffle_key=order_key,
            weighted=supervised,
            own_rows=own_rows(sharding),
        )
        check_set("fit", "data", source.example, supervised)
        if is_streamed(validation):
            validation = as_source(
                "fit",
                "validation",
                validation,
                batch_size=batch_size,
                shuffle_key=None,
                weighted=supervised,
                own_rows=own_rows(sharding),
            )
        elif validation is not None:
            validation, _ = on_device("fit", "validation", validation, supervised, sharding)
        own_key = key if sharding is None else sharding.put(key)
        return Streamed(run, epochs, own_key, source, validation, find_outside, sharding)
    data, n = on_device("fit", "data", data, supervised, sharding)
    if validation is not None:
        validation, _ = on_device("fit", "validation", validation, supervised, sharding)
    if loss is not None:
        check_labels("fit", model, loss, data=data, validation=validation)
    epoch = Epoch(n, effective_batch_size("fit", batch_size, n), shuffle)
    keys = key, key if members is None else copy_keys("fit", key, members)
    if sharding is not None:
        keys = sharding.put(keys)
    return InMemory(run, epochs, epoch, keys, data, validation, find_outside)
