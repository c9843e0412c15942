"""A table of the transformations and wrappers of optimizers, as `optimizer_cases` of the rules.

A row names the same optimizer in jaxnn, in the NumPy reference and in optax. The learning rate is
a schedule, so that it shows who counts what.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import optimizer_wrappers as reference
from tests.numpy_reference import optimizers as rules
from tests.numpy_reference import schedules as reference_schedules
from tests.numpy_reference.optimizer_wrappers import TreeReference, each, of_gradients

STEPS = 200


class Optax:
    """optax, optax.contrib and optax.transforms as one module."""

    def __init__(self, optax: Any) -> None:
        self.modules = (optax, optax.contrib, optax.transforms)

    def __getattr__(self, name: str) -> Any:
        return next(getattr(m, name) for m in self.modules if hasattr(m, name))


def AS_OURS(library: Any, rate: Any) -> Any:  # noqa: N802
    """Stands for a row's `make`."""
    raise NotImplementedError


class Wrapper(NamedTuple):
    """One optimizer. `passes_extra` tells whether its update gets value, grad and value_fn."""

    name: str
    make: Callable[[Any, Any], Any]  # (nn.optimizers or Optax, rate) -> optimizer
    numpy: Callable[[Any], TreeReference]  # (rate) -> reference
    optax: Callable[[Any, Any], Any] | None = AS_OURS  # None: optax has it not
    optax_tolerance: float = 1e-10
    passes_extra: bool = False
    rate: float = 0.02
    slow: bool = False  # says little that no other row says


def sgd(rate: Any) -> TreeReference:
    return each(rules.sgd(rate, 0.8))


def adam(rate: Any) -> TreeReference:
    return each(rules.adam(rate))


def has_two_axes(path: str, leaf: Any) -> bool:
    return jnp.ndim(leaf) == 2


def kernels(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)


def by_kind(params: Any) -> Any:
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) >= 2 else "vector", params)


def masked_then_sgd(mask: Any) -> Callable[[Any, Any], Any]:
    """Descent with momentum, in which the chosen leaves go by half of their gradient."""
    return lambda library, rate: library.chain(
        library.masked(library.scale(0.5), mask), library.sgd(rate, 0.8)
    )


def half_kernels(g: Any, w: Any) -> Any:
    return {"kernel": g["kernel"] / 2, "bias": g["bias"]}


def lookahead_in_optax(optax: Any, rate: Any, **kwargs: Any) -> Any:
    """optax's lookahead of pairs of params, with the slow ones in the state."""
    inner = optax.lookahead(optax.adam(rate), 5, 0.4, **kwargs)

    def init(params: Any) -> Any:
        return inner.init(optax.LookaheadParams.init_synced(params)), params

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        inner_state, slow = state
        pair = optax.LookaheadParams(params, slow)
        updates, inner_state = inner.update(grads, inner_state, pair)
        return updates.fast, (inner_state, jax.tree.map(jnp.add, slow, updates.slow))

    return nn.optimizers.Optimizer(init, update)


def sam_in_optax(optax: Any, rate: Any, **kwargs: Any) -> Any:
    up = optax.chain(optax.normalize(), optax.sgd(0.3))
    return optax.sam(optax.adam(rate), up, **kwargs)


def opaque_sam_in_optax(optax: Any, rate: Any) -> Any:
    inner = sam_in_optax(optax, rate, sync_period=3, opaque_mode=True)

    def update(grads: Any, state: Any, params: Any, *, value_fn: Any, **extra: Any) -> Any:
        gradient = jax.grad(value_fn)
        return inner.update(grads, state, params, grad_fn=lambda p, i: gradient(p))

    return nn.optimizers.Optimizer(inner.init, update)


def plateau(library: Any, rate: Any, **kwargs: Any) -> Any:
    return library.chain(library.sgd(rate, 0.8), library.reduce_on_plateau(**kwargs))


PLATEAU = {"factor": 0.5, "patience": 3, "rtol": 0.05, "cooldown": 2, "accumulation_size": 4}


def on_simplex(weights: Any) -> Any:
    vector = np.concatenate([weights["kernel"].reshape(-1), weights["bias"]])
    vector = reference.projection_simplex(vector)
    return {"kernel": vector[:6].reshape(3, 2), "bias": vector[6:]}


