"""Adam and AdamW."""

from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from jaxnn._arrays import PyTree, check_range, hyperparameter, widen
from jaxnn.optimizers.base import (
    Optimizer,
    ScalarOrSchedule,
    abs_square,
    bias_factor,
    cast_like,
    chain,
    moving_average,
    next_count,
    safe_sqrt,
    zero_count,
    zero_moments,
    zero_squares,
)
from jaxnn.optimizers.scaling import scale_by_learning_rate
from jaxnn.optimizers.weight_decay import add_decayed_weights
from jaxnn.paths import same_structure


class ScaleByAdamState(NamedTuple):
    """The number of updates so far, the mean and the mean square of the gradients."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree


def scale_by_adam(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Scale by Adam's moments: `u = μ̂ / (√(ν̂ + eps_root) + eps)`.

    `μ = b1 μ + (1 - b1) g`, `ν = b2 ν + (1 - b2) g²`, `μ̂ = μ / (1 - b1^t)`,
    `ν̂ = ν / (1 - b2^t)`; see `adam`.

    Args:
        b1: the weight of the old mean, in [0, 1]; may be traced.
        b2: the weight of the old mean square, in [0, 1]; may be traced.
        eps: added to the root.
        eps_root: added inside the root.
        mu_dtype: the dtype that μ is kept in; None for float32 or wider.
        nesterov: whether the mean looks a step ahead.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Raises:
        ValueError: a hyperparameter is known and out of range; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adam()
        >>> optimizer.update(jnp.array([8.0, -0.1]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 1., -1.], dtype=float32)
    """
    check_range("adam", "b1", b1, 0, 1)
    check_range("adam", "b2", b2, 0, 1)
    check_range("adam", "eps", eps, 0)
    check_range("adam", "eps_root", eps_root, 0)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdamState(zero_count(), zero_moments(params, mu_dtype), zero_squares(params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        same_structure("adam", state=state.nu, updates=updates)
        count = next_count(state.count)
        wide = jax.tree.map(widen, updates)
        mu = jax.tree.map(lambda m, g: moving_average(m, g, b1), state.mu, wide)
        nu = jax.tree.map(lambda n, g: moving_average(n, abs_square(g), b2), state.nu, wide)

        def scaled(g: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
            if nesterov:
                ahead, now = bias_factor(b1, next_count(count), m), bias_factor(b1, count, g)
                decay = hyperparameter(b1, m.dtype)
                mean = decay * (m / ahead) + (1 - decay) * (g / now)
            else:
                mean = m / bias_factor(b1, count, m)
            root = safe_sqrt(n / bias_factor(b2, count, n) + hyperparameter(eps_root, n.dtype))
            return mean / (root + hyperparameter(eps, n.dtype)).astype(mean.dtype)

        scaled_updates = jax.tree.map(scaled, wide, mu, nu)
        cast = jax.tree.map(cast_like, scaled_updates, updates)
        kept_mu = jax.tree.map(cast_like, mu, state.mu)
        return cast, ScaleByAdamState(count, kept_mu, nu)

    return Optimizer(init, update)


def adam(
    learning_rate: ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Adam: `w = w - learning_rate μ̂ / (√(ν̂ + eps_root) + eps)`.

    At step t = 1, 2, ...: `μ = b1 μ + (1 - b1) g`, `ν = b2 ν + (1 - b2) g²`, both beginning at 0
    and corrected for that: `μ̂ = μ / (1 - b1^t)`, `ν̂ = ν / (1 - b2^t)`. With `nesterov`,
    `μ̂ = b1 μ / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)`.

    Paper: Kingma and Ba, Adam, https://arxiv.org/abs/1412.6980; nesterov: Dozat, Incorporating
    Nesterov Momentum into Adam, 2016.

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: the weight of the old mean, in [0, 1]; may be traced.
        b2: the weight of the old mean square, in [0, 1]; may be traced.
        eps: added to the root, in float32 or wider.
        eps_root: added inside the root.
        mu_dtype: the dtype that μ is kept in; None for float32 or wider.
        nesterov: whether the mean looks a step ahead.

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Raises:
        ValueError: a hyperparameter is known and out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adam(0.1)
        >>> w = jnp.array([1.0, -2.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(10):
        ...     updates, state = optimizer.update(2 * w, state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> [round(x, 2) for x in w.tolist()]
        [0.08, -1.02]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    weight_decay: ScalarOrSchedule,
    mask: Any = None,
    nesterov: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay: `w = w - learning_rate (u + weight_decay * w)`.

    `u` is Adam's scaled gradient. The decay has no default, since optax's (1e-4) and torch's
    (1e-2) differ by a hundred; unlike theirs, it leaves out biases and scales (see `mask`).

    Paper: Loshchilov and Hutter, Decoupled Weight Decay Regularization,
    https://arxiv.org/abs/1711.05101

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: the weight of the old mean, in [0, 1]; may be traced.
        b2: the weight of the old mean square, in [0, 1]; may be traced.
        eps: added to the root, in float32 or wider.
        eps_root: added inside the root.
        mu_dtype: the dtype that μ is kept in; None for float32 or wider.
        weight_decay: the factor, at least 0 (may be traced), or a schedule.
        mask: which leaves decay, see `add_decayed_weights`; None for those with two axes or more.
        nesterov: whether the mean looks a step ahead.

    Returns:
        An `Optimizer` whose `update` needs the params.

    Raises:
        ValueError: a hyperparameter is known and out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.adamw(0.1, weight_decay=0.5)
        >>> w = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full(1, 2.0)}
        >>> updates, _ = optimizer.update({"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)},
        ...                               optimizer.init(w), w)
        >>> updates
        {'bias': Array([-0.1], dtype=float32), 'kernel': Array([[-0.2]], dtype=float32)}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
