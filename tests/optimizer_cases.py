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


# The rows


def same(name: str, constructor: str, torch: Any = None, **kwargs: Any) -> Case:
    """The row of an optimizer with the same arguments in jaxnn, NumPy and optax."""

    def make(library: Any, rate: Any) -> Any:
        return getattr(library, constructor)(rate, **kwargs)

    def numpy(rate: Any, path: str) -> reference.Reference:
        return getattr(reference, constructor)(rate, **kwargs)

    return Case(name, make, numpy, torch=torch)


def torch_optimizer(constructor: str, **kwargs: Any) -> Callable[[Any, Any, Any], Any]:
    """The torch optimizer of that name, for all weights alike."""
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
    return path.endswith("/kernel")


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
    masked_adamw("adamw-mask-glob", lambda path: path == "steep/bias", mask="steep/b*"),
    masked_adamw("adamw-mask-globs", lambda p: p != "wavy/bias", mask=("steep/*", "*/kernel")),
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
        optax=lambda optax, rate: optax.adamw(
            rate, nesterov=True, weight_decay=DECAY, mask=kernels
        )
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
    ),
    Case(
        "scale_by_stddev",
        lambda library, rate: library.chain(
            library.scale_by_stddev(eps=1e-3),
            library.scale_by_learning_rate(rate, flip_sign=False),
            library.scale(-1.0),
        ),
        lambda rate, path: reference.rmsprop(rate, centered=True, eps=1e-3),
    ),
]

RATE = 0.02
RATES = {
    "constant": lambda schedules: RATE,
    "cosine": lambda schedules: schedules.cosine_decay_schedule(RATE, 150, 0.1),
}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


# The problems: the gradients of two functions of a kernel and a bias, eight numbers together


_rng = np.random.default_rng(7)
_BASIS = np.linalg.qr(_rng.standard_normal((8, 8)))[0]
_CURVATURE = (_BASIS * np.logspace(-3, 1, 8)) @ _BASIS.T  # condition number 10,000
_TARGET = _rng.standard_normal(8)
_WAVES = 0.5 * _rng.standard_normal((8, 8))
_PHASE = _rng.uniform(0, 6, 8)


def initial_weights() -> dict[str, np.ndarray]:
    """The weights of both problems by path, float64."""
    rng = np.random.default_rng(11)
    return {
        f"{problem}/{name}": rng.standard_normal(shape)
        for problem in ("steep", "wavy")
        for name, shape in [("kernel", (3, 2)), ("bias", (2,))]
    }


def gradients(xp: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The gradients of `½ (v - t)ᵀ H (v - t)` (steep) and `Σ cos(A v + φ) + |v|² / 20` (wavy)."""

    def split(problem: str, g: Any) -> dict[str, Any]:
        return {f"{problem}/kernel": g[:6].reshape(3, 2), f"{problem}/bias": g[6:]}

    steep, wavy = (
        xp.concatenate([weights[f"{problem}/kernel"].reshape(-1), weights[f"{problem}/bias"]])
        for problem in ("steep", "wavy")
    )
    curvature, target, waves, phase = map(xp.asarray, (_CURVATURE, _TARGET, _WAVES, _PHASE))
    return {
        **split("steep", curvature @ (steep - target)),
        **split("wavy", -waves.T @ xp.sin(waves @ wavy + phase) + 0.1 * wavy),
    }


def nested(flat: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`{"a/b": c}` as `{"a": {"b": c}}`."""
    tree: dict[str, dict[str, Any]] = {}
    for path, leaf in flat.items():
        outer, inner = path.split("/")
        tree.setdefault(outer, {})[inner] = leaf
    return tree


def flat(tree: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `nested`."""
    return {f"{outer}/{inner}": x for outer, t in tree.items() for inner, x in t.items()}


# The trajectories: the weights after each of the steps, by path


def trajectory_in_numpy(case: Case, rate: str) -> dict[str, np.ndarray]:
    """The path of the NumPy reference."""
    learning_rate = RATES[rate](reference_schedules)
    weights = initial_weights()
    references = {path: case.numpy(learning_rate, path) for path in weights}
    states = {path: references[path].init(w) for path, w in weights.items()}
    visited = []
    for _ in range(STEPS):
        prepared = case.prepare(gradients(np, weights), weights)
        for path, w in weights.items():
            delta, states[path] = references[path].update(prepared[path], states[path], w)
            weights = {**weights, path: w + delta}
        visited.append(weights)
    return {path: np.stack([w[path] for w in visited]) for path in weights}


def trajectory_in_jax(optimizer: Any) -> dict[str, np.ndarray]:
    """The path of an optimizer by optax's protocol, as one scan."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = nested(gradients(jnp, flat(params)))
        updates, state = optimizer.update(grads, state, params)
        params = nn.optimizers.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params: Any) -> Any:
        return jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)[1]

    start = nested(jax.tree.map(jnp.asarray, initial_weights()))
    return jax.tree.map(np.asarray, flat(run(start)))


def trajectory_in_torch(case: Case, rate: str, torch: Any) -> dict[str, np.ndarray]:
    """The path of the torch optimizer."""
    learning_rate = RATES[rate](reference_schedules)
    weights = {p: torch.from_numpy(w).requires_grad_() for p, w in initial_weights().items()}
    assert case.torch is not None
    optimizer = case.torch(torch.optim, weights, RATE)
    visited = []
    for count in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(count) if callable(learning_rate) else learning_rate
        now = {path: w.detach().numpy().copy() for path, w in weights.items()}
        for path, g in gradients(np, now).items():
            weights[path].grad = torch.from_numpy(np.ascontiguousarray(g))
        optimizer.step()
        visited.append({path: w.detach().numpy().copy() for path, w in weights.items()})
    return {path: np.stack([w[path] for w in visited]) for path in weights}


@contextmanager
def usual_promotion():
    """JAX's usual promotion rules, which optax is written for."""
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield
