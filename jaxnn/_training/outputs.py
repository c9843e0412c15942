"""What is recorded of the outputs of a model's layers: statistics over batch and units."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _activations as activations
from jaxnn._core.arrays import is_inexact, widen
from jaxnn._core.construction import call_of
from jaxnn._core.layer import Layer
from jaxnn._core.paths import check_globs, is_match
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Call, watching

T = TypeVar("T")

STATISTICS = (
    "activation_mean",
    "activation_std",
    "activation_max",
    "activation_zeros",
    "activation_saturated",
)
SATURATED = 0.01  # of its range, as near to an end as that
RANGES: dict[Any, tuple[float, float]] = {
    activations.tanh: (-1, 1),
    jnp.tanh: (-1, 1),
    lax.tanh: (-1, 1),
    activations.sigmoid: (0, 1),
    lax.logistic: (0, 1),
    activations.hard_tanh: (-1, 1),
    activations.hard_sigmoid: (0, 1),
    activations.soft_sign: (-1, 1),
}


def observed(record: Sequence[str], run: Callable[[], T]) -> tuple[T, dict[str, jax.Array]]:
    """What `run()` gives, and what is recorded of the outputs of the layers that it applies."""
    asked = [(kind, glob) for kind, _, glob in (n.partition("/") for n in record)]
    asked = [(kind, glob) for kind, glob in asked if kind in STATISTICS]
    if not asked:
        return run(), {}

    bounded: set[str] = set()

    def look(call: Call) -> PyTree:
        if range_of(call.layer) is not None:
            bounded.add(call.path)
        is_asked = is_match(call.path, (glob for _, glob in asked))
        return statistics(call.layer, call.y) if is_asked else None

    with watching(look, over_time=statistics_over_time) as (seen, paths):
        result = run()
    values: dict[str, jax.Array] = {}
    for kind, glob in asked:
        known = [p for p in paths if kind != "activation_saturated" or p in bounded]
        check_globs(f"record: {kind}", [glob], known)
        for path in fnmatch.filter(known, glob):
            if path in seen:
                values |= _by_place(f"{kind}/{path}", _value(kind, seen[path]))
    return result, values


def statistics(layer: Layer, y: PyTree) -> dict[str, jax.Array] | None:
    """The statistics of what a layer puts out, None where that has no numbers."""
    parts = [widen(leaf) for leaf in jax.tree.leaves(y) if is_inexact(leaf.dtype) and leaf.size]
    if not parts:
        return None
    x = parts[0] if len(parts) == 1 else jnp.concatenate([jnp.ravel(part) for part in parts])
    x = lax.stop_gradient(x)
    mean = jnp.mean(x)
    found = {
        "mean": mean,
        "variance": jnp.mean(jnp.square(jnp.abs(x - mean))),
        "max": jnp.max(jnp.abs(x)),
        "zeros": jnp.mean((x == 0).astype(mean.real.dtype)),
    }
    ends = range_of(layer)
    if ends is not None:
        found["saturated"] = jnp.mean(is_saturated(x, ends).astype(mean.dtype))
    return found


def range_of(layer: Layer) -> tuple[float, float] | None:
    """The ends between which an activation's values are, None where they have none."""
    _, arguments = call_of(layer)
    function = arguments.get("function")
    try:
        return RANGES.get(function)
    except TypeError:  # it has no hash
        return None


def is_saturated(x: jax.Array, ends: tuple[float, float]) -> jax.Array:
    """Where a value is so near to an end of its range that the gradient is small."""
    low, high = ends
    near = SATURATED * (high - low)
    return (x < low + near) | (x > high - near)


def statistics_over_time(seen: dict[str, jax.Array], axis: int) -> dict[str, jax.Array]:
    """The statistics over all steps of a sequence, which are axis 0."""
    pooled = {name: jnp.mean(of_steps, axis=0) for name, of_steps in seen.items()}
    between = jnp.mean(jnp.square(jnp.abs(seen["mean"] - pooled["mean"][None])), axis=0)
    return pooled | {
        "variance": pooled["variance"] + between,
        "max": jnp.max(seen["max"], axis=0),
    }


def _value(kind: str, found: dict[str, jax.Array]) -> jax.Array:
    if kind == "activation_std":
        return jnp.sqrt(found["variance"])
    return found[kind.removeprefix("activation_")]


def _by_place(name: str, value: jax.Array) -> dict[str, jax.Array]:
    """One number by name; of a stack or ensemble, where it has leading axes, "name[i]" for each."""
    if not value.ndim:
        return {name: value}
    found: dict[str, jax.Array] = {}
    for i in range(value.shape[0]):
        found |= _by_place(f"{name}[{i}]", value[i])
    return found
