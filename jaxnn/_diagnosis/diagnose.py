"""Naming what is wrong with a model, its data, loss and optimizer, from a few steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.layer import LayerLike, as_layer, child_key
from jaxnn._core.paths import leaf_paths
from jaxnn._core.programs import compiled
from jaxnn._core.types import Arrays, Data, Loss, OptimizerLike, PyTree
from jaxnn._diagnosis.curves import diagnose_history
from jaxnn._diagnosis.faults import FAULTS
from jaxnn._diagnosis.findings import Diagnosis, Finding, causes, finding
from jaxnn._diagnosis.measuring import (
    Kinds,
    Probe,
    Trained,
    best_constant,
    kinds_of,
    probe,
    train,
)
from jaxnn._training.data.arrays import count_examples
from jaxnn.losses import (
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxnn.optimizers._base import check_optimizer

MOST_EXAMPLES = 256  # that are looked at
LEAST_LAYERS = 4  # to tell how something changes with depth
MULTIPLES = 10.0 ** np.arange(-3, 3.1, 0.5)  # of the learning rate
FURTHER = 8  # multiples, where the best is the largest
OF_ONE_BATCH = 16  # examples that are to be learnt by heart


@checked
def diagnose(
    model: LayerLike,
    data: Data,
    *,
    loss: Loss,
    optimizer: OptimizerLike,
    key: jax.Array,
    batch_size: int = 32,
    params: Arrays | None = None,
    state: Arrays | None = None,
    history: Mapping[str, Any] | None = None,
    steps: int = 100,
) -> Diagnosis:
    """Name what is wrong with a set-up, from a few steps of training, and say what to change.

    It looks at the scales of inputs and labels, at what layers put out and at gradients from layer
    to layer, at dead and saturated units, at the loss at the start against that of the best
    constant prediction, at training with multiples of the learning rate from a thousandth to
    thousand times as much (a range test, one compiled program for all), at whether one batch can
    be learnt by heart, and at the noise of gradients. The faults, their thresholds and cures are a
    table in `jaxnn/_diagnosis/faults.py`. Faults that follow from others are left out.

    Args:
        model: a layer or a plain function of arrays.
        data: arrays `(x, y)` or `(x, y, weights)`, examples along axis 0.
        loss: the loss, as `fit` takes it.
        optimizer: an `Optimizer` or optax transformation.
        key: a typed PRNG key.
        batch_size: the number of examples of a step.
        params: the parameters to begin with; those that the model makes if None.
        state: the model's state to begin with, given together with `params`.
        history: that of a run, which is looked at as well, see `diagnose_history`.
        steps: the number of steps of each training.

    Returns:
        A `Diagnosis`; `print` shows the report.

    Raises:
        TypeError: `data` are not arrays in memory; `optimizer` is not an optimizer.
        ValueError: `batch_size` or `steps` is less than 1; `state` is given without `params`.

    Example:
        >>> import jax, numpy as np, jaxnn as nn
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        >>> y = (x[:, 0] > 0).astype(np.int32)
        >>> found = nn.diagnose(nn.dense(2), (1000 * x, y), loss=nn.losses.softmax_cross_entropy,
        ...                     optimizer=nn.optimizers.sgd(0.1), key=jax.random.key(0)).findings
        >>> found[0].name, found[0].challenge
        ('unscaled_inputs', 'slow learning')
        >>> found[0].evidence
        'feature 3 of x has mean 160 and root mean square 1.15e+03'
    """
    layer = as_layer(model, "diagnose: model")
    check_optimizer(optimizer, "diagnose: optimizer")
    check_key("diagnose", key)
    check_count("diagnose", "batch_size", batch_size)
    check_count("diagnose", "steps", steps)
    if state is not None and params is None:
        raise ValueError("diagnose: state is given and params is None, expected both or neither")
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        raise TypeError(
            "diagnose: data is not (x, y) or (x, y, weights), expected arrays in memory"
        )
    n = count_examples("diagnose", "data", data)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:MOST_EXAMPLES])
    sample: tuple[PyTree, ...] = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), data)
    found = list(_of_data(sample))
    if any(one.name == "nonfinite" for one in found):
        return Diagnosis(causes(found), {}, {}, {})
    if params is None:
        params, state = jax.jit(layer.init)(child_key(key, "init"), jax.tree.map(_one, sample[0]))
    state = {} if state is None else state
    run = _Measured.of(
        layer, loss, optimizer, key, sample, min(batch_size, len(rows)), params, state, steps
    )
    found += run.findings(loss, sample)
    if history is not None:
        found += diagnose_history(history).findings
    return Diagnosis(causes(found), run.layers(), run.rates(), run.numbers())


def _one(leaf: jax.Array) -> jax.Array:
    return leaf[:1]


# Data


def _of_data(sample: tuple[PyTree, ...]) -> Iterator[Finding]:
    for name, tree in zip(("x", "y"), sample, strict=False):
        for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            values = np.asarray(leaf, np.float64)
            where = f"{name}['{path}']" if path else name
            if not np.all(np.isfinite(values)):
                yield finding("nonfinite", f"{where} has NaN or infinity")
            elif name == "x" or np.abs(values).max() > 1:  # others are probabilities
                yield from _of_scale(
                    "unscaled_inputs" if name == "x" else "unscaled_labels", where, values
                )


def _of_scale(fault: str, where: str, values: np.ndarray) -> Iterator[Finding]:
    features = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]
    means, deviations = features.mean(0), features.std(0)
    sizes = np.sqrt(np.square(features).mean(0))
    limit = FAULTS[fault].limit
    far = np.where(deviations > 0, np.abs(means) / np.maximum(deviations, 1e-30), 0)
    worst = int(np.argmax(np.maximum(sizes, far)))
    if max(sizes[worst], far[worst]) > limit or 0 < sizes.max() < 0.1 / limit:
        of = f"feature {worst} of {where}" if len(sizes) > 1 else where
        yield finding(
            fault, f"{of} has mean {means[worst]:.3g} and root mean square {sizes[worst]:.3g}"
        )


# Model, loss and optimizer


class _Measured(NamedTuple):
    kinds: Kinds
    start: Probe
    after: Probe
    chance: float
    lanes: dict[float, float]  # losses by multiple
    best: float
    heart: tuple[float, float] | None  # the loss on one batch, and that of chance

    @classmethod
    def of(
        cls,
        model: Any,
        loss: Any,
        optimizer: Any,
        key: jax.Array,
        sample: tuple[PyTree, ...],
        batch_size: int,
        params: PyTree,
        state: PyTree,
        steps: int,
    ) -> "_Measured":
        n = len(jax.tree.leaves(sample)[0])
        kinds = kinds_of(model, params, state, sample[0], key)
        look = jax.jit(lambda p, s: probe(model, loss, kinds, batch_size, p, s, key, sample))
        start = look(params, state)
        go = compiled(train, model, loss, optimizer)
        everything = jnp.arange(n)
        rows = jax.random.randint(child_key(key, "rows"), (steps, batch_size), 0, n)

        def trained(multiple: float, params: PyTree, state: PyTree, rows: Any, on: Any) -> Trained:
            return go(params, state, key, sample, rows, on, jnp.float32(multiple))  # type: ignore[no-any-return]

        def lane(multiple: float) -> float:
            value = float(trained(multiple, params, state, rows, everything).loss)
            return value if np.isfinite(value) else np.inf

        lanes = {float(m): lane(m) for m in MULTIPLES}
        while (
            min(lanes, key=lanes.__getitem__) == max(lanes)
            and len(lanes) < len(MULTIPLES) + FURTHER
        ):
            lanes[10 * max(lanes)] = lane(10 * max(lanes))
        best = min(lanes, key=lanes.__getitem__)
        usual = trained(1.0, params, state, rows, everything)
        chance_of = compiled(best_constant, loss)
        chance = float(chance_of(start.predictions, sample))
        heart = None
        few = jnp.arange(n) % min(OF_ONE_BATCH, batch_size, n)
        if min(batch_size, n) >= OF_ONE_BATCH // 2:
            same = jnp.broadcast_to(few[:batch_size][None], rows.shape)
            learnt = Trained(params, state, jnp.zeros(()))
            for _ in range(3):
                learnt = trained(best, learnt.params, learnt.state, same, few)
            one = jax.tree.map(lambda leaf: leaf[few], (start.predictions, sample))
            heart = float(learnt.loss), float(chance_of(*one))
        return cls(kinds, start, look(usual.params, usual.state), chance, lanes, best, heart)

    # What it means

    def findings(self, loss: Any, sample: tuple[PyTree, ...]) -> Iterator[Finding]:
        if not np.isfinite(self.start.loss):
            yield finding("nonfinite", f"the loss at the start is {float(self.start.loss)}")
            return
        yield from self._of_predictions(loss)
        yield from self._of_outputs()
        yield from self._of_gradients()
        yield from self._of_loss()

    def _of_predictions(self, loss: Any) -> Iterator[Finding]:
        leaves = jax.tree.leaves(self.start.predictions)
        if len(leaves) != 1:
            return
        p = np.asarray(leaves[0], np.float64)
        inside = bool(np.all((p > 0) & (p < 1)))
        of_softmax = softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
        if any(loss is known for known in of_softmax) and p.ndim > 1 and p.shape[-1] > 1:
            inside = inside and bool(np.all(np.abs(p.sum(-1) - 1) < 1e-3))
        elif loss is not sigmoid_binary_cross_entropy:
            return
        if inside:
            text = f"predictions lie between {p.min():.3g} and {p.max():.3g}, as probabilities do"
            yield finding("probabilities_as_logits", f"{text}; {loss.__name__} takes logits")

    def _of_outputs(self) -> Iterator[Finding]:
        names, values = self._deviations()
        factor = _factor(values)
        for fault, size in (
            ("initialisation_grows", factor),
            ("initialisation_shrinks", 1 / factor),
        ):
            if size > FAULTS[fault].limit:
                yield finding(
                    fault,
                    "the standard deviation of the output goes from "
                    f"{values[0]:.3g} in {names[0]} to {values[-1]:.3g} in {names[-1]}",
                )
        yield from self._of_units("dead", self.kinds.rectified, "units are 0 for all examples")
        yield from self._of_units(
            "saturated", self.kinds.bounded, "values are at an end of their range"
        )

    def _of_units(self, kind: str, paths: list[str], text: str) -> Iterator[Finding]:
        probes = {"at the start": self.start}
        if self._rate_fault() is None:  # which would be why
            probes["after training"] = self.after
        for when, of in probes.items():
            shares = {path: float(np.max(of.outputs[path][kind])) for path in paths}
            worst = max(shares, key=shares.__getitem__, default="")
            if shares.get(worst, 0) > FAULTS[f"{kind}_units"].limit:
                yield finding(
                    f"{kind}_units", f"{shares[worst]:.0%} of the {text} in {worst} {when}"
                )
                return

    def _of_gradients(self) -> Iterator[Finding]:
        without = [
            path
            for path, first, later in zip(
                leaf_paths(self.start.of_params),
                jax.tree.leaves(self.start.of_params),
                jax.tree.leaves(self.after.of_params),
                strict=True,
            )
            if first == 0 and later == 0
        ]
        if without:
            yield finding("no_gradient", f"the gradient is exactly 0 in {', '.join(without[:4])}")
        names, values = self._gradients()
        yield from _of_factor(values, names, 1.0)
        if self.start.over_time is not None:
            norms = np.asarray(self.start.over_time, np.float64)
            yield from _of_factor(norms, [f"step {i}" for i in range(len(norms))], 2.0)
        noise = float(self.start.noise)
        if noise > FAULTS["gradient_noise"].limit:
            yield finding(
                "gradient_noise",
                f"the variance of a batch's gradient is {noise:.3g} times the square of the mean",
            )

    def _of_loss(self) -> Iterator[Finding]:
        start, limit = float(self.start.loss), FAULTS["output_scale"].limit
        if self.chance > 0 and start > limit * self.chance:
            yield finding(
                "output_scale",
                f"the loss is {start:.3g} at the start, {self.chance:.3g} for the best constant",
            )
        fault = self._rate_fault()
        if fault is not None:
            now, lowest = self.lanes[1.0], self.lanes[self.best]
            yield finding(
                fault,
                f"the loss goes from {start:.3g} to {now:.3g}, and to {lowest:.3g} with "
                f"{self.best:.3g} times the rate",
            )
        if self.heart is not None:
            learnt, chance = self.heart
            if not learnt < FAULTS["cannot_overfit"].limit * chance and chance > 0:
                yield finding(
                    "cannot_overfit",
                    f"trained on one batch alone its loss is {learnt:.3g}, and that of the best "
                    f"constant {chance:.3g}",
                )

    def _rate_fault(self) -> str | None:
        """The fault of the learning rate, by what another takes off the loss."""
        start, now = float(self.start.loss), self.lanes[1.0]
        possible = start - self.lanes[self.best]
        if not np.isfinite(now):
            return "rate_too_large"
        if possible < 0.02 * abs(start):
            return None
        taken_off = (start - now) / possible
        if self.best > 1:
            return "rate_too_small" if taken_off < FAULTS["rate_too_small"].limit else None
        is_far = self.best < 0.2 or taken_off < 0
        too_large = is_far and taken_off < FAULTS["rate_too_large"].limit
        return "rate_too_large" if too_large else None

    # What is shown

    def _deviations(self) -> tuple[list[str], np.ndarray]:
        variances = {path: found["variance"] for path, found in self.start.outputs.items()}
        names, values = _by_layer(self.kinds.kernels, variances)
        return names, np.sqrt(values)

    def _gradients(self) -> tuple[list[str], np.ndarray]:
        names, start = _by_layer(self.kinds.kernels, self.start.of_outputs)
        later = _by_layer(self.kinds.kernels, self.after.of_outputs)[1]
        return names, np.where(start > 0, start, later)

    def layers(self) -> dict[str, np.ndarray]:
        names, deviations = self._deviations()
        return {
            "path": np.array(names),
            "std": deviations,
            "gradient_norm": self._gradients()[1],
        }

    def rates(self) -> dict[str, np.ndarray]:
        multiples = sorted(self.lanes)
        losses = np.array([self.lanes[m] for m in multiples])
        return {"multiple": np.array(multiples), "loss": losses}

    def numbers(self) -> dict[str, float]:
        of_heart = {} if self.heart is None else {"loss_on_one_batch": self.heart[0]}
        return {
            "loss_at_start": float(self.start.loss),
            "loss_of_best_constant": self.chance,
            "best_multiple": self.best,
            "gradient_noise": float(self.start.noise),
            **of_heart,
        }


def _of_factor(values: np.ndarray, names: list[str], power: float) -> Iterator[Finding]:
    """Whether norms of gradients, in the order of layers or steps, vanish or explode backwards."""
    if len(values) < LEAST_LAYERS or not np.all(np.isfinite(values)) or not values.any():
        return
    factor = _factor(np.maximum(values, np.finfo(np.float32).tiny))
    said = f"the norm of the gradient goes from {values[-1]:.3g} in {names[-1]} "
    said += f"to {values[0]:.3g} in {names[0]}"
    if factor > FAULTS["vanishing_gradients"].limit ** power:
        yield finding("vanishing_gradients", said)
    elif 1 / factor > FAULTS["exploding_gradients"].limit:
        yield finding("exploding_gradients", said)


def _factor(values: np.ndarray) -> float:
    """By what the fitted exponential goes from the first to the last; 1 for few values."""
    if len(values) < LEAST_LAYERS or not np.all(np.isfinite(values)) or np.any(values <= 0):
        return 1.0
    places = np.arange(len(values))
    slope = np.polyfit(places, np.log(values), 1)[0]
    return float(np.exp(slope * (len(values) - 1)))


def _by_layer(paths: Sequence[str], values: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names and numbers, one for each layer, those of a stack one after the other."""
    names: list[str] = []
    numbers: list[float] = []
    for path in paths:
        array = np.asarray(values[path], np.float64)
        for place in np.ndindex(array.shape):
            names.append(path + (f"[{','.join(map(str, place))}]" if place else ""))
            numbers.append(float(array[place]))
    return names, np.array(numbers)
