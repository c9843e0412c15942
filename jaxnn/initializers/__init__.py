"""Initializers: those of `jax.nn.initializers`, used from there, and what it lacks.

An initializer is a function `(key, shape, dtype) -> array`. `ones` and `zeros` are initializers;
the others are functions that make one. Kernels have the outputs in their last axis and the inputs
in the one before.
"""

from jax.nn.initializers import (
    Initializer,
    constant,
    delta_orthogonal,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    zeros,
)

from jaxnn.initializers._initializers import calculate_gain, dirac, identity, sparse, torch_uniform

__all__ = [
    "Initializer",
    "calculate_gain",
    "constant",
    "delta_orthogonal",
    "dirac",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "torch_uniform",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zeros",
]
