"""Every layer and function with a gradient, once: what the tests run over.

`LAYERS` has a row for each constructor and its variants, `FUNCTIONS` for each activation, loss and
regularizer and each function of `jaxnn.functional`. `test_completeness.py` refuses a missing name.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import activations, dense, dropout, losses, normalization, regularizers


def rng_for(name):
    """A generator that depends on the name of a case only."""
    return np.random.default_rng(list(name.encode()))


# Layers


class LayerRow(NamedTuple):
    """A layer, the call that makes it as `repr` shows it, and what is to be expected of it."""

    name: str
    call: str
    make: Callable[[], nn.Layer]
    shapes: tuple = ((4, 6), (2, 5, 4))  # of inputs; most tests take the first
    reference: Callable | None = None  # None: checked through its children
    is_random: bool = False
    has_state: bool = False

    @property
    def constructor(self):
        """The public name."""
        return self.call.partition("(")[0]


def shared_twice(f, x):
    """Call one child twice, which shares its parameters."""
    return f.shared(nn.tanh(f.shared(x)))


def norm_around_dropout(f, x):
    """Call a child with state twice, and one that is random between the two."""
    return f.norm(nn.tanh(f.drop(f.norm(x))))


AXIS_1 = ((6, 3), (5, 3, 4))
LAYERS = (
    LayerRow("dense", "dense(5)", lambda: nn.dense(5), ((4, 3), (3,), (2, 4, 3)), composed.linear),
    LayerRow(
        "dense_without_bias",
        "dense(5, use_bias=False)",
        lambda: nn.dense(5, use_bias=False),
        reference=composed.linear,
    ),
    LayerRow(
        "dropout",
        "dropout(0.4)",
        lambda: nn.dropout(0.4),
        reference=composed.dropout_layer(0.4),
        is_random=True,
    ),
    LayerRow(
        "batch_norm",
        "batch_norm()",
        lambda: nn.batch_norm(),
        reference=composed.batch_norm(-1),
        has_state=True,
    ),
    LayerRow(
        "batch_norm_axis_1",
        "batch_norm(axis=1)",
        lambda: nn.batch_norm(axis=1),
        AXIS_1,
        composed.batch_norm(1),
        has_state=True,
    ),
    LayerRow(
        "batch_norm_without_params",
        "batch_norm(use_scale=False, use_bias=False)",
        lambda: nn.batch_norm(use_scale=False, use_bias=False),
        reference=composed.batch_norm(-1),
        has_state=True,
    ),
    LayerRow("layer_norm", "layer_norm()", nn.layer_norm, reference=composed.layer_norm(-1)),
    LayerRow(
        "layer_norm_axes",
        "layer_norm(axis=(-2, -1))",
        lambda: nn.layer_norm(axis=(-2, -1)),
        ((2, 5, 4), (2, 3, 4, 2)),
        composed.layer_norm((-2, -1)),
    ),
    LayerRow(
        "flatten",
        "flatten()",
        nn.flatten,
        ((2, 5, 4), (3,), (4, 6)),
        composed.of_function(composed.flatten),
    ),
    LayerRow(
        "elementwise", "elementwise(tanh)", lambda: nn.elementwise(nn.tanh), reference=composed.tanh
    ),
    LayerRow(
        "serial_positional",
        "serial(dense(5), batch_norm(), tanh, dense(2))",
        lambda: nn.serial(nn.dense(5), nn.batch_norm(), nn.tanh, nn.dense(2)),
        reference=composed.serial(
            **{
                "0": composed.linear,
                "1": composed.batch_norm(-1),
                "2": composed.tanh,
                "3": composed.linear,
            }
        ),
        has_state=True,
    ),
    LayerRow(
        "serial_named",
        "serial(hidden=dense(5), tanh=tanh, out=dense(2))",
        lambda: nn.serial(hidden=nn.dense(5), tanh=nn.tanh, out=nn.dense(2)),
        reference=composed.serial(hidden=composed.linear, tanh=composed.tanh, out=composed.linear),
    ),
    LayerRow(
        "parallel_positional",
        "parallel(dense(2), tanh)",
        lambda: nn.parallel(nn.dense(2), nn.tanh),
        reference=composed.parallel(**{"0": composed.linear, "1": composed.tanh}),
    ),
    LayerRow(
        "parallel_named",
        "parallel(value=dense(1), norm=batch_norm())",
        lambda: nn.parallel(value=nn.dense(1), norm=nn.batch_norm()),
        reference=composed.parallel(value=composed.linear, norm=composed.batch_norm(-1)),
        has_state=True,
    ),
    LayerRow(
        "residual",
        "residual(layer_norm())",
        lambda: nn.residual(nn.layer_norm()),
        reference=composed.residual(composed.layer_norm(-1)),
    ),
    LayerRow(
        "residual_shortcut",
        "residual(dense(3), shortcut=dense(3, use_bias=False))",
        lambda: nn.residual(nn.dense(3), shortcut=nn.dense(3, use_bias=False)),
        reference=composed.residual(composed.linear, composed.linear),
    ),
    LayerRow(
        "compose_shared",
        "compose(shared_twice, shared=dense(6))",
        lambda: nn.compose(shared_twice, shared=nn.dense(6)),
        ((4, 6), (2, 5, 6)),
        composed.twice,
    ),
    LayerRow(
        "compose_stateful",
        "compose(norm_around_dropout, norm=batch_norm(), drop=dropout(0.5))",
        lambda: nn.compose(norm_around_dropout, norm=nn.batch_norm(), drop=nn.dropout(0.5)),
        is_random=True,
        has_state=True,
    ),
)


class Drawn(NamedTuple):
    """A layer with parameters and state drawn at random, and an input."""

    layer: nn.Layer
    params: Any
    state: Any
    x: Any


def draw_layer(row, shape=None, dtype=np.float32):
    """NumPy arrays for a row: normal parameters, biases included, and a positive state."""
    rng = rng_for(row.name)
    layer = row.make()
    x = rng.standard_normal(shape or row.shapes[0]).astype(dtype)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    return Drawn(
        layer,
        jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), params),
        jax.tree.map(lambda leaf: rng.uniform(0.3, 2.0, leaf.shape).astype(leaf.dtype), state),
        x,
    )


# Functions


class FunctionRow(NamedTuple):
    """A function of arrays and its reference, which takes the same arguments and options."""

    name: str  # as jaxnn.losses.huber_loss is named: losses.huber_loss
    function: Callable
    reference: Callable
    draw: Callable[[np.random.Generator, tuple], tuple]  # (rng, shape) -> arguments
    shapes: tuple = ((6,), (4, 6), (2, 3, 4))
    options: Mapping = MappingProxyType({})  # keyword arguments of both
    variant: str = ""

    def case(self, shape):
        """What a test of the row with this shape is called."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        parts = [self.name, self.variant, *options, "x".join(map(str, shape))]
        return "-".join(part for part in parts if part)


