"""What a diagnosis measures: pure functions of params and a few examples, each compiled once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _activations as activations
from jaxnn import optimizers
from jaxnn._core.arrays import is_inexact, widen
from jaxnn._core.capture import capture
from jaxnn._core.construction import call_of
from jaxnn._core.layer import Layer
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Call, watching
from jaxnn._networks.recurrent import recurrent
from jaxnn._training.measuring import metric_sums
from jaxnn._training.objective import of_model
from jaxnn._training.outputs import range_of, statistics, statistics_over_time
from jaxnn._training.step import TrainState, take_step
from jaxnn.metrics import mean
from jaxnn.optimizers._base import extra_tolerant

RECTIFIERS = (activations.relu, activations.relu6, activations.squared_relu)
CONSTANT_STEPS = 300  # in which the best constant prediction is found


class Kinds(NamedTuple):
    """Paths of layers by their kind, in the order in which they run."""

    kernels: list[str]
    bounded: list[str]
    rectified: list[str]
    has_time: bool


def kinds_of(model: Layer, params: PyTree, state: PyTree, x: PyTree, key: jax.Array) -> Kinds:
    """The layers of a model by kind."""
    found: dict[str, Call] = {}
    paths: list[str] = []

    def look(call: Call) -> PyTree:
        found[call.path] = call
        return call.y

    def run(params: PyTree, state: PyTree, x: PyTree) -> None:
        with watching(look) as (seen, order):
            model.apply(params, state, x, key=key, train=True)
        paths.extend(path for path in order if path in seen)

    jax.eval_shape(run, params, state, x)
    leaves = [p for p in paths if not any(other.startswith(f"{p}/") for other in paths)]

    def is_kernel(path: str) -> bool:
        return any(jnp.ndim(leaf) > 1 for leaf in jax.tree.leaves(found[path].params))

    def is_rectifier(path: str) -> bool:
        return any(call_of(found[path].layer)[1].get("function") is f for f in RECTIFIERS)

    return Kinds(
        [p for p in leaves if is_kernel(p) and is_inexact(jnp.result_type(found[p].x))],
        [p for p in leaves[:-1] if range_of(found[p].layer) is not None],
        [p for p in leaves if is_rectifier(p)],
        any(call_of(call.layer)[0] == recurrent for call in found.values()),
    )


class Probe(NamedTuple):
    """What is measured of params on some examples."""

    loss: jax.Array
    predictions: PyTree
    outputs: dict[str, dict[str, jax.Array]]  # statistics by path
    of_outputs: dict[str, jax.Array]  # norms of gradients by path
    of_params: PyTree
    over_time: jax.Array | None
    noise: jax.Array


def probe(
    model: Layer,
    loss: Callable[..., Any],
    kinds: Kinds,
    batch_size: int,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    batch: tuple[PyTree, ...],
) -> Probe:
    """The loss, what layers put out, and gradients with respect to that, params and time."""
    x, y, *weights = batch

    def look(call: Call) -> PyTree:
        found = statistics(call.layer, call.y)
        if found is not None and call.path in kinds.rectified:
            axes = tuple(range(call.y.ndim - 1))
            found["dead"] = jnp.mean(jnp.all(call.y == 0, axis=axes).astype(found["mean"].dtype))
        return found

    def seen_in(x: PyTree) -> tuple[PyTree, PyTree]:
        with watching(look, over_time=statistics_over_time) as (seen, _):
            predictions, _ = model.apply(params, state, x, key=key, train=True)
        return predictions, dict(seen)

    predictions, outputs = seen_in(x)

    def captured(
        add: PyTree, params: PyTree, x: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, PyTree]]:
        return capture(model, params, state, x, where=kinds.kernels, add=add, key=key, train=True)

    def loss_of(params: PyTree, add: PyTree, x: PyTree) -> Any:
        return _mean_loss(loss, captured(add, params, x)[0], y, weights)

    by_time = kinds.has_time and _is_sequence(x)
    wanted = (0, 1, 2) if by_time else (0, 1)
    zeros = jax.tree.map(jnp.zeros_like, captured({}, params, x)[2])
    value, grads = jax.value_and_grad(loss_of, wanted)(params, zeros, x)
    of_outputs = {path: _norm(grad, outputs[path]["mean"].ndim) for path, grad in grads[1].items()}
    of_params = jax.tree.map(lambda grad: _norm(grad, 0), grads[0])
    over_time = _norm(jnp.moveaxis(grads[2], 1, 0), 1) if by_time else None
    noise = _noise(model, loss, batch_size, params, state, key, batch)
    return Probe(value, predictions, outputs, of_outputs, of_params, over_time, noise)


def _is_sequence(x: PyTree) -> bool:
    return isinstance(x, jax.Array) and x.ndim == 3 and is_inexact(x.dtype)


def _mean_loss(loss: Any, predictions: PyTree, y: PyTree, weights: Any) -> Any:
    return mean().compute(metric_sums(loss, (), predictions, y, *weights)["loss"])


def _norm(tree: PyTree, leading: int) -> jax.Array:
    """The norm over all axes but so many leading ones."""
    squares = [
        jnp.sum(jnp.square(jnp.abs(widen(leaf))), axis=tuple(range(leading, leaf.ndim)))
        for leaf in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares[1:], start=squares[0]))


def _noise(
    model: Layer,
    loss: Any,
    batch_size: int,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    batch: tuple[PyTree, ...],
) -> jax.Array:
    """The variance of the gradient of a batch over the square of the mean gradient."""
    n = len(jax.tree.leaves(batch)[0])
    batches = n // batch_size
    if batches < 2:
        return jnp.zeros(())
    split = jax.tree.map(
        lambda leaf: leaf[: batches * batch_size].reshape(batches, batch_size, *leaf.shape[1:]),
        batch,
    )
    objective = of_model(model, loss, (), None)

    def gradient(batch: PyTree) -> PyTree:
        return jax.grad(lambda p: objective.loss_fn(p, state, batch, key)[0])(params)

    grads = lax.map(gradient, split)
    means = jax.tree.map(lambda g: jnp.mean(g, axis=0), grads)
    apart = jax.tree.map(lambda g, m: g - m[None], grads, means)
    variance = _norm(apart, 0) ** 2 / (batches - 1)
    square = _norm(means, 0) ** 2 - variance / batches
    return jnp.where(variance > 0, variance / jnp.maximum(square, variance * 1e-6), 0)


def best_constant(
    loss: Callable[..., Any], predictions: PyTree, batch: tuple[PyTree, ...]
) -> jax.Array:
    """The lowest loss of predictions that are the same for all examples: that of chance."""
    _, y, *weights = batch

    def averaged(leaf: jax.Array) -> jax.Array:
        return jnp.mean(leaf, axis=tuple(range(max(leaf.ndim - 1, 1))))

    first = jax.tree.map(averaged, predictions)
    starts = [first, jax.tree.map(jnp.zeros_like, first)]
    of_leaves = [{path: leaf.shape for path, leaf in _by_path(tree)} for tree in (y, predictions)]
    if of_leaves[0] == of_leaves[1]:
        starts.append(jax.tree.map(lambda t, p: averaged(t.astype(p.dtype)), y, predictions))

    def loss_of(constant: PyTree) -> Any:
        same = jax.tree.map(
            lambda c, p: jnp.broadcast_to(
                jnp.expand_dims(c, tuple(range(p.ndim - c.ndim))), p.shape
            ),
            constant,
            predictions,
        )
        return _mean_loss(loss, same, y, weights)

    rule = optimizers.adam(0.05)

    def lowest(start: PyTree) -> jax.Array:
        def step(carry: PyTree, _: None) -> tuple[PyTree, Any]:
            constant, opt_state = carry
            value, grads = jax.value_and_grad(loss_of)(constant)
            updates, opt_state = rule.update(grads, opt_state, constant)
            return (optimizers.apply_updates(constant, updates), opt_state), value

        _, values = lax.scan(step, (start, rule.init(start)), None, CONSTANT_STEPS)
        return jnp.min(jnp.where(jnp.isfinite(values), values, jnp.inf))

    return jnp.min(jnp.stack([lowest(start) for start in starts]))


def _by_path(tree: PyTree) -> list[tuple[str, Any]]:
    return list(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


class Trained(NamedTuple):
    """What some steps came to."""

    params: PyTree
    state: PyTree
    loss: jax.Array


def train(
    model: Layer,
    loss: Callable[..., Any],
    optimizer: Any,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    data: tuple[PyTree, ...],
    rows: jax.Array,
    measured: jax.Array,
    multiple: jax.Array,
) -> Trained:
    """Steps on the batches that `rows` choose, with all updates times `multiple`.

    The loss is that of the examples `measured` at the end.
    """
    objective = of_model(model, loss, (), None)
    update = extra_tolerant(optimizer)

    def times(grads: PyTree, opt_state: PyTree, params: PyTree = None, **extra: Any) -> Any:
        updates, opt_state = update(grads, opt_state, params, **extra)
        return jax.tree.map(lambda u: u * multiple.astype(u.dtype), updates), opt_state

    scaled = optimizers.Optimizer(optimizer.init, times)

    def step(train: TrainState, rows: jax.Array) -> tuple[TrainState, None]:
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        done = take_step(
            objective.loss_fn,
            scaled,
            (),
            train,
            batch,
            lambda batch, sums: sums["loss"].weight.total(),
        )
        return done.train, None

    start = TrainState(params, state, optimizer.init(params), key, jnp.zeros((), jnp.int32))
    end, _ = lax.scan(step, start, rows)
    examples = jax.tree.map(lambda leaf: leaf[measured], data)
    value, _ = objective.loss_fn(end.params, end.state, examples, key)
    return Trained(end.params, end.state, value)
