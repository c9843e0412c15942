"""Adafactor: the mean squares of a matrix in the memory of a row and a column."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_count, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.paths import named_mask
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._averaging import ema
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._block_rms import clip_by_block_rms, scale_by_param_block_rms
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale, scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class FactoredState(NamedTuple):
    """The step count, and the second moments: of rows and columns, or of all elements.

    What a leaf does not need has shape (1,).
    """

    count: jax.Array  # type: ignore[assignment]
    v_row: PyTree
    v_col: PyTree
    v: PyTree


def increasing_decay(count: Scalar, exponent: Scalar) -> jax.Array:
    """The decay rate of the second moments after `count` updates: `1 - (count + 1)^-exponent`."""
    dtype = jnp.result_type(float)
    return 1 - (hyperparameter(count, dtype) + 1) ** -hyperparameter(exponent, dtype)


def _factored_axes(shape: Sequence[int], smallest: int) -> tuple[int, int] | None:
    """The axes of a matrix that is factored: the second largest and the largest."""
    if len(shape) < 2:
        return None
    *_, second, largest = np.argsort(shape)
    return (int(second), int(largest)) if shape[second] >= smallest else None


@constructor
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Scalar = 0.8,
    step_offset: Scalar = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Scalar = 1e-30,
    decay_rate_fn: Callable[[Any, Any], Any] = increasing_decay,
) -> Optimizer:
    """Divide by the root of a second moment that is factored into rows and columns: `u = g / √v`.

    `v = b v + (1 - b) (g² + epsilon)` with the decay rate `b = 1 - t^-decay_rate` at step t. Of a
    matrix, only the means r of the rows of v and c of its columns are kept: `v ≈ r c / mean(r)`.

    Args:
        factored: whether the second moments of matrices are factored.
        decay_rate: the exponent in the decay rate b, at least 0; may be traced.
        step_offset: the number of steps to leave out of t, of a training run before this one.
        min_dim_size_to_factor: the smallest size of the second largest axis of a leaf for which the
            leaf is factored, over its two largest axes.
        epsilon: a small constant added to the squared gradients.
        decay_rate_fn: b, a function of the step count (a float) and `decay_rate`.

    Returns:
        An `Optimizer` with state `FactoredState(count, v_row, v_col, v)`.

    Raises:
        ValueError: a hyperparameter is out of range; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> g = jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])   # rank 1: nothing is lost
        >>> updates, state = optimizer.update(g, optimizer.init(g))
        >>> updates.round(3)
        Array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32)
        >>> [leaf.shape for leaf in state[1:]]
        [(2,), (3,), (1,)]
    """
    check.nonnegative("scale_by_factored_rms", decay_rate=decay_rate, epsilon=epsilon)
    check_count("scale_by_factored_rms", "min_dim_size_to_factor", min_dim_size_to_factor)

    def axes_of(leaf: ArrayLike) -> tuple[int, int] | None:
        return _factored_axes(np.shape(leaf), min_dim_size_to_factor) if factored else None

    def init(params: PyTree) -> PyTree:
        def zeros(p: jax.Array, which: str) -> jax.Array:
            shapes = {"v_row": (1,), "v_col": (1,), "v": np.shape(p)}
            axes = axes_of(p)
            if axes is not None:
                second, largest = (tuple(np.delete(np.shape(p), axis)) for axis in axes)
                shapes = {"v_row": largest, "v_col": second, "v": (1,)}
            return jnp.zeros(shapes[which], precision.real_dtype(jnp.result_type(p)))

        return FactoredState(
            moments.zero_count(),
            *(
                jax.tree.map(lambda p, which=which: zeros(p, which), params)
                for which in FactoredState._fields[1:]
            ),
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        dtype = jnp.result_type(float)
        since = hyperparameter(state.count, dtype) - hyperparameter(step_offset, dtype)
        decay = decay_rate_fn(since, decay_rate)

        def rule(
            g: jax.Array, v_row: jax.Array, v_col: jax.Array, v: jax.Array
        ) -> tuple[jax.Array, ...]:
            square = moments.abs_square(g) + hyperparameter(epsilon, v.dtype)
            axes = axes_of(g)
            if axes is None:
                v = moments.moving_average(v, square, decay)
                return moments.quotient(g, moments.safe_sqrt(v).astype(g.dtype)), v_row, v_col, v
            second, largest = axes
            v_row = moments.moving_average(v_row, jnp.mean(square, largest), decay)
            v_col = moments.moving_average(v_col, jnp.mean(square, second), decay)
            rows, columns = jnp.expand_dims(v_row, largest), jnp.expand_dims(v_col, second)
            # Roots of the factors: their product may be less than the least float32.
            root = moments.safe_sqrt(
                moments.quotient(rows, jnp.mean(rows, second, keepdims=True))
            ) * moments.safe_sqrt(columns)
            return moments.quotient(g, root.astype(g.dtype)), v_row, v_col, v

        updates, *squares = leafwise(
            "scale_by_factored_rms", rule, updates, state.v_row, state.v_col, state.v
        )
        return updates, FactoredState(moments.next_count(state.count), *squares)

    return Optimizer(init, update)


@constructor
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: Scalar = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: DTypeLike | None = None,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adafactor: adaptive steps without a first moment, and with a factored second moment.

    `w = w - learning_rate max(rms(w), 1e-3) û - weight_decay_rate w`, where û is `u = g / √v`
    clipped to a root mean square of at most `clipping_threshold`, leaf by leaf. See
    `scale_by_factored_rms` for v: for a matrix of n by m, n + m numbers are kept.

    optax computes the decay rate and keeps the momentum in float32 always; here the decay rate is
    in JAX's default float dtype and the momentum in float32 or wider. The weight decay leaves out
    biases and scales. torch's Adafactor factors every matrix, over its last two axes, divides the
    learning rate by √t once that is less, and decays by `learning_rate weight_decay w`.

    Paper: Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
    https://arxiv.org/abs/1804.04235

    Args:
        learning_rate: a number at least 0 (may be traced), a schedule `count -> number`, or None
            for 1.
        min_dim_size_to_factor: the smallest size of the second largest axis of a leaf for which the
            leaf is factored, over its two largest axes.
        decay_rate: the exponent in the decay rate of the second moment, `1 - t^-decay_rate`, at
            least 0; may be traced.
        decay_offset: the number of steps to leave out of t, of a training run before this one.
        multiply_by_parameter_scale: whether to scale updates by the root mean square of the
            parameters.
        clipping_threshold: the largest root mean square of u, or None.
        momentum: decay rate of a moving average of the updates, in [0, 1], or None; may be traced.
        dtype_momentum: dtype of that moving average; None for float32 or wider.
        weight_decay_rate: the strength of the weight decay (may be traced), a schedule, or None. It
            is not multiplied by the learning rate.
        eps: a small constant added to the squared gradients.
        factored: whether the second moments of matrices are factored.
        weight_decay_mask: the leaves with weight decay, see `add_decayed_weights`; None for those
            of ndim >= 2.

    Returns:
        An `Optimizer` with state `(FactoredState(count, v_row, v_col, v), ...)` whose `update`
        needs the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> w = jnp.ones((256, 512))
        >>> def numbers(optimizer):
        ...     return sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(w)))
        >>> numbers(nn.optimizers.adam(0.1)), numbers(nn.optimizers.adafactor(0.1))
        (262145, 770)
    """
    check.nonnegative(
        "adafactor",
        eps=eps,
        clipping_threshold=clipping_threshold,
        weight_decay_rate=weight_decay_rate,
    )
    check.decay_rates("adafactor", momentum=momentum)
    parts = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        parts.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_block_rms())
    if momentum is not None:
        parts.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        decaying = named_mask(weight_decay_mask, "adafactor: weight_decay_mask")
        parts.append(add_decayed_weights(weight_decay_rate, decaying))
    return chain(*parts, scale(-1.0))
