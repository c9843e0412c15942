"""Batch normalisation."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import canonical_axes, check_axis_name, check_range
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, shape_of
from jaxnn._core.types import PyTree
from jaxnn._layers.params import refuse_unused, scale_and_bias
from jaxnn._layers.running_statistics import (
    check_decay,
    check_statistics,
    first_statistics,
    next_statistics,
    unbiased,
)
from jaxnn.functional._batch_normalization import number_of
from jaxnn.functional._normalization import check_mask


@constructor
def batch_norm(
    *,
    axis: int = -1,
    decay: float | None = 0.9,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = initializers.ones,
    bias_init: Initializer = initializers.zeros,
    axis_name: str | Sequence[str] | None = None,
) -> Layer:
    """Batch normalisation: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`, by feature.

    Training normalises with the mean and the biased variance of the batch, and updates the running
    statistics, exponential moving averages: `running = decay * running + (1 - decay) * batch`, with
    the unbiased variance, as in torch (flax tracks the biased one). With `decay=None` they are the
    means over all batches so far, `running = (n * running + batch) / (n + 1)`. Evaluation
    normalises with the running statistics, initially mean 0 and variance 1. An empty batch leaves
    them as they are.

    `mask=` of `apply`, booleans that broadcast to `x` and of its rank, says which elements count:
    the others are in no statistic, may hold anything, and come out as 0. A feature of which nothing
    counts keeps its running statistics.

    Paper: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167

    Args:
        axis: the axis of the features; statistics are taken over all others.
        decay: the decay rate of the running statistics, in [0, 1] (flax and Keras call it
            `momentum`; torch's `momentum` is `1 - decay`); None for the mean of all batches, as
            `momentum=None` in torch.
        epsilon: added to the variance.
        use_scale, use_bias: whether to learn a scale and a bias, each of shape `(features,)`.
        scale_init, bias_init: their initializers; ones and zeros by default.
        axis_name: names of mapped axes (of `jax.vmap` or `jax.shard_map`) over which the batch is
            spread; the statistics are then those of the whole batch.

    Returns:
        A `Layer` with params `{"scale", "bias"}` and state `{"mean", "var"}`, float32 or wider;
        with `decay=None` also `"count"`, the batches that each feature has seen.

    Raises:
        ValueError: `axis` is out of range for `x`; `decay` is outside [0, 1]; `epsilon` is
            negative; the state is missing; in training, `x` has no axis of a batch.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.batch_norm(decay=0.5)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> y, state = layer.apply(params, state, x, train=True)
        >>> y.ravel().round(3), state["mean"], state["var"]
        (Array([-1.,  1.], dtype=float32), Array([1.], dtype=float32), Array([1.5], dtype=float32))
    """
    check_decay("batch_norm", decay)
    check_range("batch_norm", "epsilon", epsilon, 0)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        shape, dtype = shape_of("batch_norm", x), param_dtype(x)
        features = (shape[canonical_axes(axis, len(shape), "batch_norm")[0]],)
        inits = scale_init if use_scale else None, bias_init if use_bias else None
        params = scale_and_bias("batch_norm", key, features, dtype, *inits)
        return params, first_statistics(features, dtype, decay)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        check_statistics("batch_norm", state, decay)
        if train and jnp.ndim(x) == 1 and axis_name is None:
            raise ValueError(
                f"batch_norm: x has shape {np.shape(x)}, expected an axis of the batch too: of "
                "one example there are no statistics"
            )
        counts = check_mask("batch_norm", jnp.asarray(x), mask)
        count = _count(x, axis, axis_name)
        if train and count > 0:  # of nothing there are no statistics
            mean, var = functional.batch_statistics(x, axis=axis, axis_name=axis_name, mask=mask)
            if counts is None:
                batch_var, seen = var * (count / jax.core.max_dim(count - 1, 1)), None
            else:
                n = number_of(counts, axis, axis_name)
                batch_var, seen = unbiased(var, n), n > 0
            state = next_statistics(state, mean, batch_var, seen, decay)
        else:
            mean, var = state["mean"], state["var"]
        refuse_unused("batch_norm", params, scale=use_scale, bias=use_bias)
        scale = params["scale"] if use_scale else None
        bias = params["bias"] if use_bias else None
        y = functional.batch_norm(x, mean, var, scale, bias, axis=axis, epsilon=epsilon, mask=mask)
        return y, state

    return Layer(init, apply)


def _count(x: jax.Array, axis: int, axis_name: str | Sequence[str] | None) -> int:
    """How many values each feature has: n, whose variance `n / (n - 1)` makes unbiased."""
    shape = np.shape(x)
    (features,) = canonical_axes(axis, len(shape), "batch_norm")
    n = math.prod(size for a, size in enumerate(shape) if a != features)
    if axis_name is None:
        return n
    check_axis_name("batch_norm", axis_name)
    return int(n * lax.psum(1, axis_name))