def every_one_to_four(count: Any) -> Any:
    return 1 + count % 4


def descend(library: Any, rate: Any) -> Any:
    return library.scale_by_learning_rate(rate)


def rising(count: Any) -> Any:
    return count / (count + 1)


def rising_in_jax(count: Any) -> Any:
    return rising(count.astype(jnp.result_type(float)))


def beta_schedule(count: Any) -> Any:
    return 0.8 + 0.1 * (count % 2)


CASES = [
    Wrapper(
        "partition",
        lambda library, rate: library.partition(
            {"kern*": library.sgd(rate, 0.8), "*": library.adam(rate)}
        ),
        lambda rate: reference.partition({"kern*": sgd(rate), "*": adam(rate)}),
        optax=lambda optax, rate: optax.partition(
            {"matrix": optax.sgd(rate, 0.8), "vector": optax.adam(rate)}, by_kind
        ),
    ),
    Wrapper(
        "partition-labels",
        lambda library, rate: library.partition(
            {"a": library.adam(rate), "b": library.set_to_zero()}, {"kernel": "a", "bias": "b"}
        ),
        lambda rate: reference.partition({"kernel": adam(rate), "*": reference.freeze()}),
    ),
    Wrapper(
        "partition-label-function",
        lambda library, rate: library.partition(
            {"matrix": library.adam(rate), "vector": library.sgd(rate, 0.8)}, by_kind
        ),
        lambda rate: reference.partition({"kernel": adam(rate), "*": sgd(rate)}),
        slow=True,
    ),
    Wrapper(
        "masked-glob",
        masked_then_sgd("ker*"),
        lambda rate: of_gradients(half_kernels, sgd(rate)),
        optax=masked_then_sgd({"kernel": True, "bias": False}),
    ),
    Wrapper(
        "masked-predicate",
        masked_then_sgd(has_two_axes),
        lambda rate: of_gradients(half_kernels, sgd(rate)),
        optax=masked_then_sgd(kernels),
        slow=True,
    ),
    Wrapper(
        "masked-function",
        masked_then_sgd(kernels),
        lambda rate: of_gradients(half_kernels, sgd(rate)),
        slow=True,
    ),
    Wrapper(
        "freeze",
        lambda library, rate: library.chain(
            library.adam(rate), library.freeze({"kernel": False, "bias": True})
        ),
        lambda rate: reference.masked(reference.freeze(), "bias", adam(rate)),
        slow=True,
    ),
    Wrapper(
        "accumulate",
        lambda library, rate: library.accumulate(library.adam(rate), 3),
        lambda rate: reference.accumulate(adam(rate), 3),
        optax=lambda optax, rate: optax.MultiSteps(
            optax.adam(rate), 3, accumulator_dtype=jnp.float64
        ),
    ),
    Wrapper(
        "accumulate-sum-schedule",
        lambda library, rate: library.accumulate(
            library.sgd(rate, 0.8), every_one_to_four, use_grad_mean=False
        ),
        lambda rate: reference.accumulate(sgd(rate), every_one_to_four, use_grad_mean=False),
        optax=lambda optax, rate: optax.MultiSteps(
            optax.sgd(rate, 0.8),
            every_one_to_four,
            use_grad_mean=False,
            accumulator_dtype=jnp.float64,
        ),
        slow=True,
    ),
    Wrapper(
        "ema",
        lambda library, rate: library.chain(library.ema(0.8), descend(library, rate)),
        lambda rate: each(reference.ema(rate, 0.8)),
    ),
    Wrapper(
        "ema-biased",
        lambda library, rate: library.chain(library.ema(0.8, debias=False), descend(library, rate)),
        lambda rate: each(reference.ema(rate, 0.8, debias=False)),
        slow=True,
    ),
    Wrapper(
        "params_ema",
        lambda library, rate: library.params_ema(library.adam(rate), 0.9),
        lambda rate: reference.params_ema(adam(rate), 0.9),
        optax=None,
    ),
    Wrapper(
        "params_ema-schedule",
        lambda library, rate: library.params_ema(library.adam(rate), rising_in_jax),
        lambda rate: reference.params_ema(adam(rate), rising),
        optax=None,
        slow=True,
    ),
    Wrapper(
        "lookahead",
        lambda library, rate: library.lookahead(library.adam(rate), 5, 0.4),
        lambda rate: reference.lookahead(adam(rate), 5, 0.4),
        optax=lookahead_in_optax,
    ),
    Wrapper(
        "lookahead-reset",
        lambda library, rate: library.lookahead(library.adam(rate), 5, 0.4, reset_state=True),
        lambda rate: reference.lookahead(adam(rate), 5, 0.4, reset_state=True),
        optax=lambda optax, rate: lookahead_in_optax(optax, rate, reset_state=True),
        slow=True,
    ),
    Wrapper(
        "schedule_free",
        lambda library, rate: library.schedule_free(
            library.sgd(rate), rate, b1=0.8, weight_lr_power=1.5
        ),
        lambda rate: reference.schedule_free(each(rules.sgd(rate)), rate, 0.8, 1.5),
    ),
    Wrapper(
        "schedule_free_sgd",
        lambda library, rate: library.schedule_free_sgd(0.05, 20, weight_decay=0.0),
        lambda rate: reference.schedule_free_sgd(0.05, 20),
        optax_tolerance=1e-6,  # optax warms up in float32
    ),
    Wrapper(
        "schedule_free_adamw",
        lambda library, rate: library.schedule_free_adamw(rate, b1=0.95, b2=0.99, eps=1e-6),
        lambda rate: reference.schedule_free_adamw(rate, b1=0.95, b2=0.99, eps=1e-6),
    ),
    Wrapper(
        "schedule_free_adamw-warmup-decay",
        lambda library, rate: library.schedule_free_adamw(
            0.05, 20, weight_decay=0.3, **({"mask": True} if library is nn.optimizers else {})
        ),
        lambda rate: reference.partition(
            {
                "kernel": reference.schedule_free_adamw(0.05, 20, weight_decay=0.3),
                "bias": reference.schedule_free(
                    each(
                        rules.adamw(
                            reference.warmed_up(0.05, 20), 0.0, weight_decay=0.3, decay_all=True
                        )
                    ),
                    reference.warmed_up(0.05, 20),
                ),
            }
        ),
        optax_tolerance=1e-6,
        slow=True,
    ),
    Wrapper(
        "sam-opaque",
        lambda library, rate: library.sam(
            library.adam(rate), sync_period=3, opaque_mode=True, rho=0.3
        ),
        lambda rate: reference.sam(adam(rate), 0.3, 3),
        optax=opaque_sam_in_optax,
        passes_extra=True,
    ),
    Wrapper(
        "normalize",
        lambda library, rate: library.chain(library.normalize(), library.sgd(rate, 0.8)),
        lambda rate: of_gradients(reference.normalize, sgd(rate)),
        slow=True,
    ),
    Wrapper(
        "normalize_by_update_norm",
        lambda library, rate: library.chain(
            library.normalize_by_update_norm(0.5, 0.1), library.sgd(rate, 0.8)
        ),
        lambda rate: of_gradients(
            lambda g, w: reference.normalize_by_update_norm(g, w, 0.5, 0.1), sgd(rate)
        ),
    ),
    Wrapper(
        "centralize",
        lambda library, rate: library.chain(library.centralize(), library.adam(rate)),
        lambda rate: of_gradients(reference.centralize, adam(rate)),
    ),
    Wrapper(
        "adaptive_grad_clip",
        lambda library, rate: library.chain(
            library.adaptive_grad_clip(0.1, 1.5), library.sgd(rate, 0.8)
        ),
        lambda rate: of_gradients(
            lambda g, w: reference.adaptive_grad_clip(g, w, 0.1, 1.5), sgd(rate)
        ),
        rate=0.1,
    ),
    Wrapper(
        "keep_params_nonnegative",
        lambda library, rate: library.chain(library.adam(rate), library.keep_params_nonnegative()),
        lambda rate: reference.keep_params_nonnegative(adam(rate)),
    ),
    Wrapper(
        "project_params",
        lambda library, rate: library.chain(
            library.adam(rate), library.project_params(library.projection_simplex)
        ),
        lambda rate: reference.project_params(on_simplex, adam(rate)),
        optax=None,
    ),
    Wrapper(
        "scale_by_backtracking_linesearch",
        lambda library, rate: library.chain(
            library.sgd(3.0), library.scale_by_backtracking_linesearch(20, slope_rtol=0.1)
        ),
        lambda rate: reference.scale_by_backtracking_linesearch(
            each(rules.sgd(3.0)), slope_rtol=0.1
        ),
        optax_tolerance=1e-8,
        passes_extra=True,
    ),
    Wrapper(
        "named_chain",
        lambda library, rate: library.named_chain(
            ("none", library.zero_nans()),
            ("adam", library.adam(rate)),
        ),
        lambda rate: of_gradients(reference.zero_nans, adam(rate)),
        slow=True,
    ),
    Wrapper(
        "apply_if_finite",
        lambda library, rate: library.apply_if_finite(library.adam(rate), 2),
        lambda rate: reference.apply_if_finite(adam(rate), 2),
        slow=True,
    ),
    Wrapper(
        "dynamic_loss_scale",
        lambda library, rate: library.dynamic_loss_scale(
            library.sgd(rate, 0.8), 1.0, period=30, factor=1.25
        ),
        lambda rate: reference.dynamic_loss_scale(sgd(rate), 1.0, period=30, factor=1.25),
        optax=None,
    ),
    Wrapper(
        "inject_hyperparams",
        lambda library, rate: library.inject_hyperparams(library.adam)(rate, b1=0.8),
        lambda rate: each(rules.adam(rate, 0.8)),
    ),
    Wrapper(
        "reduce_on_plateau",
        lambda library, rate: plateau(library, rate, **PLATEAU),
        lambda rate: reference.reduce_on_plateau(sgd(rate), **PLATEAU),
        passes_extra=True,
        rate=0.05,
    ),
    Wrapper(
        "reduce_on_plateau-least",
        lambda library, rate: plateau(
            library, rate, factor=0.5, patience=2, rtol=0.0, atol=0.1, min_scale=0.2
        ),
        lambda rate: reference.reduce_on_plateau(
            sgd(rate), factor=0.5, patience=2, rtol=0.0, atol=0.1, min_scale=0.2
        ),
        passes_extra=True,
        rate=0.05,
        slow=True,
    ),
]