def normal(rng, shape):
    """One normal array."""
    return (rng.standard_normal(shape),)


def off_kinks(rng, shape):
    """Numbers in (-8, 8), at least 0.1 from the integers, where the activations have kinks."""
    return (rng.integers(-8, 8, shape) + rng.uniform(0.1, 0.9, shape),)


ACTIVATIONS = {
    "celu": ({}, {"alpha": 1.7}),
    "elu": ({}, {"alpha": 0.6}),
    "gelu": ({}, {"approximate": False}),
    "glu": ({}, {"axis": 0}),
    "hard_sigmoid": ({},),
    "hard_silu": ({},),
    "hard_tanh": ({},),
    "identity": ({},),
    "leaky_relu": ({}, {"negative_slope": 0.3}),
    "log_sigmoid": ({},),
    "log_softmax": ({}, {"axis": 0}),
    "mish": ({},),
    "relu": ({},),
    "relu6": ({},),
    "selu": ({},),
    "sigmoid": ({},),
    "silu": ({},),
    "soft_sign": ({},),
    "softmax": ({}, {"axis": 0}),
    "softplus": ({},),
    "sparse_plus": ({},),
    "sparse_sigmoid": ({},),
    "squareplus": ({}, {"b": 0.7}),
    "tanh": ({},),
}


def activation_rows():
    """A row for each activation and choice of options."""
    for name, variants in ACTIVATIONS.items():
        for options in variants:
            yield FunctionRow(
                f"activations.{name}",
                getattr(nn.activations, name),
                getattr(activations, name),
                off_kinks,
                options=options,
            )


def linear_arguments(use_bias):
    """x, a kernel and a bias or None."""

    def draw(rng, shape):
        kernel = rng.standard_normal((shape[-1], 5))
        return rng.standard_normal(shape), kernel, rng.standard_normal(5) if use_bias else None

    return draw


def norm_arguments(axis, scale, bias, statistics=False):
    """x, mean and var if wanted, and scale and bias of the shape of `axis`, or None."""

    def draw(rng, shape):
        axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
        features = tuple(shape[a] for a in axes)
        given = (rng.standard_normal(features), rng.uniform(0.3, 2.0, features))
        params = (rng.standard_normal(features) if wanted else None for wanted in (scale, bias))
        return rng.standard_normal(shape), *(given if statistics else ()), *params

    return draw


def drop_half(x):
    """Dropout with a key of its own."""
    return nn.functional.dropout(jax.random.key(7), x, 0.5)


def drop_half_reference(x):
    """The same with the mask that the library draws, seen through an input of ones."""
    y, backward = dropout.dropout(x, np.asarray(drop_half(np.ones_like(x))) != 0, 0.5)
    return y, lambda dy: backward(dy)[:1]


