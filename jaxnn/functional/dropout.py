"""Noise that regularises."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import check_key, check_range, floating, hyperparameter, widen


def dropout(key: jax.Array, x: ArrayLike, rate: ArrayLike) -> jax.Array:
    """Set each element to zero with probability `rate`, scale the others to keep the mean.

    `y = x * keep / (1 - rate)`, `keep ~ Bernoulli(1 - rate)`; a rate of 1 gives zeros.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        key: a typed PRNG key. Under `jax.shard_map` every device draws the same mask, unless its
            index is folded in: `jax.random.fold_in(key, jax.lax.axis_index("batch"))`.
        x: any shape, floating (integers become the default float).
        rate: the probability of dropping an element, in [0, 1]; may be traced.

    Returns:
        The shape and floating dtype of `x`.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `rate` is known and outside [0, 1].

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> nn.functional.dropout(jax.random.key(0), jnp.ones(8), 0.5)
        Array([...], dtype=float32)
    """
    check_key("dropout", key)
    check_range("dropout", "rate", rate, 0, 1)
    x = floating(x)
    wide = widen(x)
    rate = hyperparameter(rate, wide.dtype)  # in float32: bfloat16 cannot tell 0.999 from 1
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    scale = jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1), 0)
    return jnp.where(keep, wide * scale, 0).astype(x.dtype)
