"""Connectionist temporal classification."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, check_shape, hyperparameter, wide_integers, widen
from jaxnn._core.meshes import automatic, placed_alike


@checked
def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> jax.Array:
    """The CTC loss: the negative log-likelihood of a label sequence, given a longer one of logits.

    Every frame emits a label or a blank; equal labels in a row are one, then blanks are dropped.
    The probability is the sum over all alignments, found by the forward recursion over the states
    "blank, label 1, blank, label 2, ..., blank", in log space.

    Labels that no alignment spells (more of them than frames, or all of probability 0) have the
    loss `-log_epsilon` with gradient 0. In optax, `log_epsilon` also stands for log 0 within the
    recursion, where it is -inf here: the loss of possible labels is exact at any size, and that of
    impossible ones is exactly this. `log_epsilon=0.0` is torch's `zero_infinity=True`,
    `log_epsilon=-jnp.inf` its default.

    Paper: Graves et al., Connectionist Temporal Classification, 2006.

    Args:
        logits: shape `(batch, frames, classes)`; unnormalised log-probabilities.
        logit_paddings: shape `(batch, frames)`; 0 for a frame, 1 for padding.
        labels: integers, shape `(batch, n)`. A class outside [0, classes) gives NaN.
        label_paddings: shape `(batch, n)`; 0 for a label, 1 for the padding after the labels.
        blank_id: the class that is the blank.
        log_epsilon: the log-probability of labels that have none; may be traced.

    Returns:
        One value per example, shape `(batch,)`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit; `blank_id` is not one of the classes; `log_epsilon` is
            NaN.
        TypeError: the labels are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.zeros((1, 3, 2))  # of 8 strings of 3 frames, 6 spell the one label
        >>> frames, label = jnp.zeros((1, 3)), jnp.array([[1]])
        >>> jnp.exp(-nn.losses.ctc_loss(logits, frames, label, jnp.zeros((1, 1))))
        Array([0.75], dtype=float32)
    """
    check_shape("ctc_loss", "log_epsilon", log_epsilon, ())
    check_range("ctc_loss", "log_epsilon", log_epsilon, -math.inf, math.inf)
    logits, labels = widen(logits), wide_integers(labels)
    _check(logits, logit_paddings, labels, label_paddings, blank_id)
    is_frame = ~jnp.asarray(logit_paddings).astype(bool)
    is_label = ~jnp.asarray(label_paddings).astype(bool)
    impossible = hyperparameter(log_epsilon, logits.dtype)
    of_arrays = functools.partial(_loss, blank_id)
    return automatic(  # type: ignore[no-any-return]
        of_arrays, logits, is_frame, labels, is_label, impossible, leading=1
    )


def _loss(
    blank_id: int,
    logits: jax.Array,
    is_frame: jax.Array,
    labels: jax.Array,
    is_label: jax.Array,
    impossible: jax.Array,
) -> jax.Array:
    exists = (labels >= 0) & (labels < logits.shape[-1])
    labels = jnp.where(is_label & exists, labels, blank_id)
    states, may_skip = _states(labels, blank_id)

    log_probs = jax.nn.log_softmax(jnp.where(is_frame[:, :, None], logits, 0))
    emitted = jnp.take_along_axis(log_probs, states[:, None, :], axis=2)

    def advance(alpha: jax.Array, frame: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        log_prob, is_frame = frame
        skipped = jnp.where(may_skip, _moved(alpha, 2), -jnp.inf)
        following = _log_sum(alpha, _moved(alpha, 1), skipped) + log_prob
        return jnp.where(is_frame[:, None], following, alpha), None

    start = jnp.where(jnp.arange(states.shape[1]) == 0, 0, -jnp.inf).astype(logits.dtype)
    start, _ = placed_alike(jnp.broadcast_to(start, states.shape), emitted)
    alpha, _ = lax.scan(advance, start, (emitted.swapaxes(0, 1), is_frame.swapaxes(0, 1)))

    last = 2 * jnp.sum(is_label, 1, keepdims=True)  # the blank after the last label
    at_blank, at_label = (
        jnp.take_along_axis(a, last, axis=1)[:, 0] for a in (alpha, _moved(alpha, 1))
    )
    log_prob = _log_sum(at_blank, at_label)
    log_prob = jnp.where(jnp.isneginf(log_prob), impossible, log_prob)
    return jnp.where(jnp.all(exists | ~is_label, 1), -log_prob, jnp.nan)


def _check(
    logits: jax.Array,
    logit_paddings: ArrayLike,
    labels: jax.Array,
    label_paddings: ArrayLike,
    blank_id: int,
) -> None:
    if logits.ndim != 3:
        raise ValueError(
            f"ctc_loss: logits have shape {logits.shape}, expected shape (batch, frames, classes)"
        )
    batch, frames, classes = logits.shape
    check_shape("ctc_loss", "logit_paddings", logit_paddings, (batch, frames))
    if labels.ndim != 2 or labels.shape[0] != batch:
        raise ValueError(f"ctc_loss: labels have shape {labels.shape}, expected ({batch}, n)")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"ctc_loss: labels have dtype {labels.dtype}, expected integer classes")
    check_shape("ctc_loss", "label_paddings", label_paddings, labels.shape)
    if not 0 <= blank_id < classes:
        raise ValueError(f"ctc_loss: blank_id is {blank_id}, expected one of {classes} classes")


def _states(labels: jax.Array, blank_id: int) -> tuple[jax.Array, jax.Array]:
    """The classes of the states, and which may follow the state but one before: a label that
    differs from the label before.
    """
    batch, n = labels.shape
    states = jnp.full((batch, 2 * n + 1), blank_id, labels.dtype).at[:, 1::2].set(labels)
    differs = labels[:, 1:] != labels[:, :-1]
    return states, jnp.zeros(states.shape, bool).at[:, 3::2].set(differs)


def _moved(alpha: jax.Array, by: int) -> jax.Array:
    """Log-probabilities moved to later states."""
    padded = jnp.pad(alpha, ((0, 0), (by, 0)), constant_values=-jnp.inf)
    return padded[:, : alpha.shape[1]]


def _log_sum(*terms: jax.Array) -> jax.Array:
    """`log Σ exp(term)`, -inf with gradient 0 where every term is -inf."""
    highest = lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    highest = jnp.where(jnp.isneginf(highest), 0, highest)
    total = functools.reduce(jnp.add, (jnp.exp(term - highest) for term in terms))
    is_zero = total == 0
    return jnp.where(is_zero, -jnp.inf, highest + jnp.log(jnp.where(is_zero, 1, total)))
