"""Optimizers with a learning rate for each element, from the equations of their papers.

As in `optimizers`: `update(g, state, w)` gives what is to be added to w and the next state.
"""

from collections.abc import Callable

import numpy as np

from .float64 import Array, as_float64
from .optimizer_protocol import Reference, Schedule, State, decayed, value_at, zeros
from .optimizers import adam, adamw


def adagrad(
    learning_rate: float | Schedule,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    eps_in_sqrt: bool = True,
) -> Reference:
    """s = s + g^2, w -= rate g / sqrt(s + eps), or / (sqrt(s) + eps).

    Duchi, Hazan and Singer 2011, figure 1 (diagonal G, proximal term of eps).
    """

    def init(w: Array) -> State:
        return {"count": 0, "s": np.full(np.shape(w), float(initial_accumulator_value))}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g = as_float64(g)
        s = state["s"] + g * g
        root = np.sqrt(s + eps) if eps_in_sqrt else np.sqrt(s) + eps
        delta = -value_at(learning_rate, state["count"]) * g / root
        return delta, {"count": state["count"] + 1, "s": s}

    return Reference(init, update)


def adadelta(
    learning_rate: float | Schedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Reference:
    """Zeiler 2012, arXiv:1212.5701, algorithm 1, with a learning rate.

    E[g^2] = rho E[g^2] + (1 - rho) g^2, dx = -RMS[dx] / RMS[g] g with RMS[z] = sqrt(E[z^2] + eps),
    E[dx^2] = rho E[dx^2] + (1 - rho) dx^2, w += rate dx. The decay is of the L2 kind: g + decay w.
    """

    def init(w: Array) -> State:
        return {"count": 0, "g2": zeros(w), "dx2": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g = as_float64(g) + decayed(w, weight_decay, decay_all)
        g2 = rho * state["g2"] + (1 - rho) * g**2
        dx = -np.sqrt(state["dx2"] + eps) / np.sqrt(g2 + eps) * g
        dx2 = rho * state["dx2"] + (1 - rho) * dx**2
        delta = value_at(learning_rate, state["count"]) * dx
        return delta, {"count": state["count"] + 1, "g2": g2, "dx2": dx2}

    return Reference(init, update)


def amsgrad(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    maximum_first: bool = False,
) -> Reference:
    """Reddi, Kale and Kumar 2018, arXiv:1904.09237, algorithm 2: v^ = max(v^, v).

    The paper corrects nothing; with the corrections, v / (1 - b2^t) is what the maximum is of, or
    the maximum is divided by 1 - b2^t after (`maximum_first`).
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "v": zeros(w), "largest": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        of_m = 1 - b1**t if bias_correction_mu else 1.0
        of_v = 1 - b2**t if bias_correction_nu else 1.0
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        if maximum_first:
            largest = np.maximum(state["largest"], v)
            square = largest / of_v
        else:
            square = largest = np.maximum(state["largest"], v / of_v)
        rate = value_at(learning_rate, state["count"])
        delta = -rate * (m / of_m) / (np.sqrt(square + eps_root) + eps)
        return delta, {"count": t, "m": m, "v": v, "largest": largest}

    return Reference(init, update)


def nadam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Reference:
    """Adam with Nesterov's look ahead: Dozat 2016, algorithm 2."""
    return adam(learning_rate, b1, b2, eps, eps_root, nesterov=True)


def nadamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    weight_decay: float,
    decay_all: bool = False,
) -> Reference:
    """AdamW with Nesterov's look ahead."""
    return adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        nesterov=True,
        weight_decay=weight_decay,
        decay_all=decay_all,
    )


def adamaxw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    decay_all: bool = False,
) -> Reference:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 2, with decoupled decay.

    m = b1 m + (1 - b1) g, u = max(b2 u, |g| + eps), w -= rate (m / (1 - b1^t) / u + decay w). The
    paper has no eps.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "u": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        u = np.maximum(b2 * state["u"], np.abs(g) + eps)
        step = m / ((1 - b1**t) * u) + decayed(w, weight_decay, decay_all)
        return -value_at(learning_rate, state["count"]) * step, {"count": t, "m": m, "u": u}

    return Reference(init, update)


