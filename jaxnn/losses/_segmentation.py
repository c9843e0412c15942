"""Segmentation losses."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import canonical_axes, check_range, hyperparameter, widen
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import Axis, broadcast_mask, fitting, per_class

REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum}


@checked
def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: Scalar = 1.0,
    alpha: Scalar = 0.5,
    beta: Scalar = 0.5,
    apply_softmax: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    ignore_background: bool = False,
    axis: Axis = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Dice loss: one minus the overlap of predicted and true regions, for each class.

    `1 - (both + smooth) / (both + alpha predicted_only + beta true_only + smooth)`, where `both =
    Σ p t`, `predicted_only = Σ p (1 - t)` and `true_only = Σ t (1 - p)` over the pixels. It is the
    Dice coefficient for `alpha = beta = 0.5`, Tversky's index otherwise.

    Paper: Milletari et al., V-Net, https://arxiv.org/abs/1606.04797; Salehi et al., Tversky loss
    function for image segmentation, https://arxiv.org/abs/1706.05721

    Args:
        predictions: logits, shape `(batch, ..., classes)`; with one class, a sigmoid is meant
            where for more there is a softmax. Probabilities if not `apply_softmax` (trusted to be
            some: optax checks that they sum to 1, which no compiled program can).
        targets: the same shape, probabilities or one-hot; both may leave out a last axis of one.
        class_weights: shape `(classes,)`; None for 1. The losses of the classes are multiplied by
            them, and their mean is still over the number of classes.
        smooth: added above and below; may be traced. With 0, an empty region found empty has
            loss 0.
        alpha: the weight of pixels that are wrongly in the region; may be traced.
        beta: the weight of pixels that are wrongly not in the region; may be traced.
        apply_softmax: whether the predictions are logits.
        reduction: over the classes: "mean", "sum" or "none".
        ignore_background: whether to leave out class 0 if there are more.
        axis: the axis of the pixels, or several; None for all but the first and the last.
        where: booleans that broadcast to the shape of `predictions`, the classes included: which
            pixels count.

    Returns:
        One value per example, shape `(batch,)`; for the reduction "none", `(batch, classes)`;
        float32 or wider.

    Raises:
        ValueError: the shapes do not fit; a weight or `smooth` is negative; `reduction` is none of
            the three.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> truth = jnp.array([[1.0, 1.0, 0.0, 0.0]])[..., None]
        >>> logits = jnp.array([[9.0, 9.0, 9.0, -9.0]])[..., None]  # one pixel too many
        >>> nn.losses.dice_loss(logits, truth, smooth=0.0).round(3)
        Array([0.2], dtype=float32)
    """
    if reduction not in (*REDUCTIONS, "none"):
        raise ValueError(f"dice_loss: reduction is {reduction!r}, expected 'mean', 'sum' or 'none'")
    for name, number in (("smooth", smooth), ("alpha", alpha), ("beta", beta)):
        check_range("dice_loss", name, number, 0)
    both, of_prediction, of_truth = _overlaps(
        "dice_loss", predictions, targets, apply_softmax, axis, where
    )
    predicted_only, true_only = of_prediction - both, of_truth - both
    smooth, alpha, beta = (hyperparameter(h, both.dtype) for h in (smooth, alpha, beta))
    union = both + alpha * predicted_only + beta * true_only + smooth
    is_empty = union == 0
    losses = 1 - jnp.where(is_empty, 1, (both + smooth) / jnp.where(is_empty, 1, union))

    if class_weights is not None:
        losses = losses * per_class("dice_loss", "class_weights", class_weights, losses)
    if ignore_background and losses.shape[-1] > 1:
        losses = losses[..., 1:]
    return losses if reduction == "none" else REDUCTIONS[reduction](losses, -1)


@checked
def generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    apply_softmax: bool = True,
    ignore_background: bool = False,
    axis: Axis = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The generalized Dice loss, in which small regions count as much as large ones.

    `1 - 2 Σ_c w_c Σ p t / Σ_c w_c Σ (p + t)`, the inner sums over the pixels, with `w_c = 1 /
    max(Σ t, 1)²`. It is one overlap of all classes; optax's `multiclass_generalized_dice_loss` is
    a mean of one overlap for each, with such weights taken over the batch.

    Paper: Sudre et al., Generalised Dice overlap as a deep learning loss function for highly
    unbalanced segmentations, https://arxiv.org/abs/1707.03237

    Args:
        predictions: logits, shape `(batch, ..., classes)`; with one class, a sigmoid is meant
            where for more there is a softmax. Probabilities if not `apply_softmax`.
        targets: the same shape, probabilities or one-hot; both may leave out a last axis of one.
        apply_softmax: whether the predictions are logits.
        ignore_background: whether to leave out class 0 if there are more.
        axis: the axis of the pixels, or several; None for all but the first and the last.
        where: booleans that broadcast to the shape of `predictions`, the classes included: which
            pixels count. Without any, the loss is 0.

    Returns:
        One value per example, shape `(batch,)`, float32 or wider; in [0, 1].

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> truth = jnp.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
        >>> missed = jnp.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
        >>> nn.losses.generalized_dice_loss(missed, truth, apply_softmax=False).round(3)
        Array([0.625], dtype=float32)
    """
    both, of_prediction, of_truth = _overlaps(
        "generalized_dice_loss", predictions, targets, apply_softmax, axis, where
    )
    weights = 1 / jnp.square(jnp.maximum(of_truth, 1))
    if ignore_background and weights.shape[-1] > 1:
        weights = weights.at[..., 0].set(0)
    overlap = jnp.sum(weights * both, -1)
    total = jnp.sum(weights * (of_prediction + of_truth), -1)
    is_empty = total == 0
    return 1 - jnp.where(is_empty, 1, 2 * overlap / jnp.where(is_empty, 1, total))


def _overlaps(
    loss: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    apply_softmax: bool,
    axis: Axis,
    where: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over the pixels of `p t`, `p` and `t`, p the probabilities; shape `(batch, classes)`."""
    predictions, targets = widen(predictions), widen(targets)
    if predictions.ndim == targets.ndim - 1:
        predictions = predictions[..., None]
    if targets.ndim == predictions.ndim - 1:
        targets = targets[..., None]
    predictions, targets = fitting(loss, predictions=predictions, targets=targets)
    ndim, classes = predictions.ndim, predictions.shape[-1]
    axis = tuple(range(1, ndim - 1)) if axis is None else axis
    pixels = canonical_axes(axis, ndim, loss, "predictions")

    probs = predictions
    if where is not None:
        included = broadcast_mask(loss, where, predictions.shape)
        probs, targets = jnp.where(included, probs, 0), jnp.where(included, targets, 0)
    if apply_softmax:
        probs = jax.nn.sigmoid(probs) if classes == 1 else jax.nn.softmax(probs)
    if where is not None:
        probs = jnp.where(included, probs, 0)
    return jnp.sum(probs * targets, pixels), jnp.sum(probs, pixels), jnp.sum(targets, pixels)