# The names that have no row: questions, what needs another walk, what is random.
NAMES_WITHOUT_ROW = {
    *("evaluation_params", "schedule_free_eval_params", "skip_not_finite", "unitwise_norm"),
    *("loss_scale", "map_params", "get_state", "set_state", "skip_large_updates"),
    *("incremental_update", "periodic_update"),
    *("projection_box", "projection_l1_ball", "projection_l2_ball", "projection_linf_ball"),
    "projection_non_negative",
    *("lbfgs", "scale_by_lbfgs", "scale_by_zoom_linesearch", "value_and_grad_from_state"),
    *("add_noise", "master_weights", "stochastic_rounding"),
    *("mup_initial_params", "scale_by_mup"),
}


# The problems: a function of a kernel and a bias, steep and ill-conditioned or wavy

_rng = np.random.default_rng(3)
_BASIS = np.linalg.qr(_rng.standard_normal((8, 8)))[0]
_CURVATURE = (_BASIS * np.logspace(-3, 1, 8)) @ _BASIS.T
_WAVES = 0.5 * _rng.standard_normal((8, 8))


def initial_weights() -> dict[str, np.ndarray]:
    """The weights that each problem starts from, float64."""
    rng = np.random.default_rng(11)
    return {"kernel": rng.standard_normal((3, 2)), "bias": rng.standard_normal(2)}


