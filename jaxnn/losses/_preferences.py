"""Losses of preferences between two answers."""

import jax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range, hyperparameter
from jaxnn._core.types import Scalar
from jaxnn.losses._arguments import fitting, masked


@checked
def dpo_loss(
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
    *,
    beta: Scalar = 0.1,
    label_smoothing: Scalar = 0.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Direct preference optimization, of the answer that was chosen over the one rejected.

    `-(1 - label_smoothing) log σ(h) - label_smoothing log σ(-h)`, with
    `h = beta ((chosen - rejected) - (reference_chosen - reference_rejected))`.

    Papers: Rafailov et al., Direct Preference Optimization, https://arxiv.org/abs/2305.18290;
    Mitchell, A note on DPO with noisy preferences, https://ericmitchell.ai/cdpo.pdf

    Args:
        chosen: log-probabilities of the chosen answers, each the sum of those of its tokens; any
            shape.
        rejected: those of the rejected answers, the same shape.
        reference_chosen: those of the chosen answers by the model that training began with.
        reference_rejected: those of the rejected answers by it.
        beta: how strongly the model is held to the reference, at least 0; may be traced.
        label_smoothing: the part of the preferences that is wrong, in [0, 0.5]; may be traced.
        where: booleans of the same shape; the loss and its gradient are 0 where False.

    Returns:
        The shape of `chosen`, float32 or wider.

    Raises:
        ValueError: the shapes differ, or a hyperparameter is out of its range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> reference = jnp.array([-12.0, -9.0])
        >>> undecided = nn.losses.dpo_loss(*reference, *reference)
        >>> preferred = nn.losses.dpo_loss(-8.0, -9.0, *reference, beta=0.5)
        >>> undecided.item(), preferred.item()
        (0.693147..., 0.126928...)
    """
    function = "dpo_loss"
    check_range(function, "beta", beta, 0)
    check_range(function, "label_smoothing", label_smoothing, 0, 0.5)
    given = fitting(
        function,
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    ours, others, reference, reference_others = (masked(x, where, function) for x in given)
    gain = hyperparameter(beta, ours.dtype) * (ours - others - (reference - reference_others))
    wrong = hyperparameter(label_smoothing, gain.dtype)
    loss = (1 - wrong) * jax.nn.softplus(-gain) + wrong * jax.nn.softplus(gain)
    return masked(loss, where, function)
