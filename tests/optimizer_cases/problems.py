"""The problems that optimizers walk down, and the walks: in NumPy, in JAX and in torch."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests.optimizer_cases.case import Case

STEPS = 200

# The problems: two functions of a kernel and a bias, eight numbers together

_rng = np.random.default_rng(7)
_BASIS = np.linalg.qr(_rng.standard_normal((8, 8)))[0]
_CURVATURE = (_BASIS * np.logspace(-3, 1, 8)) @ _BASIS.T  # condition number 10,000
_TARGET = _rng.standard_normal(8)
_WAVES = 0.5 * _rng.standard_normal((8, 8))
_PHASE = _rng.uniform(0, 6, 8)


def initial_weights() -> dict[str, np.ndarray]:
    """The weights that each problem starts from, float64."""
    rng = np.random.default_rng(11)
    return {"kernel": rng.standard_normal((3, 2)), "bias": rng.standard_normal(2)}


def _as_weights(vector: Any) -> dict[str, Any]:
    return {"kernel": vector[:6].reshape(3, 2), "bias": vector[6:]}


def gradients(xp: Any, weights: dict[str, Any], is_wavy: Any) -> dict[str, Any]:
    """The gradient of `½ (v - t)ᵀ H (v - t)` (steep) or of `Σ cos(A v + φ) + |v|² / 20` (wavy)."""
    curvature, target, waves, phase = map(xp.asarray, (_CURVATURE, _TARGET, _WAVES, _PHASE))
    v = xp.concatenate([weights["kernel"].reshape(-1), weights["bias"]])
    steep = curvature @ (v - target)
    wavy = 0.1 * v - waves.T @ xp.sin(waves @ v + phase)
    g = xp.where(is_wavy, wavy, steep)
    return _as_weights(g)


# The trajectories: the weights after each of the steps, of shape (problems, steps, ...)

Trajectory = dict[str, np.ndarray]


def _both_problems(walk: Callable[[bool], list[dict[str, np.ndarray]]]) -> Trajectory:
    steep, wavy = walk(False), walk(True)
    return {
        name: np.stack([[w[name] for w in steep], [w[name] for w in wavy]])
        for name in initial_weights()
    }


def trajectory_in_numpy(case: Case, rate: Any) -> Trajectory:
    """The path of the NumPy reference."""
    parts = _as_one_vector if case.joint else dict

    def walk(is_wavy: bool) -> list[dict[str, np.ndarray]]:
        weights = initial_weights()
        references = {name: case.numpy(rate, name) for name in parts(weights)}
        states = {name: references[name].init(w) for name, w in parts(weights).items()}
        visited = []
        for _ in range(STEPS):
            g = parts(case.prepare(gradients(np, weights, is_wavy), weights))
            moved = {}
            for name, w in parts(weights).items():
                delta, states[name] = references[name].update(g[name], states[name], w)
                moved[name] = w + delta
            weights = _as_weights(moved["all"]) if case.joint else moved
            visited.append(weights)
        return visited

    return _both_problems(walk)


def _as_one_vector(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"all": np.concatenate([w.ravel() for w in weights.values()])}


def trajectories_in_jax(optimizers: dict[str, Any]) -> dict[str, Trajectory]:
    """The paths of optimizers by optax's protocol, all in one program of scans under vmap."""

    def walk(optimizer: Any, is_wavy: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            grads = gradients(jnp, params, is_wavy)
            updates, state = optimizer.update(grads, state, params)
            params = nn.optimizers.apply_updates(params, updates)
            return (params, state), params

        start = jax.tree.map(jnp.asarray, initial_weights())
        return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[1]

    @jax.vmap
    def all_walks(is_wavy: Any) -> dict[str, Trajectory]:
        return {name: walk(optimizer, is_wavy) for name, optimizer in optimizers.items()}

    quick_to_compile = {"xla_backend_optimization_level": 0}
    run = jax.jit(all_walks, compiler_options=quick_to_compile)
    return jax.tree.map(np.asarray, run(jnp.array([False, True])))


def trajectory_in_torch(case: Case, rate: Any, torch: Any) -> Trajectory:
    """The path of the torch optimizer."""
    assert case.torch is not None

    def walk(is_wavy: bool) -> list[dict[str, np.ndarray]]:
        weights = {n: torch.from_numpy(w).requires_grad_() for n, w in initial_weights().items()}
        optimizer = case.torch(torch.optim, weights, case.rate)
        visited = [initial_weights()]
        for count in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = rate(count) if callable(rate) else rate
            for name, g in gradients(np, visited[-1], is_wavy).items():
                weights[name].grad = torch.from_numpy(g.copy())
            optimizer.step()
            visited.append({name: w.detach().numpy().copy() for name, w in weights.items()})
        return visited[1:]

    torch.set_default_dtype(torch.float64)  # of the numbers that optimizers keep
    try:
        return _both_problems(walk)
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def usual_promotion():
    """JAX's usual promotion rules, which optax is written for."""
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield
