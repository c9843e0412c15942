"""Divergences of distributions, one value per example."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn.losses._arguments import Axis, all_axes, broadcast_mask, clamped, fitting, masked


@checked
def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Kullback-Leibler divergence: `Σ_c targets_c (log targets_c - log_predictions_c)`.

    `0 log 0 = 0`, and its derivative, which is infinite, counts as 0.

    Paper: Kullback and Leibler, On Information and Sufficiency, 1951.

    Args:
        log_predictions: log-probabilities of any shape.
        targets: probabilities of the same shape.
        axis: the axis of the classes, or several; None for all.
        where: booleans that broadcast to the shape of the arguments: which terms are in the sum.

    Returns:
        The shape of the arguments without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> log_predictions = jnp.log(jnp.array([0.5, 0.5, 0.0]))
        >>> nn.losses.kl_divergence(log_predictions, jnp.array([1.0, 0.0, 0.0]))
        Array(0.6931472, dtype=float32)
    """
    function = "kl_divergence"
    log_predictions, targets = _masked_arguments(
        function, where, log_predictions=log_predictions, targets=targets
    )
    return _sum(function, _terms(targets, _safe_log(targets), log_predictions), axis, where)


@checked
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """`kl_divergence` of targets that are logarithms too: `Σ_c exp(t_c) (t_c - log_predictions_c)`.

    Args:
        log_predictions: log-probabilities of any shape.
        log_targets: log-probabilities t of the same shape; -inf for 0.
        axis: the axis of the classes, or several; None for all.
        where: booleans that broadcast to the shape of the arguments: which terms are in the sum.

    Returns:
        The shape of the arguments without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> log_predictions = jnp.log(jnp.array([0.5, 0.5, 0.0]))
        >>> log_targets = jnp.log(jnp.array([1.0, 0.0, 0.0]))
        >>> nn.losses.kl_divergence_with_log_targets(log_predictions, log_targets)
        Array(0.6931472, dtype=float32)
    """
    function = "kl_divergence_with_log_targets"
    log_predictions, log_targets = _masked_arguments(
        function, where, log_predictions=log_predictions, log_targets=log_targets
    )
    targets = jnp.exp(log_targets)
    log_targets = jnp.where(targets == 0, 0, log_targets)
    return _sum(function, _terms(targets, log_targets, log_predictions), axis, where)


@checked
def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Generalized KL divergence, of what need not sum to 1.

    `kl_divergence + Σ_c exp(log_predictions_c) - targets_c`.

    It is convex in both arguments and never negative. (optax also has it under the older name
    `convex_kl_divergence`.)

    Args:
        log_predictions: logarithms of any shape.
        targets: non-negative numbers of the same shape.
        axis: the axis of the classes, or several; None for all.
        where: booleans that broadcast to the shape of the arguments: which terms are in the sum.

    Returns:
        The shape of the arguments without `axis`, float32 or wider.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> log_predictions = jnp.log(jnp.array([2.0, 1.0]))
        >>> nn.losses.generalized_kl_divergence(log_predictions, jnp.array([1.0, 1.0]))
        Array(0.306852..., dtype=float32)
    """
    function = "generalized_kl_divergence"
    log_predictions, targets = _masked_arguments(
        function, where, log_predictions=log_predictions, targets=targets
    )
    terms = _terms(targets, _safe_log(targets), log_predictions)
    of_each = clamped(terms + jnp.exp(log_predictions) - targets, 0)
    return _sum(function, of_each, axis, where)


@checked
def gaussian_kl_divergence(
    means: ArrayLike,
    log_variances: ArrayLike,
    prior_means: ArrayLike | None = None,
    prior_log_variances: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The KL divergence of Gaussians from others, or from the standard one, for each element.

    `(u - v + (exp(v) + (m - n)²) / exp(u) - 1) / 2` of N(m, exp v) from N(n, exp u): with n = u =
    0 the regularizer of a variational autoencoder, summed over the latent axis.

    Paper: Kingma and Welling, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114

    Args:
        means: m, any shape.
        log_variances: v, the same shape.
        prior_means: n, the same shape; None for 0.
        prior_log_variances: u, the same shape; None for 0.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `means`, float32 or wider; never negative.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.gaussian_kl_divergence(jnp.array([0.0, 2.0]), jnp.array([0.0, 0.0]))
        Array([0., 2.], dtype=float32)
    """
    function = "gaussian_kl_divergence"
    given = {"means": means, "log_variances": log_variances}
    priors = {"prior_means": prior_means, "prior_log_variances": prior_log_variances}
    given |= {name: value for name, value in priors.items() if value is not None}
    values = fitting(function, **given)
    of = {name: masked(x, where, function) for name, x in zip(given, values, strict=True)}
    prior_log_variance = of.get("prior_log_variances", jnp.zeros_like(of["means"]))
    error = of["means"] - of.get("prior_means", 0)
    ratio = of["log_variances"] - prior_log_variance
    square = jnp.square(error) * jnp.exp(-prior_log_variance)
    return clamped(0.5 * (jnp.expm1(ratio) - ratio + square), 0)


def _masked_arguments(
    loss: str, where: ArrayLike | None, **arguments: ArrayLike
) -> tuple[jax.Array, ...]:
    """The arguments, 0 where they are masked, since no number would do for the gradient of NaN."""
    arrays = fitting(loss, **arguments)
    if where is None:
        return arrays
    included = broadcast_mask(loss, where, arrays[0].shape)
    return tuple(jnp.where(included, array, 0) for array in arrays)


def _terms(targets: jax.Array, log_targets: jax.Array, log_predictions: jax.Array) -> jax.Array:
    """`targets (log_targets - log_predictions)`, 0 where both probabilities are 0."""
    both_zero = (targets == 0) & jnp.isneginf(log_predictions)
    return targets * (log_targets - jnp.where(both_zero, 0, log_predictions))


def _safe_log(x: jax.Array) -> jax.Array:
    """`log x`, 0 at 0."""
    return jnp.log(jnp.where(x == 0, 1, x))


def _sum(loss: str, terms: jax.Array, axis: Axis, where: ArrayLike | None) -> jax.Array:
    if where is not None:
        terms = jnp.where(broadcast_mask(loss, where, terms.shape), terms, 0)
    return jnp.sum(terms, all_axes(loss, axis, terms.ndim, "log_predictions"))
