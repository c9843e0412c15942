"""Binary classification losses, one value per element."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import fitting, masked, per_class


@checked
def sigmoid_binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The binary cross-entropy: `-labels log σ(logits) - (1 - labels) log σ(-logits)`.

    With weights, `c (-p labels log σ(logits) - (1 - labels) log σ(-logits))`, as in torch's
    BCEWithLogitsLoss: `p = pos_weight` makes up for rare positives, `c = class_weights` for labels
    that matter more than others. They multiply values; a mean divides by their number.

    Args:
        logits: any shape; unnormalised log-odds.
        labels: the same shape; probabilities in [0, 1], or booleans or integers 0 and 1.
        pos_weight: the weight of positive labels, at least 0: one number, or one for each label,
            shape `(labels,)` for the last axis; None for 1; may be traced.
        class_weights: the weight of each label, at least 0, shape `(labels,)`; None for 1.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `logits`, float32 or wider; `0 log 0 = 0` at infinite logits.

    Raises:
        ValueError: the shapes differ; a weight is less than 0.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([0.0, 1000.0, -1000.0])
        >>> nn.losses.sigmoid_binary_cross_entropy(logits, jnp.array([1, 1, 1])).tolist()
        [0.693147..., 0.0, 1000.0]
    """
    function = "sigmoid_binary_cross_entropy"
    logits, labels = fitting(function, logits=logits, labels=labels)
    logits, labels = masked(logits, where, function), masked(labels, where, function)
    if pos_weight is None:
        loss = _cross_entropy(logits, labels)
    else:
        weight = _per_label(function, "pos_weight", pos_weight, logits)
        loss = weight * _times(labels, jax.nn.softplus(-logits))
        loss = loss + _times(1 - labels, jax.nn.softplus(logits))
    if class_weights is not None:
        loss = _per_label(function, "class_weights", class_weights, logits) * loss
    return masked(loss, where, function)


@checked
def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Scalar | None = None,
    gamma: Scalar = 2.0,
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


def _per_label(loss: str, name: str, weight: ArrayLike, logits: jax.Array) -> jax.Array:
    """A weight for all labels or for each, which are the last axis, to multiply a loss with."""
    if jnp.ndim(weight) == 0:
        check_range(loss, name, weight, 0)
        return hyperparameter(weight, logits.dtype)
    return per_class(loss, name, weight, logits)


def _times(share: jax.Array, value: jax.Array) -> jax.Array:
    """`share * value`, with `0 * inf = 0`."""
    impossible = (share == 0) & jnp.isinf(value)
    return share * jnp.where(impossible, 0, value)


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