def as_vector(xp: Any, weights: dict[str, Any]) -> Any:
    return xp.concatenate([weights["kernel"].reshape(-1), weights["bias"]])


def value(xp: Any, weights: dict[str, Any], is_wavy: Any) -> Any:
    """`½ (v - 1)ᵀ H (v - 1)`, or `Σ cos(A v + 1) + |v|² / 20`, of the weights as a vector v."""
    v, curvature, waves = as_vector(xp, weights), xp.asarray(_CURVATURE), xp.asarray(_WAVES)
    steep = (v - 1) @ curvature @ (v - 1) / 2
    return xp.where(is_wavy, xp.sum(xp.cos(waves @ v + 1)) + v @ v / 20, steep)


def gradients(xp: Any, weights: dict[str, Any], is_wavy: Any) -> dict[str, Any]:
    """The gradient of `value`, derived by hand."""
    v, curvature, waves = as_vector(xp, weights), xp.asarray(_CURVATURE), xp.asarray(_WAVES)
    g = xp.where(is_wavy, 0.1 * v - waves.T @ xp.sin(waves @ v + 1), curvature @ (v - 1))
    return {"kernel": g[:6].reshape(3, 2), "bias": g[6:]}


def trajectory_in_numpy(optimizer: TreeReference) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The path of the NumPy reference on both problems, and the last state on each."""
    walks, last = [], []
    for is_wavy in (False, True):
        problem = reference.Problem(
            lambda w, is_wavy=is_wavy: float(value(np, w, is_wavy)),
            lambda w, is_wavy=is_wavy: gradients(np, w, is_wavy),
        )
        visited, states = reference.walk(optimizer, problem, initial_weights(), STEPS)
        walks.append(visited)
        last.append(states[-1])
    path = {
        name: np.stack([[w[name] for w in visited] for visited in walks])
        for name in initial_weights()
    }
    return path, last


def trajectory_in_jax(optimizer: Any, passes_extra: bool) -> tuple[dict[str, np.ndarray], Any]:
    """The path of an optimizer by optax's protocol on both problems, and the last states."""

    def walk(is_wavy: Any) -> Any:
        def value_fn(params: Any) -> Any:
            return value(jnp, params, is_wavy)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            grads = gradients(jnp, params, is_wavy)
            extra = {}
            if passes_extra:
                extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn}
            updates, state = optimizer.update(grads, state, params, **extra)
            params = nn.optimizers.apply_updates(params, updates)
            return (params, state), params

        start = jax.tree.map(jnp.asarray, initial_weights())
        (_, state), visited = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)
        return visited, state

    visited, state = fast_jit(jax.vmap(walk))(jnp.array([False, True]))
    return jax.tree.map(np.asarray, visited), state


