"""Optimizers that use the sign of the gradient, from the equations of their papers."""

import numpy as np

from .float64 import Array, as_float64
from .optimizer_protocol import Reference, Schedule, State, decayed, value_at, zeros


def sign_sgd(learning_rate: float | Schedule) -> Reference:
    """w -= rate sign(g): Bernstein et al. 2018, arXiv:1802.04434, algorithm 1."""

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        delta = -value_at(learning_rate, state["count"]) * np.sign(as_float64(g))
        return delta, {"count": state["count"] + 1}

    return Reference(lambda w: {"count": 0}, update)


def lion(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
    decay_all: bool = False,
    mode: str = "hard",
    smooth_beta: float = 1.0,
) -> Reference:
    """Chen et al. 2023, arXiv:2302.06675, algorithm 2.

    c = b1 m + (1 - b1) g, w -= rate (sign(c) + decay w), m = b2 m + (1 - b2) g. optax's modes:
    smooth, tanh(beta c), and refined, c within [-1, 1].
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, m = as_float64(g), state["m"]
        c = b1 * m + (1 - b1) * g
        if mode == "smooth":
            c = np.tanh(smooth_beta * c)
        elif mode == "refined":
            c = np.minimum(np.maximum(c, -1), 1)
        else:
            c = np.sign(c)
        step = c + decayed(w, weight_decay, decay_all)
        delta = -value_at(learning_rate, state["count"]) * step
        return delta, {"count": state["count"] + 1, "m": b2 * m + (1 - b2) * g}

    return Reference(init, update)


def rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> Reference:
    """Rprop-: Riedmiller and Braun 1993 without weight-backtracking, Igel and Hüsken 2000.

    Element by element, as the papers write it: where g g' > 0 the step grows, where g g' < 0 it
    shrinks and this step is left out, g' being forgotten.
    """

    def init(w: Array) -> State:
        return {"size": np.full(np.shape(w), float(learning_rate)), "last": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, size, last = as_float64(g), state["size"].copy(), state["last"].copy()
        delta = zeros(w)
        for i in np.ndindex(g.shape):
            if last[i] * g[i] < 0:
                size[i] = max(size[i] * eta_minus, min_step_size)
                last[i] = 0
                continue
            if last[i] * g[i] > 0:
                size[i] = min(size[i] * eta_plus, max_step_size)
            delta[i] = -np.sign(g[i]) * size[i]
            last[i] = g[i]
        return delta, {"size": size, "last": last}

    return Reference(init, update)
