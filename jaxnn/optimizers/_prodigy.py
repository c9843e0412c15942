"""Prodigy: Adam that finds its learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import accumulator_dtype, check_range, hyperparameter, total
from jaxnn._core.construction import constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, value_at
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._rates import rate, with_rates
from jaxnn.optimizers._weight_decay import decaying_weights


class ProdigyState(NamedTuple):
    """Adam's moments, a sum of gradients, the initial params, and the estimated learning rate.

    `estim_lr` is the estimate d, `numerator_weighted` the sum that it is made of, `count` the step
    count.
    """

    exp_avg: PyTree
    exp_avg_sq: PyTree
    grad_sum: PyTree
    params0: PyTree
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array  # type: ignore[assignment]


@constructor
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    mask: Mask | None = None,
) -> Optimizer:
    """Prodigy: Adam with an estimated learning rate d, which never falls.

    With `(b1, b2) = betas` and the step size `γ = learning_rate d √(1 - b2^t) / (1 - b1^t)`:

    - `m = b1 m + (1 - b1) d g`, `v = b2 v + (1 - b2) d² g²`;
    - `r = beta3 r + (d / d0) γ ⟨g, w0 - w⟩`, `s = beta3 s + (d / d0) γ g` (w0: the initial w);
    - `d = max(d, estim_lr_coef r / ‖s‖₁)`;
    - `w = w - γ (m / (√v + d eps) + weight_decay w)`.

    Leave `learning_rate` at 1, or give a schedule that falls from 1. r, ‖s‖₁ and d are of all
    leaves together. Unlike optax's, d stays unchanged (and does not become NaN) when all gradients
    so far are zero, and the weight decay leaves out biases and scales.

    Paper: Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner,
    https://arxiv.org/abs/2306.06101

    Args:
        learning_rate: the factor of d, at least 0 (may be traced), or a schedule.
        betas: decay rates of the first and the second moment, in [0, 1]; may be traced.
        beta3: decay rate of the sums r and s, in [0, 1], may be traced; None for `√b2`.
        eps: a small constant added to the denominator, times d.
        estim_lr0: d0, the initial d; may be traced.
        estim_lr_coef: a factor of the estimate; may be traced.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        safeguard_warmup: whether γ is left out of s, for a schedule that begins near 0.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` with state `ProdigyState(exp_avg, exp_avg_sq, grad_sum, params0, estim_lr,
        numerator_weighted, count)` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params;
            the structures differ.
        TypeError: `init` is given shapes: it needs the values of the params.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.prodigy()
        >>> w = jnp.array([10.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(50):                      # minimises |w|
        ...     updates, state = optimizer.update(jnp.sign(w), state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> bool(5 < state.estim_lr < 10)            # it began at 0.000001
        True
    """
    b1, b2 = betas
    check.decay_rates("prodigy", **{"betas[0]": b1, "betas[1]": b2})
    check.nonnegative(
        "prodigy",
        learning_rate=learning_rate,
        eps=eps,
        estim_lr0=estim_lr0,
        estim_lr_coef=estim_lr_coef,
        weight_decay=weight_decay,
    )
    if beta3 is not None:
        check_range("prodigy", "beta3", beta3, 0, 1)

    def init(params: PyTree) -> PyTree:
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
            raise TypeError(
                "prodigy: init got shapes, expected arrays, whose values it remembers; for the "
                "shapes of the state, use jax.eval_shape(optimizer.init, params)"
            )
        dtype = precision.widest_real_dtype(params)
        return ProdigyState(
            moments.zeros(params),
            moments.zero_squares(params),
            moments.zeros(params),
            jax.tree.map(
                lambda p: jnp.array(p, accumulator_dtype(jnp.result_type(p)), copy=True), params
            ),
            hyperparameter(estim_lr0, dtype),
            jnp.zeros((), dtype),
            moments.zero_count(),
        )

    def scheduled(state: ProdigyState) -> jax.Array:
        """The learning rate that was given, the factor of d."""
        return hyperparameter(value_at(learning_rate, state.count), state.estim_lr.dtype)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("prodigy", params)
        check.gradients("prodigy", updates)
        same_structure("prodigy", state=state.exp_avg, updates=updates, params=params)
        count = moments.next_count(state.count)
        d = state.estim_lr
        dtype = d.dtype
        correction = jnp.sqrt(moments.bias_correction(b2, count, d)) / moments.bias_correction(
            b1, count, d
        )
        gamma = scheduled(state) * d * correction
        b3 = jnp.sqrt(hyperparameter(b2, dtype)) if beta3 is None else hyperparameter(beta3, dtype)
        growth = d / hyperparameter(estim_lr0, dtype)

        def inner_product(g: ArrayLike, w0: ArrayLike, w: ArrayLike) -> jax.Array:
            g, w0, w = precision.in_one_precision(g, w0, w)
            return jnp.vdot(g, w0 - w).real

        products = jax.tree.leaves(jax.tree.map(inner_product, updates, state.params0, params))
        numerator = b3 * state.numerator_weighted + growth * gamma * total(products).astype(dtype)

        def accumulate(
            g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array
        ) -> tuple[jax.Array, ...]:
            scaled = d.astype(g.dtype) * g
            share = growth * (d if safeguard_warmup else gamma)
            return (
                g,
                moments.moving_average(m, scaled, b1),
                moments.moving_average(v, moments.abs_square(scaled), b2),
                b3.astype(s.dtype) * s + share.astype(s.dtype) * g,
            )

        _, m, v, s = leafwise(
            "prodigy", accumulate, updates, state.exp_avg, state.exp_avg_sq, state.grad_sum
        )
        size = total(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(s)).astype(dtype)
        estimate = hyperparameter(estim_lr_coef, dtype) * numerator / jnp.where(size > 0, size, 1)
        d = jnp.maximum(d, jnp.where(size > 0, estimate, 0))
        decay = hyperparameter(value_at(weight_decay, state.count), dtype)

        def step(g: jax.Array, m: jax.Array, v: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
            direction = moments.over_root(m, v, d * hyperparameter(eps, dtype))
            return (-gamma.astype(g.dtype) * (direction + decay.astype(w.dtype) * w),)

        (updates,) = leafwise(
            "prodigy", step, updates, given=(m, v, decaying_weights(params, mask))
        )
        return updates, ProdigyState(m, v, s, state.params0, d, numerator, count)

    def rates(before: PyTree, after: PyTree) -> dict[str, jax.Array]:
        return {"": rate(scheduled(before) * before.estim_lr)}

    return Optimizer(init, with_rates(update, rates))
