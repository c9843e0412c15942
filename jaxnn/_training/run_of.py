"""The run that the arguments of `fit` and `training_run` describe."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxnn._combinators.sharded import sharded, sharded_loss
from jaxnn._core.arguments import value_text
from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, as_layer
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import PyTree
from jaxnn._training.best import EarlyStopping, keeping_best, with_direction
from jaxnn._training.checks import check_metrics
from jaxnn._training.guard import guarded
from jaxnn._training.hyperparams import carrying_hyperparams, made
from jaxnn._training.measuring import Metrics, MetricsByName
from jaxnn._training.members import side_by_side
from jaxnn._training.network import network
from jaxnn._training.objective import of_loss_function, of_model, regularized
from jaxnn._training.placing import on_devices
from jaxnn._training.record import Record, check_record
from jaxnn._training.run import Run
from jaxnn._training.stop import staying_stopped, stopping_early
from jaxnn.optimizers._base import check_optimizer


def checked_run(
    function: str,
    model: Any,
    loss: Callable[..., Any] | None,
    optimizer: Any,
    *,
    makers: tuple[Any, Any] | None = None,
    metrics: MetricsByName | None,
    regularizer: Callable[[PyTree], Any] | None,
    batch_size: int | None,
    record: Sequence[str],
    best: EarlyStopping | None,
    on_nonfinite: Any,
    members: int | None,
    sharding: Sharding | None,
) -> Run:
    """The run that the arguments of `function` describe.

    Without a loss, `model` is a whole loss function, as `train_step` takes it. `makers` are what
    `model` and `optimizer` were made by of hyperparameters, if those are to be carried.
    """
    check_optimizer(optimizer, f"{function}: optimizer")
    check_sharding(function, sharding)
    if batch_size is not None:
        check_count(function, "batch_size", batch_size)
    if members is not None:
        check_count(function, "members", members)
    pairs = check_metrics(function, metrics)
    if best is not None and not isinstance(best, EarlyStopping):
        raise TypeError(
            f"{function}: early_stopping is {value_text(best)}, expected nn.early_stopping(...)"
        )
    if loss is None:
        if isinstance(model, Layer) or not callable(model) or pairs:
            raise TypeError(
                f"{function}: loss is None, expected a function of (predictions, y); without one, "
                "the first argument is a function (params, state, batch, key) -> "
                "(loss, (state, metrics)), and there are no other metrics"
            )
    else:
        model = as_layer(model, f"{function}: model")
    watched = check_record(function, record)
    if best is not None:
        without_direction = None if loss is None else ("skipped", *watched)
        best = with_direction(function, best, pairs, without_direction)
    model, optimizer = makers or (model, optimizer)
    return run_of(
        model,
        loss,
        optimizer,
        makers is not None,
        pairs,
        regularizer,
        batch_size,
        watched,
        best,
        on_nonfinite,
        members,
        sharding,
    )


def check_initial(function: str, loss: Any, params: PyTree, state: PyTree) -> None:
    """Raise unless params are given where there is no model to make them, or a state."""
    if params is None and state is not None:
        raise ValueError(f"{function}: state is given and params is None, expected both or neither")
    if loss is None and params is None:
        raise ValueError(
            f"{function}: params is None, expected the initial params: a loss function has no init"
        )


@constructor
def run_of(
    model: Any,
    loss: Callable[..., Any] | None,
    optimizer: Any,
    has_hyperparams: bool,
    metrics: Metrics,
    regularizer: Callable[[PyTree], Any] | None,
    batch_size: int | None,
    record: Record,
    best: EarlyStopping | None,
    on_nonfinite: Any,
    members: int | None,
    sharding: Sharding | None,
) -> Run:
    """A network's run, and around it what else is wanted: the one place that knows their order.

    What looks at single steps is inside of what looks at epochs: a step that is left out must not
    count for the best epoch. What happens once a run is stopped comes after all that may stop it,
    and the members, each of which has its own of all that, after everything. Only where the arrays
    of all of them lie is outside of that.
    """

    def network_of(model: Any, optimizer: Any) -> Run:
        if sharding is not None:
            model = sharded_loss(model, sharding) if loss is None else sharded(model, sharding)
        if loss is None:
            objective = of_loss_function(model, batch_size)
        else:
            objective = of_model(model, loss, metrics, batch_size)
        if regularizer is not None:
            objective = regularized(objective, regularizer)
        return network(None if loss is None else model, objective, optimizer, metrics, record)

    if has_hyperparams:
        run = carrying_hyperparams(
            lambda given: network_of(*made("fit", model, loss, optimizer, given))
        )
    else:
        run = network_of(model, optimizer)
    if on_nonfinite is not None:
        run = guarded(run, on_nonfinite)
    if best is not None:
        run = keeping_best(run, best)
    if best is not None and best.patience is not None:
        run = stopping_early(run, best, best.patience)
    if run.may_stop:
        run = staying_stopped(run)
    if members is not None:
        run = side_by_side(run, members)
    return run if sharding is None else on_devices(run, sharding, members)
