"""Multiclass classification losses, one value per example."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    check_range,
    check_shape,
    concrete,
    hyperparameter,
    is_inexact,
    wide_integers,
    widen,
)
from jaxnn._core.bounds import check_bounds
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import (
    Axis,
    all_axes,
    at_labels,
    broadcast_mask,
    check_ignore_index,
    per_class,
)
from jaxnn.losses._left_out import tell_of_label, tell_of_mask


@checked
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    label_smoothing: Scalar = 0.0,
    class_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
) -> jax.Array:
    """Softmax cross-entropy: `-Σ_c labels_c log softmax(logits)_c`, with `0 log 0 = 0`.

    With class weights, each term of the sum is multiplied by that of its class, as in torch, whose
    mean then divides by the weights of the labels: divide by `class_weights[labels].sum()` for it.

    Args:
        logits: shape `(..., classes, ...)`, the classes in `axis`; unnormalised log-probabilities.
        labels: distributions of the shape of `logits`, or integer classes, in the shape of
            `logits` without `axis`. A class outside [0, classes) gives NaN, not a quiet number.
        axis: the axis of the classes; several, or None for all, are flattened into one.
        where: booleans that broadcast to the shape of `logits`: a class takes no part where False,
            and an example without any class has loss 0. With as many axes as `logits` has without
            `axis`, they tell of whole examples.
        label_smoothing: the part `s` of the labels that is spread evenly over the classes,
            `(1 - s) labels + s / classes`; in [0, 1], may be traced.
        class_weights: shape `(classes,)`, at least 0; None for 1.
        ignore_index: the integer label of examples whose loss and gradient are 0; None for none.

    Returns:
        The shape of `logits` without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit; `label_smoothing` is outside [0, 1];
            `ignore_index` is given for distributions.
        TypeError: labels of one axis fewer than `logits` are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1000.0]])
        >>> nn.losses.softmax_cross_entropy(logits, jnp.array([0, 1])).tolist()
        [0.12692..., 0.0]
        >>> distributions = jnp.array([[0.5, 0.5], [0.0, 1.0]])
        >>> nn.losses.softmax_cross_entropy(logits, distributions).tolist()
        [1.12692..., 0.0]
        >>> padded = jnp.array([0, -100])
        >>> nn.losses.softmax_cross_entropy(logits, padded, ignore_index=-100).tolist()
        [0.12692..., 0.0]
    """
    function = "softmax_cross_entropy"
    check_range(function, "label_smoothing", label_smoothing, 0, 1)
    examples = _examples(function, logits, labels, axis, where, ignore_index)
    log_probs = _log_softmax(examples)
    return _cross_entropy(function, examples, log_probs, class_weights, label_smoothing)


@checked
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> jax.Array:
    """`softmax_cross_entropy` of integer labels, under the name that optax has for it.

    Args:
        logits: shape `(..., classes, ...)`, the classes in `axis`; unnormalised log-probabilities.
        labels: integer classes, in the shape of `logits` without `axis`. A class outside
            [0, classes) gives NaN; optax counts negative ones from the end.
        axis: the axis of the classes; several, or None for all, are flattened into one, in the
            order given.
        where: as in `softmax_cross_entropy`. If it excludes the class of the label itself, the
            loss is 0; optax's is then no cross-entropy, and can be negative.

    Returns:
        The shape of `labels`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the labels are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1000.0]])
        >>> nn.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 1])).tolist()
        [0.12692..., 0.0]
    """
    function = "softmax_cross_entropy_with_integer_labels"
    if not jnp.issubdtype(jnp.asarray(labels).dtype, jnp.integer):
        raise TypeError(
            f"{function}: labels have dtype {jnp.asarray(labels).dtype}, expected integer classes"
        )
    examples = _examples(function, logits, labels, axis, where)
    return _cross_entropy(function, examples, _log_softmax(examples))


@checked
def safe_softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """`softmax_cross_entropy`, under the name of the one of optax's in which `0 log 0 = 0`.

    Args:
        logits: shape `(..., classes)`; unnormalised log-probabilities.
        labels: as in `softmax_cross_entropy`.
        where: as in `softmax_cross_entropy`.

    Returns:
        The shape of `logits` without its last axis, float32 or wider.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: labels of one axis fewer than `logits` are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits, labels = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0])
        >>> nn.losses.safe_softmax_cross_entropy(logits, labels).item()
        0.693147...
    """
    examples = _examples("safe_softmax_cross_entropy", logits, labels, -1, where)
    return _cross_entropy("safe_softmax_cross_entropy", examples, _log_softmax(examples))


@checked
def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: Scalar = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Poly-1 loss: `softmax_cross_entropy + epsilon Σ_c labels_c (1 - p_c)`.

    Paper: Leng et al., PolyLoss, https://arxiv.org/abs/2204.12511

    Args:
        logits: shape `(..., classes, ...)`, the classes in `axis`; unnormalised log-probabilities.
        labels: distributions of the shape of `logits`, or integer classes, in the shape of
            `logits` without `axis`.
        epsilon: the coefficient; 0 gives the cross-entropy; may be traced.
        axis: the axis of the classes; several, or None for all, are flattened into one.
        where: as in `softmax_cross_entropy`.

    Returns:
        The shape of `logits` without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: labels of one axis fewer than `logits` are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
        >>> nn.losses.poly_loss_cross_entropy(logits, jnp.array([0])).tolist()
        [1.693147...]
    """
    function = "poly_loss_cross_entropy"
    examples = _examples(function, logits, labels, axis, where)
    log_probs = _log_softmax(examples)
    missed = _sum_over_labels(examples, -jnp.expm1(log_probs))
    cross_entropy = _cross_entropy(function, examples, log_probs)
    return cross_entropy + hyperparameter(epsilon, missed.dtype) * missed


