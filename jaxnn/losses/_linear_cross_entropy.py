"""The softmax cross-entropy of a linear layer, whose logits are never all there at once."""

import functools
import math
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    accumulator_dtype,
    check_range,
    check_shape,
    check_soft_cap,
    concrete,
    floating,
    hyperparameter,
    refuse_complex,
    wide_integers,
    widen,
)
from jaxnn._core.bounds import check_bounds
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import at_labels, check_ignore_index
from jaxnn.losses._left_out import tell_of_label
from jaxnn.losses._weighted import Weighted

LOGITS_IN_A_CHUNK = 2**24


@overload
def linear_softmax_cross_entropy(
    x: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = ...,
    *,
    weights: None = ...,
    label_smoothing: Scalar = ...,
    ignore_index: int | None = ...,
    soft_cap: Scalar | None = ...,
    reduction: Literal["none"] = ...,
) -> jax.Array: ...


@overload
def linear_softmax_cross_entropy(
    x: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = ...,
    *,
    weights: ArrayLike | None = ...,
    label_smoothing: Scalar = ...,
    ignore_index: int | None = ...,
    soft_cap: Scalar | None = ...,
    reduction: Literal["mean"],
) -> Weighted: ...


@checked
def linear_softmax_cross_entropy(
    x: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    label_smoothing: Scalar = 0.0,
    ignore_index: int | None = None,
    soft_cap: Scalar | None = None,
    reduction: Literal["none", "mean"] = "none",
) -> jax.Array | Weighted:
    """The softmax cross-entropy of a linear layer: `softmax_cross_entropy(x @ kernel + bias)`.

    For large vocabularies: the logits are made for some rows of `x` at a time, and made again for
    the gradient, so that memory does not grow with rows times classes. The mean is faster than the
    values: its gradient is computed along with it, and nothing is computed twice.

    Paper: Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models,
    https://arxiv.org/abs/2411.09009

    Args:
        x: shape `(..., in)`, floating.
        kernel: shape `(in, classes)`, cast to the dtype of `x`; `embedding.T` for tied weights.
        labels: integer classes, shape `(...)`. A class outside [0, classes) gives NaN.
        bias: shape `(classes,)`, or None.
        weights: of the rows in the mean, at least 0, shape `(...)`; None for 1. A row of weight 0
            has no effect, whatever it holds.
        label_smoothing: the part of the labels that is spread evenly over the classes, in [0, 1];
            may be traced.
        ignore_index: the label of rows whose loss and gradient are 0, and which have no weight in
            the mean; None for none.
        soft_cap: a positive number `c` for logits `c tanh(logits / c)`; None for none.
        reduction: "none" for a value for each row; "mean" for `Σ weight·value / Σ weight`.

    Returns:
        The values, in the shape of `labels`, float32 or wider. For the mean
        `Weighted(mean, Σ weight)` of scalars, which `nn.fit` takes from a loss: means over batches
        are then exact.

    Raises:
        TypeError: `labels` are not integers, or an array is complex.
        ValueError: the shapes do not fit; a number is out of range; `weights` are given without
            "mean".

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x, kernel = jnp.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]), jnp.eye(2)
        >>> nn.losses.linear_softmax_cross_entropy(x, kernel, jnp.array([0, 0, 1]))
        Array([0.12692805, 5.0067153 , 0.6931472 ], dtype=float32)
        >>> mean, weight = nn.losses.linear_softmax_cross_entropy(
        ...     x, kernel, jnp.array([0, -1, 1]), ignore_index=-1, reduction="mean")
        >>> f"{mean:.3f}", weight
        ('0.410', Array(2., dtype=float32))
    """
    function = "linear_softmax_cross_entropy"
    x, kernel, labels = floating(x), jnp.asarray(kernel), wide_integers(labels)
    for name, given in (("x", x), ("kernel", kernel), ("bias", bias), ("weights", weights)):
        refuse_complex(function, name, given)
    if kernel.ndim != 2 or kernel.shape[1] < 2:
        raise ValueError(
            f"{function}: kernel has shape {kernel.shape}, expected shape (in, classes) with two "
            "classes at least"
        )
    if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"{function}: x has shape {x.shape}, expected {kernel.shape[0]} features in its last "
            f"axis to fit a kernel of shape {kernel.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{function}: labels have dtype {labels.dtype}, expected integer classes")
    check_shape(function, "labels", labels, x.shape[:-1])
    check_range(function, "label_smoothing", label_smoothing, 0, 1)
    check_ignore_index(function, ignore_index)
    check_bounds(function, labels, kernel.shape[1], ignore_index)
    if bias is not None:
        check_shape(function, "bias", bias, kernel.shape[1:])
    check_soft_cap(function, soft_cap)
    if weights is not None:
        if reduction != "mean":
            raise ValueError(f"{function}: weights are given, expected reduction='mean' with them")
        check_range(function, "weights", weights, 0)
        check_shape(function, "weights", weights, labels.shape)

    wide = accumulator_dtype(x.dtype)
    counts = jnp.ones(labels.shape, wide) if weights is None else hyperparameter(weights, wide)
    if ignore_index is not None:
        counts = jnp.where(labels == ignore_index, 0, counts)
    known_smoothing = concrete(label_smoothing)
    head = _Head(
        kernel.astype(x.dtype),
        None if bias is None else hyperparameter(bias, wide),
        None if known_smoothing == 0 else hyperparameter(label_smoothing, wide),
        None if soft_cap is None else hyperparameter(soft_cap, wide),
    )
    chunks = _chunks(x, labels, counts, kernel.shape[1])
    if reduction == "none":
        tell_of_label(function, labels.shape, ignore_index)
        values = _values_of_chunks(head, chunks).swapaxes(0, 1).reshape(-1)[: labels.size]
        return values.reshape(labels.shape)
    weight = jnp.sum(counts)
    some = jnp.where(weight > 0, weight, 1)
    return Weighted(_sum_of_chunks(head, chunks) / some, weight)


