"""A whole training run as one pure function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._arrays import PyTree, check_count, check_key
from jaxnn.layer import Layer, as_layer
from jaxnn.metrics import Metric
from jaxnn.optimizers.averaging import evaluation_params
from jaxnn.optimizers.base import check_optimizer, is_optimizer
from jaxnn.training import engine
from jaxnn.training.checks import check_metrics
from jaxnn.training.data import count_examples, effective_batch_size
from jaxnn.training.evaluation import Loss
from jaxnn.training.monitor import check_monitor


def training_run(
    model: Any,
    *,
    loss: Loss,
    optimizer: Any,
    epochs: int,
    batch_size: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    regularizer: Callable[[PyTree], Any] | None = None,
    shuffle: bool = True,
    monitor: Sequence[str] = (),
) -> Callable[..., tuple[PyTree, PyTree, dict[str, jax.Array]]]:
    """A whole training run as one pure function, to be jitted, vmapped or differentiated.

    Args:
        model: a `Layer`, or a function of the hyperparameters that returns one.
        loss: `loss(predictions, y) -> values` of shape `(batch, ...)`, as any of `nn.losses`; the
            objective is their mean.
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

    Returns:
        `train(key, data, hyperparams=None, validation=None) -> (params, state, history)`. `data`
        and `validation` are pairs `(x, y)` of arrays, or pytrees of arrays, with the examples
        along axis 0. `history` has an array of length `epochs` for "loss" (without the penalty),
        "penalty" and each metric, as seen in training, and with "val_" before the name for the
        validation set, after each epoch. The params that are validated and returned are those of
        `nn.optimizers.evaluation_params`: an average, if the optimizer keeps one.

    Raises:
        TypeError: `optimizer` or a metric is not one.
        ValueError: `epochs` or `batch_size` is less than 1; `monitor` has another name.

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
    effective_batch_size("training_run", batch_size, 1)
    metric_pairs = check_metrics("training_run", metrics)
    watched = check_monitor("training_run", monitor)
    if not isinstance(model, Layer) and not callable(model):
        as_layer(model, "training_run: model")
    if not callable(optimizer):
        check_optimizer(optimizer, "training_run: optimizer")

    def train(
        key: jax.Array, data: PyTree, hyperparams: Any = None, validation: PyTree = None
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        check_key("training_run", key)
        made = optimizer if is_optimizer(optimizer) else optimizer(hyperparams)
        check_optimizer(made, "training_run: optimizer")
        layer = model if isinstance(model, Layer) else model(hyperparams)
        task = engine.Task(
            as_layer(layer, "training_run: model"),
            loss,
            made,
            regularizer,
            metric_pairs,
            batch_size,
            shuffle,
            watched,
        )
        data = jax.tree.map(jnp.asarray, data)
        n = count_examples("training_run", "data", data)
        epoch = engine.Epoch(n, effective_batch_size("training_run", batch_size, n))
        if validation is not None:
            validation = jax.tree.map(jnp.asarray, validation)
            count_examples("training_run", "validation", validation)

        def one_epoch(
            carry: engine.Carry, number: jax.Array
        ) -> tuple[engine.Carry, dict[str, jax.Array]]:
            seeds = engine.order(task, epoch, key, number)

            def one_step(carry: engine.Carry, position: Any) -> tuple[engine.Carry, None]:
                return engine.step(task, epoch, carry, data, seeds, position, epoch.size), None

            if epoch.full == 1:
                carry, _ = one_step(carry, 0)
            else:
                carry, _ = lax.scan(one_step, carry, jnp.arange(epoch.full))
            if epoch.rest:
                carry = engine.step(task, epoch, carry, data, seeds, epoch.full, epoch.rest)
            return engine.finish(task, carry, validation)

        carry = engine.start(task, key, data)
        carry, history = lax.scan(one_epoch, carry, jnp.arange(epochs))
        params = evaluation_params(carry.train.opt_state, carry.train.params)
        return params, carry.train.state, history

    return train
