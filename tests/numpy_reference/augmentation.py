"""Augmentation, with what was drawn given."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64


@in_float64
def selection(x: Array, source: Array) -> tuple[Array, Callable]:
    """y_i = x_j with j = source_i - 1, elements counted in order, and 0 where the source is 0.

    All of crop, shift, flip, cutout and masking are selections. Backward: what arrives at y_i goes
    to x_j, summed where an element is seen more than once.
    """
    places = source.astype(int) - 1
    is_seen = places >= 0
    y = np.where(is_seen, x.reshape(-1)[places], 0)

    def backward(dy: Array) -> tuple:
        dx = np.zeros(x.size)
        np.add.at(dx, places[is_seen], dy[is_seen])
        return dx.reshape(x.shape), None

    return y, backward


@in_float64
def mixup(x: Array, y: Array, share: Array) -> tuple[tuple[Array, Array], Callable]:
    """z'_b = share_b z_b + (1 - share_b) z_{b-1} of both x and y, cyclically.

    Backward: dz_b = share_b dz'_b + (1 - share_{b+1}) dz'_{b+1}.
    """

    def of(z: Array) -> Array:
        return share.reshape(-1, *[1] * (z.ndim - 1))

    def mixed(z: Array) -> Array:
        return of(z) * z + (1 - of(z)) * np.roll(z, 1, axis=0)

    def backward(dz: tuple[Array, Array]) -> tuple:
        gradients = (of(d) * d + np.roll((1 - of(d)) * d, -1, axis=0) for d in dz)
        return (*gradients, None)

    return (mixed(x), mixed(y)), backward
