"""Noise that regularises."""

import jax
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import dropout
from tests.table.rows import FunctionRow, LayerRow, normal


def drop_half(x):
    """Dropout with a key of its own."""
    return nn.functional.dropout(jax.random.key(7), x, 0.5)


def drop_half_reference(x):
    """The same with the mask that the library draws, seen through an input of ones."""
    y, backward = dropout.dropout(x, np.asarray(drop_half(np.ones_like(x))) != 0, 0.5)
    return y, lambda dy: backward(dy)[:1]


def with_key(name, amount):
    """A function of `nn.functional` with a key of its own."""
    return lambda x: getattr(nn.functional, name)(jax.random.key(7), x, amount)


def masking(noisy, amount, x):
    """The reference of what keeps or drops, with the library's mask, seen through ones."""
    return dropout.dropout(x, np.asarray(noisy(np.ones_like(x))) != 0, amount)


def alpha(noisy, amount, x):
    """The reference of alpha dropout, with the library's mask: what 1 and 2 become differs."""
    ones = np.ones_like(x)
    keep = np.asarray(noisy(ones)) != np.asarray(noisy(2 * ones))
    return dropout.alpha_dropout(x, keep, amount)


def additive(noisy, amount, x):
    """The reference of additive noise, with the library's noise, seen through zeros."""
    noise = np.asarray(noisy(np.zeros_like(x))) / amount
    return dropout.gaussian_noise(x, noise, amount)


def multiplicative(noisy, amount, x):
    """The reference of multiplicative noise, with the library's noise, seen through ones."""
    stddev = np.sqrt(amount / (1 - amount))
    noise = (np.asarray(noisy(np.ones_like(x))) - 1) / stddev
    return dropout.gaussian_dropout(x, noise, amount)


FAMILY = {
    "spatial_dropout": (0.4, masking),
    "stochastic_depth": (0.6, masking),
    "alpha_dropout": (0.3, alpha),
    "gaussian_noise": (0.7, additive),
    "gaussian_dropout": (0.4, multiplicative),
}


def function_rows():
    """Each with a key of its own."""
    for name, (amount, reference) in FAMILY.items():
        noisy = with_key(name, amount)
        yield FunctionRow(
            f"functional.{name}",
            noisy,
            lambda x, noisy=noisy, amount=amount, reference=reference: first(
                reference(noisy, amount, x)
            ),
            normal,
            ((6, 2, 3),),
        )


def first(result):
    """Of the gradients that of x alone."""
    y, backward = result
    return y, lambda dy: backward(dy)[:1]


def layer_rows():
    """The identity in evaluation."""
    for name, (amount, reference) in FAMILY.items():
        yield LayerRow(
            name,
            f"{name}({amount})",
            lambda name=name, amount=amount: getattr(nn, name)(amount),
            ((6, 2, 3),),
            in_training(name, amount, reference),
            is_random=True,
        )


def in_training(name, amount, reference):
    """The reference of a layer that is the identity in evaluation."""

    def apply(params, state, x, *, key, train):
        def noisy(x):
            layer = getattr(nn, name)(amount)
            return layer.apply({}, {}, x, key=jax.random.clone(key), train=True)[0]

        if not train:
            return x, lambda dy: ({}, dy)
        y, backward = reference(noisy, amount, x)
        return y, lambda dy: ({}, backward(dy)[0])

    return apply


LAYERS = (
    LayerRow(
        "dropout",
        "dropout(0.4)",
        lambda: nn.dropout(0.4),
        reference=composed.dropout_layer(0.4),
        is_random=True,
    ),
    *layer_rows(),
)

FUNCTIONS = (
    FunctionRow("functional.dropout", drop_half, drop_half_reference, normal),
    *function_rows(),
)
