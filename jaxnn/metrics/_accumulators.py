"""What a metric is, and how accumulators are merged."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.construction import call_repr
from jaxnn._core.paths import same_structure
from jaxnn._core.types import Arrays, PyTree
from jaxnn.metrics._functions import (
    Better,
    MetricCompute,
    MetricFunctions,
    MetricInit,
    MetricUpdateLike,
)


class Metric(MetricFunctions):
    """A metric: three pure functions.

    `init() -> accumulator` of nothing;
    `update(accumulator, predictions, targets=None, weights=None) -> accumulator`, with one weight
    for each example (axis 0), 1 if None, 0 for an example that is only padding;
    `compute(accumulator) -> value`;
    `better` says whether "less" or "more" of it is better, None if it is not one number or nobody
    knows: early stopping and the best checkpoint ask it.

    Accumulators of parts of a set, of two batches or two devices, are merged by `merge`, and what
    is computed is then the metric of the whole set. Most are sums, which may just as well be added
    leaf by leaf, as `jax.lax.psum` does; those of `whole_set` are not.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> metric = nn.metrics.mean()
        >>> first = metric.update(metric.init(), jnp.array([1.0, 2.0]))
        >>> second = metric.update(metric.init(), jnp.array([6.0]))
        >>> metric.compute(nn.metrics.merge(first, second))
        Array(3., dtype=float32)
    """

    __slots__ = ()

    if TYPE_CHECKING:  # any functions that fit, see _functions.py

        def __new__(
            cls,
            init: MetricInit,
            update: MetricUpdateLike,
            compute: MetricCompute,
            better: Better | None = None,
        ) -> Self: ...
        def __init__(
            self,
            init: MetricInit,
            update: MetricUpdateLike,
            compute: MetricCompute,
            better: Better | None = None,
        ) -> None: ...
        def _replace(
            self,
            *,
            init: MetricInit = ...,
            update: MetricUpdateLike = ...,
            compute: MetricCompute = ...,
            better: Better | None = ...,
        ) -> Self: ...

    def __repr__(self) -> str:
        """The call that made the metric."""
        return call_repr(self)


class CompensatedSum(NamedTuple):
    """A sum and its rounding error, by Neumaier's summation: counts stay exact far beyond 2^24."""

    value: jax.Array
    compensation: jax.Array

    def merge(self, other: "CompensatedSum") -> "CompensatedSum":
        """The sum of both."""
        value = self.value + other.value
        of_other = value - self.value
        lost = (self.value - (value - of_other)) + (other.value - of_other)
        lost = lax.stop_gradient(jnp.where(jnp.isfinite(value), lost, 0))
        return CompensatedSum(value, self.compensation + other.compensation + lost)

    @staticmethod
    def merge_all(stacked: "CompensatedSum") -> "CompensatedSum":
        """The sum over a leading axis."""
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), stacked)
        total, _ = lax.scan(lambda total, part: (total.merge(part), None), zero, stacked)
        return CompensatedSum(*total)

    def total(self) -> jax.Array:
        """The sum as one number."""
        return self.value + self.compensation


def summed(value: ArrayLike) -> CompensatedSum:
    """A sum of one part."""
    value = jnp.asarray(value)
    return CompensatedSum(value, jnp.zeros_like(value))


class ExampleAccumulator(NamedTuple):
    """All examples so far: predictions, targets and weights, along axis 0.

    Examples of weight 0 are ignored, so that there may be room for more than there are.
    """

    columns: tuple[jax.Array, ...]
    parts: jax.Array  # 1, unless accumulators were added up instead of merged

    @property
    def rows(self) -> int:
        """The number of examples that there is room for."""
        return len(self.columns[0])

    def merge(self, other: "ExampleAccumulator") -> "ExampleAccumulator":
        """The examples of both."""
        if self.rows == 0 or other.rows == 0:
            return self if other.rows == 0 else other
        pairs = zip(self.columns, other.columns, strict=True)
        return ExampleAccumulator(tuple(jnp.concatenate(pair) for pair in pairs), self.parts)

    @staticmethod
    def merge_all(stacked: "ExampleAccumulator") -> "ExampleAccumulator":
        """The examples along the two leading axes as along one."""
        flat = tuple(column.reshape(-1, *column.shape[2:]) for column in stacked.columns)
        return ExampleAccumulator(flat, jnp.max(stacked.parts))

    def written_into(self, buffer: "ExampleAccumulator", row: ArrayLike) -> "ExampleAccumulator":
        """A buffer for more examples, with these from `row` on."""
        pairs = zip(buffer.columns, self.columns, strict=True)
        written = (lax.dynamic_update_slice_in_dim(whole, part, row, 0) for whole, part in pairs)
        return ExampleAccumulator(tuple(written), self.parts)


