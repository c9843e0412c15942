"""Binary classification losses, one value per element."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn.losses._arguments import fitting, masked


def sigmoid_binary_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The binary cross-entropy: `-labels log σ(logits) - (1 - labels) log σ(-logits)`.

    Args:
        logits: any shape; unnormalised log-odds.
        labels: the same shape; probabilities in [0, 1], or booleans or integers 0 and 1.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `logits`, float32 or wider; `0 log 0 = 0` at infinite logits.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([0.0, 1000.0, -1000.0])
        >>> nn.losses.sigmoid_binary_cross_entropy(logits, jnp.array([1, 1, 1])).tolist()
        [0.693147..., 0.0, 1000.0]
    """
    function = "sigmoid_binary_cross_entropy"
    logits, labels = fitting(function, logits=logits, labels=labels)
    logits, labels = masked(logits, where, function), masked(labels, where, function)
    return masked(_cross_entropy(logits, labels), where, function)


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The focal loss: binary cross-entropy times `(1 - p_t)^gamma`, which focuses on hard examples.

    `p_t = labels σ(logits) + (1 - labels) σ(-logits)` is the probability given to the label; with
    `alpha`, the loss is also multiplied by `alpha labels + (1 - alpha) (1 - labels)`.

    Paper: Lin et al., Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002

    Args:
        logits: any shape; unnormalised log-odds.
        labels: the same shape; probabilities in [0, 1], or booleans or integers 0 and 1.
        alpha: the weight of positive labels, in [0, 1]; None for no weights (torchvision: 0.25);
            may be traced.
        gamma: the focusing parameter, at least 0; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `logits`, float32 or wider.

    Raises:
        ValueError: the shapes differ; `alpha` or `gamma` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.sigmoid_focal_loss(jnp.array([0.0, 3.0]), jnp.array([1, 1])).tolist()
        [0.173286..., 0.000109...]
    """
    function = "sigmoid_focal_loss"
    check_range(function, "gamma", gamma, 0)
    logits, labels = fitting(function, logits=logits, labels=labels)
    logits, labels = masked(logits, where, function), masked(labels, where, function)
    missed = labels * jax.nn.sigmoid(-logits) + (1 - labels) * jax.nn.sigmoid(logits)
    loss = _power(missed, hyperparameter(gamma, logits.dtype)) * _cross_entropy(logits, labels)
    if alpha is not None:
        check_range(function, "alpha", alpha, 0, 1)
        alpha = hyperparameter(alpha, logits.dtype)
        loss = (alpha * labels + (1 - alpha) * (1 - labels)) * loss
    return masked(loss, where, function)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """With one exponential: `|x|` times the share of labels on the other side, and `log σ(|x|)`."""
    is_positive = logits > 0
    size = jnp.where(is_positive, logits, -logits)
    missed = jnp.where(is_positive, 1 - labels, labels)
    impossible = (missed == 0) & jnp.isinf(size)
    return missed * jnp.where(impossible, 0, size) + jnp.log1p(jnp.exp(-size))


def _power(base: jax.Array, exponent: jax.Array) -> jax.Array:
    """`base^exponent` for `base >= 0`, with derivative 0 at 0, where it may be infinite."""
    is_zero = base == 0
    at_zero = (exponent == 0).astype(base.dtype)
    return jnp.where(is_zero, at_zero, jnp.where(is_zero, 1, base) ** exponent)
