"""Which token follows, by the logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import KINDS, Kind, checked
from jaxnn._core.arrays import LEAST_POSITIVE, check_range
from jaxnn._core.types import Scalar


class Sampling(NamedTuple):
    """How tokens are sampled from logits, as `nn.sampling` makes it."""

    temperature: Scalar
    top_k: Scalar | None
    top_p: Scalar | None
    min_p: Scalar | None
    repetition_penalty: Scalar | None


KINDS[Sampling] = Kind(lambda value: isinstance(value, Sampling), ("nn.sampling(...)",))


@checked
def sampling(
    *,
    temperature: Scalar = 1.0,
    top_k: Scalar | None = None,
    top_p: Scalar | None = None,
    min_p: Scalar | None = None,
    repetition_penalty: Scalar | None = None,
) -> Sampling:
    """How `nn.generate` samples tokens: `p(token) = softmax(logits / temperature)`, restricted.

    The logits of tokens that were there already are changed by `repetition_penalty` first. Then the
    `top_k` most likely tokens are kept, of these the most likely that together have probability
    `top_p` (nucleus sampling), of these the ones that are at least `min_p` times as likely as the
    most likely one; their probabilities are normalised again. The order is that of Hugging Face's
    transformers.

    Papers: Holtzman et al., The Curious Case of Neural Text Degeneration (top-p),
    https://arxiv.org/abs/1904.09751; Nguyen et al., Turning Up the Heat (min-p),
    https://arxiv.org/abs/2407.01082; Keskar et al., CTRL (repetition penalty),
    https://arxiv.org/abs/1909.05858

    Args:
        temperature: divides the logits, at least 0; 0 takes the most likely token.
        top_k: the number of tokens to sample from (and those as likely as the last); None for all.
        top_p: the total probability, in (0, 1], of the tokens to sample from; None for all.
        min_p: the least probability relative to that of the most likely token, in [0, 1]; None for
            none.
        repetition_penalty: divides positive logits, and multiplies negative ones, of the tokens of
            the prompt and of those generated; above 1 they become less likely. None for 1.

    Returns:
        What `nn.generate` takes as `sampling=`: a pytree of the numbers, which may be traced.

    Raises:
        TypeError: a number is of another kind.
        ValueError: a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.stacked_cell(nn.embedding(50, 8), nn.gru_cell(8), nn.dense(50))
        >>> params = cell.init(jax.random.key(0), jnp.int32(0))
        >>> careful = nn.sampling(temperature=0.7, top_p=0.9)
        >>> nn.generate(cell, params, jnp.array([3, 1]), length=5, key=jax.random.key(1),
        ...             sampling=careful).shape
        (5,)
    """
    check_range("sampling", "temperature", temperature, 0)
    if top_k is not None:
        if not jnp.issubdtype(jnp.result_type(top_k), jnp.integer):
            raise TypeError(f"sampling: top_k is {top_k!r}, expected an integer")
        check_range("sampling", "top_k", top_k, 1)
    if top_p is not None:
        check_range("sampling", "top_p", top_p, LEAST_POSITIVE, 1)
    if min_p is not None:
        check_range("sampling", "min_p", min_p, 0, 1)
    if repetition_penalty is not None:
        check_range("sampling", "repetition_penalty", repetition_penalty, LEAST_POSITIVE)
    return Sampling(temperature, top_k, top_p, min_p, repetition_penalty)


ANY_TOKEN = Sampling(1.0, None, None, None, None)


def as_arrays(settings: Sampling) -> Sampling:
    """The settings as arrays, so that one program serves all of them."""
    top_k = None if settings.top_k is None else jnp.asarray(settings.top_k).astype(jnp.int32)
    reals = jax.tree.map(lambda value: jnp.asarray(value).astype(jnp.float32), settings)
    return reals._replace(top_k=top_k)  # type: ignore[no-any-return]


def sample(
    key: jax.Array | None, logits: jax.Array, settings: Sampling, seen: jax.Array | None
) -> jax.Array:
    """One token for each row of logits; `seen` are the tokens of each that were there already."""
    logits = penalised(logits.astype(jnp.float32), settings, seen)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if key is None:
        return likeliest
    drawn = jax.random.categorical(key, restricted(logits, settings), axis=-1).astype(jnp.int32)
    return jnp.where(jnp.asarray(settings.temperature) == 0, likeliest, drawn)


def penalised(logits: jax.Array, settings: Sampling, seen: jax.Array | None) -> jax.Array:
    """The logits, those of the tokens that were seen made less likely."""
    penalty = settings.repetition_penalty
    if penalty is None or seen is None:
        return logits
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def restricted(logits: jax.Array, settings: Sampling) -> jax.Array:
    """The logits over the temperature, -inf where a token may not be sampled."""
    temperature, top_k, top_p, min_p, _ = settings
    logits = logits / jnp.where(jnp.asarray(temperature) == 0, 1, temperature)
    if top_k is not None or top_p is not None:
        logits = jnp.where(logits >= _least_kept(logits, top_k, top_p), logits, -jnp.inf)
    if min_p is not None:
        greatest = jnp.max(logits, axis=-1, keepdims=True)
        logits = jnp.where(logits >= greatest + jnp.log(min_p), logits, -jnp.inf)
    return logits


def _least_kept(logits: jax.Array, top_k: Scalar | None, top_p: Scalar | None) -> jax.Array:
    """The least logit, in each row, of a token that may be sampled."""
    ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    rank = jnp.broadcast_to(jnp.arange(logits.shape[-1]), ordered.shape)
    kept = rank >= 0
    if top_k is not None:
        kept &= rank < top_k
    if top_p is not None:
        probabilities = jax.nn.softmax(jnp.where(kept, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept &= (before < top_p) | (rank == 0)
    return jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
