"""One step of training, for those who write their own loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._combinators.sharded import sharded_loss
from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_key, downhill, widen
from jaxnn._core.programs import compiled
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import Arrays, LossFunction, OptimizerLike, PyTree
from jaxnn._training.outputs import observed
from jaxnn._training.record import Record, check_record, recorded
from jaxnn.optimizers._base import apply_updates, check_optimizer, extra_tolerant
from jaxnn.optimizers._loss_scaling import loss_scale


class TrainState(NamedTuple):
    """All that training carries from step to step.

    The key stays as it is: step t draws from `jax.random.fold_in(key, t)`.
    """

    params: PyTree
    state: PyTree
    opt_state: PyTree
    key: jax.Array
    step: jax.Array


@checked
def train_state(
    params: Arrays,
    state: Arrays,
    optimizer: OptimizerLike,
    key: jax.Array,
    *,
    sharding: Sharding | None = None,
) -> TrainState:
    """The `TrainState` at step 0, in arrays of its own.

    What is given is copied: it stays usable after a step that takes the `TrainState` by donation.

    Args:
        params: the parameters.
        state: the model's state, `{}` for none.
        optimizer: an `Optimizer` or optax transformation.
        key: a typed PRNG key, for what is random in the steps.
        sharding: `nn.sharding(...)`: where all of that lies, if on many devices.

    Returns:
        A `TrainState`.

    Raises:
        TypeError: `optimizer`, `key` or `sharding` is not what it should be.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> params = {"w": jnp.ones(2)}
        >>> start = nn.train_state(params, {}, nn.optimizers.sgd(0.1), jax.random.key(0))
        >>> start.step
        Array(0, dtype=int32)
    """
    check_optimizer(optimizer, "train_state: optimizer")
    check_key("train_state", key)
    check_sharding("train_state", sharding)
    if sharding is not None:
        return _sharded_state(sharding, optimizer, params, state, key)
    given = params, state, key
    of_caller = {id(leaf) for leaf in jax.tree.leaves(given)}

    def own(leaf: Any) -> Any:
        return jnp.copy(leaf) if id(leaf) in of_caller else leaf

    opt_state = jax.tree.map(own, optimizer.init(params))  # some keep the params themselves
    params, state, key = jax.tree.map(own, given)
    return TrainState(params, state, opt_state, key, jnp.zeros((), jnp.int32))


def _sharded_state(
    sharding: Sharding, optimizer: Any, params: PyTree, state: PyTree, key: jax.Array
) -> TrainState:
    """The same on many devices; the optimizer's state is made in its place, never in another."""
    params = jax.device_put(params, sharding.of_params(params), may_alias=False)
    state = jax.device_put(state, sharding.whole, may_alias=False)
    key, step = sharding.put((jnp.copy(key), jnp.zeros((), jnp.int32)))
    opt_state = compiled(_opt_state, optimizer, sharding)(params)
    return TrainState(params, state, opt_state, key, step)


def _opt_state(optimizer: Any, sharding: Sharding, params: PyTree) -> PyTree:
    return sharding.hold(jax.tree.map(jnp.copy, optimizer.init(params)), params)


@checked
def train_step(
    loss_fn: LossFunction,
    optimizer: OptimizerLike,
    *,
    record: Sequence[str] = (),
    sharding: Sharding | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]:
    """A pure step of training: gradient, update, next state.

    Args:
        loss_fn: `loss_fn(params, state, batch, key) -> (loss, (state, metrics))`, the loss a
            scalar, `metrics` a dict of whatever is to be reported.
        optimizer: an `Optimizer` or optax transformation. Its `update` gets as extra keywords the
            loss, `value`, the gradients, `grad`, the loss of this batch as a function of the
            params, `value_fn`, and the number of examples in the batch, `weight`, by which
            `nn.optimizers.accumulate` weights the mean of several.
        record: what else to report: any of "learning_rate", "gradient_norm" (before the optimizer
            clips), "update_norm", "param_norm" and "update_ratio" (of the last two, 0 where params
            are 0). Optimizers in a `partition` have a rate each, as "learning_rate/head/*". With a
            glob on paths norms are those of single leaves, as "gradient_norm/*/kernel"; so are
            "activation_mean/*", "activation_std/*", "activation_max/*" (of the absolute value),
            "activation_zeros/*" (the share of exact zeros) and "activation_saturated/*" (the share
            within 1 % of an end of the range of a tanh or sigmoid) of what layers put out, by the
            paths of `capture`; those in a `stack` have a number each, as "activation_std/0/1[3]".
        sharding: `nn.sharding(...)`: how the step is spread over many devices, as that of
            `train_state`. It splits the batch, wherever that is; `jax.device_put(batch,
            sharding.of_batch)` sends each device its part alone.

    Returns:
        `step(train_state, batch) -> (train_state, metrics)`, to be scanned or jitted; with
        `donate_argnums=0` each state is used up by its step, and its memory serves the next.
        `metrics` holds the loss as well, as "loss", and what `record` names.

    Raises:
        TypeError: `optimizer` is not an optimizer, or `sharding` no sharding.
        ValueError: `record` has another name; at the first step, a glob matches no path, or the
            learning rate is wanted and that of the optimizer, as of one of optax, is not known.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.sgd(0.25)
        >>> def loss_fn(params, state, batch, key):
        ...     return jnp.mean((params["w"] - batch) ** 2), (state, {})
        >>> step = jax.jit(nn.train_step(loss_fn, optimizer), donate_argnums=0)
        >>> now = nn.train_state({"w": jnp.zeros(1)}, {}, optimizer, jax.random.key(0))
        >>> for _ in range(3):
        ...     now, metrics = step(now, jnp.array([8.0]))
        >>> now.params["w"], metrics["loss"]
        (Array([7.], dtype=float32), Array(4., dtype=float32))
    """
    check_optimizer(optimizer, "train_step: optimizer")
    names = check_record("train_step", record)
    check_sharding("train_step", sharding)
    if sharding is not None:
        loss_fn = sharded_loss(loss_fn, sharding)

    def step(train: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        done = take_step(loss_fn, optimizer, names, train, batch, _examples)
        metrics = {"loss": done.loss, **done.recorded, **done.metrics}
        if sharding is None:
            return done.train, metrics
        return sharding.hold(done.train, train.params), metrics

    return step


class Step(NamedTuple):
    """A step that was taken: where it led, its loss and gradients, and what is recorded of it."""

    train: TrainState
    loss: jax.Array
    grads: PyTree
    recorded: dict[str, jax.Array]
    metrics: PyTree


def take_step(
    loss_fn: LossFunction,
    optimizer: Any,
    record: Record,
    train: TrainState,
    batch: Any,
    weight_of: Callable[[Any, Any], Any],
) -> Step:
    """The step that `train_step` describes.

    `weight_of(batch, metrics)` is what the mean over the batch was divided by: the optimizer gets
    it as `weight`.
    """
    key = jax.random.fold_in(train.key, train.step)
    scale = loss_scale(train.opt_state)

    def loss_of(params: PyTree) -> tuple[Any, tuple[PyTree, PyTree]]:
        return loss_fn(params, train.state, batch, key)

    def objective(params: PyTree) -> tuple[Any, PyTree]:
        (loss, (state, metrics)), of_outputs = observed(record, lambda: loss_of(params))
        scaled = loss if scale is None else loss * scale.astype(loss.dtype)
        return scaled, (loss, state, metrics, of_outputs)

    (_, aux), grads = jax.value_and_grad(objective, has_aux=True)(train.params)
    loss, state, metrics, of_outputs = aux
    grads = jax.tree.map(downhill, grads)

    # Line searches of optax give all keywords that they get to this function, and want it to name
    # them; ours name what they want.
    def value_fn(params: PyTree, weight: Any = None) -> Any:
        return loss_of(params)[0]

    updates, opt_state = extra_tolerant(optimizer)(
        grads,
        train.opt_state,
        train.params,
        value=loss,
        weight=weight_of(batch, metrics),
        grad=grads,
        value_fn=value_fn,
    )
    params = apply_updates(train.params, updates)
    following = TrainState(params, state, opt_state, train.key, train.step + 1)
    if scale is not None:
        grads = jax.tree.map(lambda g: widen(g) / scale.astype(widen(g).dtype), grads)
    of_update = recorded(
        record, optimizer, train.params, grads, updates, train.opt_state, opt_state
    )
    return Step(following, loss, grads, of_outputs | of_update, metrics)


def _examples(batch: Any, metrics: Any) -> jax.Array:
    """The length of axis 0; 1 for a batch without axes."""
    lengths = (np.shape(leaf)[0] for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf))
    return jnp.asarray(next(lengths, 1), jnp.result_type(float))
