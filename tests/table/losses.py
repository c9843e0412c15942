"""Losses."""

import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import losses
from tests.table.rows import FunctionRow


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


LAYERS = ()
FUNCTIONS = tuple(loss_rows())
