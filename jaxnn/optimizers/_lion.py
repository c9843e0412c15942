"""Descent by signs: of the gradient, and of its mean (Lion)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain, stateless_transformation
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights


@constructor
def scale_by_sign() -> Optimizer:
    """The sign of the updates: `u = sign(g)` (of complex gradients `g / |g|`).

    Returns:
        An `Optimizer`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.scale_by_sign().update(jnp.array([0.3, 0.0, -4.0]), ())[0]
        Array([ 1.,  0., -1.], dtype=float32)
    """

    def rule(g: jax.Array) -> tuple[jax.Array]:
        return (jnp.sign(g),)

    return stateless_transformation(lambda updates, params: leafwise("sign", rule, updates)[0])


@constructor
def sign_sgd(learning_rate: ScalarOrSchedule) -> Optimizer:
    """Gradient descent by the sign of the gradient: `w = w - learning_rate sign(g)`.

    Every parameter moves by the same amount. `chain(trace(0.9), sign_sgd(...))` is Signum.

    Paper: Bernstein et al., signSGD, https://arxiv.org/abs/1802.04434

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: `learning_rate` is negative.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.sign_sgd(0.1)
        >>> optimizer.update(jnp.array([0.3, 0.0, -4.0]), optimizer.init(jnp.zeros(3)))[0]
        Array([-0.1, -0. ,  0.1], dtype=float32)
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


class ScaleByLionState(NamedTuple):
    """The step count and the momentum."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree


@constructor
def scale_by_lion(
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Scalar = 1.0,
) -> Optimizer:
    """The sign of Lion's interpolated momentum: `u = sign(c)`, `c = b1 m + (1 - b1) g`.

    See `lion` for the update rule and the arguments.

    Args:
        mode: "hard" for the sign, "smooth" for `tanh(smooth_beta |c|) sign(c)`, "refined" for c
            itself where `|c| < 1` and its sign elsewhere.
        smooth_beta: see `mode`; may be traced.

    Returns:
        An `Optimizer` with state `ScaleByLionState(count, mu)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_lion(b1=0.5, mode="refined")
        >>> optimizer.update(jnp.array([8.0, -0.5]), optimizer.init(jnp.zeros(2)))[0]
        Array([ 1.  , -0.25], dtype=float32)
    """
    check.decay_rates("scale_by_lion", b1=b1, b2=b2)
    check.nonnegative("scale_by_lion", smooth_beta=smooth_beta)

    def smooth_sign(c: jax.Array) -> jax.Array:
        size = jnp.tanh(hyperparameter(smooth_beta, c.real.dtype) * jnp.abs(c))
        return size.astype(c.dtype) * jnp.sign(c)

    shapes: dict[str, Callable[[jax.Array], jax.Array]] = {
        "hard": jnp.sign,
        "smooth": smooth_sign,
        "refined": lambda c: jnp.where(jnp.abs(c) < 1, c, jnp.sign(c)),
    }
    if mode not in shapes:
        raise ValueError(f"scale_by_lion: mode is {mode!r}, expected one of {list(shapes)}")

    def init(params: PyTree) -> PyTree:
        return ScaleByLionState(moments.zero_count(), moments.zeros(params, mu_dtype))

    def rule(g: jax.Array, mu: jax.Array) -> tuple[jax.Array, ...]:
        return shapes[mode](moments.moving_average(mu, g, b1)), moments.moving_average(mu, g, b2)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        updates, mu = leafwise("scale_by_lion", rule, updates, state.mu)
        return updates, ScaleByLionState(moments.next_count(state.count), mu)

    return Optimizer(init, update)


@constructor
def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask | None = None,
) -> Optimizer:
    """Lion: sign descent with momentum, `w = w - learning_rate (sign(c) + weight_decay w)`.

    `c = b1 m + (1 - b1) g` interpolates between momentum and gradient; then the momentum is updated
    with another decay rate, `m = b2 m + (1 - b2) g`. Every parameter moves by the same amount; the
    state is half of Adam's. Use a learning rate 3 to 10 times smaller than Adam's, and a weight
    decay as many times larger. Unlike optax's, the weight decay leaves out biases and scales.

    Paper: Chen et al., Symbolic Discovery of Optimization Algorithms,
    https://arxiv.org/abs/2302.06675

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: the weight of the momentum in the update, in [0, 1]; may be traced.
        b2: decay rate of the momentum, in [0, 1]; may be traced.
        mu_dtype: dtype of the momentum; None for float32 or wider.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.lion(0.1)
        >>> w = jnp.zeros(2)
        >>> optimizer.update(jnp.array([8.0, -0.01]), optimizer.init(w), w)[0]
        Array([-0.1,  0.1], dtype=float32)
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
