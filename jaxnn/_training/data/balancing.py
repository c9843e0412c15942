"""Weights of examples that make up for classes of different sizes."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked


@checked
def balanced_weights(labels: ArrayLike) -> jax.Array:
    """Weights of examples by which all classes count alike, however frequent each is.

    `w_i = n / (K n_k)` for an example of class `k`, of which there are `n_k` among `n` examples of
    `K` classes: their mean is 1. They are the third part of data for `nn.fit`, `(x, y, weights)`,
    and what scikit-learn's `compute_sample_weight("balanced", labels)` gives.

    Args:
        labels: integers or booleans, shape `(n,)`.

    Returns:
        Shape `(n,)`, in the default floating dtype.

    Raises:
        TypeError: the labels are not integers.
        ValueError: they have another number of axes, or there are none.

    Example:
        >>> import jaxnn as nn
        >>> nn.balanced_weights([0, 0, 0, 1])
        Array([0.6666667, 0.6666667, 0.6666667, 2.       ], dtype=float32)
    """
    labels = jnp.asarray(labels)
    if not (jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype == bool):
        raise TypeError(f"balanced_weights: labels have dtype {labels.dtype}, expected integers")
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"balanced_weights: labels have shape {labels.shape}, expected shape (n,), n > 0"
        )
    ascending = jnp.sort(labels)
    counts = jnp.searchsorted(ascending, labels, side="right")
    counts -= jnp.searchsorted(ascending, labels, side="left")
    classes = 1 + jnp.sum(ascending[1:] != ascending[:-1])
    return labels.size / (classes * counts).astype(float)
