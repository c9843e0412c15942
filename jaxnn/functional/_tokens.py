"""The probabilities that a model gives to tokens."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_shape, refuse_complex, wide_integers, widen
from jaxnn._core.bounds import check_bounds


@checked
def token_log_probs(logits: ArrayLike, tokens: ArrayLike) -> jax.Array:
    """The log-probabilities of tokens: `y = log softmax(logits)[tokens]`.

    The logits at one place are of the token at the next: those of a whole sequence are
    `token_log_probs(logits[:, :-1], tokens[:, 1:])`. What `nn.generate` has sampled with
    `return_log_probs=True` has the same ones, up to rounding.

    Args:
        logits: shape `(..., vocabulary)`, floating.
        tokens: integers in `[0, vocabulary)`, shape `(...)`.

    Returns:
        The shape of `tokens`, float32 or wider; NaN for a token outside of the vocabulary.

    Raises:
        TypeError: `tokens` are not integers, or `logits` are complex.
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
        >>> jnp.exp(nn.functional.token_log_probs(logits, jnp.array([1, 2])))
        Array([0.25, 0.8 ], dtype=float32)
    """
    tokens, logits = wide_integers(tokens), widen(logits)
    refuse_complex("token_log_probs", "logits", logits)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"token_log_probs: tokens have dtype {tokens.dtype}, expected integers")
    if logits.ndim == 0:
        raise ValueError("token_log_probs: logits have shape (), expected (..., vocabulary)")
    check_shape("token_log_probs", "tokens", tokens, logits.shape[:-1])
    vocabulary = logits.shape[-1]
    check_bounds("token_log_probs", tokens, vocabulary)
    exists = (tokens >= 0) & (tokens < vocabulary)
    rows = jnp.where(exists, tokens, 0)[..., None]
    of_token = jnp.take_along_axis(logits, rows, axis=-1)[..., 0]
    return jnp.where(exists, of_token - jax.nn.logsumexp(logits, axis=-1), jnp.nan)
