"""The experiments of a diagnosis: a look before and after some steps, with many learning rates."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.layer import Layer, child_key
from jaxnn._core.programs import compiled
from jaxnn._core.types import PyTree
from jaxnn._diagnosis.measuring import (
    Kinds,
    Probe,
    Trained,
    best_constant,
    kinds_of,
    probe,
    train,
)

MULTIPLES = 10.0 ** np.arange(-3, 3.1, 0.5)  # of the learning rate
FURTHER = 8  # multiples, where the best is the largest
OF_ONE_BATCH = 16  # examples that are to be learnt by heart


class LearntByHeart(NamedTuple):
    """The loss on one batch that was trained on alone, and that of the best constant."""

    loss: float
    constant: float


class Experiment(NamedTuple):
    """What was measured of a set-up; `lanes` are the losses by multiples of the learning rate."""

    kinds: Kinds
    start: Probe
    after: Probe
    constant: float  # the loss of the best constant prediction
    lanes: dict[float, float]
    best: float  # of the multiples
    heart: LearntByHeart | None

    def deviations(self) -> dict[str, float]:
        """The standard deviation of what each layer with a kernel puts out at the start."""
        variances = {path: found["variance"] for path, found in self.start.outputs.items()}
        by_layer = _by_layer(self.kinds.kernels, variances)
        return {name: value**0.5 for name, value in by_layer.items()}

    def gradients(self) -> dict[str, float]:
        """The norm of the gradient with respect to that; after training, if it is 0 at first."""
        first = _by_layer(self.kinds.kernels, self.start.of_outputs)
        later = _by_layer(self.kinds.kernels, self.after.of_outputs)
        return {name: value or later[name] for name, value in first.items()}


def experiment(
    model: Layer,
    loss: Any,
    optimizer: Any,
    key: jax.Array,
    sample: tuple[PyTree, ...],
    params: PyTree,
    state: PyTree,
    batch_size: int,
    steps: int,
) -> Experiment:
    """Look, train with multiples of the learning rate and on one batch alone, and look again."""
    n = len(jax.tree.leaves(sample)[0])
    batch_size = min(batch_size, n)
    kinds = kinds_of(model, params, state, sample[0], key)
    look = compiled(probe, model, loss, kinds, batch_size)
    start = look(params, state, key, sample)
    constant_of = compiled(best_constant, loss)
    go = compiled(train, model, loss, optimizer)
    everything = jnp.arange(n)
    rows = jax.random.randint(child_key(key, "rows"), (steps, batch_size), 0, n)

    def trained(multiple: float, begin: Trained, rows: jax.Array, measured: jax.Array) -> Trained:
        after: Trained = go(
            *(begin.params, begin.state, key, sample, rows, measured, jnp.float32(multiple))
        )
        return after

    begin = Trained(params, state, start.loss)
    usual = trained(1.0, begin, rows, everything)

    def lane(multiple: float) -> float:
        value = float(trained(multiple, begin, rows, everything).loss)
        return value if np.isfinite(value) else np.inf

    lanes = {float(multiple): lane(multiple) for multiple in MULTIPLES}
    for _ in range(FURTHER):
        if _lowest(lanes) == max(lanes):
            lanes[10 * max(lanes)] = lane(10 * max(lanes))
    best = _lowest(lanes)

    heart = None
    if batch_size >= OF_ONE_BATCH // 2:
        few = everything % min(OF_ONE_BATCH, batch_size)
        same = jnp.broadcast_to(few[None, :batch_size], rows.shape)
        learnt = begin
        for _ in range(3):
            learnt = trained(best, learnt, same, few)
        one = jax.tree.map(lambda leaf: leaf[few], (start.predictions, sample))
        heart = LearntByHeart(float(learnt.loss), float(constant_of(*one)))
    constant = float(constant_of(start.predictions, sample))
    after = look(usual.params, usual.state, key, sample)
    return Experiment(kinds, start, after, constant, lanes, best, heart)


def _lowest(lanes: dict[float, float]) -> float:
    return min(lanes, key=lanes.__getitem__)


def _by_layer(paths: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
    """A number for each layer, in the order in which they run, those of a stack in its turns."""
    found: dict[str, float] = {}
    arrays = {path: np.asarray(values[path], np.float64) for path in paths}
    for shape, group in itertools.groupby(paths, lambda path: arrays[path].shape):
        together = list(group)
        for place in np.ndindex(shape):
            index = f"[{','.join(map(str, place))}]" if place else ""
            found |= {path + index: float(arrays[path][place]) for path in together}
    return found
