"""Schedule-free learning: an average of the parameters in the place of a decaying rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_count, check_range, hyperparameter
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, OptimizerLike, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._averaging import better_params
from jaxnn.optimizers._base import Optimizer, chain, check_optimizer, extra_tolerant, value_at
from jaxnn.optimizers._by_path import where_kept
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._rates import with_rates_of
from jaxnn.optimizers._rmsprop import scale_by_rms
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._sgd import sgd
from jaxnn.optimizers._weight_decay import add_decayed_weights


class ScheduleFreeState(NamedTuple):
    """The interpolation b1, the sum of weights, the step count, the largest learning rate, z.

    `step_count` is 1 before the first step, which takes the params as its z.
    """

    b1: jax.Array
    weight_sum: jax.Array
    step_count: jax.Array
    max_lr: jax.Array
    base_optimizer_state: PyTree
    z: PyTree

    def evaluation_params(self, params: PyTree) -> PyTree:
        """The average x, of which the params are `y = b1 x + (1 - b1) z`."""

        def one(z: jax.Array, y: jax.Array) -> jax.Array:
            wide_y, wide_z = precision.in_one_precision(y, z)
            x = _average(wide_y, wide_z, self.b1)
            return jnp.where(self.step_count > 1, precision.cast_like(x, y), y)

        return where_kept(one, self.z, params)


def _average(y: jax.Array, z: jax.Array, b1: Scalar) -> jax.Array:
    b1 = hyperparameter(b1, y.dtype)
    return (y - (1 - b1) * z) / b1


@constructor
def schedule_free(
    base_optimizer: OptimizerLike,
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Make an optimizer schedule-free: averaged parameters in place of a learning rate decay.

    The gradients are taken at the params, `y = b1 x + (1 - b1) z`. The optimizer moves z,
    `z = z + u(g)`; x is the average of all z, `x = (1 - c) x + c z`, where c is the weight
    `max(learning_rate so far)^weight_lr_power` over the sum of all weights. x is what to evaluate:
    `evaluation_params` gives it, and so do `fit` and `training_run`.

    As in optax, a scheduled learning rate is taken at the count from 1 on in the weight.

    Paper: Defazio et al., The Road Less Scheduled, https://arxiv.org/abs/2405.15682

    Args:
        base_optimizer: the `Optimizer` or optax transformation that moves z, without momentum.
        learning_rate: its learning rate, at least 0 (may be traced), or a schedule without decay.
        b1: how close to x the gradients are taken, in (0, 1]; may be traced.
        weight_lr_power: the power of the learning rate in the weights; may be traced.
        state_dtype: dtype of z; None for float32 or wider (optax: that of the params).

    Returns:
        An `Optimizer` with state `ScheduleFreeState(b1, weight_sum, step_count, max_lr,
        base_optimizer_state, z)`. Its updates are to be applied as they are: wrap all of a chain.

    Raises:
        TypeError: `base_optimizer` is not an optimizer.
        ValueError: a hyperparameter is out of range; `update` is called without params;
            the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.schedule_free(nn.optimizers.sgd(1.0), 1.0, b1=0.5)
        >>> w = jnp.array([0.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(3):                       # z = 1, 2, 3
        ...     updates, state = optimizer.update(jnp.array([-1.0]), state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> w, nn.optimizers.evaluation_params(state, w)
        (Array([2.5], dtype=float32), Array([2.], dtype=float32))
    """
    check_optimizer(base_optimizer, "schedule_free: base_optimizer")
    check.nonnegative("schedule_free", learning_rate=learning_rate)
    check_b1("schedule_free", b1)
    base_update = extra_tolerant(base_optimizer)

    def init(params: PyTree) -> PyTree:
        def scalar(value: ArrayLike) -> jax.Array:
            return hyperparameter(value, jnp.result_type(float))

        z, base_state = moments.zeros(params, state_dtype), base_optimizer.init(params)
        return ScheduleFreeState(
            scalar(b1),
            scalar(0.0),
            moments.next_count(moments.zero_count()),
            scalar(0.0),
            base_state,
            z,
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check.params("schedule_free", params)
        count, is_first = state.step_count, state.step_count == 1
        rate = hyperparameter(value_at(learning_rate, count), state.max_lr.dtype)
        max_lr = jnp.maximum(state.max_lr, rate)
        weight = max_lr ** hyperparameter(weight_lr_power, max_lr.dtype)
        weight_sum = state.weight_sum + weight
        share = weight / jnp.where(weight_sum > 0, weight_sum, 1)

        moves, base_state = base_update(updates, state.base_optimizer_state, params, **extra)

        def rule(u: jax.Array, z: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
            z = jnp.where(is_first, y, z)
            new_z, c, b = z + u, share.astype(y.dtype), hyperparameter(b1, y.dtype)
            new_x = (1 - c) * _average(y, z, b1) + c * new_z
            return b * new_x + (1 - b) * new_z - y, new_z

        moves, z = leafwise("schedule_free", rule, moves, state.z, given=(params,))
        return moves, ScheduleFreeState(
            state.b1, weight_sum, moments.next_count(count), max_lr, base_state, z
        )

    return Optimizer(init, with_rates_of(update, base_optimizer, "base_optimizer_state"))


def check_b1(function: str, b1: Scalar) -> None:
    """Raise unless b1 is in (0, 1]; traced values pass."""
    check_range(function, "b1", b1, float(jnp.finfo(jnp.float32).tiny), 1)


def schedule_free_eval_params(state: PyTree, params: PyTree) -> PyTree:
    """The average x of `schedule_free`, which is what to evaluate: `(y - (1 - b1) z) / b1`.

    Args:
        state: the state of `schedule_free`, or of an optimizer that has it in it.
        params: the parameters being trained, y.

    Returns:
        A tree of the same structure, shapes and dtypes as `params`.

    Raises:
        ValueError: there is no state of `schedule_free` in `state`, or it is of other params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.schedule_free_sgd(1.0, b1=0.5)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        >>> nn.optimizers.schedule_free_eval_params(state, jnp.zeros(1))
        Array([0.], dtype=float32)
    """

    def is_state(node: Any) -> bool:
        return isinstance(node, ScheduleFreeState)

    states = [node for node in jax.tree.leaves(state, is_leaf=is_state) if is_state(node)]
    if not states:
        raise ValueError(
            f"schedule_free_eval_params: state is a {type(state).__name__}, expected the state of "
            "schedule_free"
        )
    for node in states:
        params = better_params("schedule_free_eval_params", node, params)
    return params


def _warmed_up(
    function: str, learning_rate: ScalarOrSchedule, warmup_steps: int | None
) -> ScalarOrSchedule:
    """The rate rising from 0 over `warmup_steps`, if any."""
    if warmup_steps is None:
        return learning_rate
    check.nonnegative(function, learning_rate=learning_rate)
    steps = check_count(function, "warmup_steps", warmup_steps)

    def schedule(count: Any) -> jax.Array:
        dtype = jnp.result_type(float)
        done = jnp.minimum(hyperparameter(count, dtype) / steps, 1)
        return done * hyperparameter(value_at(learning_rate, count), dtype)

    return schedule


@constructor
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    weight_decay: Scalar | None = None,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Mask | None = None,
) -> Optimizer:
    """Schedule-free stochastic gradient descent, see `schedule_free`.

    Paper: Defazio et al., The Road Less Scheduled, https://arxiv.org/abs/2405.15682

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule without decay.
        warmup_steps: the number of steps in which the learning rate rises from 0, at least 1; None
            for no warm-up.
        b1: how close to the average the gradients are taken, in (0, 1]; may be traced.
        weight_decay: None, or the strength of the weight decay, at least 0 (may be traced).
        weight_lr_power: the power of the learning rate in the weights of the average; may be
            traced.
        state_dtype: dtype of z; None for float32 or wider (optax: that of the params).
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2
            (optax: all).

    Returns:
        An `Optimizer` with state `ScheduleFreeState(...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.schedule_free_sgd(0.1)
        >>> w = jnp.array([1.0, -2.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * w, state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> bool(jnp.abs(nn.optimizers.schedule_free_eval_params(state, w)).max() < 0.05)
        True
    """
    check_b1("schedule_free_sgd", b1)
    rate = _warmed_up("schedule_free_sgd", learning_rate, warmup_steps)
    decay = () if weight_decay is None else (add_decayed_weights(weight_decay, mask),)
    return schedule_free(chain(*decay, sgd(rate)), rate, b1, weight_lr_power, state_dtype)


@constructor
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Mask | None = None,
) -> Optimizer:
    """Schedule-free AdamW: the second moment of Adam, and averaged parameters for its momentum.

    See `schedule_free` for the update rule, and `schedule_free_sgd` for the arguments.

    Paper: Defazio et al., The Road Less Scheduled, https://arxiv.org/abs/2405.15682

    Args:
        b2: decay rate of the second moment, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.

    Returns:
        An `Optimizer` with state `ScheduleFreeState(...)`.

    Raises:
        ValueError: a hyperparameter is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.schedule_free_adamw(0.1)
        >>> w = jnp.array([1.0, -2.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * w, state, w)
        ...     w = nn.optimizers.apply_updates(w, updates)
        >>> bool(jnp.abs(nn.optimizers.schedule_free_eval_params(state, w)).max() < 0.2)
        True
    """
    check_b1("schedule_free_adamw", b1)
    check.decay_rates("schedule_free_adamw", b2=b2)
    rate = _warmed_up("schedule_free_adamw", learning_rate, warmup_steps)
    scaled = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(rate),
    )
    return schedule_free(scaled, rate, b1, weight_lr_power, state_dtype)
