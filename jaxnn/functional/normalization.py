"""Normalisation: statistics in float32 or wider and in two passes, whatever the input's dtype."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._arrays import along, canonical_axes, check_shape, floating, widen


def batch_norm(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalise each feature by given statistics: `y = (x - mean) / sqrt(var + epsilon)`.

    `scale` multiplies and `bias` shifts the result. In training the statistics are those of the
    batch, `batch_statistics(x)`, and the gradient flows through them; in evaluation they are
    running averages.

    Paper: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167

    Args:
        x: any shape; `axis` holds the features.
        mean, var: shape `(features,)`; `var` is a biased variance.
        scale, bias: shape `(features,)`, or None.
        axis: the axis of the features.
        epsilon: added to the variance.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or a shape is not `(features,)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> nn.functional.batch_norm(x, *nn.functional.batch_statistics(x)).round(3)
        Array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)
    """
    x = floating(x)
    axes = canonical_axes(axis, x.ndim, "batch_norm")
    wide = _along_axes("batch_norm", x, axes, mean=mean, var=var, scale=scale, bias=bias)
    centered = widen(x) - wide["mean"].astype(widen(x).dtype)
    return _scale_and_shift(centered, wide["var"], wide, epsilon).astype(x.dtype)


def batch_statistics(
    x: ArrayLike, *, axis: int = -1, axis_name: str | Sequence[str] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Each feature's mean and biased variance over all other axes.

    Args:
        x: any shape; `axis` holds the features.
        axis: the axis of the features.
        axis_name: names of mapped axes (of `jax.vmap` or `jax.shard_map`) to reduce over as well:
            sums and counts are added up, so that the result is that of the whole batch.

    Returns:
        `(mean, var)`, each of shape `(features,)`, float32 or wider.

    Raises:
        ValueError: `axis` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.batch_statistics(jnp.array([[1.0, 10.0], [3.0, 30.0]]))
        (Array([ 2., 20.], dtype=float32), Array([  1., 100.], dtype=float32))
    """
    x = widen(x)
    features = canonical_axes(axis, x.ndim, "batch_statistics")
    others = tuple(a for a in range(x.ndim) if a not in features)

    def mean_over_batch(values: jax.Array) -> jax.Array:
        local = jnp.mean(values, axis=others)
        # Every mapped instance has the same count, so the mean of means is the whole mean.
        return local if axis_name is None else lax.pmean(local, axis_name)

    mean = mean_over_batch(x)
    centered = x - along(mean, features, x.ndim)
    return mean, mean_over_batch(jnp.square(centered))


def layer_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalise each example over `axis`: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.

    Paper: Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450

    Args:
        x: any shape.
        scale, bias: the shape of the normalised axes, in the order of `x`'s axes, or None.
        axis: the axis or axes to normalise over.
        epsilon: added to the (biased) variance.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        ValueError: `axis` is out of range, or the shape of `scale` or `bias` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.layer_norm(jnp.array([1448.0, 1449.0, 1450.0])).round(3)
        Array([-1.225,  0.   ,  1.225], dtype=float32)
    """
    x = floating(x)
    axes = canonical_axes(axis, x.ndim, "layer_norm")
    wide = _along_axes("layer_norm", x, axes, scale=scale, bias=bias)
    mean = jnp.mean(widen(x), axis=axes, keepdims=True)
    centered = widen(x) - mean
    var = jnp.mean(jnp.square(centered), axis=axes, keepdims=True)
    return _scale_and_shift(centered, var, wide, epsilon).astype(x.dtype)


def _along_axes(
    function: str, x: jax.Array, axes: tuple[int, ...], **params: ArrayLike | None
) -> dict[str, jax.Array]:
    """Those of `params` that are given, checked, and reshaped to broadcast against `x`."""
    wide = {}
    for name, param in params.items():
        if param is not None:
            check_shape(function, name, param, tuple(x.shape[a] for a in axes))
            wide[name] = along(widen(param), axes, x.ndim)
    return wide


def _scale_and_shift(
    centered: jax.Array, var: jax.Array, params: dict[str, jax.Array], epsilon: float
) -> jax.Array:
    dtype = centered.dtype
    factor = lax.rsqrt(var.astype(dtype) + epsilon)
    if "scale" in params:
        factor = factor * params["scale"].astype(dtype)
    y = centered * factor
    return y + params["bias"].astype(dtype) if "bias" in params else y
