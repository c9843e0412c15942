"""Sophia: steps divided by an estimate of the curvature, and clipped."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arrays import check_key, hyperparameter, refuse_complex, total, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import named_mask
from jaxnn._core.types import Mask, OptimizerLike, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain, check_optimizer, extra_tolerant
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class HutchinsonState(NamedTuple):
    """The key of the next random signs."""

    key: jax.Array


@constructor
def hutchinson_estimator_diag_hessian(random_seed: jax.Array | None = None) -> Optimizer:
    """Hutchinson's estimate of the diagonal of the Hessian H: `u = z H z` with random signs z.

    The mean over z is the diagonal; an estimate costs about as much as two gradients.

    Source: Hutchinson's estimator, as in Liu et al., Sophia, section 2.3,
    https://arxiv.org/abs/2305.14342

    Args:
        random_seed: a typed PRNG key; None for `jax.random.key(0)`.

    Returns:
        An `Optimizer` with state `HutchinsonState(key)`, whose `update` requires the params and the
        objective, a function of the params, as the extra keyword `obj_fn` or `value_fn`. It
        ignores the gradients.

    Raises:
        TypeError: `random_seed` is no typed key.
        ValueError: `update` is called without params or without objective.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> estimator = nn.optimizers.hutchinson_estimator_diag_hessian()
        >>> w = jnp.ones(3)
        >>> objective = lambda w: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * w**2)
        >>> estimator.update(w, estimator.init(w), w, obj_fn=objective)[0]
        Array([2., 4., 6.], dtype=float32)
    """
    if random_seed is not None:
        check_key("hutchinson_estimator_diag_hessian", random_seed, "random_seed")

    def init(params: PyTree) -> PyTree:
        key = jax.random.key(0) if random_seed is None else jax.random.clone(random_seed)
        return HutchinsonState(key)

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        obj_fn: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        check.params("hutchinson_estimator_diag_hessian", params)
        objective = value_fn if obj_fn is None else obj_fn
        call = "update(..., obj_fn=a function of the params)"
        check.keywords("hutchinson_estimator_diag_hessian", call, obj_fn=objective)
        key, now = jax.random.split(state.key)
        leaves, structure = jax.tree.flatten(params)
        for leaf in leaves:
            refuse_complex("hutchinson_estimator_diag_hessian", "a parameter", leaf)
        signs = jax.tree.unflatten(
            structure,
            [
                jax.random.rademacher(k, np.shape(leaf), jnp.result_type(leaf))
                for k, leaf in zip(jax.random.split(now, len(leaves)), leaves, strict=True)
            ],
        )
        _, products = jax.jvp(jax.grad(objective), (params,), (signs,))
        diagonal = jax.tree.map(lambda h, z: widen(h) * widen(z), products, signs)
        return diagonal, HutchinsonState(key)

    return Optimizer(init, update)


class SophiaState(NamedTuple):
    """The step count, the momentum, the moving average of the curvature, the estimator's state."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree
    hessian_fn_state: PyTree


