"""Augmentation, with what was drawn seen through an input that numbers its elements."""

from functools import partial

import jax
import numpy as np

import jaxnn as nn
from tests.numpy_reference import augmentation
from tests.table.rows import FunctionRow, LayerRow, normal

IMAGES = (3, 5, 4, 2)  # (batch, height, width, channels)

# By name: the amount, further options, and an input.
FAMILY = {
    "random_crop": ((4, 3), {"padding": 1}, IMAGES),
    "random_shift": ((2, 1), {}, IMAGES),
    "random_flip": (0.4, {}, IMAGES),
    "cutout": ((3, 2), {"rate": 0.8}, IMAGES),
    "time_masking": (3, {"num_masks": 2}, (3, 6, 4)),
    "frequency_masking": (2, {}, (3, 6, 4)),
    "random_masking": (3, {"axis": 2, "num_masks": 2}, (3, 6, 4)),
}


def source(change, x):
    """Of each element of the output, where it came from, counted from 1; 0 for nowhere."""
    return np.asarray(change(1 + np.arange(x.size, dtype=np.float32).reshape(x.shape)))


def selected(change, x):
    """The reference of what picks elements of `x`."""
    y, backward = augmentation.selection(x, source(change, x))
    return y, lambda dy: backward(dy)[:1]


def function_rows():
    """Each with a key of its own."""
    for name, (amount, options, shape) in FAMILY.items():
        if hasattr(nn.functional, name):
            function = getattr(nn.functional, name)

            def change(x, function=function, amount=amount, options=options):
                return function(jax.random.key(7), x, amount, **options)

            reference = partial(selected, change)
            yield FunctionRow(f"functional.{name}", change, reference, normal, (shape,))
    center = partial(nn.functional.center_crop, size=(4, 2), padding=(0, 1))
    yield FunctionRow(
        "functional.center_crop", center, partial(selected, center), normal, (IMAGES,)
    )
    yield FunctionRow("functional.mixup", mix, mix_reference, two_normal, ((3, 4),))


def mix(x, y):
    """Mixing with a key of its own."""
    return nn.functional.mixup(jax.random.key(7), x, y, 0.9)


def mix_reference(x, y):
    """The same with the shares that the library draws, seen through numbers that tell them."""
    ramp = np.arange(len(x), dtype=float)[:, None]
    # The share of example b in (b, b - 1) is what is left of it when the one before is taken away.
    before = np.roll(ramp, 1, axis=0)
    share = (np.asarray(mix(ramp, ramp)[0]) - before) / (ramp - before)
    z, backward = augmentation.mixup(x, y, share[:, 0])
    return z, lambda dz: backward(dz)[:2]


def two_normal(rng, shape):
    """Two normal arrays."""
    return rng.standard_normal(shape), rng.standard_normal(shape)


def layer_rows():
    """In evaluation the identity, or the crop in the middle."""
    for name, (amount, options, shape) in FAMILY.items():
        if hasattr(nn, name):
            keywords = "".join(f", {key}={value}" for key, value in options.items())
            amount_text = f"rate={amount}" if name == "random_flip" else amount
            make = partial(getattr(nn, name), amount, **options)
            yield LayerRow(
                name,
                f"{name}({amount_text}{keywords})",
                lambda make=make: make(),
                (shape,),
                in_training(make),
                is_random=True,
            )


def in_training(make):
    """The reference of a layer, for the key that it is given."""

    def apply(params, state, x, *, key, train):
        def change(x):
            drawn_by = jax.random.clone(key) if train else None
            return make().apply({}, {}, x, key=drawn_by, train=train)[0]

        y, backward = selected(change, x)
        return y, lambda dy: ({}, *backward(dy))

    return apply


LAYERS = tuple(layer_rows())
FUNCTIONS = tuple(function_rows())
