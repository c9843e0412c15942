"""Positions."""

from functools import partial

import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import positions
from tests.table.rows import FunctionRow, LayerRow, normal


def heads_and_positions(per_example):
    """Queries and floating positions, of the time axis alone or of each example."""

    def draw(rng, shape):
        where = shape[:-2] if per_example else shape[-3:-2]
        return rng.standard_normal(shape), 5 * rng.standard_normal(where)

    return draw


def integer_positions(rng, shape):
    """Queries and the positions 0, 1, ..."""
    return rng.standard_normal(shape), np.arange(shape[-3])


def slopes_and_positions(rng, shape):
    """Slopes, and positions that differ."""
    heads, queries, keys = shape
    order = rng.permutation(queries + keys) + rng.uniform(0.1, 0.9, queries + keys)
    return rng.standard_normal(heads), order[:queries], order[queries:]


def times_slopes(x):
    """Each column by the slope of a head."""
    return x * nn.functional.alibi_slopes(x.shape[-1])[None]


def times_slopes_reference(x):
    """The slopes have no gradient."""
    slopes, _ = positions.alibi_slopes(x.shape[-1])
    return x * slopes, lambda dy: (dy * slopes,)


def rotated(x):
    """A scheme with options, at the positions that a layer gives."""
    scheme = nn.rotary(base=100.0, fraction=0.5, interleaved=True)
    return scheme.rotate(x, jnp.arange(x.shape[-3], dtype=jnp.int32))


def rotated_reference(x):
    """The same."""
    y, backward = positions.rotary(x, np.arange(x.shape[-3]), 100.0, 0.5, True)
    return y, lambda dy: backward(dy)[:1]


LLAMA = {"original_length": 50, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0}
YARN = {"original_length": 50, "beta_fast": 4.0, "beta_slow": 0.5}


def frequencies(rng, shape):
    """Some on both sides of and between the limits, away from them."""
    return (np.array([0.9, 0.6, 0.4, 0.3, 0.2, 0.09, 0.01]) * rng.uniform(0.99, 1.01),)


def llama3_reference(x):
    """The same limits."""
    return positions.llama3_scaling(x, 3.0, 50, 1.0, 4.0)


def turned_by_yarn(x):
    """Queries, turned by the frequencies of YaRN."""
    scaling = nn.yarn_scaling(3.0, **YARN)
    return nn.functional.rotary(x, jnp.arange(x.shape[-3]), base=20.0, scaling=scaling)


def turned_by_yarn_reference(x):
    """The same frequencies by their indices."""
    scaled = positions.yarn_scaling(x.shape[-1], 20.0, 3.0, 50, 4.0, 0.5)
    y, backward = positions.rotary(x, np.arange(x.shape[-3]), scaling=lambda _: scaled)
    return y, lambda dy: backward(dy)[:1]


def with_alibi(logits):
    """Logits with the bias of a scheme, the queries after the keys."""
    heads, queries, keys = logits.shape
    return logits + nn.alibi().bias(heads, jnp.arange(queries) + keys, jnp.arange(keys))


def with_alibi_reference(logits):
    """The bias has no gradient."""
    heads, queries, keys = logits.shape
    slopes, _ = positions.alibi_slopes(heads)
    bias, _ = positions.alibi_bias(slopes, np.arange(queries) + keys, np.arange(keys))
    return logits + bias[0], lambda dy: (dy,)


def learned(x, embedding):
    """y = x + embedding[:time]: the rows in use add up the examples' dy, the others have 0."""
    y = x + embedding[: x.shape[-2]]

    def backward(dy):
        dembedding = np.zeros(embedding.shape)
        for example in dy.reshape(-1, *dy.shape[-2:]):
            for t, row in enumerate(example):
                dembedding[t] += row
        return dy, dembedding

    return y, backward


def waves(x):
    """y = x + a table without parameters."""
    table, _ = positions.sinusoidal(np.arange(x.shape[-2]), x.shape[-1])
    return x + table, lambda dy: (dy,)


def fourier_layer(params, state, x, *, key, train):
    """The frequencies are state, without a gradient."""
    y, backward = positions.fourier_features(x, state["frequencies"])
    return y, lambda dy: ({}, backward(dy)[0])


def function_rows():
    """Both pairings, part of the features, positions by example, integers."""
    f = nn.functional
    rotary = partial(FunctionRow, "functional.rotary", f.rotary, positions.rotary)
    yield rotary(heads_and_positions(False), ((3, 2, 4), (2, 3, 1, 6)))
    yield rotary(heads_and_positions(True), ((2, 3, 2, 4),), {"interleaved": True}, "by_example")
    yield rotary(integer_positions, ((3, 2, 8),), {"base": 50.0, "fraction": 0.5}, "integers")
    yield FunctionRow(
        "functional.sinusoidal",
        partial(f.sinusoidal, features=6),
        partial(positions.sinusoidal, features=6),
        normal,
        ((3,), (2, 3)),
        {"base": 20.0},
    )
    yield FunctionRow(
        "functional.fourier_features",
        f.fourier_features,
        positions.fourier_features,
        lambda rng, shape: (rng.standard_normal(shape), rng.standard_normal((shape[-1], 3))),
        ((2,), (4, 3, 1)),
    )
    yield FunctionRow(
        "functional.alibi_slopes", times_slopes, times_slopes_reference, normal, ((2, 4), (2, 7))
    )
    yield FunctionRow(
        "functional.alibi_bias",
        f.alibi_bias,
        positions.alibi_bias,
        slopes_and_positions,
        ((3, 2, 4),),
    )
    yield FunctionRow("rotary", rotated, rotated_reference, normal, ((3, 2, 8),))
    yield FunctionRow(
        "llama3_scaling", nn.llama3_scaling(3.0, **LLAMA), llama3_reference, frequencies, ((7,),)
    )
    yield FunctionRow(
        "yarn_scaling", turned_by_yarn, turned_by_yarn_reference, normal, ((3, 2, 8),)
    )
    yield FunctionRow("alibi", with_alibi, with_alibi_reference, normal, ((3, 2, 4),))


LAYERS = (
    LayerRow(
        "sinusoidal_positions",
        "sinusoidal_positions()",
        lambda: nn.sinusoidal_positions(),
        ((2, 3, 4),),
        composed.of_function(waves),
    ),
    LayerRow(
        "learned_positions",
        "learned_positions(5)",
        lambda: nn.learned_positions(5),
        ((2, 3, 4), (5, 2)),
        composed.of_function(learned, "embedding"),
    ),
    LayerRow(
        "fourier_features",
        "fourier_features(3)",
        lambda: nn.fourier_features(3),
        ((4, 2),),
        fourier_layer,
        has_state=True,
        keeps_state=True,
    ),
)
FUNCTIONS = tuple(function_rows())
