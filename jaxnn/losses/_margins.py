"""Margin losses: 0 once the correct answer wins by a margin."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_finite, check_shape, hyperparameter, wide_integers, widen
from jaxnn._core.bounds import check_bounds
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import fitting, masked


@checked
def hinge_loss(
    predictor_outputs: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The hinge loss: `max(0, 1 - predictor_outputs targets)`; its derivative at the kink is 0.

    Paper: Cortes and Vapnik, Support-Vector Networks, 1995.

    Args:
        predictor_outputs: any shape; positive or negative for the class predicted.
        targets: the same shape; 1 or -1.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictor_outputs`, float32 or wider.

    Raises:
        ValueError: the shapes differ (optax broadcasts them).

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.hinge_loss(jnp.array([0.25, 2.0, 2.0]), jnp.array([1, 1, -1]))
        Array([0.75, 0.  , 3.  ], dtype=float32)
    """
    return _hinge("hinge_loss", 1, predictor_outputs, targets, where)


@checked
def squared_hinge_loss(
    predictor_outputs: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The squared hinge loss: `max(0, 1 - predictor_outputs targets)²`, which has no kink.

    Args:
        predictor_outputs: any shape; positive or negative for the class predicted.
        targets: the same shape; 1 or -1.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictor_outputs`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.squared_hinge_loss(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1]))
        Array([0.25, 0.  , 9.  ], dtype=float32)
    """
    return jnp.square(_hinge("squared_hinge_loss", 1, predictor_outputs, targets, where))


@checked
def perceptron_loss(
    predictor_outputs: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The perceptron's loss: `max(0, -predictor_outputs targets)`; its derivative at 0 is 0.

    Paper: Rosenblatt, The Perceptron, 1958.

    Args:
        predictor_outputs: any shape; positive or negative for the class predicted.
        targets: the same shape; 1 or -1.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictor_outputs`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.perceptron_loss(jnp.array([0.25, 2.0, 2.0]), jnp.array([1, 1, -1]))
        Array([0., 0., 2.], dtype=float32)
    """
    return _hinge("perceptron_loss", 0, predictor_outputs, targets, where)


@checked
def multiclass_hinge_loss(
    scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The multiclass hinge loss: `max_c (scores_c + [c ≠ label]) - scores_label`.

    Paper: Crammer and Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines, 2001. (torch's `MultiMarginLoss` sums over the classes instead.)

    Args:
        scores: shape `(..., classes)`.
        labels: integer classes, shape `(...)`. A class outside [0, classes) gives NaN.
        where: booleans of the shape of `labels`; the loss and its gradient are 0 where False.

    Returns:
        The shape of `labels`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the labels are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> scores = jnp.array([[3.0, 1.0, 0.0], [0.5, 1.0, 0.0]])
        >>> nn.losses.multiclass_hinge_loss(scores, jnp.array([0, 1]))
        Array([0. , 0.5], dtype=float32)
    """
    return _multiclass_margin("multiclass_hinge_loss", 1, scores, labels, where)


@checked
def multiclass_perceptron_loss(
    scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """The multiclass perceptron loss: `max_c scores_c - scores_label`.

    Paper: Collins, Discriminative Training Methods for Hidden Markov Models, 2002.

    Args:
        scores: shape `(..., classes)`.
        labels: integer classes, shape `(...)`. A class outside [0, classes) gives NaN.
        where: booleans of the shape of `labels`; the loss and its gradient are 0 where False.

    Returns:
        The shape of `labels`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the labels are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> scores = jnp.array([[3.0, 1.0, 0.0], [0.5, 1.0, 0.0]])
        >>> nn.losses.multiclass_perceptron_loss(scores, jnp.array([0, 0]))
        Array([0. , 0.5], dtype=float32)
    """
    return _multiclass_margin("multiclass_perceptron_loss", 0, scores, labels, where)


@checked
def margin_ranking_loss(
    first: ArrayLike,
    second: ArrayLike,
    targets: ArrayLike,
    *,
    margin: Scalar = 0.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The loss of a wrong order: `max(0, margin - targets (first - second))`, as in torch.

    Args:
        first: scores of any shape.
        second: the same shape.
        targets: the same shape; 1 where the first should be larger, -1 where the second.
        margin: by how much larger is large enough; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `first`, float32 or wider. The derivative at the kink is 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> first, second = jnp.array([3.0, 3.0]), jnp.array([1.0, 1.0])
        >>> nn.losses.margin_ranking_loss(first, second, jnp.array([1, -1]))
        Array([0., 2.], dtype=float32)
    """
    function = "margin_ranking_loss"
    check_finite(function, margin=margin)
    first, second, targets = fitting(function, first=first, second=second, targets=targets)
    margin = hyperparameter(margin, first.dtype)
    return _hinge(function, margin, first - second, targets, where)


def _hinge(
    loss: str,
    margin: ArrayLike,
    predictor_outputs: ArrayLike,
    targets: ArrayLike,
    where: ArrayLike | None,
) -> jax.Array:
    outputs, signs = fitting(loss, predictor_outputs=predictor_outputs, targets=targets)
    product = masked(outputs, where, loss) * masked(signs, where, loss)
    return masked(jax.nn.relu(margin - product), where, loss)


def _multiclass_margin(
    loss: str, margin: float, scores: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> jax.Array:
    scores, labels = widen(scores), wide_integers(labels)
    if scores.ndim == 0 or scores.shape[-1] < 2:
        raise ValueError(
            f"{loss}: scores have shape {scores.shape}, expected two classes at least in the last "
            "axis; for two, hinge_loss takes one score"
        )
    check_shape(loss, "labels", labels, scores.shape[:-1])
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{loss}: labels have dtype {labels.dtype}, expected integer classes")
    check_bounds(loss, labels, scores.shape[-1])
    if where is not None:
        scores = jnp.where(jnp.expand_dims(jnp.asarray(where), -1), scores, 0)
    classes = jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1)
    is_label = labels[..., None] == classes
    of_label = jnp.sum(jnp.where(is_label, scores, 0), -1)
    values = jnp.max(jnp.where(is_label, scores, scores + margin), -1) - of_label
    exists = (labels >= 0) & (labels < scores.shape[-1])
    return masked(jnp.where(exists, values, jnp.nan), where, loss)
