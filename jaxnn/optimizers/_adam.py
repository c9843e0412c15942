"""Adam, AdamW and their variants with Nesterov's look ahead."""

from typing import NamedTuple

import jax
from jax.typing import DTypeLike

from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._amsgrad import scale_by_amsgrad
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


class ScaleByAdamState(NamedTuple):
    """The state of Adam and its variants: the step count, the first and the second moments."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree


@constructor
def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Rescale updates by Adam's bias-corrected moments: `u = m̂ / (√(v̂ + eps_root) + eps)`.

    See `adam` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_adam()
        >>> optimizer.update(jnp.array([8.0, -0.1]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 1., -1.], dtype=float32)
    """
    check.decay_rates("adam", b1=b1, b2=b2)
    check.nonnegative("adam", eps=eps, eps_root=eps_root)

    def init(params: PyTree) -> PyTree:
        return ScaleByAdamState(
            moments.zero_count(), moments.zeros(params, mu_dtype), moments.zero_squares(params)
        )

    def rule(count: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu = moments.moving_average(mu, g, b1)
        nu = moments.moving_average(nu, moments.abs_square(g), b2)
        mean = moments.bias_corrected_mean(mu, g, b1, count, nesterov=nesterov)
        square = moments.bias_corrected(nu, b2, count)
        return moments.over_root(mean, square, eps, eps_root), mu, nu

    return leafwise_transformation("adam", init, rule)


def _moments(
    optimizer: str,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    mu_dtype: DTypeLike | None,
    nesterov: bool,
    amsgrad: bool,
) -> Optimizer:
    if not amsgrad:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    if nesterov:
        raise ValueError(f"{optimizer}: nesterov and amsgrad are True, expected one of them")
    return scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, maximum_first=True)


@constructor
def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    amsgrad: bool = False,
) -> Optimizer:
    """The Adam optimizer: `w = w - learning_rate m̂ / (√(v̂ + eps_root) + eps)`.

    Exponential moving averages of the gradients (first moment) and of their squares (second
    moment) start at zero, and bias correction makes up for it. At step t = 1, 2, ...:

    - `m = b1 m + (1 - b1) g`, `m̂ = m / (1 - b1^t)`;
    - `v = b2 v + (1 - b2) g²`, `v̂ = v / (1 - b2^t)`.

    With `nesterov`, `m̂ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)`. With `amsgrad`, the
    second moment is its maximum so far, bias-corrected afterwards as in torch (optax has the
    `amsgrad` of the paper only, which is `nn.optimizers.amsgrad` here). The state has the moments
    as `mu` and `nu`.

    Papers: Kingma and Ba, Adam, https://arxiv.org/abs/1412.6980; nesterov: Dozat, Incorporating
    Nesterov Momentum into Adam, 2016; amsgrad: Reddi et al., https://arxiv.org/abs/1904.09237

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        nesterov: whether to use Nesterov momentum.
        amsgrad: whether to divide by the largest mean square so far.

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`, and `nu_max` in it
        with `amsgrad`.

    Raises:
        ValueError: a hyperparameter is out of range, or both `nesterov` and `amsgrad`
            are asked for.

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
        _moments("adam", b1, b2, eps, eps_root, mu_dtype, nesterov, amsgrad),
        scale_by_learning_rate(learning_rate),
    )


@constructor
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    weight_decay: ScalarOrSchedule,
    mask: Mask | None = None,
    nesterov: bool = False,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay: `w = w - learning_rate (u + weight_decay w)`.

    `u` is the rescaled gradient of `adam`. The weight decay has no default, since optax's (1e-4)
    and torch's (1e-2) differ by a hundred; unlike theirs, it leaves out biases and scales (see
    `mask`).

    Paper: Loshchilov and Hutter, Decoupled Weight Decay Regularization,
    https://arxiv.org/abs/1711.05101

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        eps_root: a small constant added inside the square root.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.
        nesterov: whether to use Nesterov momentum.
        amsgrad: whether to divide by the largest second moment so far, see `adam`.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range, or both `nesterov` and `amsgrad`
            are asked for; `update` is called without params.

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
        _moments("adamw", b1, b2, eps, eps_root, mu_dtype, nesterov, amsgrad),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@constructor
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Adam with Nesterov momentum: `adam(..., nesterov=True)`.

    See `adam` for the update rule and the arguments. torch's NAdam starts with half the b1 and
    warms it up over hundreds of steps (`momentum_decay`); optax's and this one do not.

    Paper: Dozat, Incorporating Nesterov Momentum into Adam,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ

    Returns:
        An `Optimizer` with state `(ScaleByAdamState(count, mu, nu), ...)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> g = jnp.ones(1)
        >>> steps = {}
        >>> for name in ("adam", "nadam"):
        ...     optimizer = getattr(nn.optimizers, name)(0.1, b1=0.5)
        ...     steps[name], _ = optimizer.update(g, optimizer.init(g))
        >>> steps
        {'adam': Array([-0.1], dtype=float32), 'nadam': Array([-0.13333334], dtype=float32)}
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True)


@constructor
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    weight_decay: ScalarOrSchedule,
    mask: Mask | None = None,
) -> Optimizer:
    """NAdam with decoupled weight decay: `adamw(..., nesterov=True)`.

    See `adamw` for the update rule and the arguments.

    Papers: Dozat, Incorporating Nesterov Momentum into Adam,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ; Loshchilov and Hutter, Decoupled Weight
    Decay Regularization, https://arxiv.org/abs/1711.05101

    Returns:
        An `Optimizer` whose `update` requires the params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.nadamw(0.1, b1=0.5, weight_decay=0.5)
        >>> w = jnp.full((1, 1), 2.0)
        >>> optimizer.update(jnp.zeros((1, 1)), optimizer.init(w), w)[0]
        Array([[-0.1]], dtype=float32)
    """
    return adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        weight_decay=weight_decay,
        mask=mask,
        nesterov=True,
    )