def adamax(
    learning_rate: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Reference:
    """`adamaxw` without decay."""
    return adamaxw(learning_rate, b1, b2, eps, weight_decay=0.0)


def radam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    nesterov: bool = False,
) -> Reference:
    """Liu et al. 2020, arXiv:1908.03265, algorithm 2 (there the threshold is 4).

    rho_inf = 2 / (1 - b2) - 1, rho = rho_inf - 2 t b2^t / (1 - b2^t). From the threshold on
    w -= rate r m^ sqrt(1 - b2^t) / sqrt(v), before w -= rate m^.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "v": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        mean = m / (1 - b1**t)
        if nesterov:
            mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        step = mean
        if rho >= threshold:
            above = (rho - 4) * (rho - 2) * rho_inf
            below = (rho_inf - 4) * (rho_inf - 2) * rho
            step = np.sqrt(above / below) * mean / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        return -value_at(learning_rate, state["count"]) * step, {"count": t, "m": m, "v": v}

    return Reference(init, update)


def adabelief(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    nesterov: bool = False,
) -> Reference:
    """Zhuang et al. 2020, arXiv:2010.07468, algorithm 2.

    s = b2 s + (1 - b2) (g - m)^2 + eps_root, w -= rate m^ / (sqrt(s^) + eps), m^ and s^ as in Adam.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "s": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        s = b2 * state["s"] + (1 - b2) * (g - m) ** 2 + eps_root
        mean = m / (1 - b1**t)
        if nesterov:
            mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        step = mean / (np.sqrt(s / (1 - b2**t)) + eps)
        return -value_at(learning_rate, state["count"]) * step, {"count": t, "m": m, "s": s}

    return Reference(init, update)


def yogi(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial: float = 1e-6,
) -> Reference:
    """Zaheer et al. 2018, algorithm 2: v -= (1 - b2) sign(v - g^2) g^2, with Adam's corrections.

    Both moments begin at `initial`, as in optax.
    """

    def init(w: Array) -> State:
        start = np.full(np.shape(w), initial)
        return {"count": 0, "m": start, "v": start}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        v = state["v"] - (1 - b2) * np.sign(state["v"] - g * g) * g * g
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        return -value_at(learning_rate, state["count"]) * step, {"count": t, "m": m, "v": v}

    return Reference(init, update)


def adan(
    learning_rate: float | Schedule,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Reference:
    """Xie et al. 2022, arXiv:2208.06677, algorithm 1, with its beta = 1 - b.

    m = (1 - beta1) m + beta1 g, v = (1 - beta2) v + beta2 (g - g'), n = (1 - beta3) n + beta3
    (g + (1 - beta2) (g - g'))^2, step = (m + (1 - beta2) v) / sqrt(n); corrected as Adam is, and
    with Adam's decoupled decay in place of the proximal one.
    """
    beta1, beta2, beta3 = 1 - b1, 1 - b2, 1 - b3

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "v": zeros(w), "n": zeros(w), "g": None}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        change = zeros(w) if state["g"] is None else g - state["g"]
        m = (1 - beta1) * state["m"] + beta1 * g
        v = (1 - beta2) * state["v"] + beta2 * change
        n = (1 - beta3) * state["n"] + beta3 * (g + (1 - beta2) * change) ** 2
        ahead = m / (1 - b1**t) + (1 - beta2) * v / (1 - b2**t)
        step = ahead / (np.sqrt(n / (1 - b3**t) + eps_root) + eps)
        step = step + decayed(w, weight_decay, decay_all)
        delta = -value_at(learning_rate, state["count"]) * step
        return delta, {"count": t, "m": m, "v": v, "n": n, "g": g}

    return Reference(init, update)


