"""Weights and batches that all contestants begin with."""

from typing import Any

import numpy as np

Arrays = dict[str, Any]


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal numbers in float32."""
    return (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)


def dense(rng: np.random.Generator, *shape: int, depth: tuple[int, ...] = ()) -> Arrays:
    """A kernel of the given shape, its last axis the outputs, and a bias that is not zero.

    `depth` is an axis before them, for layers on top of each other.
    """
    scale = float(np.sqrt(1 / np.prod(shape[:-1])))
    return {
        "kernel": normal(rng, *depth, *shape, scale=scale),
        "bias": normal(rng, *depth, shape[-1], scale=0.1),
    }


def norm(features: int, depth: tuple[int, ...] = ()) -> Arrays:
    """The scale and bias of a layer norm."""
    return {
        "scale": np.ones((*depth, features), np.float32),
        "bias": np.zeros((*depth, features), np.float32),
    }


def labels(rng: np.random.Generator, classes: int, *shape: int) -> np.ndarray:
    """Random classes."""
    return rng.integers(0, classes, shape, np.int32)
