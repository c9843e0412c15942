"""Steps in proportion to the norm of what they change: LARS and LAMB."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.paths import named_mask
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._adam import scale_by_adam
from jaxnn.optimizers._base import Optimizer, chain, stateless_transformation
from jaxnn.optimizers._by_path import masked
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._sgd import trace
from jaxnn.optimizers._weight_decay import add_decayed_weights


@constructor
def scale_by_trust_ratio(
    min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0
) -> Optimizer:
    """Scale each leaf by its trust ratio: `u = g trust_coefficient ‖w‖ / (‖g‖ + eps)`.

    Where either norm is 0, `u = g`. The norms are taken in float32 or wider.

    Args:
        min_norm: the smallest value of both norms.
        trust_coefficient: a factor; may be traced.
        eps: a small constant added to the norm of the gradient.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is negative; `update` is called without params; the
            structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> g, w = jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])
        >>> nn.optimizers.scale_by_trust_ratio().update(g, (), w)[0]
        Array([6., 8.], dtype=float32)
    """
    check.nonnegative(
        "scale_by_trust_ratio", min_norm=min_norm, trust_coefficient=trust_coefficient, eps=eps
    )

    def rule(g: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
        sizes = [moments.safe_sqrt(jnp.sum(moments.abs_square(x))) for x in (w, g)]
        dtype = sizes[0].dtype
        of_w, of_g = (jnp.maximum(size, hyperparameter(min_norm, dtype)) for size in sizes)
        is_known = (of_w > 0) & (of_g > 0)
        divisor = jnp.where(is_known, of_g + hyperparameter(eps, dtype), 1)
        ratio = hyperparameter(trust_coefficient, dtype) * of_w / divisor
        return (g * jnp.where(is_known, ratio, 1).astype(g.dtype),)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        check.params("scale_by_trust_ratio", params)
        return leafwise("scale_by_trust_ratio", rule, updates, given=(params,))[0]

    return stateless_transformation(function)


@constructor
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """LARS, for very large batches: momentum of gradients scaled by layer-wise trust ratios.

    `u = g + weight_decay w`, `m = momentum m + learning_rate u r`, `w = w - m` with the trust ratio
    of each leaf, `r = trust_coefficient ‖w‖ / (‖u‖ + eps)`, 1 where a norm is 0.

    As in optax, the norm in the denominator is that of the sum; the paper has
    `‖g‖ + weight_decay ‖w‖`. Unlike optax's, the weight decay leaves out biases and scales; it is
    usual not to scale these either (`trust_ratio_mask="*kernel"`).

    Paper: You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks,
    https://arxiv.org/abs/1708.03888

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        weight_decay_mask: the leaves with weight decay, see `add_decayed_weights`; None for those
            of ndim >= 2.
        trust_coefficient: the norm of an update relative to that of the weights, at learning
            rate 1.
        eps: a small constant added to the norm of the gradient.
        trust_ratio_mask: the leaves that are scaled, see `masked`.
        momentum: decay rate of the momentum, in [0, 1]; may be traced.
        nesterov: whether to use Nesterov momentum.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.lars(1.0, trust_coefficient=0.5)
        >>> g, w = jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])
        >>> optimizer.update(g, optimizer.init(w), w)[0]
        Array([-3., -4.], dtype=float32)
    """
    check.decay_rates("lars", momentum=momentum)
    decaying = named_mask(weight_decay_mask, "lars: weight_decay_mask")
    return chain(
        add_decayed_weights(weight_decay, decaying),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps),
            named_mask(trust_ratio_mask, "lars: trust_ratio_mask"),
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@constructor
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """LAMB, for very large batches: AdamW with layer-wise trust ratios.

    `w = w - learning_rate u ‖w‖ / ‖u‖` with `u = m̂ / (√(v̂ + eps_root) + eps) + weight_decay w`
    and the bias-corrected moments of `adam`; the ratio is 1 where a norm is 0. As in optax, the
    norm of the weights is not clipped (φ of the paper is the identity), and unlike optax's, the
    weight decay leaves out biases and scales. See `adamw` for the arguments.

    Paper: You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes,
    https://arxiv.org/abs/1904.00962

    Returns:
        An `Optimizer` whose `update` requires the params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.lamb(0.1)
        >>> g, w = jnp.array([[3.0]]), jnp.array([[10.0]])
        >>> optimizer.update(g, optimizer.init(w), w)[0]
        Array([[-1.]], dtype=float32)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )
