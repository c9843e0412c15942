"""Batch normalisation and its statistics."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    absolute_square,
    along,
    canonical_axes,
    check_axis_name,
    check_range,
    floating,
    refuse_complex,
    widen,
)
from jaxnn.functional._normalization import (
    affine,
    along_axes,
    check_mask,
    counted,
    other_axes,
)


@checked
def batch_norm(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Normalise each feature by given statistics: `y = (x - mean) / sqrt(var + epsilon)`.

    `scale` multiplies and `bias` shifts the result. In training the statistics are those of the
    batch, `batch_statistics(x)`, and the gradient flows through them; in evaluation they are
    running averages.

    Paper: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167

    Args:
        x: any shape; `axis` holds the features.
        mean, var: shape `(features,)`; `var` is a biased variance, real also where `x` is complex.
        scale, bias: shape `(features,)`, or None.
        axis: the axis of the features.
        epsilon: added to the variance.
        mask: as in `layer_norm`; the elements that do not count come out as 0.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `var` is complex, or `mask` is not boolean.
        ValueError: `axis` is out of range, `epsilon` is negative, a shape is not `(features,)`, or
            that of `mask` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> nn.functional.batch_norm(x, *nn.functional.batch_statistics(x)).round(3)
        Array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)
    """
    check_range("batch_norm", "epsilon", epsilon, 0)
    x = floating(x)
    features = canonical_axes(axis, x.ndim, "batch_norm")
    refuse_complex("batch_norm", "var", var)
    wide = along_axes("batch_norm", x, features, mean=mean, var=var, scale=scale, bias=bias)
    real_var = jnp.real(wide["var"])
    counts = check_mask("batch_norm", x, mask)
    centered = counted(counted(widen(x), counts) - wide["mean"], counts)
    z = counted(centered * lax.rsqrt(real_var + epsilon).astype(wide["mean"].dtype), counts)
    return counted(affine(z, wide), counts).astype(x.dtype)


@checked
def batch_statistics(
    x: ArrayLike,
    *,
    axis: int = -1,
    axis_name: str | Sequence[str] | None = None,
    mask: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Each feature's mean and biased variance over all other axes.

    Args:
        x: any shape; `axis` holds the features.
        axis: the axis of the features.
        axis_name: names of mapped axes (of `jax.vmap` or `jax.shard_map`) to reduce over as well:
            sums and counts are added up, so that the result is that of the whole batch.
        mask: as in `layer_norm`; of a feature of which nothing counts, mean and variance are 0.

    Returns:
        `(mean, var)`, each of shape `(features,)`, float32 or wider. Of complex numbers the
        variance is the mean of `|x - mean|²`, which is real.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: `axis` is out of range, or the shape of `mask` does not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.batch_statistics(jnp.array([[1.0, 10.0], [3.0, 30.0]]))
        (Array([ 2., 20.], dtype=float32), Array([  1., 100.], dtype=float32))
    """
    x = widen(x)
    features = canonical_axes(axis, x.ndim, "batch_statistics")
    others = other_axes(features, x.ndim)
    if axis_name is not None:
        check_axis_name("batch_statistics", axis_name)

    counts = check_mask("batch_statistics", x, mask)
    n = None if counts is None else jnp.maximum(number_of(counts, axis, axis_name), 1)

    def mean_over_batch(values: jax.Array) -> jax.Array:
        if n is not None:
            local = jnp.sum(values, axis=others)
            total = local if axis_name is None else lax.psum(local, axis_name)
            return total / n.astype(total.dtype)
        local = jnp.mean(values, axis=others)
        # Every mapped instance has the same count, so the mean of means is the whole mean.
        return local if axis_name is None else lax.pmean(local, axis_name)

    x = counted(x, counts)
    mean = mean_over_batch(x)
    centered = counted(x - along(mean, features, x.ndim), counts)
    return mean, mean_over_batch(absolute_square(centered))


def number_of(counts: jax.Array, axis: int, axis_name: str | Sequence[str] | None) -> jax.Array:
    """How many elements of each feature count, over mapped axes too."""
    features = canonical_axes(axis, counts.ndim, "batch_norm")
    local = jnp.sum(counts, axis=other_axes(features, counts.ndim), dtype=jnp.int32)
    return local if axis_name is None else lax.psum(local, axis_name)
