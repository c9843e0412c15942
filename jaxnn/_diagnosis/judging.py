"""From what was measured to faults."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._diagnosis.experiment import Experiment
from jaxnn._diagnosis.faults import FAULTS
from jaxnn._diagnosis.findings import Finding, finding
from jaxnn.losses import (
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)

LEAST_LAYERS = 4  # to tell how something changes with depth


def of_data(sample: tuple[PyTree, ...]) -> Iterator[Finding]:
    """The faults of the data: what is not finite, and scales."""
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


def of_experiment(seen: Experiment, loss: Any) -> Iterator[Finding]:
    """The faults of a model, its loss and optimizer."""
    if not np.isfinite(seen.start.loss):
        yield finding("nonfinite", f"the loss at the start is {float(seen.start.loss)}")
        return
    yield from _of_predictions(seen, loss)
    yield from _of_outputs(seen)
    yield from _of_gradients(seen)
    yield from _of_loss(seen)


def _of_predictions(seen: Experiment, loss: Any) -> Iterator[Finding]:
    leaves = jax.tree.leaves(seen.start.predictions)
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


def _of_outputs(seen: Experiment) -> Iterator[Finding]:
    # Without the last layer, whose few units are small or large for reasons of their own.
    deviations = dict(list(seen.deviations().items())[:-1])
    names, values = list(deviations), np.array(list(deviations.values()))
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
    yield from _of_units(seen, "dead", seen.kinds.rectified, "units are 0 for all examples")
    yield from _of_units(
        seen, "saturated", seen.kinds.bounded, "values are at an end of their range"
    )


def _of_units(seen: Experiment, kind: str, paths: list[str], text: str) -> Iterator[Finding]:
    probes = {"at the start": seen.start}
    if _rate_fault(seen) is None:  # which would be why
        probes["after training"] = seen.after
    for when, of in probes.items():
        shares = {path: float(np.max(of.outputs[path][kind])) for path in paths}
        worst = max(shares, key=shares.__getitem__, default="")
        if shares.get(worst, 0) > FAULTS[f"{kind}_units"].limit:
            yield finding(f"{kind}_units", f"{shares[worst]:.0%} of the {text} in {worst} {when}")
            return


def _of_gradients(seen: Experiment) -> Iterator[Finding]:
    without = [
        path
        for path, first, later in zip(
            leaf_paths(seen.start.of_params),
            jax.tree.leaves(seen.start.of_params),
            jax.tree.leaves(seen.after.of_params),
            strict=True,
        )
        if first == 0 and later == 0
    ]
    if without:
        yield finding("no_gradient", f"the gradient is exactly 0 in {', '.join(without[:4])}")
    yield from _of_factor(seen.gradients(), 1.0)
    if seen.start.over_time is not None:
        norms = np.asarray(seen.start.over_time, np.float64)
        yield from _of_factor({f"step {i}": float(norm) for i, norm in enumerate(norms)}, 2.0)
    noise = float(seen.start.noise)
    if noise > FAULTS["gradient_noise"].limit:
        yield finding(
            "gradient_noise",
            f"the variance of a batch's gradient is {noise:.3g} times the square of the mean",
        )


def _of_loss(seen: Experiment) -> Iterator[Finding]:
    start, limit = float(seen.start.loss), FAULTS["output_scale"].limit
    if seen.constant > 0 and start > limit * seen.constant:
        yield finding(
            "output_scale",
            f"the loss is {start:.3g} at the start, {seen.constant:.3g} for the best constant",
        )
    fault = _rate_fault(seen)
    if fault is not None:
        now, lowest = seen.lanes[1.0], seen.lanes[seen.best]
        yield finding(
            fault,
            f"the loss goes from {start:.3g} to {now:.3g}, and to {lowest:.3g} with "
            f"{seen.best:.3g} times the rate",
        )
    if seen.heart is not None:
        learnt, chance = seen.heart
        if not learnt < FAULTS["cannot_overfit"].limit * chance and chance > 0:
            yield finding(
                "cannot_overfit",
                f"trained on one batch alone its loss is {learnt:.3g}, and that of the best "
                f"constant {chance:.3g}",
            )


def _rate_fault(seen: Experiment) -> str | None:
    """The fault of the learning rate, by what another takes off the loss."""
    start, now = float(seen.start.loss), seen.lanes[1.0]
    possible = start - seen.lanes[seen.best]
    if not np.isfinite(now):
        return "rate_too_large"
    if possible < 0.02 * abs(start):
        return None
    taken_off = (start - now) / possible
    if seen.best > 1:
        return "rate_too_small" if taken_off < FAULTS["rate_too_small"].limit else None
    is_far = seen.best < 0.2 or taken_off < 0
    too_large = is_far and taken_off < FAULTS["rate_too_large"].limit
    return "rate_too_large" if too_large else None


def _of_factor(norms: dict[str, float], power: float) -> Iterator[Finding]:
    """Whether norms of gradients, in the order of layers or steps, vanish or explode backwards."""
    names, values = list(norms), np.array(list(norms.values()))
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