def functional_rows():
    """A row for each function of `jaxnn.functional`, with and without the optional arrays."""
    f = nn.functional
    for use_bias in (True, False):
        draw = linear_arguments(use_bias)
        variant = "" if use_bias else "without_bias"
        yield FunctionRow("functional.linear", f.linear, dense.linear, draw, variant=variant)
    yield FunctionRow("functional.flatten", f.flatten, composed.flatten, normal)
    yield FunctionRow("functional.dropout", drop_half, drop_half_reference, normal)
    for axis in (-1, 1):
        yield FunctionRow(
            "functional.batch_statistics",
            f.batch_statistics,
            normalization.batch_statistics,
            normal,
            ((4, 6), (2, 3, 4)),
            {"axis": axis},
        )
    for scale, bias in product((True, False), repeat=2):
        params = (
            "_".join(name for name, wanted in (("scale", scale), ("bias", bias)) if wanted)
            or "without_params"
        )
        for axis, shapes in ((-1, ((4, 6), (2, 3, 4))), (1, ((2, 3, 4),))):
            yield FunctionRow(
                "functional.batch_norm",
                f.batch_norm,
                normalization.batch_norm,
                norm_arguments(axis, scale, bias, statistics=True),
                shapes,
                {"axis": axis, "epsilon": 0.01},
                params,
            )
        for axis, shapes in ((-1, ((6,), (4, 6), (2, 3, 4))), ((-1, 0), ((4, 6), (2, 3, 4)))):
            yield FunctionRow(
                "functional.layer_norm",
                f.layer_norm,
                normalization.layer_norm,
                norm_arguments(axis, scale, bias),
                shapes,
                {"axis": axis, "epsilon": 0.01},
                params,
            )


def regression(rng, shape):
    """Predictions and targets whose errors are off the kinks, which are at integers and halves."""
    targets = rng.standard_normal(shape)
    return targets + rng.integers(-6, 6, shape) / 2 + rng.uniform(0.05, 0.45, shape), targets


def soft_labels(rng, shape):
    """Logits and probabilities."""
    return 3 * rng.standard_normal(shape), rng.random(shape)


def distributions(axis):
    """Logits and distributions over `axis`."""

    def draw(rng, shape):
        p = rng.uniform(0.1, 1.0, shape)
        return 3 * rng.standard_normal(shape), p / p.sum(axis, keepdims=True)

    return draw


def classes(axis):
    """Logits and integer labels, the classes in `axis`."""

    def draw(rng, shape):
        labels = rng.integers(0, shape[axis], np.delete(shape, axis))
        return 3 * rng.standard_normal(shape), np.asarray(labels)

    return draw


def with_mask(draw):
    """The same with a mask of the shape of the first argument."""
    return lambda rng, shape: (*draw(rng, shape), rng.random(shape) < 0.6)


def mask_last(loss):
    """The loss with its `where=` as third argument."""
    return lambda a, b, where, **options: loss(a, b, where=where, **options)


def loss_rows():
    """A row for each loss and each of its variants."""
    elementwise = {
        "squared_error": (regression, ({},)),
        "absolute_error": (regression, ({},)),
        "huber_loss": (regression, ({}, {"delta": 0.5})),
        "sigmoid_binary_cross_entropy": (soft_labels, ({},)),
    }
    for name, (draw, variants) in elementwise.items():
        loss, reference = getattr(nn.losses, name), getattr(losses, name)
        for options in variants:
            yield FunctionRow(f"losses.{name}", loss, reference, draw, options=options)
        yield FunctionRow(
            f"losses.{name}",
            mask_last(loss),
            composed.elementwise_mask(reference),
            with_mask(draw),
            variant="where",
        )
    loss, reference = nn.losses.softmax_cross_entropy, losses.softmax_cross_entropy
    name = "losses.softmax_cross_entropy"
    for variant, labels in (("distributions", distributions), ("integers", classes)):
        for smoothing in ({}, {"label_smoothing": 0.2}):
            for axis in (-1, 0):
                options = {"axis": axis, **smoothing}
                draw = labels(axis)
                yield FunctionRow(name, loss, reference, draw, options=options, variant=variant)
            yield FunctionRow(
                name,
                mask_last(loss),
                composed.class_mask(reference),
                with_mask(labels(-1)),
                options=smoothing,
                variant=f"{variant}_where",
            )


def regularizer_rows():
    """A row for each regularizer, as a function of one kernel."""

    def of_kernel(penalty):
        return lambda w: penalty({"kernel": w, "bias": jnp.ones(2)})

    strengths = {
        "l1": {"strength": 0.3},
        "l2": {"strength": 0.3},
        "elastic_net": {"l1": 0.3, "l2": 0.7},
    }
    for name, keywords in strengths.items():
        yield FunctionRow(
            f"regularizers.{name}",
            of_kernel(getattr(nn.regularizers, name)(*keywords.values())),
            partial(getattr(regularizers, name), **keywords),
            normal,
        )


FUNCTIONS = (*activation_rows(), *functional_rows(), *loss_rows(), *regularizer_rows())
