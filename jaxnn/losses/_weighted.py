"""Losses that say how much each of their values counts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.construction import constructor
from jaxnn._core.types import Loss


class Weighted(NamedTuple):
    """Values of a loss and their weights, of one shape; the mean is `Σ weight·value / Σ weight`.

    A loss that is given to `nn.fit`, `nn.training_run` or `nn.evaluate` may return one instead of
    its values. Numerator and denominator are then summed over the elements of a batch, over
    batches, accumulated gradients and devices. A value of weight 0 counts for nothing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def of_known_targets(predictions, targets):
        ...     known = targets >= 0
        ...     return nn.losses.Weighted(jnp.abs(predictions - targets), known.astype(jnp.float32))
        >>> data = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.0, -1.0], [-1.0, -1.0]])
        >>> nn.evaluate(nn.identity, {}, {}, data, loss=of_known_targets)
        {'loss': 1.0}
    """

    values: jax.Array
    weights: jax.Array


@constructor
def ignoring(loss: Loss, label: int) -> Loss:
    """The loss that leaves out what has a certain label, as padding has.

    `Σ w l / Σ w` with `w = (label != ignored)`: neither the mean nor its gradient depends on how
    much is left out. With `ignore_index=` a loss has zeros there instead, which a mean counts.

    Args:
        loss: `loss(predictions, labels) -> values`, one for each label, as
            `nn.losses.softmax_cross_entropy`.
        label: the label to leave out.

    Returns:
        `loss(predictions, labels) -> Weighted`, for `nn.fit`, `nn.training_run` and `nn.evaluate`.

    Raises:
        TypeError: `loss` is not a function, or `label` is not an integer.
        ValueError: when it is called: there is not one value for each label.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> loss = nn.losses.ignoring(nn.losses.softmax_cross_entropy, -1)
        >>> values, weights = loss(jnp.zeros((2, 3, 5)), jnp.array([[0, 1, -1], [2, -1, -1]]))
        >>> weights
        Array([[1., 1., 0.],
               [1., 0., 0.]], dtype=float32)
        >>> values[0]
        Array([1.609438, 1.609438, 0.      ], dtype=float32)
    """
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"ignoring: loss is {loss!r}, expected a function (predictions, labels)")
    if isinstance(label, bool) or not isinstance(label, int):
        raise TypeError(f"ignoring: label is {label!r}, expected an integer")

    def of_the_others(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
        labels = jnp.asarray(labels)
        counts = labels != label
        values = jnp.asarray(loss(predictions, jnp.where(counts, labels, jnp.zeros_like(labels))))
        if values.shape != labels.shape:
            raise ValueError(
                f"ignoring: the values of the loss have shape {values.shape} and the labels "
                f"{labels.shape}, expected one value for each label"
            )
        others = jnp.where(counts, values, jnp.zeros_like(values))
        return Weighted(others, counts.astype(values.dtype))

    of_the_others.ignores = loss, label  # type: ignore[attr-defined]  # for errors that name labels
    return of_the_others