@checked
def nll(
    log_probs: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    class_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
) -> jax.Array:
    """The negative log-likelihood of labels: `-Σ_c labels_c log_probs_c`, with `0 log 0 = 0`.

    It is what `softmax_cross_entropy` is after its softmax, for models that end in one.

    Args:
        log_probs: shape `(..., classes, ...)`, the classes in `axis`; log-probabilities.
        labels: distributions of the shape of `log_probs`, or integer classes, in the shape of
            `log_probs` without `axis`. A class outside [0, classes) gives NaN.
        axis: the axis of the classes; several, or None for all, are flattened into one.
        where: as in `softmax_cross_entropy`.
        class_weights: shape `(classes,)`, at least 0; None for 1.
        ignore_index: the integer label of examples whose loss and gradient are 0; None for none.

    Returns:
        The shape of `log_probs` without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or `ignore_index` is given for distributions.
        TypeError: labels of one axis fewer than `log_probs` are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.nll(jnp.log(jnp.array([[0.5, 0.5], [0.0, 1.0]])), jnp.array([0, 1])).tolist()
        [0.693147..., 0.0]
    """
    examples = _examples("nll", log_probs, labels, axis, where, ignore_index, "log_probs")
    log_probs = jnp.where(examples.included, examples.scores, 0)
    return _cross_entropy("nll", examples, log_probs, class_weights)