@contextmanager
def usual_promotion() -> Iterator[None]:
    """JAX's usual promotion rules, which optax is written for."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# Trees to try an optimizer on


def random_tree(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """A kernel and a bias of normal numbers."""
    rng = np.random.default_rng(seed)
    tree = {"kernel": rng.standard_normal((3, 2)), "bias": rng.standard_normal(2)}
    if jnp.issubdtype(dtype, jnp.complexfloating):
        tree = {name: leaf + 1j * rng.standard_normal(leaf.shape) for name, leaf in tree.items()}
    return {name: jnp.asarray(leaf, dtype) for name, leaf in tree.items()}


def signature(tree: Any) -> Any:
    """What a loop carry or a compiled function must find unchanged."""
    leaves = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves


def assert_trees_close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def extras(params: Any, grads: Any) -> dict[str, Any]:
    """The keywords that `train_step` passes, for half of the square."""

    def value_fn(params: Any) -> jax.Array:
        return sum(jnp.sum(jnp.abs(p.astype(p.dtype)) ** 2) / 2 for p in jax.tree.leaves(params))

    return {"value": value_fn(params), "grad": grads, "value_fn": value_fn}


# What a row says


def rate_of(case: Wrapper, schedules: Any) -> Any:
    """The learning rate of a row."""
    return schedules.cosine_decay_schedule(case.rate, 150, 0.1)


def numpy_of(case: Wrapper) -> TreeReference:
    return case.numpy(rate_of(case, reference_schedules))


def ours_of(case: Wrapper) -> Any:
    return case.make(nn.optimizers, rate_of(case, nn.schedules))


def optax_of(case: Wrapper, optax: Any) -> Any:
    make = case.make if case.optax is AS_OURS else case.optax
    assert make is not None
    return make(Optax(optax), rate_of(case, optax))