class _Head(NamedTuple):
    """What makes logits of rows, and the labels' smoothing."""

    kernel: jax.Array
    bias: jax.Array | None
    smoothing: jax.Array | None
    cap: jax.Array | None


class _Rows(NamedTuple):
    """Rows, or chunks of rows with a leading axis for the chunks."""

    x: jax.Array
    labels: jax.Array
    weights: jax.Array


def _chunks(x: jax.Array, labels: jax.Array, weights: jax.Array, classes: int) -> _Rows:
    """The rows in chunks of a size, the last filled up with rows of weight 0.

    Rows that follow one another are in different chunks: where devices have different examples,
    each has a part of each chunk.
    """
    count = labels.size
    chunks = max(1, math.ceil(count / max(LOGITS_IN_A_CHUNK // classes, 256)))
    size = math.ceil(count / chunks)

    def cut(a: jax.Array) -> jax.Array:
        rows = a.reshape(count, *a.shape[labels.ndim :])
        padded = jnp.pad(rows, [(0, chunks * size - count)] + [(0, 0)] * (rows.ndim - 1))
        return padded.reshape(size, chunks, *rows.shape[1:]).swapaxes(0, 1)

    return _Rows(*map(cut, (x, labels, weights)))


def _values(head: _Head, rows: _Rows) -> jax.Array:
    """The loss of each row; 0 for one of weight 0."""
    counts = rows.weights != 0
    x = jnp.where(counts[:, None], rows.x, 0)
    logits = jnp.matmul(x, head.kernel, preferred_element_type=rows.weights.dtype)
    if head.bias is not None:
        logits = logits + head.bias[None]
    if head.cap is not None:
        logits = head.cap * jnp.tanh(logits / head.cap)
    greatest = jax.lax.stop_gradient(jnp.max(logits, -1))
    shifted = logits - greatest[:, None]
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), -1))
    of_label = at_labels(logits, rows.labels) - greatest
    if head.smoothing is not None:
        of_label = (1 - head.smoothing) * of_label + head.smoothing * jnp.mean(shifted, -1)
    exists = (rows.labels >= 0) & (rows.labels < logits.shape[-1])
    return jnp.where(counts, jnp.where(exists, log_sum - of_label, jnp.nan), 0)


def _values_of_chunks(head: _Head, chunks: _Rows) -> jax.Array:
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(head: _Head, rows: _Rows) -> tuple[_Head, jax.Array]:
        return head, _values(head, rows)

    values: jax.Array = jax.lax.scan(step, head, chunks)[1]
    return values


def _weighted_sum(head: _Head, rows: _Rows) -> jax.Array:
    return jnp.sum(rows.weights * _values(head, rows))


@jax.custom_jvp
def _sum_of_chunks(head: _Head, chunks: _Rows) -> jax.Array:
    def step(sum_so_far: jax.Array, rows: _Rows) -> tuple[jax.Array, None]:
        return sum_so_far + _weighted_sum(head, rows), None

    return jax.lax.scan(step, jnp.zeros((), chunks.weights.dtype), chunks)[0]


def _sum_of_chunks_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """The gradient of each chunk along with its sum: that of the whole is a number times theirs."""
    (head, fixed_head, d_head), (rows, fixed_rows, d_rows) = map(_moving, primals, tangents)

    def step(so_far: Any, chunk: tuple[_Rows, _Rows]) -> Any:
        def of(head: _Head, rows: _Rows) -> jax.Array:
            return _weighted_sum(_joined(head, fixed_head), _joined(rows, chunk[1]))

        value, (by_head, by_rows) = jax.value_and_grad(of, (0, 1))(head, chunk[0])
        new = value, jax.tree.map(widen, by_head)
        return jax.tree.map(jnp.add, so_far, new), by_rows

    wide = primals[1].weights.dtype
    start = jnp.zeros((), wide), jax.tree.map(lambda a: jnp.zeros(a.shape, wide), head)
    (value, by_head), by_rows = jax.lax.scan(step, start, (rows, fixed_rows))
    products = jax.tree.map(
        lambda g, d: jnp.sum(widen(g) * widen(d)), (by_head, by_rows), (d_head, d_rows)
    )
    return value, sum(jax.tree.leaves(products), jnp.zeros((), wide))


_sum_of_chunks.defjvp(_sum_of_chunks_jvp, symbolic_zeros=True)


def _moving(primals: Any, tangents: Any) -> tuple[Any, Any, Any]:
    """The arrays that have a tangent, those that have none, and the tangents; None elsewhere."""
    return (
        jax.tree.map(lambda p, t: None if _is_zero(t) else p, primals, tangents),
        jax.tree.map(lambda p, t: p if _is_zero(t) else None, primals, tangents),
        jax.tree.map(lambda t: None if _is_zero(t) else t, tangents),
    )


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _joined(first: Any, second: Any) -> Any:
    """Each array from the one of the trees that has it."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )
