"""Similarity and contrastive losses of vectors."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    absolute,
    canonical_axes,
    check_range,
    check_shape,
    hyperparameter,
    widen,
)
from jaxnn._core.meshes import automatic
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import Axis, all_axes, broadcast_mask, clamped, fitting, masked


@checked
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cosine similarity: `predictions · targets / (|predictions| |targets|)`.

    A vector of zeros has similarity 0 to every other, with gradient 0 (NaN in optax, unless
    `epsilon` is given). torch's `eps` bounds the norms, the `epsilon` here their squares.

    Args:
        predictions: any shape, the vectors in `axis`.
        targets: the same shape.
        epsilon: the least squared norm, for those below it; may be traced.
        axis: the axis of the vectors, or several; None for all.
        where: booleans that broadcast to the shape of the arguments: which elements count.

    Returns:
        The shape of the arguments without `axis`, float32 or wider; in [-1, 1].

    Raises:
        ValueError: the shapes differ, or `epsilon` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> a, b = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([[4.0, 3.0], [1.0, 2.0]])
        >>> nn.losses.cosine_similarity(a, b).tolist()
        [0.96000..., 0.0]
    """
    return _cosine("cosine_similarity", predictions, targets, epsilon, axis, where)


@checked
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: Scalar = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cosine distance: `1 - cosine_similarity`.

    Args:
        predictions: any shape, the vectors in `axis`.
        targets: the same shape.
        epsilon: the least squared norm, for those below it; may be traced.
        axis: the axis of the vectors, or several; None for all.
        where: booleans that broadcast to the shape of the arguments: which elements count. A
            vector without any has distance 1, as one of zeros.

    Returns:
        The shape of the arguments without `axis`, float32 or wider; in [0, 2].

    Raises:
        ValueError: the shapes differ, or `epsilon` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.cosine_distance(jnp.array([3.0, 4.0]), jnp.array([-6.0, -8.0]))
        Array(2., dtype=float32)
    """
    return 1 - _cosine("cosine_distance", predictions, targets, epsilon, axis, where)


@checked
def cosine_embedding_loss(
    first: ArrayLike,
    second: ArrayLike,
    targets: ArrayLike,
    *,
    margin: Scalar = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The loss of pairs that belong together, or do not, by their cosine similarity, as in torch.

    `1 - cosine` where the target is 1, and `max(0, cosine - margin)` where it is -1. A vector of
    zeros has cosine 0, with gradient 0.

    Args:
        first: any shape, the vectors in `axis`.
        second: the same shape.
        targets: the shape of the arguments without `axis`; 1 for a pair, -1 for none.
        margin: the cosine that may be left between others, in [-1, 1]; may be traced.
        axis: the axis of the vectors.
        where: booleans of the shape of the result; the loss and its gradient are 0 where False.

    Returns:
        The shape of the arguments without `axis`, float32 or wider. The derivative at the kink
        is 0.

    Raises:
        ValueError: the shapes differ, or `margin` is outside [-1, 1].

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> first, second = jnp.array([[3.0, 4.0], [3.0, 4.0]]), jnp.array([[4.0, 3.0], [6.0, 8.0]])
        >>> nn.losses.cosine_embedding_loss(first, second, jnp.array([1, -1])).round(3)
        Array([0.04, 1.  ], dtype=float32)
    """
    function = "cosine_embedding_loss"
    check_range(function, "margin", margin, -1, 1)
    first, second = fitting(function, first=first, second=second)
    (place,) = canonical_axes(axis, first.ndim, function, "first")
    shape = tuple(n for a, n in enumerate(first.shape) if a != place)
    check_shape(function, "targets", targets, shape, f"first without axis {axis}")
    included = None
    if where is not None:
        check_shape(function, "where", where, shape)
        included = jnp.expand_dims(jnp.asarray(where), place)
    cosine = _cosine(function, first, second, 0.0, place, included)
    apart = jax.nn.relu(cosine - hyperparameter(margin, cosine.dtype))
    return masked(jnp.where(jnp.asarray(targets) > 0, 1 - cosine, apart), where, function)


@checked
def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: int = -1,
    norm_degree: Scalar = 2,
    margin: Scalar = 1.0,
    eps: Scalar = 1e-6,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Triplet loss: `max(0, d(anchors, positives) - d(anchors, negatives) + margin)`.

    `d(a, b) = (Σ |a - b|^norm_degree + eps)^(1 / norm_degree)`. optax leaves out the absolute
    value, without which distances of odd degree are none; torch adds `eps` to `a - b`. The
    derivative at the kink is 0.

    Paper: Schroff et al., FaceNet, https://arxiv.org/abs/1503.03832

    Args:
        anchors: any shape, the vectors in `axis`.
        positives: the same shape; what should be near.
        negatives: the same shape; what should be far.
        axis: the axis of the vectors.
        norm_degree: the degree of the norm, more than 0; may be traced.
        margin: by how much nearer is near enough; may be traced.
        eps: keeps the derivative finite where two vectors are equal; may be traced.
        where: booleans of the shape of the result; the loss and its gradient are 0 where False.

    Returns:
        The shape of the arguments without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes differ; `norm_degree` is not positive; `eps` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> anchor, positive = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])
        >>> nn.losses.triplet_margin_loss(anchor, positive, jnp.array([0.0, 5.5]))
        Array(0.5, dtype=float32)
    """
    function = "triplet_margin_loss"
    check_range(function, "norm_degree", norm_degree, LEAST_POSITIVE)
    check_range(function, "eps", eps, 0)
    anchors, positives, negatives = fitting(
        function, anchors=anchors, positives=positives, negatives=negatives
    )
    axes = canonical_axes(axis, anchors.ndim, function, "anchors")
    if where is not None:
        expected = tuple(n for a, n in enumerate(anchors.shape) if a not in axes)
        check_shape(function, "where", where, expected)
        included = jnp.expand_dims(where, axes)
        anchors, positives, negatives = (
            jnp.where(included, x, 0) for x in (anchors, positives, negatives)
        )
    degree, margin, eps = (hyperparameter(h, anchors.dtype) for h in (norm_degree, margin, eps))

    def distance(a: jax.Array, b: jax.Array) -> jax.Array:
        powers = jnp.sum(absolute(a - b) ** degree, axes) + eps
        is_zero = powers == 0
        return jnp.where(is_zero, 0, jnp.where(is_zero, 1, powers) ** (1 / degree))

    gap = distance(anchors, positives) - distance(anchors, negatives)
    return masked(jax.nn.relu(gap + margin), where, function)


@checked
def ntxent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    temperature: Scalar = 0.07,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """NT-Xent, the contrastive loss of embeddings: those with equal labels belong together.

    The mean over all pairs (i, j) of different examples with equal labels of `-log(exp(s_ij) /
    (exp(s_ij) + Σ_k exp(s_ik)))`, k running over the examples with another label than i, and
    `s = cosine_similarity / temperature`. It is 0 if there is no pair (NaN in optax).

    Paper: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    https://arxiv.org/abs/2002.05709

    Args:
        embeddings: shape `(batch, features)`.
        labels: integers, shape `(batch,)`.
        temperature: more than 0; the smaller, the more the nearest negatives count; may be traced.
        where: booleans, shape `(batch,)`; an example is in no pair where False.

    Returns:
        A scalar, unlike other losses, since a pair belongs to no one example; float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or `temperature` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> views = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> right = nn.losses.ntxent(views, jnp.array([0, 0, 1, 1]))
        >>> wrong = nn.losses.ntxent(views, jnp.array([0, 1, 1, 0]))
        >>> bool(right < 1e-4), bool(wrong > 10)
        (True, True)
    """
    check_range("ntxent", "temperature", temperature, LEAST_POSITIVE)
    embeddings, labels = widen(embeddings), jnp.asarray(labels)
    if embeddings.ndim != 2:
        raise ValueError(
            f"ntxent: embeddings have shape {embeddings.shape}, expected shape (batch, features)"
        )
    n = len(embeddings)
    check_shape("ntxent", "labels", labels, (n,))
    included = jnp.full((n,), True)
    if where is not None:
        check_shape("ntxent", "where", where, (n,))
        included = jnp.asarray(where).astype(bool)
        embeddings = jnp.where(included[:, None], embeddings, 0)
    temperature = hyperparameter(temperature, embeddings.dtype)
    return automatic(  # type: ignore[no-any-return]
        _ntxent, embeddings, labels, included, temperature, leading=0
    )


def _ntxent(
    embeddings: jax.Array, labels: jax.Array, included: jax.Array, temperature: jax.Array
) -> jax.Array:
    units = _unit(embeddings, jnp.finfo(embeddings.dtype).eps, (1,))
    similarities = jnp.matmul(units, units.T, precision="highest") / temperature

    both = included[:, None] & included[None, :]
    equal = labels[:, None] == labels[None, :]
    is_pair = both & equal & ~jnp.eye(len(labels), dtype=bool)
    is_negative = both & ~equal
    has_negative = jnp.any(is_negative, 1, keepdims=True)
    negatives = jnp.where(is_negative, similarities, jnp.where(has_negative, -jnp.inf, 0))
    of_negatives = jax.nn.logsumexp(negatives, 1, keepdims=True)
    losses = jax.nn.softplus(of_negatives - similarities)
    total = jnp.sum(jnp.where(is_pair & has_negative, losses, 0))
    return total / jnp.maximum(jnp.sum(is_pair, dtype=total.dtype), 1)


@checked
def clip_loss(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    temperature: Scalar = 0.07,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The contrastive loss of CLIP: of all pairs in a batch, the views of one example match.

    With `s_ij = cosine(first_i, second_j) / temperature`, the mean of the cross-entropy of row i
    of s and that of its column, whose target is i itself. With labels, the targets are even over
    all examples with the label of i.

    Papers: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    https://arxiv.org/abs/2103.00020; Yang et al., Unified Contrastive Learning in
    Image-Text-Label Space, https://arxiv.org/abs/2204.03610

    Args:
        first: embeddings of one view, of images, say; shape `(batch, features)`.
        second: those of the other, of their captions, say; the same shape.
        labels: integers, shape `(batch,)`: examples with equal ones match too; None if none do.
        temperature: more than 0, the inverse of CLIP's scale of the logits; may be traced.
        where: booleans, shape `(batch,)`; where False, the loss is 0, and nobody is compared with
            the example.

    Returns:
        Shape `(batch,)`, float32 or wider.

    Raises:
        ValueError: the shapes do not fit, or `temperature` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> images = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> captions = jnp.array([[2.0, 0.0], [0.0, 0.5]])
        >>> nn.losses.clip_loss(images, captions, temperature=1.0).tolist()
        [0.313261..., 0.313261...]
    """
    check_range("clip_loss", "temperature", temperature, LEAST_POSITIVE)
    first, second = fitting("clip_loss", first=first, second=second)
    if first.ndim != 2:
        raise ValueError(
            f"clip_loss: first has shape {first.shape}, expected shape (batch, features)"
        )
    n = len(first)
    if labels is None:
        labels = jnp.arange(n)
    check_shape("clip_loss", "labels", labels, (n,))
    included = jnp.full((n,), True)
    if where is not None:
        check_shape("clip_loss", "where", where, (n,))
        included = jnp.asarray(where).astype(bool)
        first, second = (jnp.where(included[:, None], x, 0) for x in (first, second))
    temperature = hyperparameter(temperature, first.dtype)
    return automatic(  # type: ignore[no-any-return]
        _clip_loss, first, second, jnp.asarray(labels), included, temperature, leading=1
    )


