"""Sampling a token from logits."""

import jax
import jax.numpy as jnp


def sample(
    key: jax.Array | None,
    logits: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array | None,
    top_p: jax.Array | None,
) -> jax.Array:
    """One token for each row of logits."""
    logits = logits.astype(jnp.float32)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if key is None:
        return likeliest
    scaled = logits / jnp.where(temperature == 0, 1, temperature)
    if top_k is not None or top_p is not None:
        scaled = jnp.where(scaled >= _least_kept(scaled, top_k, top_p), scaled, -jnp.inf)
    drawn = jax.random.categorical(key, scaled, axis=-1).astype(jnp.int32)
    return jnp.where(temperature == 0, likeliest, drawn)


def _least_kept(logits: jax.Array, top_k: jax.Array | None, top_p: jax.Array | None) -> jax.Array:
    """The least logit, in each row, of a token that may be sampled."""
    ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    rank = jnp.broadcast_to(jnp.arange(logits.shape[-1]), ordered.shape)
    kept = rank >= 0
    if top_k is not None:
        kept &= rank < top_k.astype(rank.dtype)
    if top_p is not None:
        probabilities = jax.nn.softmax(jnp.where(kept, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept &= (before < top_p) | (rank == 0)
    return jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
