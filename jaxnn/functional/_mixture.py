"""Sparse mixtures of experts: routing, capacity and load balancing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_shape, check_size, floating, refuse_complex, widen
from jaxnn._core.meshes import automatic
from jaxnn._core.types import Size


@checked
def mixture_of_experts(
    x: ArrayLike,
    logits: ArrayLike,
    experts: Callable[[jax.Array], jax.Array],
    *,
    top_k: int = 2,
    capacity: Size | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Route each token to its `top_k` most likely experts: `y = sum_e g_e f_e(x)`.

    `p = softmax(logits)`; `g` is `p` over the chosen experts, divided by its sum there (with
    `top_k=1` it is `p` itself, so that the router has a gradient), and 0 elsewhere.

    An expert takes `capacity` tokens: first choices before second ones, earlier tokens before later
    ones. Tokens beyond the capacity are dropped: the expert adds nothing to them.

    Papers: Shazeer et al., Outrageously Large Neural Networks, https://arxiv.org/abs/1701.06538;
    Fedus et al., Switch Transformers, https://arxiv.org/abs/2101.03961

    Args:
        x: tokens, shape `(tokens, features)`.
        logits: of the router, shape `(tokens, experts)`.
        experts: all experts at once, from `(experts, capacity, features)` to
            `(experts, capacity, out)`; rows that no token fills are zeros.
        top_k: the number of experts for each token.
        capacity: the maximum number of tokens of an expert; None for all, so that none is dropped.
        where: booleans of shape `(tokens,)`, False at padding: such a token goes to no expert and
            takes no room there. Its output and gradients are 0, whatever it holds.

    Returns:
        Shape `(tokens, out)` in the dtype of the experts' output. The gates are float32 or wider.

    Raises:
        TypeError: `top_k` or `capacity` is not an integer, `logits` is complex, or `where` is not
            boolean.
        ValueError: the shapes do not fit; `top_k` is not between 1 and the number of experts;
            `capacity` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[1.0], [2.0], [3.0]])
        >>> logits = jnp.array([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
        >>> def times_ten_and_minus(tokens):
        ...     return tokens * jnp.array([10.0, -1.0])[:, None, None]
        >>> y = nn.functional.mixture_of_experts(x, logits, times_ten_and_minus, top_k=1)
        >>> y.ravel().round(2)
        Array([10., -2., -3.], dtype=float32)
    """
    x, logits = floating(x), widen(logits)
    refuse_complex("mixture_of_experts", "logits", logits)
    if x.ndim != 2 or logits.ndim != 2 or x.shape[0] != logits.shape[0]:
        raise ValueError(
            f"mixture_of_experts: x has shape {x.shape} and logits {logits.shape}, expected "
            "(tokens, features) and (tokens, experts)"
        )
    tokens, num_experts = logits.shape
    if where is not None:
        where = _checked_where("mixture_of_experts", where, tokens)
        x, logits = (jnp.where(where[:, None], a, 0) for a in (x, logits))
    _check_top_k("mixture_of_experts", top_k, num_experts)
    # No expert gets a token twice, so `tokens` places are always enough.
    capacity = (
        tokens if capacity is None else check_size("mixture_of_experts", "capacity", capacity)
    )

    def sent(
        x: jax.Array, logits: jax.Array, where: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What each expert gets, the gates of each token and its slots."""
        gates, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top_k)
        if top_k > 1:
            gates = gates / jnp.sum(gates, axis=-1, keepdims=True)

        # The places of the choices in their experts' queues: all first choices, then all second.
        chosen = chosen if where is None else jnp.where(where[:, None], chosen, num_experts)
        queue = jax.nn.one_hot(chosen.T.reshape(-1), num_experts, dtype=jnp.int32)
        ahead = jnp.cumsum(queue, axis=0, dtype=jnp.int32) - queue
        place = jnp.sum(ahead * queue, axis=-1, dtype=jnp.int32).reshape(top_k, tokens).T
        has_room = (place < capacity) & (chosen < num_experts)
        slot = jnp.where(has_room, chosen * capacity + place, num_experts * capacity)

        slots = jnp.zeros((num_experts * capacity, x.shape[1]), x.dtype)
        for choice in range(top_k):
            slots = slots.at[slot[:, choice]].set(x, mode="drop")
        return slots.reshape(num_experts, capacity, x.shape[1]), gates, slot

    def received(gates: jax.Array, slot: jax.Array, y: jax.Array) -> jax.Array:
        rows = y.reshape(num_experts * capacity, y.shape[-1])
        given = rows.at[slot].get(mode="fill", fill_value=0)  # (tokens, top_k, out)
        weights = gates[:, :, None].astype(widen(given).dtype)
        return jnp.sum(widen(given) * weights, axis=1).astype(y.dtype)

    slots, gates, slot = automatic(sent, x, logits, where, leading=(0, 1, 1))
    return automatic(received, gates, slot, experts(slots), leading=1)  # type: ignore[no-any-return]


@checked
def expert_balance(
    logits: ArrayLike, *, top_k: int = 2, where: ArrayLike | None = None
) -> jax.Array:
    """The load-balancing loss of n experts: `n sum_e f_e P_e`, at best 1, at worst `n / top_k`.

    `f_e` is the fraction of tokens routed to expert `e`, which has no gradient, `P_e` the mean of
    its probability over the tokens. Its usual weight in the loss is 0.01.

    Paper: Fedus et al., Switch Transformers, https://arxiv.org/abs/2101.03961

    Args:
        logits: of the router, shape `(tokens, experts)`.
        top_k: the number of experts for each token.
        where: booleans of shape `(tokens,)`, False at padding, which does not count.

    Returns:
        A scalar, float32 or wider; 0 without tokens.

    Raises:
        TypeError: `top_k` is not an integer, `logits` is complex, or `where` is not boolean.
        ValueError: `logits` has another rank, or `top_k` is not between 1 and the number of
            experts.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> even, uneven = jnp.eye(2) * 99, jnp.array([[99.0, 0.0], [99.0, 0.0]])
        >>> [float(nn.functional.expert_balance(x, top_k=1)) for x in (even, uneven)]
        [1.0, 2.0]
    """
    logits = widen(logits)
    refuse_complex("expert_balance", "logits", logits)
    if logits.ndim != 2:
        raise ValueError(
            f"expert_balance: logits has shape {logits.shape}, expected (tokens, experts)"
        )
    num_experts = logits.shape[1]
    _check_top_k("expert_balance", top_k, num_experts)
    if logits.shape[0] == 0:
        return jnp.zeros((), logits.dtype)
    weights = jnp.ones((logits.shape[0], 1), logits.dtype)
    if where is not None:
        where = _checked_where("expert_balance", where, logits.shape[0])[:, None]
        weights, logits = where.astype(logits.dtype), jnp.where(where, logits, 0)
    _, chosen = jax.lax.top_k(logits, top_k)
    share = jnp.mean(jax.nn.one_hot(chosen, num_experts, dtype=logits.dtype), axis=1)
    probability = jax.nn.softmax(logits, axis=-1)
    count = jnp.sum(weights)
    count = jnp.where(count == 0, 1, count)
    share, probability = (jnp.sum(weights * a, axis=0) / count for a in (share, probability))
    return num_experts * jnp.sum(share * probability)


def _checked_where(function: str, where: ArrayLike, tokens: int) -> jax.Array:
    """Which tokens count, as an array."""
    check_shape(function, "where", where, (tokens,))
    where = jnp.asarray(where)
    if where.dtype != jnp.bool:
        raise TypeError(f"{function}: where has dtype {where.dtype}, expected bool")
    return where


def _check_top_k(function: str, top_k: int, num_experts: int) -> None:
    if check_count(function, "top_k", top_k) > num_experts:
        raise ValueError(f"{function}: top_k is {top_k}, expected at most {num_experts} experts")
