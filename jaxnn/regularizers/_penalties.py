"""Norms of kernels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import absolute, check_range, hyperparameter, total, widen
from jaxnn._core.construction import constructor
from jaxnn._core.paths import KERNELS, selected_leaves
from jaxnn._core.types import PyTree, Scalar, Selection

Penalty = Callable[[PyTree], jax.Array]


@constructor
def l1(strength: Scalar, where: Selection = KERNELS) -> Penalty:
    """The L1 penalty (lasso), which makes weights zero: `strength Σ |w|`.

    Args:
        strength: the factor λ, at least 0; may be traced.
        where: the leaves it is taken over.

    Returns:
        A function of the params that returns a scalar, float32 or wider.

    Raises:
        ValueError: `strength` is negative; a pattern matches no leaf.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0, 5.0])}
        >>> nn.regularizers.l1(0.1)(params)
        Array(0.3, dtype=float32)
    """
    check_range("l1", "strength", strength, 0)
    return lambda params: _scaled_sum(strength, absolute, params, where)


@constructor
def l2(strength: Scalar, where: Selection = KERNELS) -> Penalty:
    """The L2 penalty (ridge), which makes weights small: `strength Σ w²`.

    Its gradient is `2 strength w`; no half is hidden in it.

    Args:
        strength: the factor λ, at least 0; may be traced.
        where: the leaves it is taken over.

    Returns:
        A function of the params that returns a scalar, float32 or wider.

    Raises:
        ValueError: `strength` is negative; a pattern matches no leaf.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0, 5.0])}
        >>> nn.regularizers.l2(0.1)(params)
        Array(0.5, dtype=float32)
        >>> nn.regularizers.l2(0.1, where="bias")(params)
        Array(5., dtype=float32)
    """
    check_range("l2", "strength", strength, 0)
    return lambda params: _scaled_sum(strength, _square, params, where)


@constructor
def elastic_net(l1_strength: Scalar, l2_strength: Scalar, where: Selection = KERNELS) -> Penalty:
    """The elastic net: `l1_strength Σ |w| + l2_strength Σ w²`.

    Paper: Zou and Hastie, Regularization and Variable Selection via the Elastic Net, 2005.

    Args:
        l1_strength: the factor of the L1 part, at least 0; may be traced.
        l2_strength: the factor of the L2 part, at least 0; may be traced.
        where: the leaves it is taken over.

    Returns:
        A function of the params that returns a scalar, float32 or wider.

    Raises:
        ValueError: a strength is negative; a pattern matches no leaf.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.array([[1.0, -2.0]])}
        >>> nn.regularizers.elastic_net(0.1, 1.0)(params)
        Array(5.3, dtype=float32)
    """
    check_range("elastic_net", "l1_strength", l1_strength, 0)
    check_range("elastic_net", "l2_strength", l2_strength, 0)
    first, second = l1(l1_strength, where), l2(l2_strength, where)
    return lambda params: first(params) + second(params)


def _square(w: jax.Array) -> jax.Array:
    return jnp.square(w) if not jnp.iscomplexobj(w) else jnp.square(w.real) + jnp.square(w.imag)


def _scaled_sum(
    strength: Scalar, function: Callable[[jax.Array], jax.Array], params: PyTree, where: Selection
) -> jax.Array:
    penalty = total(jnp.sum(function(widen(leaf))) for leaf in selected_leaves(params, where))
    return hyperparameter(strength, penalty.dtype) * penalty
