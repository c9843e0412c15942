"""A whole training run as one pure function."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from jaxnn._combinators.copies import copy_keys
from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.construction import refuse_constructor
from jaxnn._core.layer import Layer, LayerLike
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import Loss, LossFunction, OptimizerLike, PyTree, Regularizer, TrainingRun
from jaxnn._training.best import EarlyStopping
from jaxnn._training.checks import warn_of_narrow_params, warn_of_side_by_side
from jaxnn._training.data.arrays import (
    check_steps,
    effective_batch_size,
    example_of,
    on_device,
)
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.hyperparams import made, makes_model, makes_optimizer
from jaxnn._training.loop import scanned
from jaxnn._training.measuring import MetricsByName
from jaxnn._training.run import Run
from jaxnn._training.run_of import check_initial, checked_run
from jaxnn.optimizers._base import identity


@checked
def training_run(
    model: LayerLike | LossFunction | Callable[[Any], Layer],
    *,
    loss: Loss | None = None,
    optimizer: OptimizerLike | Callable[[Any], OptimizerLike],
    epochs: int,
    batch_size: int | None = None,
    metrics: MetricsByName | None = None,
    regularizer: Regularizer | None = None,
    shuffle: bool = True,
    record: Sequence[str] = (),
    early_stopping: EarlyStopping | None = None,
    on_nonfinite: Literal["skip", "stop"] | None = None,
    members: int | None = None,
    sharding: Sharding | None = None,
) -> TrainingRun:
    """A whole training run as one pure function, to be jitted, vmapped or differentiated.

    Whatever depends on hyperparameters is made inside of a function of them, which may be traced
    as any other: `model` and `optimizer` may be such functions, and for a loss, a regularizer or
    anything else `training_run` itself is called inside of one.

    Args:
        model: a `Layer`, or a function of the hyperparameters that returns one. Without `loss`, a
            whole loss function, `loss_fn(params, state, batch, key) -> (loss, (state, metrics))` as
            in `train_step`: its `metrics` are averaged over the examples of an epoch, and on a
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
        record: what else is in the history, the mean over the steps of each epoch:
            "learning_rate", norms and outputs of layers, as "gradient_norm", "update_ratio/*" and
            "activation_std/*", see `train_step`.
        early_stopping: `nn.early_stopping(...)`: the params and state of the best epoch are
            returned.
        on_nonfinite: what to do about a step whose loss or gradient is infinite or NaN: None for
            nothing, "skip" to leave it out (the history counts them as "skipped"), "stop" to end
            training before it.
        members: how many copies of the model to train side by side, number `i` as it would be
            trained alone with the key `jax.random.fold_in(key, i)`; None for one.
        sharding: `nn.sharding(...)`: how the run is spread over many devices.

    Returns:
        `train(key, data, hyperparams=None, validation=None, *, params=None, state=None) ->
        (params, state, history)`. `data` and `validation` are `(x, y)` or `(x, y, weights)`,
        arrays or pytrees of arrays with the examples along axis 0; for a loss function, any
        pytree of such arrays. `params` and `state` are where to begin, if given. `history` has an
        array of length `epochs` for "loss" (without the penalty), "penalty" and each metric, as
        seen in training, and with "val_" before the name for the validation set, after each
        epoch. The params that are validated and returned are those of
        `nn.optimizers.evaluation_params`: an average, if the optimizer keeps one. With `members`,
        params and state have a leading axis for them, as those of `nn.ensemble(model, members)`,
        and each array of the history a second one. Where a run may stop, the rows after its end
        repeat its last one, and `history["epochs"]` says how many count.

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

    def run_with(model: Any, optimizer: Any) -> Run:
        return checked_run(
            "training_run",
            model,
            loss,
            optimizer,
            metrics=metrics,
            regularizer=regularizer,
            batch_size=batch_size,
            record=record,
            best=early_stopping,
            on_nonfinite=on_nonfinite,
            members=members,
            sharding=sharding,
        )

    is_made = makes_model(model, loss)
    if is_made:
        refuse_constructor(model, "training_run: model")
    run_with(
        (lambda x: x) if is_made else model,
        identity() if makes_optimizer(optimizer) else optimizer,
    )

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
        if members is not None:
            warn_of_side_by_side("training_run", key, stacklevel=3)
        run = run_with(*made("training_run", model, loss, optimizer, hyperparams))
        check_initial("training_run", loss, params, state)
        supervised = loss is not None
        data, n = on_device("training_run", "data", data, supervised)
        epoch = Epoch(n, effective_batch_size("training_run", batch_size, n), shuffle)
        check_steps("training_run", epochs, epoch.steps)
        if validation is not None:
            validation, _ = on_device("training_run", "validation", validation, supervised)
        if params is not None and state is None:
            state = {}
        carry = run.init(key, example_of(data), n, params, state, None)
        begun = carry.train
        warn_of_narrow_params("training_run", begun.params, begun.opt_state, stacklevel=3)
        order_key = key if members is None else copy_keys("training_run", key, members)
        carry, history = scanned(run, epoch, epochs, order_key, data, validation, carry)
        return *run.result(carry), history

    return train