@constructor
def scale_by_sophia(
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: Scalar = 10,
    hessian_diagonal_fn: OptimizerLike | None = None,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: Scalar = 0,
) -> Optimizer:
    """Divide the momentum by the curvature, and clip: `u = clip(m̂ / max(gamma h, eps))`.

    See `sophia` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `SophiaState(count, mu, nu, hessian_fn_state)` whose `update`
        needs the params, and the extra keywords that the estimator needs (`obj_fn`).

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0)
        >>> w = jnp.array([1.0, -0.25])
        >>> objective = lambda w: jnp.sum(jnp.array([1.0, 4.0]) * w**2)
        >>> state = optimizer.init(w)
        >>> for _ in range(2):                       # first a sign, then Newton's step
        ...     updates, state = optimizer.update(
        ...         jnp.array([2.0, 8.0]) * w, state, w, obj_fn=objective)
        ...     print(updates)
        [ 1. -1.]
        [ 1.   -0.25]
    """
    check.decay_rates("scale_by_sophia", b1=b1, b2=b2)
    check.nonnegative("scale_by_sophia", eps=eps, gamma=gamma)
    check.nonnegative("scale_by_sophia", clip_threshold=clip_threshold)
    check.whole("scale_by_sophia", 1, update_interval=update_interval)
    check.whole("scale_by_sophia", 0, print_win_rate_every_n_steps=print_win_rate_every_n_steps)
    estimator = hessian_diagonal_fn
    if estimator is None:
        estimator = hutchinson_estimator_diag_hessian()
    check_optimizer(estimator, "scale_by_sophia: hessian_diagonal_fn")
    estimate = extra_tolerant(estimator)

    def init(params: PyTree) -> PyTree:
        mu = moments.zeros(params, mu_dtype)
        return SophiaState(
            moments.zero_count(), mu, moments.zero_squares(params), estimator.init(params)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("scale_by_sophia", params)
        count = moments.next_count_of_cycle(state.count, update_interval)

        def rule(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
            refuse_complex("scale_by_sophia", "the gradient", g)
            mu = moments.moving_average(mu, g, b1)
            curvature = hyperparameter(gamma, nu.dtype) * nu
            u = moments.bias_corrected(mu, b1, count) / jnp.maximum(
                curvature, hyperparameter(eps, nu.dtype)
            )
            if clip_threshold is not None:
                limit = hyperparameter(clip_threshold, u.dtype)
                u = jnp.clip(u, -limit, limit)
            return u, mu, nu

        steps, mu, _ = leafwise("scale_by_sophia", rule, updates, state.mu, state.nu)
        if verbose and clip_threshold is not None:
            _print_win_rate(steps, clip_threshold, count, print_win_rate_every_n_steps)

        def estimated(inner: PyTree, nu: PyTree) -> tuple[PyTree, PyTree]:
            diagonal, inner = estimate(updates, inner, params, **extra)

            def average(h: jax.Array, n: jax.Array) -> tuple[jax.Array, ...]:
                return h, moments.moving_average(n, h, b2)

            return inner, leafwise("scale_by_sophia", average, diagonal, nu)[1]

        inner, nu = jax.lax.cond(
            state.count % jnp.asarray(update_interval).astype(state.count.dtype) == 0,
            estimated,
            lambda inner, nu: (inner, nu),
            state.hessian_fn_state,
            state.nu,
        )
        return steps, SophiaState(count, mu, nu, inner)

    return Optimizer(init, update)


def _print_win_rate(
    steps: PyTree, clip_threshold: Scalar, count: jax.Array, interval: Scalar
) -> None:
    """Print the share of elements that are not clipped, every `interval` steps."""
    leaves = [widen(leaf) for leaf in jax.tree.leaves(steps)]
    free = total(jnp.sum(jnp.abs(u) < hyperparameter(clip_threshold, u.dtype)) for u in leaves)
    share = free / max(sum(u.size for u in leaves), 1)
    jax.lax.cond(
        count % jnp.asarray(interval).astype(count.dtype) == 0,
        lambda: jax.debug.print("Sophia optimizer win rate: {}", share),
        lambda: None,
    )


@constructor
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask | None = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: Scalar = 10,
    hessian_diagonal_fn: OptimizerLike | None = None,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: Scalar = 0,
) -> Optimizer:
    """Sophia: momentum divided by an estimate of the curvature, and clipped.

    `w = w - learning_rate (clip(m̂ / max(gamma h, eps), ±clip_threshold) + weight_decay w)`. m̂ is
    the bias-corrected first moment of `adam`. h is an exponential moving average of estimates of
    the diagonal of the Hessian, one every `update_interval` steps; where it is negative or small,
    the update is that of a sign.

        updates, state = optimizer.update(grads, state, params, obj_fn=lambda params: loss)

    As in optax, m has bias correction, which it has not in the paper, and an estimate counts from
    the next step on, in the paper at once. Unlike optax's, the weight decay leaves out biases and
    scales, and the objective may also come as `value_fn`.

    Paper: Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer,
    https://arxiv.org/abs/2305.14342

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the curvature, in [0, 1]; may be traced.
        eps: the smallest denominator.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        weight_decay_mask: the leaves with weight decay, see `add_decayed_weights`; None for those
            of ndim >= 2.
        gamma: the factor of the curvature; the smaller it is, the more elements are clipped.
        clip_threshold: the largest absolute value before the learning rate, or None.
        update_interval: the number of steps between two estimates of the curvature.
        hessian_diagonal_fn: a transformation whose updates are estimates of the diagonal of the
            Hessian; None for `hutchinson_estimator_diag_hessian()`.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        verbose: whether to print how many elements are not clipped.
        print_win_rate_every_n_steps: the number of steps between two such lines.

    Returns:
        An `Optimizer` of real gradients with state
        `(SophiaState(count, mu, nu, hessian_fn_state), ...)` whose `update` requires the params and
        the extra keywords of the estimator (`obj_fn`). (In wrappers of optax,
        `optax.GradientTransformationExtraArgs(*it)`, so that they pass them on.)

    Raises:
        TypeError: `hessian_diagonal_fn` is not an optimizer.
        ValueError: a hyperparameter is out of range; `update` is called without params
            or without objective.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> objective = lambda w: jnp.sum(jnp.array([1.0, 100.0]) * w**2)
        >>> optimizer = nn.optimizers.sophia(0.1, gamma=1.0, update_interval=1)
        >>> @jax.jit
        ... def step(w, state):
        ...     grads = jax.grad(objective)(w)
        ...     updates, state = optimizer.update(grads, state, w, obj_fn=objective)
        ...     return nn.optimizers.apply_updates(w, updates), state
        >>> w = jnp.array([1.0, 1.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(100):                     # as fast along both axes
        ...     w, state = step(w, state)
        >>> bool(jnp.all(jnp.abs(w) < 0.1))
        True
    """
    decaying = named_mask(weight_decay_mask, "sophia: weight_decay_mask")
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            verbose,
            print_win_rate_every_n_steps,
        ),
        add_decayed_weights(weight_decay, decaying),
        scale_by_learning_rate(learning_rate),
    )
