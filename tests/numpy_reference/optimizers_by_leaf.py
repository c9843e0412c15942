"""Optimizers that look at a whole array, its norm or its matrix, from the papers' equations."""

import math

import numpy as np

from .float64 import Array, as_float64
from .optimizer_protocol import Reference, Schedule, State, decayed, value_at, zeros
from .optimizers import adamw
from .optimizers_adaptive import nadamw


def _norm(x: Array) -> float:
    return math.sqrt(sum(float(element) ** 2 for element in np.ravel(x)))


def _rms(x: Array) -> float:
    return _norm(x) / math.sqrt(np.size(x))


def lars(
    learning_rate: float | Schedule,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    scales: bool = True,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Reference:
    """You, Gitman and Ginsburg 2017, arXiv:1708.03888, algorithm 1.

    g = g + decay w, local rate = eta ||w|| / (||g|| + eps), v = b v + rate local g, w -= v. Here
    the norm is of the sum; there it is ||g|| + decay ||w||. Not scaled unless `scales`.
    """

    def init(w: Array) -> State:
        return {"count": 0, "v": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g = as_float64(g) + decayed(w, weight_decay, decay_all)
        local = 1.0
        if scales and _norm(w) > 0 and _norm(g) > 0:
            local = trust_coefficient * _norm(w) / (_norm(g) + eps)
        step = value_at(learning_rate, state["count"]) * local * g
        v = momentum * state["v"] + step
        delta = -(step + momentum * v) if nesterov else -v
        return delta, {"count": state["count"] + 1, "v": v}

    return Reference(init, update)


def lamb(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Reference:
    """You et al. 2020, arXiv:1904.00962, algorithm 2, with phi the identity."""

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w), "v": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        r = r + decayed(w, weight_decay, decay_all)
        ratio = _norm(w) / _norm(r) if _norm(w) > 0 and _norm(r) > 0 else 1.0
        return -value_at(learning_rate, t - 1) * ratio * r, {"count": t, "m": m, "v": v}

    return Reference(init, update)


def novograd(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Reference:
    """Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1.

    v_1 = ||g||^2, m_1 = g / sqrt(v_1) + decay w; then v = b2 v + (1 - b2) ||g||^2 and
    m = b1 m + (g / (sqrt(v) + eps) + decay w); w -= rate m.
    """

    def init(w: Array) -> State:
        return {"count": 0, "m": None, "v": None}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, is_first = as_float64(g), state["count"] == 0
        square = _norm(g) ** 2
        v = square if is_first else b2 * state["v"] + (1 - b2) * square
        step = g / (math.sqrt(v + eps_root) + eps) + decayed(w, weight_decay, decay_all)
        m = step if is_first else b1 * state["m"] + step
        delta = -value_at(learning_rate, state["count"]) * m
        return delta, {"count": state["count"] + 1, "m": m, "v": v}

    return Reference(init, update)


def adafactor(
    learning_rate: float | Schedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    weight_decay_rate: float | None = None,
    eps: float = 1e-30,
    factored: bool = True,
    decay_all: bool = False,
) -> Reference:
    """Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 (matrices) and 5; up to two axes.

    R_i = b R_i + (1 - b) mean_j(g_ij^2 + eps), C_j likewise, V_ij = R_i C_j / mean(R), with
    b = 1 - t^-decay_rate; U = g / sqrt(V), U / max(1, RMS(U) / d), w -= max(1e-3, RMS(w)) rate U.
    """

    def init(w: Array) -> State:
        return {"count": 0, "R": 0.0, "C": 0.0, "V": 0.0, "mean": zeros(w)}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, t = as_float64(g), state["count"] + 1
        b = 1 - (t - decay_offset) ** -decay_rate
        square = g * g + eps
        rows, columns, whole = state["R"], state["C"], state["V"]
        if factored and g.ndim == 2 and min(g.shape) >= min_dim_size_to_factor:
            rows = b * rows + (1 - b) * np.array([row.sum() / len(row) for row in square])
            columns = b * columns + (1 - b) * np.array([c.sum() / len(c) for c in square.T])
            V = np.outer(rows, columns) / (rows.sum() / len(rows))
        else:
            V = whole = b * whole + (1 - b) * square
        step = g / np.sqrt(V)
        if clipping_threshold is not None:
            step = step / max(1.0, _rms(step) / clipping_threshold)
        if learning_rate is not None:
            step = step * value_at(learning_rate, t - 1)
        if multiply_by_parameter_scale:
            step = step * max(1e-3, _rms(w))
        mean = state["mean"]
        if momentum is not None:
            step = mean = momentum * mean + (1 - momentum) * step
        if weight_decay_rate is not None:
            step = step + decayed(w, weight_decay_rate, decay_all)
        return -step, {"count": t, "R": rows, "C": columns, "V": whole, "mean": mean}

    return Reference(init, update)


def muon(
    learning_rate: float | Schedule,
    ns_coeffs: tuple = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_weight_decay: float = 0.0,
    adam_learning_rate: float | Schedule | None = None,
    consistent_rms: float | None = None,
) -> Reference:
    """Jordan et al. 2024: matrices by their singular values, all else by AdamW.

    The iteration x -> a x + b (x x') x + c (x x')^2 x keeps the singular vectors, and takes each
    singular value s to a s + b s^3 + c s^5: here it is done on the numbers of an SVD. It begins at
    the Frobenius norm 1, the largest singular value 1, Schatten's 4-norm 1, or (aol) with each row
    i divided by sqrt(sum_j |x x'|_ij), which has singular vectors of its own.
    """
    if adam_learning_rate is None:
        adam_learning_rate = learning_rate
    others = nadamw if nesterov else adamw
    adam_init, adam_update = others(adam_learning_rate, eps=eps, weight_decay=adam_weight_decay)

    def orthogonal(x: Array) -> Array:
        if x.shape[0] > x.shape[1]:
            return orthogonal(x.T).T
        singular = np.linalg.svd(x, compute_uv=False)
        if preconditioning == "frobenius":
            x = x / (np.sqrt(np.sum(singular**2)) + eps)
        elif preconditioning == "spectral":
            x = x / (singular.max() + eps)
        elif preconditioning == "schatten":
            x = x / np.sum(singular**4) ** 0.25
        else:
            x = x / np.sqrt(np.abs(x @ x.T).sum(axis=1, keepdims=True))
        left, s, right = np.linalg.svd(x, full_matrices=False)
        for step in range(ns_steps):
            a, b, c = ns_coeffs[step] if np.ndim(ns_coeffs) == 2 else ns_coeffs
            s = a * s + b * s**3 + c * s**5
        return left @ np.diag(s) @ right

    def init(w: Array) -> State:
        return {"count": 0, "m": zeros(w)} if np.ndim(w) == 2 else adam_init(w)

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        if np.ndim(w) != 2:
            return adam_update(g, state, w)
        g, t = as_float64(g), state["count"] + 1
        m = beta * state["m"] + (1 - beta) * g
        mean = m / (1 - beta**t)
        if nesterov:
            mean = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        step = orthogonal(mean)
        if adaptive:
            step = step * np.sum(mean * step)
        rows, columns = g.shape
        if consistent_rms is None:
            step = step * math.sqrt(max(1, columns / rows))
        else:
            step = step * math.sqrt(max(rows, columns)) * consistent_rms
        step = step + weight_decay * as_float64(w)
        return -value_at(learning_rate, t - 1) * step, {"count": t, "m": m}

    return Reference(init, update)


def soap(
    learning_rate: float | Schedule,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
) -> Reference:
    """Vyas et al. 2024, algorithm 3, with a factor and a basis for each axis of an array.

    The first gradient makes the bases only. The mean of the gradients is kept as they are, which is
    the same as turning it from each basis into the next.
    """

    def axes(w: Array) -> list[int]:
        many = np.ndim(w) > 1
        return [k for k in range(np.ndim(w)) if many and np.shape(w)[k] <= max_precond_dim]

    def turned(x: Array, matrices: dict[int, Array]) -> Array:
        for k, matrix in matrices.items():
            x = np.swapaxes(np.swapaxes(x, k, -1) @ matrix, k, -1)
        return x

    def init(w: Array) -> State:
        none = {k: np.zeros((np.shape(w)[k],) * 2) for k in axes(w)}
        return {"count": 0, "m": zeros(w), "v": zeros(w), "factors": none, "bases": none}

    def update(g: Array, state: State, w: Array) -> tuple[Array, State]:
        g, count, bases = as_float64(g), state["count"] + 1, state["bases"]
        factors = {}
        for k, factor in state["factors"].items():
            rows = np.moveaxis(g, k, 0).reshape(g.shape[k], -1)
            factors[k] = b2 * factor + (1 - b2) * rows @ rows.T
        decay = decayed(w, weight_decay, decay_all=False)
        rate = value_at(learning_rate, count - 1)
        if count == 1:
            bases = {k: np.linalg.eigh(factor)[1][:, ::-1] for k, factor in factors.items()}
            return -rate * decay, state | {"count": 1, "factors": factors, "bases": bases}
        t = count - 1
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * turned(g, bases) ** 2
        step = turned(m, bases) / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        step = turned(step, {k: basis.T for k, basis in bases.items()})
        if t % precondition_frequency == 0:
            renewed = {}
            for k, basis in bases.items():
                order = np.argsort(-np.diag(basis.T @ factors[k] @ basis))
                renewed[k] = np.linalg.qr(factors[k] @ basis[:, order])[0]
                v = np.take(v, order, axis=k)
            bases = renewed
        following = {"count": count, "m": m, "v": v, "factors": factors, "bases": bases}
        return -rate * (step + decay), following

    return Reference(init, update)
