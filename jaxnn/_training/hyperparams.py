"""Models and optimizers that are functions of hyperparameters, and a run that is made of them."""

from collections.abc import Callable
from typing import Any

from jaxnn._core.layer import Layer, as_layer
from jaxnn._core.types import PyTree
from jaxnn._training.run import Carry, Run
from jaxnn.optimizers._base import check_optimizer, is_optimizer


def makes_model(model: Any, loss: Any) -> bool:
    """Whether it is a function of the hyperparameters; without a loss it is a loss function."""
    return loss is not None and callable(model) and not isinstance(model, Layer)


def makes_optimizer(optimizer: Any) -> bool:
    """Whether it is a function of the hyperparameters."""
    return callable(optimizer) and not is_optimizer(optimizer)


def made(
    function: str, model: Any, loss: Any, optimizer: Any, hyperparams: PyTree
) -> tuple[Any, Any]:
    """The model and the optimizer for these hyperparameters, of which they may be functions."""
    if makes_model(model, loss):
        model = as_layer(model(hyperparams), f"{function}: model")
    if makes_optimizer(optimizer):
        optimizer = optimizer(hyperparams)
        check_optimizer(optimizer, f"{function}: optimizer")
    return model, optimizer


def carrying_hyperparams(make: Callable[[PyTree], Run]) -> Run:
    """The run `make(hyperparams)`, made inside of each program of what the carry has.

    So one program serves all of them.
    """

    def init(
        key: Any, example: PyTree, rows: int | None, params: Any, state: Any, hyperparams: Any
    ) -> Carry:
        return make(hyperparams).init(key, example, rows, params, state, hyperparams)

    def method(name: str) -> Callable[..., Any]:
        return lambda carry, *rest: getattr(make(carry.hyperparams), name)(carry, *rest)

    return Run(
        init,
        step=method("step"),
        measure=method("measure"),
        finish=method("finish"),
        last=method("last"),
        result=method("result"),
        resume=method("resume"),
    )
