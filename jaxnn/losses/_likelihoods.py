"""Negative log-likelihoods of distributions over numbers, one value per element."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import fitting, masked


@checked
def gaussian_nll(
    predictions: ArrayLike,
    targets: ArrayLike,
    variances: ArrayLike,
    *,
    full: bool = False,
    epsilon: Scalar = 1e-6,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Gaussian negative log-likelihood: `(log v + (targets - predictions)² / v) / 2`.

    v is the variance. As `torch.nn.GaussianNLLLoss`, except that the gradient in a variance below
    `epsilon` is 0, as the value is constant there.

    Paper: Nix and Weigend, Estimating the Mean and Variance of the Target Probability
    Distribution, 1994.

    Args:
        predictions: the means, any shape.
        targets: the same shape.
        variances: the same shape.
        full: whether to add the constant `log(2π) / 2`.
        epsilon: the least variance, for those below it; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ, or `epsilon` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> mean, target = jnp.array([0.0, 0.0]), jnp.array([0.0, 2.0])
        >>> nn.losses.gaussian_nll(mean, target, jnp.array([1.0, 1.0]))
        Array([0., 2.], dtype=float32)
        >>> nn.losses.gaussian_nll(mean, target, jnp.array([4.0, 4.0])).tolist()
        [0.693147..., 1.193147...]
    """
    check_range("gaussian_nll", "epsilon", epsilon, 0)
    predictions, targets, variances = fitting(
        "gaussian_nll", predictions=predictions, targets=targets, variances=variances
    )
    errors = masked(targets - predictions, where, "gaussian_nll")
    variances = masked(variances, where, "gaussian_nll", 1)
    variances = jnp.maximum(variances, hyperparameter(epsilon, variances.dtype))
    loss = 0.5 * (jnp.log(variances) + jnp.square(errors) / variances)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return masked(loss, where, "gaussian_nll")


@checked
def poisson_nll(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    log_input: bool = True,
    full: bool = False,
    epsilon: Scalar = 1e-8,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Poisson negative log-likelihood: `rate - targets log rate`, of log rates.

    As `torch.nn.PoissonNLLLoss`, except that `full` adds the exact `log targets!`, for which torch
    has Stirling's approximation.

    Args:
        predictions: the logarithms of the rates, any shape; the rates if not `log_input`.
        targets: counts, the same shape.
        log_input: whether the predictions are logarithms.
        full: whether to add `log targets!`, which does not depend on the predictions.
        epsilon: what is added to a rate before its logarithm, if not `log_input`; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `predictions`, float32 or wider.

    Raises:
        ValueError: the shapes differ, or `epsilon` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.losses.poisson_nll(jnp.log(jnp.array([2.0, 3.0, 4.0])), jnp.full(3, 3.0)).tolist()
        [-0.079441..., -0.295836..., -0.158883...]
    """
    check_range("poisson_nll", "epsilon", epsilon, 0)
    predictions, targets = fitting("poisson_nll", predictions=predictions, targets=targets)
    predictions = masked(predictions, where, "poisson_nll", 1)
    targets = masked(targets, where, "poisson_nll", 1)
    if log_input:
        loss = jnp.exp(predictions) - targets * predictions
    else:
        rate = predictions + hyperparameter(epsilon, predictions.dtype)
        loss = predictions - jax.scipy.special.xlogy(targets, rate)
    if full:
        loss = loss + jax.scipy.special.gammaln(targets + 1)
    return masked(loss, where, "poisson_nll")
