"""The host's view of a training run."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._arrays import PyTree, check_key
from jaxnn.callbacks import Callback, Event
from jaxnn.layer import as_layer
from jaxnn.metrics import Metric
from jaxnn.optimizers.base import check_optimizer
from jaxnn.training import engine
from jaxnn.training.checks import check_labels, check_metrics
from jaxnn.training.data import check_count, count_examples, effective_batch_size, on_device
from jaxnn.training.evaluation import Loss
from jaxnn.training.progress import progress_callback

SECONDS_PER_CHUNK = 0.2


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
        before the name on the validation set.

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
    )
    hooks = [_as_callback(callback) for callback in callbacks]
    bar = progress_callback(progress)
    data = on_device("fit", "data", data)
    n = count_examples("fit", "data", data)
    effective_batch_size("fit", batch_size, n)
    if validation is not None:
        validation = on_device("fit", "validation", validation)
    if params is not None:
        params, state = _copy(params), _copy({} if state is None else state)

    began = time.perf_counter()
    carry, history = _start(task, epochs, key, data, validation, params, state)
    for name, pairs in (("data", data), ("validation", validation)):
        if pairs is not None:
            check_labels(
                "fit", name, task.model, loss, carry.train.params, carry.train.state, pairs
            )

    epoch = engine.epoch_of(task, n)
    run = _Run(epoch, epochs, began, [*hooks, *([bar] if bar else [])])
    while run.step < run.steps and not run.stopped:
        target = run.next_target()
        carry, history, running_loss = _run_until(
            task, epoch, carry, history, key, data, validation, target
        )
        run.advance(target, carry, history, running_loss)
    run.end(carry, history)
    finished = run.step // epoch.steps
    rows = {name: np.asarray(values)[:finished] for name, values in history.items()}
    return FitResult(carry.train.params, carry.train.state, rows, carry.train.opt_state)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(
    task: engine.Task,
    epochs: int,
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    params: PyTree,
    state: PyTree,
) -> tuple[engine.Carry, dict[str, jax.Array]]:
    """The carry before the first step, and the empty history."""
    carry = engine.start(task, key, data, params, state)
    _, row = jax.eval_shape(lambda: engine.finish(task, carry, validation))
    return carry, {name: jnp.full((epochs,), jnp.nan, value.dtype) for name, value in row.items()}


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _run_until(
    task: engine.Task,
    epoch: engine.Epoch,
    carry: engine.Carry,
    history: dict[str, jax.Array],
    key: jax.Array,
    data: PyTree,
    validation: PyTree,
    stop: jax.Array,
) -> tuple[engine.Carry, dict[str, jax.Array], jax.Array]:
    """The steps until step `stop`, from wherever the carry stands, also inside of an epoch."""
    Running = tuple[engine.Carry, dict[str, jax.Array], jax.Array]

    def finish(running: Running, number: jax.Array) -> Running:
        carry, history, _ = running
        carry, row = engine.finish(task, carry, validation)
        written = {name: history[name].at[number].set(value) for name, value in row.items()}
        return carry, written, row["loss"]

    def one_epoch(running: Running) -> Running:
        carry, history, loss = running
        number = carry.train.step // epoch.steps
        first = number * epoch.steps
        seeds = engine.order(task, epoch, key, number)

        def one_step(position: jax.Array, carry: engine.Carry) -> engine.Carry:
            return engine.step(task, epoch, carry, data, seeds, position, epoch.size)

        def last_step(carry: engine.Carry) -> engine.Carry:
            return engine.step(task, epoch, carry, data, seeds, epoch.full, epoch.rest)

        if epoch.steps == 1:
            return finish((one_step(jnp.zeros((), jnp.int32), carry), history, loss), number)
        carry = lax.fori_loop(
            carry.train.step - first, jnp.minimum(stop - first, epoch.full), one_step, carry
        )
        if epoch.rest:
            is_last = (carry.train.step == first + epoch.full) & (carry.train.step < stop)
            carry = lax.cond(is_last, last_step, lambda carry: carry, carry)
        loss = engine.metric_values((), {"loss": carry.sums["loss"]})["loss"]
        return lax.cond(  # type: ignore[no-any-return]
            carry.train.step == first + epoch.steps,
            lambda running: finish(running, number),
            lambda running: running,
            (carry, history, loss),
        )

    start = (carry, history, jnp.zeros((), history["loss"].dtype))
    return lax.while_loop(lambda running: running[0].train.step < stop, one_epoch, start)  # type: ignore[no-any-return]


class _Run:
    """The host's side of a run: the length of the chunks and the calls of the callbacks."""

    def __init__(
        self, epoch: engine.Epoch, epochs: int, began: float, callbacks: list[Callback]
    ) -> None:
        self.epoch, self.epochs, self.began = epoch, epochs, began
        self.callbacks = callbacks
        self.step, self.steps = 0, epoch.steps * epochs
        self.stopped = False
        self.whole_epochs = any(callback.on_epoch for callback in callbacks)
        self._chunks: list[tuple[int, float]] = []
        self._asked = time.perf_counter()

    def next_target(self) -> np.int32:
        """The step to run to: as many steps as fill the time of a chunk.

        The first two chunks are single steps, one to compile and one to measure.
        """
        self._asked = time.perf_counter()
        length = 1
        if len(self._chunks) > 1:
            steps, seconds = self._chunks[-1]
            length = max(1, int(steps * SECONDS_PER_CHUNK / max(seconds, 1e-9)))
        target = min(self.step + length, self.steps)
        if self.whole_epochs:
            target = min(target, (self.step // self.epoch.steps + 1) * self.epoch.steps)
        return np.int32(target)

    def advance(
        self, target: np.int32, carry: engine.Carry, history: Any, running_loss: jax.Array
    ) -> None:
        """Wait for the chunk, then call the callbacks."""
        jax.block_until_ready(running_loss)
        self._chunks = [*self._chunks[-1:], (int(target) - self.step, self._since_asked())]
        self.step = int(target)
        if not self.callbacks:
            return
        event = self._event(carry, history, float(running_loss))
        at_epoch_end = self.step % self.epoch.steps == 0
        for callback in self.callbacks:
            for function, due in (
                (callback.on_step_chunk, True),
                (callback.on_epoch, at_epoch_end),
            ):
                if function is not None and due and function(event) is True:
                    self.stopped = True

    def end(self, carry: engine.Carry, history: Any) -> None:
        """Call the callbacks for the last time."""
        for callback in self.callbacks:
            if callback.on_end is not None:
                last = self.step // self.epoch.steps - 1
                loss = float(history["loss"][last]) if last >= 0 else float("nan")
                callback.on_end(self._event(carry, history, loss))

    def _since_asked(self) -> float:
        return time.perf_counter() - self._asked

    def _event(self, carry: engine.Carry, history: Any, running_loss: float) -> Event:
        finished, position = divmod(self.step, self.epoch.steps)
        metrics = {name: float(values[finished - 1]) for name, values in history.items()}
        return Event(
            epoch=finished,
            epochs=self.epochs,
            step=self.step,
            steps=self.steps,
            examples=finished * self.epoch.n + position * self.epoch.size,
            seconds=time.perf_counter() - self.began,
            metrics=metrics if finished else {},
            running_loss=running_loss,
            params=carry.train.params,
            state=carry.train.state,
        )


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
