"""The spatial axes of an array `(*batch, *spatial, channels)`: numbers, windows and padding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxnn._core.arguments import is_integer
from jaxnn._core.arrays import check_count
from jaxnn._core.types import Padding as Padding
from jaxnn._core.types import PartialSpatialShape
from jaxnn._core.types import PerAxis as PerAxis


def spatial_rank(function: str, name: str, value: Any, shape: tuple[int, ...]) -> int:
    """The number of spatial axes: one for each number in `value`."""
    count = len(value)
    if count < 1 or count >= len(shape):
        raise ValueError(
            f"{function}: x has shape {shape} and {name} is {value}, expected x of shape "
            "(*batch, *spatial, channels) and a number for each spatial axis"
        )
    return count


def split(x: jax.Array, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the batch and of the spatial axes, of which there are `rank`."""
    return x.shape[: -1 - rank], x.shape[-1 - rank : -1]


def per_axis(function: str, name: str, value: Any, rank: int) -> tuple[int, ...]:
    """A number of at least 1 for each of `rank` spatial axes."""
    values = list(value) if isinstance(value, Sequence) else [value] * rank
    if len(values) != rank:
        raise ValueError(
            f"{function}: {name} is {value}, expected a number for each of {rank} spatial axes"
        )
    return tuple(check_count(function, name, v) for v in values)


def output_sizes(
    function: str, x: jax.Array, output_size: PartialSpatialShape
) -> list[tuple[int, int]]:
    """The spatial axes that change, each with its number of outputs."""
    rank = spatial_rank(function, "output_size", output_size, x.shape)
    axes = range(x.ndim - 1 - rank, x.ndim - 1)
    for axis in axes:
        if x.shape[axis] == 0:
            raise ValueError(f"{function}: x has shape {x.shape}, axis {axis} has no elements")
    return [
        (axis, check_count(function, "output_size", size))
        for axis, size in zip(axes, output_size, strict=True)
        if size is not None
    ]


def explicit_pads(function: str, padding: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """The numbers of padding as a pair `(low, high)` for each of `rank` spatial axes."""
    given = list(padding) if isinstance(padding, Sequence) else [padding] * rank
    pairs = [tuple(pair) if isinstance(pair, Sequence) else (pair, pair) for pair in given]
    if [len(pair) for pair in pairs] != [2] * rank or not all(
        is_integer(n) and 0 <= n < 2**31 for pair in pairs for n in pair
    ):
        raise ValueError(
            f"{function}: padding is {padding}, expected a pair (low, high) of integers >= 0 for "
            f"each of {rank} spatial axes, or one integer for all"
        )
    return tuple((int(low), int(high)) for low, high in pairs)


# Windows that slide along the axes


class KernelGeometry(NamedTuple):
    """What the kernel sees at once, and its way along each spatial axis."""

    extents: tuple[int, ...]  # from the first element that it sees to the last
    strides: tuple[int, ...]
    dilation: tuple[int, ...]


class Pads(NamedTuple):
    """What is added before and after each spatial axis, and `jnp.pad`'s name for how."""

    pairs: tuple[tuple[int, int], ...]
    mode: str


def kernel_geometry(
    function: str, kernel: jax.Array, strides: PerAxis, dilation: PerAxis
) -> KernelGeometry:
    """The geometry of a kernel of shape `(*spatial, in, out)`."""
    spatial = kernel.shape[:-2]
    steps = per_axis(function, "strides", strides, len(spatial))
    gaps = per_axis(function, "kernel_dilation", dilation, len(spatial))
    extents = tuple(gap * (size - 1) + 1 for size, gap in zip(spatial, gaps, strict=True))
    return KernelGeometry(extents, steps, gaps)


def pads_of(
    function: str, sizes: tuple[int, ...], geometry: KernelGeometry, padding: Padding
) -> Pads:
    """The padding of axes of these sizes, if the kernel then fits into them."""
    pads = unchecked_pads(function, sizes, geometry, padding)
    axes = zip(sizes, geometry.extents, pads.pairs, strict=True)
    for axis, (size, extent, (low, high)) in enumerate(axes):
        if size + low + high < extent:
            raise ValueError(
                f"{function}: spatial axis {axis} of {sizes} has {size} elements and {low + high} "
                f"of padding, expected at least {extent} in all, the extent of the kernel"
            )
        if pads.mode == "reflect" and max(low, high) >= size:
            raise ValueError(
                f"{function}: spatial axis {axis} of {sizes} has {size} elements, expected more "
                f"than {max(low, high)}, the padding that reflects them"
            )
    return pads


_MODES = {"SAME": "constant", "CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge"}


def unchecked_pads(
    function: str, sizes: tuple[int, ...], geometry: KernelGeometry, padding: Padding
) -> Pads:
    """The padding of axes of these sizes, whether the kernel then fits into them or not."""
    if not isinstance(padding, str):
        return Pads(explicit_pads(function, padding, len(sizes)), "constant")
    if padding == "VALID":
        return Pads(((0, 0),) * len(sizes), "constant")
    if padding == "CAUSAL":
        if len(sizes) != 1:
            raise ValueError(
                f"{function}: padding is 'CAUSAL' for {len(sizes)} spatial axes, expected one"
            )
        return Pads(((geometry.extents[0] - 1, 0),), "constant")
    if padding not in _MODES:
        raise ValueError(
            f"{function}: padding is {padding!r}, expected 'SAME', 'VALID', 'CAUSAL', 'CIRCULAR', "
            "'REFLECT', 'REPLICATE' or numbers"
        )
    totals = [
        max(0, (-(-size // stride) - 1) * stride + extent - size)
        for size, extent, stride in zip(sizes, geometry.extents, geometry.strides, strict=True)
    ]
    return Pads(tuple((total // 2, total - total // 2) for total in totals), _MODES[padding])
