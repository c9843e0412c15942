"""Noise that regularises."""

import jax
from jax.typing import ArrayLike

from jaxnn import functional
from jaxnn._arrays import PyTree, check_range
from jaxnn.layer import Layer, constructor, missing_key


@constructor
def dropout(rate: ArrayLike) -> Layer:
    """Set each element to zero with probability `rate` in training; the identity in evaluation.

    `y = x * keep / (1 - rate)`, `keep ~ Bernoulli(1 - rate)`; a rate of 1 gives zeros.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        rate: the probability of dropping an element, in [0, 1] (not, as in stax, of keeping it);
            may be traced.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.dropout(0.5)
        >>> y, _ = layer.apply({}, {}, jnp.ones(1000), key=jax.random.key(0), train=True)
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]
        >>> y, _ = layer.apply({}, {}, jnp.ones(3))
        >>> y
        Array([1., 1., 1.], dtype=float32)
    """
    check_range("dropout", "rate", rate, 0, 1)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        return {}, {}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        if not train:
            return x, state
        if key is None:
            raise missing_key(f"dropout({rate})")
        return functional.dropout(key, x, rate), state

    return Layer(init, apply)
