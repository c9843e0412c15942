"""Optimizers, written from the equations of their papers, for one array at a time.

`init(w)` gives the state, a dict; `update(g, state, w)` gives what is to be ADDED to w and the
next state. A learning rate is a number or a function of the number of updates made before.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .float64 import Array, as_float64
from .optimizer_protocol import Reference, Schedule, State, decayed, value_at, zeros

Arrays = dict[Hashable, Array]


def sgd(
    learning_rate: float | Schedule,
    momentum: float | None = None,
    nesterov: bool = False,
    averaged: bool = False,
) -> Reference:
    """Gradient descent with momentum b: v = b v + c g, and w -= rate v, where c = 1.

    Nesterov looks one step ahead: w -= rate (c g + b v). Averaged: c = 1 - b, so that v is a
    mean of the gradients. Sutskever et al. 2013, On the importance of initialization and momentum.
    """
    b = 0.0 if momentum is None else momentum
    c = 1 - b if averaged else 1.0

    def init(w: Array) -> State:
        return {"count": 0, "trace": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g = as_float64(g)
        v = b * state["trace"] + c * g
        direction = c * g + b * v if nesterov else v
        rate = value_at(learning_rate, state["count"])
        return -rate * direction, {"count": state["count"] + 1, "trace": v}

    return Reference(init, update)


def rmsprop(
    learning_rate: float | Schedule,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Reference:
    """n = decay n + (1 - decay) g^2, step = -rate g / sqrt(n + eps), or / (sqrt(n) + eps).

    Tieleman and Hinton 2012, Lecture 6.5. Centered (Graves 2013, arXiv:1308.0850): n less the
    square of m = decay m + (1 - decay) g. Corrected: m and n divided by 1 - decay^t. Momentum b
    is on the steps, after the rate: v = b v + step, w += v; Nesterov: w += step + b v.
    """
    b = 0.0 if momentum is None else momentum

    def init(w: Array) -> State:
        nu = np.full(np.shape(w), float(initial_scale))
        return {"count": 0, "mu": zeros(w), "nu": nu, "trace": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        mu = decay * state["mu"] + (1 - decay) * g
        nu = decay * state["nu"] + (1 - decay) * g**2
        correction = 1 - decay**t if bias_correction else 1.0
        n = nu / correction
        if centered:  # a variance: below zero by rounding only
            n = np.maximum(n - (mu / correction) ** 2, 0.0)
        root = np.sqrt(n + eps) if eps_in_sqrt else np.sqrt(n) + eps
        step = -value_at(learning_rate, state["count"]) * g / root
        trace = b * state["trace"] + step
        delta = step + b * trace if nesterov else trace
        return delta, {"count": t, "mu": mu, "nu": nu, "trace": trace}

    return Reference(init, update)


def adam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> Reference:
    """m = b1 m + (1 - b1) g, n = b2 n + (1 - b2) g^2, w -= rate m^ / (sqrt(n^ + eps_root) + eps).

    m^ = m / (1 - b1^t) and n^ = n / (1 - b2^t): Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    Nesterov: m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t): Dozat 2016, algorithm 2.
    """

    def init(w: Array) -> State:
        return {"count": 0, "mu": zeros(w), "nu": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        mu = b1 * state["mu"] + (1 - b1) * g
        nu = b2 * state["nu"] + (1 - b2) * g**2
        m = mu / (1 - b1**t)
        if nesterov:
            m = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        n = nu / (1 - b2**t)
        delta = -value_at(learning_rate, state["count"]) * m / (np.sqrt(n + eps_root) + eps)
        return delta, {"count": t, "mu": mu, "nu": nu}

    return Reference(init, update)


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
    *,
    weight_decay: float,
    decay_all: bool = False,
) -> Reference:
    """Adam, and w -= rate weight_decay w: Loshchilov and Hutter 2019, arXiv:1711.05101.

    Arrays with fewer than two axes (biases, scales) decay only with `decay_all`.
    """
    init, adam_update = adam(learning_rate, b1, b2, eps, eps_root, nesterov)

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        delta, new_state = adam_update(g, state, w)
        rate = value_at(learning_rate, state["count"])
        return delta - rate * decayed(w, weight_decay, decay_all), new_state

    return Reference(init, update)


def clip(g: Array, max_delta: float) -> Array:
    """Clip each element to [-max_delta, max_delta]."""
    return np.clip(as_float64(g), -max_delta, max_delta)


def clip_by_global_norm(gradients: Sequence[Array], max_norm: float) -> list[Array]:
    """Shrink all arrays by one factor so that their joint norm is at most max_norm.

    Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    gradients = [as_float64(g) for g in gradients]
    norm = math.sqrt(sum(np.sum(g**2) for g in gradients))
    return [g * (max_norm / norm) if norm > max_norm else g for g in gradients]


def step(
    reference: Reference, gradients: Arrays, states: dict[Hashable, State], weights: Arrays
) -> tuple[Arrays, dict[Hashable, State]]:
    """Update each array of a dict by its own gradient and state."""
    updated = {k: reference.update(gradients[k], states[k], w) for k, w in weights.items()}
    new_weights = {k: w + updated[k][0] for k, w in weights.items()}
    return new_weights, {k: state for k, (_, state) in updated.items()}


def minimize(
    reference: Reference, loss_gradient: Callable[[Arrays], Arrays], weights: Arrays, steps: int
) -> Arrays:
    """Make `steps` updates of a dict of arrays by the gradients that `loss_gradient` gives."""
    weights = {k: as_float64(w) for k, w in weights.items()}
    states = {k: reference.init(w) for k, w in weights.items()}
    for _ in range(steps):
        weights, states = step(reference, loss_gradient(weights), states, weights)
    return weights
