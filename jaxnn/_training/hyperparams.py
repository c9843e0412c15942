"""Models and optimizers that are functions of hyperparameters, and a run that is made of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import as_array
from jaxnn._core.layer import Layer, as_layer
from jaxnn._core.paths import leaf_paths, path_text
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
        with _explained(function, "model", hyperparams):
            model = model(_copy(hyperparams))
        model = as_layer(model, f"{function}: model")
    if makes_optimizer(optimizer):
        with _explained(function, "optimizer", hyperparams):
            optimizer = optimizer(_copy(hyperparams))
        check_optimizer(optimizer, f"{function}: optimizer")
    return model, optimizer


def as_arrays(function: str, hyperparams: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Arrays, in the order of `jax.tree`, so that another order is no other program or run."""

    def array(path: Any, leaf: Any) -> jax.Array:
        return jnp.asarray(as_array(f"{function}: hyperparams[{path_text(path)!r}]", leaf))

    return jax.tree_util.tree_map_with_path(array, dict(hyperparams))  # type: ignore[no-any-return]


def names_of(hyperparams: PyTree) -> str:
    """The names in hyperparams, for an error."""
    return ", ".join(repr(path) for path in leaf_paths(hyperparams) if path) or "no names"


def _copy(hyperparams: PyTree) -> PyTree:
    """Containers of its own for a function that may take names out of them."""
    return jax.tree.map(lambda leaf: leaf, hyperparams)


@contextmanager
def _explained(function: str, argument: str, hyperparams: PyTree) -> Iterator[None]:
    """Let an error of a user's function tell what it was called with."""
    try:
        yield
    except Exception as error:
        error.add_note(
            f"in {argument}(hyperparams) of {function}, where hyperparams has "
            f"{names_of(hyperparams)}: arrays that may be traced, so that no shape, Python number "
            "or choice can depend on them"
        )
        raise


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
