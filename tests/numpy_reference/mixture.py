"""Mixtures of experts, token by token."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


def _softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _through_softmax(p: Array, dp: Array) -> Array:
    """dp_i/dz_j = p_i (1[i = j] - p_j)."""
    return p * (dp - (p * dp).sum(-1, keepdims=True))


def routing(p: Array, top_k: int, capacity: int | None) -> list[list[tuple[int, bool]]]:
    """For each token its experts, likeliest first, each with whether there was room for it."""
    tokens, experts = p.shape
    room = np.full(experts, tokens if capacity is None else capacity)
    chosen = np.argsort(-p, axis=-1, kind="stable")[:, :top_k]
    served: list[list[tuple[int, bool]]] = [[] for _ in range(tokens)]
    for choice in range(top_k):
        for n in range(tokens):
            e = chosen[n, choice]
            served[n].append((int(e), bool(room[e] > 0)))
            room[e] -= 1
    return served


@in_float64
def mixture_of_linear_experts(
    x: Array, logits: Array, kernel: Array, top_k: int = 2, capacity: int | None = None
) -> tuple[Array, Callable]:
    """y_n = sum_e g_ne x_n kernel_e over the chosen experts that have room.

    g_ne = p_ne / s_n with s_n the sum of p over the chosen ones (s_n = 1 if only one is chosen), so
    with c_ne = dy_n . (x_n kernel_e), 0 where there was no room: dp_ne = c_ne / s_n, less
    sum_e' c_ne' p_ne' / s_n^2 where s_n is a sum.
    """
    p = _softmax(logits)
    served = routing(p, top_k, capacity)
    total = [
        sum(p[n, e] for e, _ in chosen) if top_k > 1 else 1.0 for n, chosen in enumerate(served)
    ]
    y = np.zeros((len(x), kernel.shape[-1]))
    for n, chosen in enumerate(served):
        for e, room in chosen:
            if room:
                y[n] += p[n, e] / total[n] * (x[n] @ kernel[e])

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dx, dp, dkernel = np.zeros_like(x), np.zeros_like(p), np.zeros_like(kernel)
        for n, chosen in enumerate(served):
            dtotal = 0.0
            for e, room in chosen:
                if not room:
                    continue
                gate = p[n, e] / total[n]
                dx[n] += gate * kernel[e] @ dy[n]
                dkernel[e] += gate * np.outer(x[n], dy[n])
                dgate = dy[n] @ (x[n] @ kernel[e])
                dp[n, e] += dgate / total[n]
                dtotal -= dgate * p[n, e] / total[n] ** 2
            if top_k > 1:
                for e, _ in chosen:
                    dp[n, e] += dtotal
        return dx, _through_softmax(p, dp), dkernel

    return y, backward


@in_float64
def expert_balance(logits: Array, top_k: int = 2) -> tuple[Array, Callable]:
    """L = E sum_e f_e P_e with P_e the mean of p_ne; f_e, a count, has no gradient."""
    p = _softmax(logits)
    tokens, experts = p.shape
    f = np.zeros(experts)
    for chosen in routing(p, top_k, None):
        for e, _ in chosen:
            f[e] += 1 / (tokens * top_k)
    loss = experts * np.sum(f * p.mean(0))

    def backward(dy: Array) -> tuple[Array]:
        dp = np.broadcast_to(experts * f / tokens, p.shape) * dy
        return (_through_softmax(p, dp),)

    return np.asarray(loss), backward