def _clip_loss(
    first: jax.Array,
    second: jax.Array,
    labels: jax.Array,
    included: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    matches = (labels[:, None] == labels[None, :]) & included[None, :]
    units = [_unit(x, jnp.finfo(x.dtype).eps, (1,)) for x in (first, second)]
    similarities = jnp.matmul(units[0], units[1].T, precision="highest") / temperature
    targets = matches.astype(similarities.dtype)
    targets = targets / jnp.maximum(jnp.sum(targets, 1, keepdims=True), 1)

    def cross_entropy(logits: jax.Array) -> jax.Array:
        nobody = jnp.where(jnp.any(included), -jnp.inf, 0)
        compared = jnp.where(included[None, :], logits, nobody)
        of_all = jax.nn.logsumexp(compared, 1, keepdims=True)
        return jnp.sum(targets * jnp.where(matches, of_all - logits, 0), 1)

    values = 0.5 * (cross_entropy(similarities) + cross_entropy(similarities.T))
    return jnp.where(included, values, 0)


def _cosine(
    loss: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    epsilon: Scalar,
    axis: Axis,
    where: ArrayLike | None,
) -> jax.Array:
    check_range(loss, "epsilon", epsilon, 0)
    predictions, targets = fitting(loss, predictions=predictions, targets=targets)
    axes = all_axes(loss, axis, predictions.ndim, "predictions")
    if where is not None:
        included = broadcast_mask(loss, where, predictions.shape)
        predictions, targets = (jnp.where(included, x, 0) for x in (predictions, targets))
    cosine = jnp.sum(_unit(predictions, epsilon, axes) * _unit(targets, epsilon, axes), axes)
    return clamped(cosine, -1, 1)


def _unit(x: jax.Array, epsilon: Scalar, axes: tuple[int, ...]) -> jax.Array:
    """`x` over its norm, whose square is at least `epsilon`; zeros, with gradient 0, for zeros."""
    squares = jnp.sum(jnp.square(x), axes, keepdims=True)
    squares = jnp.maximum(squares, hyperparameter(epsilon, x.dtype))
    is_zero = squares == 0
    return jnp.where(is_zero, 0, x / jnp.sqrt(jnp.where(is_zero, 1, squares)))
