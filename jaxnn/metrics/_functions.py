"""The fields of a `Metric`: functions whose arguments have names and types."""

from typing import Any, Literal, NamedTuple, Protocol

from jaxnn._core.types import PyTree

Better = Literal["less", "more"]


class MetricInit(Protocol):
    """`init() -> accumulator`."""

    def __call__(self) -> PyTree:
        """Make the accumulator of nothing."""


class MetricUpdate(Protocol):
    """`update(accumulator, predictions, targets=None, weights=None) -> accumulator`."""

    def __call__(
        self,
        accumulator: PyTree,
        predictions: PyTree,
        targets: PyTree = None,
        weights: PyTree = None,
    ) -> PyTree:
        """Take more examples in."""


class MetricCompute(Protocol):
    """`compute(accumulator) -> value`."""

    def __call__(self, accumulator: PyTree, /) -> Any:
        """Compute the metric of the examples so far."""


class MetricUpdateLike(Protocol):
    """A function that may be the `update` of a `Metric`."""

    def __call__(self, accumulator: Any, predictions: Any, targets: Any, weights: Any, /) -> PyTree:
        """Take more examples in."""


class MetricFunctions(NamedTuple):
    """The fields of a `Metric`."""

    init: MetricInit
    update: MetricUpdate
    compute: MetricCompute
    better: Better | None = None