def _is_node(tree: PyTree) -> bool:
    return isinstance(tree, CompensatedSum | ExampleAccumulator)


@checked
def merge(*accumulators: Arrays) -> PyTree:
    """The accumulator of all examples of several accumulators of one metric.

    Args:
        accumulators: at least one; of any batches or devices.

    Returns:
        An accumulator.

    Raises:
        TypeError: one is no pytree of arrays.
        ValueError: there is none, or they are not of one metric.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> auc = nn.metrics.roc_auc()
        >>> first = auc.update(auc.init(), jnp.array([0.1, 0.7]), jnp.array([0, 1]))
        >>> second = auc.update(auc.init(), jnp.array([0.8]), jnp.array([0]))
        >>> auc.compute(nn.metrics.merge(first, second))
        Array(0.5, dtype=float32)
    """

    if not accumulators:
        raise ValueError("merge: accumulators are none, expected at least one")
    first, *others = accumulators
    for i, other in enumerate(others, 1):
        same_structure("merge", **{"accumulators[0]": first, f"accumulators[{i}]": other})

    def both(a: Any, b: Any) -> Any:
        return a.merge(b) if _is_node(a) else jnp.add(a, b)

    return functools.reduce(lambda a, b: jax.tree.map(both, a, b, is_leaf=_is_node), accumulators)


@checked
def merge_all(stacked: Arrays) -> PyTree:
    """The accumulator of all examples of many accumulators that are stacked along axis 0.

    Args:
        stacked: as `jax.vmap`, the outputs of `jax.lax.scan` and `jax.lax.all_gather` (over the
            devices of an axis) stack them.

    Returns:
        An accumulator.

    Raises:
        TypeError: `stacked` is no pytree of arrays.
        ValueError: an array has no axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> auc = nn.metrics.roc_auc()
        >>> scores, labels = jnp.array([[0.1, 0.7], [0.8, 0.9]]), jnp.array([[0, 1], [0, 1]])
        >>> batches = jax.vmap(lambda s, y: auc.update(auc.init(), s, y))(scores, labels)
        >>> auc.compute(nn.metrics.merge_all(batches))
        Array(0.75, dtype=float32)
    """

    def one(node: Any) -> Any:
        if _is_node(node):
            return node.merge_all(node)
        if jnp.ndim(node) == 0:
            raise ValueError(f"merge_all: stacked has {node}, expected arrays stacked along axis 0")
        return jnp.sum(node, 0, dtype=jnp.result_type(node))

    return jax.tree.map(one, stacked, is_leaf=_is_node)


# For loops, where an accumulator keeps its shape


def keeps_examples(accumulator: PyTree) -> bool:
    """Whether an accumulator grows with the number of examples."""
    nodes = jax.tree.leaves(accumulator, is_leaf=_is_node)
    return any(isinstance(node, ExampleAccumulator) for node in nodes)


def blank(accumulator: PyTree, rows: int) -> PyTree:
    """Zeros like an accumulator, or its shapes, with room for the examples of `rows` rows."""

    def zeros(leaf: Any) -> jax.Array:
        return jnp.zeros(leaf.shape, leaf.dtype)

    def one(node: Any) -> Any:
        if not isinstance(node, ExampleAccumulator):
            return jax.tree.map(zeros, node)
        columns = (jnp.zeros((rows, *leaf.shape[1:]), leaf.dtype) for leaf in node.columns)
        return ExampleAccumulator(tuple(columns), zeros(node.parts))

    return jax.tree.map(one, accumulator, is_leaf=_is_node)


def merge_into(total: PyTree, part: PyTree, row: ArrayLike) -> PyTree:
    """`total` merged with the accumulator of one batch, whose examples go from `row` on."""

    def both(whole: Any, node: Any) -> Any:
        if isinstance(node, ExampleAccumulator):
            return node.written_into(whole, row)
        return merge(whole, node)

    return jax.tree.map(both, total, part, is_leaf=_is_node)