@checked
def smooth_labels(
    labels: ArrayLike, alpha: Scalar, *, axis: Axis = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Label smoothing: `(1 - alpha) labels + alpha / n`, over n classes.

    Paper: Szegedy et al., Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567

    Args:
        labels: distributions over `axis`, floating.
        alpha: the part that is spread, in [0, 1]; may be traced.
        axis: the axis of the classes, or several; None for all.
        where: booleans that broadcast to the shape of `labels`: the n classes over which `alpha`
            is spread. The others get 0 (in optax, a share as well).

    Returns:
        The shape of `labels`, float32 or wider.

    Raises:
        ValueError: `alpha` is outside [0, 1], or `where` does not fit.
        TypeError: the labels are integers, as those of `softmax_cross_entropy` may be.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.smooth_labels(jnp.array([1.0, 0.0]), 0.1)
        Array([0.95, 0.05], dtype=float32)
    """
    check_range("smooth_labels", "alpha", alpha, 0, 1)
    if not is_inexact(jnp.asarray(labels).dtype):
        raise TypeError(
            f"smooth_labels: labels have dtype {jnp.asarray(labels).dtype}, expected distributions "
            "of floating dtype"
        )
    labels = widen(labels)
    axes = all_axes("smooth_labels", axis, labels.ndim, "labels")
    included = broadcast_mask("smooth_labels", True if where is None else where, labels.shape)
    classes = jnp.sum(included, axes, keepdims=True, dtype=labels.dtype)
    alpha = hyperparameter(alpha, labels.dtype)
    return jnp.where(included, (1 - alpha) * labels + alpha / jnp.maximum(classes, 1), 0)


@checked
def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The softmax loss of a ranked list: `-Σ_i weights_i labels_i log softmax(logits)_i`.

    optax takes the mean over the lists; here the reduction belongs to the caller.

    Paper: Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, 2007.

    Args:
        logits: scores of the items of each list, shape `(..., items)`.
        labels: the relevance of the items, integers or floats of the same shape.
        where: booleans that broadcast to the shape of `logits`: which items are there. A list
            without any has loss 0.
        weights: weights of the items, at least 0, the same shape; None for 1.

    Returns:
        The shape of `logits` without its last axis, float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or a weight is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> relevance = jnp.array([2, 1, 0])
        >>> right = nn.losses.ranking_softmax_loss(jnp.array([3.0, 2.0, 0.0]), relevance)
        >>> wrong = nn.losses.ranking_softmax_loss(jnp.array([0.0, 2.0, 3.0]), relevance)
        >>> bool(right < wrong)
        True
    """
    function = "ranking_softmax_loss"
    check_shape(function, "labels", labels, np.shape(logits), "logits")
    examples = _examples(function, logits, labels, -1, where)
    targets = jnp.asarray(examples.targets)
    if weights is not None:
        check_range(function, "weights", weights, 0)
        check_shape(function, "weights", weights, targets.shape)
        weights = hyperparameter(weights, targets.dtype)
        targets = targets * jnp.where(examples.included, weights, 0)
    return _expected(targets, _log_softmax(examples), None)


class _Examples(NamedTuple):
    """The arguments of a loss with the classes in the last axis."""

    scores: jax.Array
    targets: jax.Array | None  # 0 for a class that takes no part; None for integer labels
    labels: jax.Array | None  # integers; None for distributions
    included: jax.Array  # which classes take part; broadcasts to the shape of the scores


def _examples(
    loss: str,
    scores: ArrayLike,
    labels: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
    ignore_index: int | None = None,
    name: str = "logits",
) -> _Examples:
    """What the loss is of; `name` is that of its argument `scores`."""
    scores, labels = widen(scores), wide_integers(labels)
    check_ignore_index(loss, ignore_index)
    axes = all_axes(loss, axis, scores.ndim, name)
    if math.prod(scores.shape[a] for a in axes) == 1:
        raise ValueError(
            f"{loss}: {name} have shape {scores.shape}, expected two classes at least in axis "
            f"{axis}: the loss of one is 0 whatever the model says; for two, "
            "sigmoid_binary_cross_entropy takes one logit"
        )
    without_axes = tuple(n for a, n in enumerate(scores.shape) if a not in axes)
    scores_last = _classes_last(scores, axes)
    included = jnp.full((1,) * scores_last.ndim, True)
    if where is not None:
        new_axes = axes if jnp.ndim(where) == len(without_axes) else ()
        included = _classes_last(broadcast_mask(loss, where, scores.shape, new_axes), axes)
        if new_axes:
            tell_of_mask(loss, without_axes)
    if labels.shape == scores.shape:
        if ignore_index is not None:
            raise ValueError(
                f"{loss}: ignore_index is {ignore_index}, expected None for labels that are "
                "distributions"
            )
        targets = _classes_last(labels.astype(scores.dtype), axes)
        return _Examples(scores_last, jnp.where(included, targets, 0), None, included)
    _check_integers(loss, name, scores, labels, without_axes)
    check_bounds(loss, labels, scores_last.shape[-1], ignore_index)
    tell_of_label(loss, without_axes, ignore_index)
    if ignore_index is not None:
        included = included & jnp.expand_dims(labels != ignore_index, -1)
    return _Examples(scores_last, None, labels, included)


def _classes_last(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`x` with `axes` as one last axis."""
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    batch = x.shape[: x.ndim - len(axes)]
    return x.reshape(*batch, math.prod(x.shape[len(batch) :]))


def _check_integers(
    loss: str, name: str, scores: jax.Array, labels: jax.Array, expected: tuple[int, ...]
) -> None:
    if labels.shape != expected:
        raise ValueError(
            f"{loss}: labels have shape {labels.shape} and {name} {scores.shape}, expected labels "
            f"of the same shape (distributions) or of shape {expected} (integer classes)"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"{loss}: labels of shape {labels.shape} have dtype {labels.dtype}, expected integer "
            "classes"
        )


def _smoothed(targets: jax.Array, part: ArrayLike, included: jax.Array) -> jax.Array:
    """Targets of which a part is spread over the classes that take part."""
    classes = jnp.asarray(targets.shape[-1], targets.dtype)
    if included.shape[-1] != 1:
        count = jnp.sum(included, -1, keepdims=True, dtype=targets.dtype)
        classes = jnp.maximum(count, 1)
    part = hyperparameter(part, targets.dtype)
    return jnp.where(included, (1 - part) * targets + part / classes, 0)


def _log_softmax(examples: _Examples) -> jax.Array:
    """Log-probabilities of the classes that take part, -inf for the others, finite for none."""
    any_included = jnp.any(examples.included, -1, keepdims=True)
    otherwise = jnp.where(any_included, -jnp.inf, 0)
    return jax.nn.log_softmax(jnp.where(examples.included, examples.scores, otherwise))


def _cross_entropy(
    loss: str,
    examples: _Examples,
    log_probs: jax.Array,
    class_weights: ArrayLike | None = None,
    smoothing: Scalar = 0.0,
) -> jax.Array:
    """`-Σ_c weight_c targets_c log_probs_c` of smoothed targets, with `0 log 0 = 0`."""
    included, weights = examples.included, None
    if class_weights is not None:
        weights = per_class(loss, "class_weights", class_weights, log_probs)
    if examples.targets is not None:
        return _expected(_smoothed(examples.targets, smoothing, included), log_probs, weights)
    costs = -log_probs
    if weights is not None:
        costs = weights * jnp.where((weights == 0) & jnp.isposinf(costs), 0, costs)
    of_label = _sum_over_labels(examples, costs)
    if (known := concrete(smoothing)) is not None and known == 0:
        return of_label
    spread = _smoothed(jnp.zeros_like(log_probs), smoothing, included)
    part = hyperparameter(smoothing, log_probs.dtype)
    return jnp.where(part < 1, (1 - part) * of_label, 0) + _expected(spread, log_probs, weights)


def _sum_over_labels(examples: _Examples, terms: jax.Array) -> jax.Array:
    """`Σ_c targets_c terms_c`; NaN for a label that does not exist, 0 for one that is left out."""
    if examples.targets is not None:
        return jnp.sum(examples.targets * terms, -1)
    labels, included = jnp.asarray(examples.labels), examples.included
    of_label = at_labels(jnp.where(included, terms, 0), labels)
    exists = (labels >= 0) & (labels < terms.shape[-1])
    return jnp.where(exists | ~jnp.any(included, -1), of_label, jnp.nan)


def _expected(targets: jax.Array, log_probs: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The same of given targets."""
    if weights is not None:
        targets = targets * weights
    impossible = (targets == 0) & jnp.isneginf(log_probs)
    return jnp.sum(targets * jnp.where(impossible, 0, -log_probs), -1)
