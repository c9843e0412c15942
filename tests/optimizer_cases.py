"""A table of the optimizers with their variants, each with what it must agree with.

A row names the same optimizer in jaxnn, in the NumPy reference, in optax and in torch; two
problems, ill-conditioned and non-convex, give them their gradients.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import optimizers as reference
from tests.numpy_reference import schedules as reference_schedules

STEPS = 200


class Case(NamedTuple):
    """One optimizer: `rate` is a number or a schedule, `path` that of a leaf of the weights."""

    name: str
    make: Callable[[Any, Any], Any]  # (nn.optimizers or optax, rate) -> optimizer
    numpy: Callable[[Any, str], reference.Reference]  # (rate, path) -> reference
    prepare: Callable[[dict, dict], dict] = lambda gradients, weights: gradients
    optax: Callable[[Any, Any], Any] | None = None  # (optax, rate), where it is not `make`
    torch: Callable[[Any, Any, Any], Any] | None = None  # (torch.optim, named weights, rate)
    torch_schedules: bool = True
    rate: float = 0.02


# The rows

# RMSprop jumps about a minimum at random, so that rounding grows: its cases do not get there.
RATE_OF = {"rmsprop": 0.0002}


def same(name: str, constructor: str, torch: Any = None, **kwargs: Any) -> Case:
    """The row of an optimizer with the same arguments in jaxnn, NumPy and optax."""

    def make(library: Any, rate: Any) -> Any:
        return getattr(library, constructor)(rate, **kwargs)

    def numpy(rate: Any, path: str) -> reference.Reference:
        return getattr(reference, constructor)(rate, **kwargs)

    return Case(name, make, numpy, torch=torch, rate=RATE_OF.get(constructor, 0.02))


def torch_optimizer(constructor: str, **kwargs: Any) -> Callable[[Any, Any, Any], Any]:
    """A torch optimizer by its name, for all weights alike."""
    return lambda optim, weights, rate: getattr(optim, constructor)(
        list(weights.values()), rate, **kwargs
    )


def torch_adamw(decays: Callable[[str], bool]) -> Callable[[Any, Any, Any], Any]:
    """AdamW of torch with the decay of `DECAY` for the chosen paths."""

    def make(optim: Any, weights: dict, rate: float) -> Any:
        groups = [
            {"params": [w], "weight_decay": DECAY if decays(path) else 0.0}
            for path, w in weights.items()
        ]
        return optim.AdamW(groups, rate)

    return make


def averaged_sgd(optax: Any, rate: Any, nesterov: bool = False) -> Any:
    """What `sgd(averaged=True)` is in optax, which has no such argument."""
    mean = optax.trace(0.8, nesterov)
    return optax.chain(optax.scale(1 - 0.8), mean, optax.scale_by_learning_rate(rate))


DECAY = 0.3


def masked_adamw(name: str, decays: Callable[[str], bool], **kwargs: Any) -> Case:
    """The row of `adamw(**kwargs)` that decays the leaves whose path `decays`."""

    def by_path(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: decays(jax.tree_util.keystr(path, simple=True, separator="/")), params
        )

    return Case(
        name,
        lambda library, rate: library.adamw(rate, weight_decay=DECAY, **kwargs),
        lambda rate, path: (
            reference.adamw(rate, weight_decay=DECAY, decay_all=True)
            if decays(path)
            else reference.adam(rate)
        ),
        optax=lambda optax, rate: optax.adamw(rate, weight_decay=DECAY, mask=by_path),
        torch=torch_adamw(decays),
    )


def is_kernel(path: str) -> bool:
    return path == "kernel"


def decay_schedule(library: Any) -> Any:
    return library.cosine_decay_schedule(0.5, 100, 0.1)


def adam_with_scheduled_decay(rate: Any, path: str) -> reference.Reference:
    """AdamW whose weight decay follows `decay_schedule`."""
    init, adam_update = reference.adam(rate)
    decay = decay_schedule(reference_schedules)

    def update(g: np.ndarray, state: dict, w: np.ndarray) -> tuple[np.ndarray, dict]:
        delta, new_state = adam_update(g, state, w)
        count = state["count"]
        rate_now = rate(count) if callable(rate) else rate
        return delta - is_kernel(path) * rate_now * decay(count) * w, new_state

    return reference.Reference(init, update)


def clipped(gradients: dict, weights: dict) -> dict:
    return {path: reference.clip(g, 0.5) for path, g in gradients.items()}


def clipped_by_global_norm(gradients: dict, weights: dict) -> dict:
    shrunk = reference.clip_by_global_norm(list(gradients.values()), 0.5)
    return dict(zip(gradients, shrunk, strict=True))


def with_decayed_weights(gradients: dict, weights: dict) -> dict:
    return {p: g + DECAY * is_kernel(p) * weights[p] for p, g in gradients.items()}


def kernels(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def descend_by(library: Any, rate: Any) -> Any:
    """`scale` or `scale_by_schedule`, whichever takes `rate`."""
    if callable(rate):
        return library.scale_by_schedule(lambda count: -rate(count))
    return library.scale(-rate)


CASES = [
    same("sgd", "sgd", torch=torch_optimizer("SGD")),
    same("sgd-momentum", "sgd", torch_optimizer("SGD", momentum=0.8), momentum=0.8),
    same(
        "sgd-nesterov",
        "sgd",
        torch_optimizer("SGD", momentum=0.8, nesterov=True),
        momentum=0.8,
        nesterov=True,
    ),
    same("sgd-averaged", "sgd", momentum=0.8, averaged=True)._replace(optax=averaged_sgd),
    same("sgd-averaged-nesterov", "sgd", momentum=0.8, nesterov=True, averaged=True)._replace(
        optax=lambda optax, rate: averaged_sgd(optax, rate, nesterov=True)
    ),
    same("rmsprop", "rmsprop"),
    same("rmsprop-all-numbers", "rmsprop", decay=0.8, eps=1e-3, initial_scale=1.0),
    same(
        "rmsprop-eps-outside",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9),
        eps_in_sqrt=False,
    ),
    same("rmsprop-corrected", "rmsprop", bias_correction=True, eps=1e-6),
    same("rmsprop-centered", "rmsprop", centered=True, eps=1e-3),
    same(
        "rmsprop-centered-eps-outside",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9, eps=1e-3, centered=True),
        centered=True,
        eps=1e-3,
        eps_in_sqrt=False,
    ),
    same(
        "rmsprop-centered-corrected-momentum",
        "rmsprop",
        centered=True,
        eps=1e-3,
        bias_correction=True,
        momentum=0.5,
    ),
    same(
        "rmsprop-momentum",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9, momentum=0.7),
        eps_in_sqrt=False,
        momentum=0.7,
    )._replace(torch_schedules=False),  # torch multiplies by the rate after the momentum
    same("rmsprop-nesterov", "rmsprop", momentum=0.7, nesterov=True),
    same("adam", "adam", torch_optimizer("Adam")),
    same("adam-all-numbers", "adam", b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
    same("adam-nesterov", "adam", nesterov=True),
    masked_adamw("adamw", is_kernel),
    masked_adamw("adamw-mask-true", lambda path: True, mask=True),
    masked_adamw("adamw-mask-false", lambda path: False, mask=False),
    masked_adamw("adamw-mask-glob", lambda path: path == "bias", mask="b*"),
    masked_adamw("adamw-mask-globs", lambda path: True, mask=("bias", "ker*")),
    masked_adamw("adamw-mask-callable", is_kernel, mask=kernels),
    Case(
        "adamw-scheduled-decay",
        lambda library, rate: library.adamw(
            rate,
            weight_decay=decay_schedule(nn.schedules),
            mask=kernels,
        ),
        adam_with_scheduled_decay,
    ),
    same("adamw-nesterov", "adamw", nesterov=True, weight_decay=DECAY)._replace(
        optax=lambda optax, rate: optax.adamw(rate, nesterov=True, weight_decay=DECAY, mask=kernels)
    ),
    Case(
        "clip-sgd",
        lambda library, rate: library.chain(library.clip(0.5), library.sgd(rate, 0.8)),
        lambda rate, path: reference.sgd(rate, 0.8),
        clipped,
    ),
    Case(
        "clip_by_global_norm-adam",
        lambda library, rate: library.chain(library.clip_by_global_norm(0.5), library.adam(rate)),
        lambda rate, path: reference.adam(rate),
        clipped_by_global_norm,
    ),
    Case(
        "add_decayed_weights-sgd",
        lambda library, rate: library.chain(
            library.add_decayed_weights(DECAY, mask=kernels), library.sgd(rate, 0.8)
        ),
        lambda rate, path: reference.sgd(rate, 0.8),
        with_decayed_weights,
        torch=lambda optim, weights, rate: optim.SGD(
            [
                {"params": [w], "weight_decay": DECAY * is_kernel(path)}
                for path, w in weights.items()
            ],
            rate,
            momentum=0.8,
        ),
    ),
    Case(
        "trace",
        lambda library, rate: library.chain(library.trace(0.8, True), descend_by(library, rate)),
        lambda rate, path: reference.sgd(rate, 0.8, nesterov=True),
    ),
    Case(
        "scale_by_adam",
        lambda library, rate: library.chain(
            library.identity(), library.scale_by_adam(), library.scale_by_learning_rate(rate)
        ),
        lambda rate, path: reference.adam(rate),
    ),
    Case(
        "scale_by_rms",
        lambda library, rate: library.chain(library.scale_by_rms(), descend_by(library, rate)),
        lambda rate, path: reference.rmsprop(rate),
        rate=RATE_OF["rmsprop"],
    ),
    Case(
        "scale_by_stddev",
        lambda library, rate: library.chain(
            library.scale_by_stddev(eps=1e-3),
            library.scale_by_learning_rate(rate, flip_sign=False),
            library.scale(-1.0),
        ),
        lambda rate, path: reference.rmsprop(rate, centered=True, eps=1e-3),
        rate=RATE_OF["rmsprop"],
    ),
]

# How a case's rate becomes its learning rate, given the module of the schedules.
RATES = {
    "constant": lambda schedules, rate: rate,
    "cosine": lambda schedules, rate: schedules.cosine_decay_schedule(rate, 150, 0.1),
}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# Those that differ in more than numbers and masks, for what takes a compilation each.
_ALIKE = ("mask", "numbers", "outside", "scale_by")
DISTINCT_CASES = [case for case in CASES if not any(word in case.name for word in _ALIKE)]
every_distinct_case = pytest.mark.parametrize("case", DISTINCT_CASES, ids=lambda case: case.name)


# The problems: two functions of a kernel and a bias, eight numbers together

PROBLEMS = ("steep", "wavy")

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


def gradients(xp: Any, weights: dict[str, Any], is_wavy: Any) -> dict[str, Any]:
    """The gradient of `½ (v - t)ᵀ H (v - t)` (steep) or of `Σ cos(A v + φ) + |v|² / 20` (wavy)."""
    curvature, target, waves, phase = map(xp.asarray, (_CURVATURE, _TARGET, _WAVES, _PHASE))
    v = xp.concatenate([weights["kernel"].reshape(-1), weights["bias"]])
    steep = curvature @ (v - target)
    wavy = 0.1 * v - waves.T @ xp.sin(waves @ v + phase)
    g = xp.where(is_wavy, wavy, steep)
    return {"kernel": g[:6].reshape(3, 2), "bias": g[6:]}


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

    def walk(is_wavy: bool) -> list[dict[str, np.ndarray]]:
        weights = initial_weights()
        references = {name: case.numpy(rate, name) for name in weights}
        states = {name: references[name].init(w) for name, w in weights.items()}
        visited = []
        for _ in range(STEPS):
            prepared = case.prepare(gradients(np, weights, is_wavy), weights)
            for name, w in weights.items():
                delta, states[name] = references[name].update(prepared[name], states[name], w)
                weights = {**weights, name: w + delta}
            visited.append(weights)
        return visited

    return _both_problems(walk)


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

    return _both_problems(walk)


@contextmanager
def usual_promotion():
    """JAX's usual promotion rules, which optax is written for."""
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield
