"""Classification losses."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import canonical_axes, check_range, hyperparameter, is_inexact, promoted, widen
from jaxnn.losses._masks import masked


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int = -1,
    where: ArrayLike | None = None,
    *,
    label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
    """The cross-entropy of softmax: `-Σ_c labels_c log softmax(logits)_c`, with `0 log 0 = 0`.

    Args:
        logits: shape `(..., classes, ...)`, the classes in `axis`; unnormalised log-probabilities.
        labels: distributions of the shape of `logits`, or integer classes, in the shape of
            `logits` without `axis`. A class outside [0, classes) gives NaN, not a quiet number.
        axis: the axis of the classes.
        where: booleans that broadcast to the shape of `logits`; a class takes no part where False,
            and an example without any class has loss 0.
        label_smoothing: the part `s` of the labels that is spread evenly over the classes,
            `(1 - s) labels + s / classes`; in [0, 1], may be traced.

    Returns:
        The shape of `logits` without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or `label_smoothing` is known and outside [0, 1].
        TypeError: labels of one axis fewer than `logits` are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1000.0]])
        >>> nn.losses.softmax_cross_entropy(logits, jnp.array([0, 1])).tolist()
        [0.12692..., 0.0]
        >>> distributions = jnp.array([[0.5, 0.5], [0.0, 1.0]])
        >>> nn.losses.softmax_cross_entropy(logits, distributions).tolist()
        [1.12692..., 0.0]
    """
    logits, labels = widen(logits), jnp.asarray(labels)
    (axis,) = canonical_axes(axis, logits.ndim, "softmax_cross_entropy")
    check_range("softmax_cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    targets = _distributions(logits, labels, axis)
    if where is None:
        included = jnp.full((1,) * logits.ndim, True)
        classes = jnp.asarray(logits.shape[axis], logits.dtype)
    else:
        included = _broadcast_mask(where, logits)
        count = jnp.sum(included, axis, keepdims=True, dtype=logits.dtype)
        classes = jnp.maximum(count, 1)
    smoothing = hyperparameter(label_smoothing, logits.dtype)
    targets = jnp.where(included, (1 - smoothing) * targets + smoothing / classes, 0)
    any_included = jnp.any(included, axis, keepdims=True)
    logits = jnp.where(included, logits, jnp.where(any_included, -jnp.inf, 0))
    log_probs = jax.nn.log_softmax(logits, axis)
    impossible = (targets == 0) & jnp.isneginf(log_probs)
    return jnp.sum(targets * jnp.where(impossible, 0, -log_probs), axis)


def _broadcast_mask(where: ArrayLike, logits: jax.Array) -> jax.Array:
    try:
        return jnp.broadcast_to(where, logits.shape)
    except ValueError as error:
        raise ValueError(
            f"softmax_cross_entropy: where has shape {jnp.shape(where)}, expected one that "
            f"broadcasts to the shape {logits.shape} of the logits"
        ) from error


def _distributions(logits: jax.Array, labels: jax.Array, axis: int) -> jax.Array:
    """Labels of either kind as distributions; NaN for a class that does not exist."""
    if labels.shape == logits.shape:
        return labels.astype(logits.dtype)
    without_axis = logits.shape[:axis] + logits.shape[axis + 1 :]
    if labels.shape != without_axis:
        raise ValueError(
            f"softmax_cross_entropy: labels have shape {labels.shape} and logits {logits.shape}, "
            f"expected labels of the same shape (distributions) or of shape {without_axis} "
            "(integer classes)"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"softmax_cross_entropy: labels of shape {labels.shape} have dtype {labels.dtype}, "
            "expected integer classes"
        )
    classes = logits.shape[axis]
    exists = jnp.expand_dims((labels >= 0) & (labels < classes), axis)
    one_hot = jax.nn.one_hot(labels, classes, dtype=logits.dtype, axis=axis)
    return jnp.where(exists, one_hot, jnp.nan)


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
    logits, labels = widen(logits), jnp.asarray(labels)
    if logits.shape != labels.shape:
        raise ValueError(
            f"sigmoid_binary_cross_entropy: logits have shape {logits.shape} and labels "
            f"{labels.shape}, expected equal shapes"
        )
    if is_inexact(labels.dtype):
        logits = logits.astype(promoted(logits.dtype, labels.dtype))
    logits = masked(logits, where, "sigmoid_binary_cross_entropy")
    positive = labels.astype(logits.dtype)
    loss = _cross_term(positive, logits) + _cross_term(1 - positive, -logits)
    return masked(loss, where, "sigmoid_binary_cross_entropy")


def _cross_term(probability: jax.Array, logits: jax.Array) -> jax.Array:
    """`-probability log σ(logits)`, with `0 log 0 = 0`."""
    impossible = (probability == 0) & jnp.isneginf(logits)
    return -probability * jax.nn.log_sigmoid(jnp.where(impossible, 0, logits))