def adopt(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[int], float] = lambda count: count**0.25,
) -> Reference:
    """Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2.

    v_0 = g_0^2; then m = b1 m + (1 - b1) clip(g / max(sqrt(v), eps), c), w -= rate m, and
    v = b2 v + (1 - b2) g^2. Nesterov: b1 m + (1 - b1) clip(...) in the place of m.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "v": None}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"]
        if t == 0:
            return zeros(w), {"count": 1, "m": state["m"], "v": g * g}
        normalised = g / np.maximum(np.sqrt(state["v"]), eps)
        if use_clipping:
            limit = clip_value_fn(t)
            normalised = np.minimum(np.maximum(normalised, -limit), limit)
        m = b1 * state["m"] + (1 - b1) * normalised
        step = b1 * m + (1 - b1) * normalised if nesterov else m
        v = b2 * state["v"] + (1 - b2) * g * g
        return -value_at(learning_rate, t) * step, {"count": t + 1, "m": m, "v": v}

    return Reference(init, update)


def ademamix(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float | Schedule = 0.9999,
    alpha: float | Schedule = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Reference:
    """Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137, equation AdEMAMix.

    w -= rate ((m1^ + alpha m2) / (sqrt(v^) + eps) + decay w): m1 and v as Adam's m and v,
    m2 = b3 m2 + (1 - b3) g without correction.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m1": zeros(w), "m2": zeros(w), "v": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        slow, share = value_at(b3, t - 1), value_at(alpha, t - 1)
        m1 = b1 * state["m1"] + (1 - b1) * g
        m2 = slow * state["m2"] + (1 - slow) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        mixed = m1 / (1 - b1**t) + share * m2
        step = mixed / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        step = step + decayed(w, weight_decay, decay_all)
        delta = -value_at(learning_rate, t - 1) * step
        return delta, {"count": t, "m1": m1, "m2": m2, "v": v}

    return Reference(init, update)


def prodigy(
    learning_rate: float | Schedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: float = 0.0,
    safeguard_warmup: bool = False,
    decay_all: bool = False,
) -> Reference:
    """Mishchenko and Defazio 2024, arXiv:2306.06101, algorithm 4, with Adam's correction of gamma.

    The array is all parameters as one vector, since the distance d is of all.
    """
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3

    def init(w: Array) -> State:
        start = {"m": zeros(w), "v": zeros(w), "s": zeros(w), "w0": as_float64(w)}
        return {"count": 0, "d": estim_lr0, "r": 0.0, **start}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, w, t, d = as_float64(g), as_float64(w), state["count"] + 1, state["d"]
        gamma = value_at(learning_rate, t - 1) * np.sqrt(1 - b2**t) / (1 - b1**t)
        m = b1 * state["m"] + (1 - b1) * d * g
        v = b2 * state["v"] + (1 - b2) * d**2 * g**2
        r = b3 * state["r"] + gamma * d**2 / estim_lr0 * np.sum(g * (state["w0"] - w))
        factor = 1.0 if safeguard_warmup else gamma
        s = b3 * state["s"] + factor * d**2 / estim_lr0 * g
        new_d = max(d, estim_lr_coef * r / np.sum(np.abs(s)))
        step = m / (np.sqrt(v) + new_d * eps) + decayed(w, weight_decay, decay_all)
        new_state = {"m": m, "v": v, "s": s, "w0": state["w0"]}
        return -gamma * d * step, {"count": t, "d": new_d, "r": r, **new_state}

    return Reference(init, update)


def sophia(
    learning_rate: float | Schedule,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    decay_all: bool = False,
    gamma: float = 0.01,
    clip_threshold: float | None = 1.0,
    update_interval: int = 10,
    *,
    hessian_diagonal: Callable[[Array], Array],
) -> Reference:
    """Liu et al. 2023, arXiv:2305.14342, algorithm 3, with m corrected and h of the step before.

    w -= rate (clip(m^ / max(gamma h, eps), c) + decay w), h = b2 h + (1 - b2) h^ every
    `update_interval` steps, after the step. `hessian_diagonal` makes the estimate h^ of g.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "h": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t, h = as_float64(g), state["count"] + 1, state["h"]
        m = b1 * state["m"] + (1 - b1) * g
        step = m / (1 - b1**t) / np.maximum(gamma * h, eps)
        if clip_threshold is not None:
            step = np.sign(step) * np.minimum(np.abs(step), clip_threshold)
        if (t - 1) % update_interval == 0:
            h = b2 * h + (1 - b2) * hessian_diagonal(g)
        step = step + decayed(w, weight_decay, decay_all)
        return -value_at(learning_rate, t - 1) * step, {"count": t, "m": m, "h": h}

    return Reference(init, update)
