"""L-BFGS: Newton's method with a Hessian made of the last gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arrays import check_count, hyperparameter, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import OptimizerLike, PyTree, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, chain, check_optimizer, identity
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._line_search import real_vdot, scale_by_zoom_linesearch
from jaxnn.optimizers._scaling import scale, scale_by_learning_rate


class ScaleByLBFGSState(NamedTuple):
    """The step count, the last params and gradients, and the last differences of both.

    The memories have one more axis, the first, and `weights_memory` one number for each pair: 1
    over the product of its differences, 0 if there is none.
    """

    count: jax.Array  # type: ignore[assignment]
    params: PyTree
    updates: PyTree
    diff_params_memory: PyTree
    diff_updates_memory: PyTree
    weights_memory: jax.Array


@constructor
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> Optimizer:
    """Precondition gradients by the L-BFGS approximation of the inverse Hessian: `u = H g`.

    With the differences s of the params and y of the gradients over each of the last `memory_size`
    steps, and `ρ = 1 / (s · y)`: `H = (I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ` from the oldest to the
    newest, starting with `H = γ I`, where `γ = (s · y) / (y · y)` for the newest pair, and
    `min(1, 1 / ‖g‖)` before there is one. Pairs with `s · y <= 0`, which would not lead downhill,
    are left out (optax keeps them; after a line search there are none).

    Paper: Liu and Nocedal, On the limited memory BFGS method for large scale optimization,
    https://doi.org/10.1007/BF01589116

    Args:
        memory_size: the number of past steps to keep, at least 1.
        scale_init_precond: whether γ is as above; otherwise it is 1.

    Returns:
        An `Optimizer` with state `ScaleByLBFGSState(count, params, updates, diff_params_memory,
        diff_updates_memory, weights_memory)`, in float32 or wider; its `update` requires the
        params.

    Raises:
        TypeError: `memory_size` is no integer.
        ValueError: `memory_size` is less than 1; `update` is called without params; the structures
            differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_lbfgs()
        >>> curvature, w = jnp.array([1.0, 100.0]), jnp.array([1.0, 1.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(6):
        ...     updates, state = optimizer.update(curvature * w, state, w)
        ...     w = w - updates
        >>> bool(jnp.abs(w).max() < 0.1)
        True
    """
    check_count("scale_by_lbfgs", "memory_size", memory_size)

    def init(params: PyTree) -> PyTree:
        def memory() -> PyTree:
            return jax.tree.map(
                lambda m: jnp.zeros((memory_size, *m.shape), m.dtype),
                jax.eval_shape(moments.zeros, params),
            )

        weights = jnp.zeros(memory_size, precision.widest_real_dtype(params))
        return ScaleByLBFGSState(
            moments.zero_count(),
            moments.zeros(params),
            moments.zeros(params),
            memory(),
            memory(),
            weights,
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("scale_by_lbfgs", params)
        check.gradients("scale_by_lbfgs", updates)
        same_structure("scale_by_lbfgs", state=state.updates, updates=updates)
        same_structure("scale_by_lbfgs", params=params, updates=updates)

        def kept(new: jax.Array, old: jax.Array) -> jax.Array:
            return widen(new).astype(old.dtype)

        w, g = jax.tree.map(kept, (params, updates), (state.params, state.updates))
        s, y = jax.tree.map(jnp.subtract, (w, g), (state.params, state.updates))

        real = state.weights_memory.dtype
        curvature = hyperparameter(real_vdot(s, y), real)
        is_pair = (state.count > 0) & (curvature > 0)
        weight = jnp.where(is_pair, 1 / jnp.where(is_pair, curvature, 1), 0)
        slot = (state.count - 1) % memory_size

        def remember(memory: jax.Array, new: jax.Array) -> jax.Array:
            return memory.at[slot].set(jnp.where(is_pair, new, 0))

        s_memory = jax.tree.map(remember, state.diff_params_memory, s)
        y_memory = jax.tree.map(remember, state.diff_updates_memory, y)
        weights = state.weights_memory.at[slot].set(weight)

        gamma = jnp.ones((), real)
        if scale_init_precond:
            first = 1 / jnp.maximum(hyperparameter(global_norm(g), real), 1)
            squares = hyperparameter(real_vdot(y, y), real)
            gamma = jnp.where(is_pair, curvature / jnp.where(is_pair, squares, 1), first)

        newest_last = (state.count + jnp.arange(memory_size, dtype=jnp.int32)) % memory_size
        direction = _times_inverse_hessian(g, s_memory, y_memory, weights, gamma, newest_last)
        following = ScaleByLBFGSState(
            moments.next_count_of_cycle(state.count, memory_size), w, g, s_memory, y_memory, weights
        )
        return jax.tree.map(precision.cast_like, direction, updates), following

    return Optimizer(init, update)


def _times_inverse_hessian(
    g: PyTree,
    s_memory: PyTree,
    y_memory: PyTree,
    weights: jax.Array,
    gamma: jax.Array,
    oldest_first: jax.Array,
) -> PyTree:
    """`H g` by the two loops of Nocedal and Wright, algorithm 7.4."""

    def add(vector: PyTree, factor: jax.Array, direction: PyTree) -> PyTree:
        return jax.tree.map(lambda v, d: v + factor.astype(v.dtype) * d, vector, direction)

    def pair(i: jax.Array) -> tuple[PyTree, PyTree]:
        return jax.tree.map(lambda memory: memory[i], (s_memory, y_memory))  # type: ignore[no-any-return]

    def project(vector: PyTree, i: jax.Array) -> tuple[PyTree, jax.Array]:
        s, y = pair(i)
        alpha = weights[i] * hyperparameter(real_vdot(s, vector), weights.dtype)
        return add(vector, -alpha, y), alpha

    def correct(vector: PyTree, i_and_alpha: tuple[jax.Array, jax.Array]) -> tuple[PyTree, None]:
        i, alpha = i_and_alpha
        s, y = pair(i)
        beta = weights[i] * hyperparameter(real_vdot(y, vector), weights.dtype)
        return add(vector, alpha - beta, s), None

    vector, alphas = lax.scan(project, g, oldest_first, reverse=True)
    vector = jax.tree.map(lambda v: gamma.astype(v.dtype) * v, vector)
    return lax.scan(correct, vector, (oldest_first, alphas))[0]


LINE_SEARCH = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


@constructor
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: OptimizerLike | None = LINE_SEARCH,
) -> Optimizer:
    """L-BFGS, a quasi-Newton method with a line search, for objectives without noise.

    `w = w - η H g`, where H is an approximation of the inverse Hessian, see `scale_by_lbfgs`, and η
    a step size that meets the strong Wolfe conditions, see `scale_by_zoom_linesearch`.

    In `fit` and `training_run` it is for full batches (`batch_size=None`): each mini-batch is
    another objective, and curvature remembered from others misleads. They compute the gradient anew
    at each step, which a loop of your own need not: see `value_and_grad_from_state`.

    Paper: Liu and Nocedal, On the limited memory BFGS method for large scale optimization,
    https://doi.org/10.1007/BF01589116

    Args:
        learning_rate: the factor of the direction before the line search, a number at least 0 (may
            be traced) or a schedule; None for 1.
        memory_size: the number of past steps to keep, at least 1.
        scale_init_precond: whether H starts with the curvature along the last step.
        linesearch: the `Optimizer` or optax transformation that finds η; None for η = 1. The
            default tries 20 points at most, starting with η = 1.

    Returns:
        An `Optimizer` whose `update` requires the params, and what the line search needs: the
        keywords `value`, `grad` and `value_fn`. (In wrappers of optax,
        `optax.GradientTransformationExtraArgs(*it)`, so that they pass them on.)

    Raises:
        TypeError: `memory_size` is no integer, or `linesearch` no transformation.
        ValueError: `learning_rate` or `memory_size` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def rosenbrock(w):
        ...     return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
        >>> optimizer = nn.optimizers.lbfgs()
        >>> value_and_grad = nn.optimizers.value_and_grad_from_state(rosenbrock)
        >>> @jax.jit
        ... def step(w, state):
        ...     value, grad = value_and_grad(w, state=state)
        ...     updates, state = optimizer.update(
        ...         grad, state, w, value=value, grad=grad, value_fn=rosenbrock)
        ...     return nn.optimizers.apply_updates(w, updates), state
        >>> w = jnp.array([-1.0, 1.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(40):
        ...     w, state = step(w, state)
        >>> bool(jnp.abs(w - 1).max() < 1e-3)
        True
    """
    scaling = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    search = identity() if linesearch is None else linesearch
    check_optimizer(search, "lbfgs: linesearch")
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), scaling, search)
