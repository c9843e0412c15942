"""The fields of an `Optimizer`: functions whose arguments have names and types."""

from typing import Any, NamedTuple, Protocol

from jaxnn._core.types import PyTree


class OptimizerInit(Protocol):
    """`init(params) -> opt_state`."""

    def __call__(self, params: PyTree, /) -> PyTree:
        """Make the state before the first step."""


class OptimizerUpdate(Protocol):
    """`update(grads, opt_state, params=None, **extra) -> (updates, opt_state)`."""

    def __call__(
        self, grads: PyTree, opt_state: PyTree, /, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """Make updates of gradients, and the next state."""


class UpdateLike(Protocol):
    """A function that may be the `update` of an `Optimizer`."""

    def __call__(self, grads: Any, opt_state: Any, params: Any, /) -> tuple[PyTree, PyTree]:
        """Make updates of gradients, and the next state."""


class OptimizerFunctions(NamedTuple):
    """The fields of an `Optimizer`."""

    init: OptimizerInit
    update: OptimizerUpdate
