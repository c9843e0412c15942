"""The convolution and its gradients, in forms that are fast on each platform.

XLA's convolutions for CPU are fast in one order of the axes: `(batch, *spatial, in)` for images and
`(*spatial, in, out)` for kernels. Others it brings into this order, but not those in loops, which
are 10 to 100 times slower. So the gradients for CPU are here convolutions in this order, or
products.

All functions take `x` of shape `(batch, *sizes, in)`, `kernel` of shape `(*window, in / groups,
out)` or `y` of shape `(batch, *outputs, out)`, in one floating dtype.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxnn._core.arrays import accumulator_dtype, along, is_symbolic
from jaxnn._core.meshes import placed_alike, shape_like


class Convolution(NamedTuple):
    """What is known of a convolution before its operands are."""

    sizes: tuple[int, ...]  # the spatial axes of x
    window: tuple[int, ...]  # those of the kernel
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  # zeros before and after; negative to cut off
    groups: int = 1

    @property
    def reach(self) -> tuple[int, ...]:
        """From the first element that the kernel sees to the last."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.window, strict=True))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The spatial axes of y."""
        axes = zip(self.sizes, self.pads, self.reach, self.strides, strict=True)
        return tuple((n + low + high - reach - 1) // s + 1 for n, (low, high), reach, s in axes)


Map = Callable[[Convolution, jax.Array, jax.Array], jax.Array]


# By XLA's convolution and its gradient


def xla_output(c: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`y`, of which jax derives the gradients."""
    spatial = "DHW"[-len(c.sizes) :]
    # Zeros beyond the reach of the kernel are added first, as XLA's gradient on CPU is wrong with
    # them: https://github.com/openxla/xla/issues/48713.
    pads = [
        (max(0, min(low, r)), max(0, min(high, r)))
        for (low, high), r in zip(c.pads, c.reach, strict=True)
    ]
    first = [(a - i, b - j) for (a, b), (i, j) in zip(c.pads, pads, strict=True)]
    return lax.conv_general_dilated(
        _padded(x, first),
        kernel,
        c.strides,
        pads,
        rhs_dilation=c.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=c.groups,
    )


def xla_input_gradient(c: Convolution, y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient with respect to x, `y` being that with respect to y."""
    x = shape_like((y.shape[0], *c.sizes, kernel.shape[-2] * c.groups), y)
    return _transposed(lambda x: xla_output(c, x, kernel), x, y)


# For CPU

UNROLLED_GROUPS = 8  # of more, each tap is a product of all groups at once


def output(c: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`y`."""
    if c.groups > UNROLLED_GROUPS:
        return _sum_of_taps(c, x, kernel)
    if c.groups > 1:
        return _group_by_group(output, c, x, kernel)
    if math.prod(c.window) == 1:
        return _product(next(_taps(c, x)), kernel.reshape(kernel.shape[-2:]))
    if len(c.sizes) == 3:
        of_planes, planes = _planes(c, x)
        y = output(of_planes, planes, _kernel_of_planes(kernel))
        return y.reshape(x.shape[0], *c.outputs, y.shape[-1])
    return xla_output(c, x, kernel)


def input_gradient(c: Convolution, y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient with respect to x, `y` being that with respect to y.

    The positions of x with one remainder by the strides, a phase, see one part of the kernel; their
    gradient is an ordinary convolution of y with this part, turned around.
    """
    if 1 < c.groups <= UNROLLED_GROUPS:
        return _group_by_group(input_gradient, c, y, kernel)
    kernel = swap_channels(kernel, c.groups)
    length = tuple(-(-n // s) for n, s in zip(c.sizes, c.strides, strict=True))
    phases = []
    for phase in itertools.product(*map(_phases, *c[:5], c.outputs)):
        if any(axis is None for axis in phase):  # which no tap reaches
            phases.append(jnp.zeros((y.shape[0], *length, kernel.shape[-1]), y.dtype))
            continue
        taps, dilation, pads = zip(*phase, strict=True)
        part = kernel[taps]
        strides = (1,) * len(length)
        ordinary = Convolution(c.outputs, part.shape[:-2], strides, dilation, pads, c.groups)
        phases.append(output(ordinary, y, part))
    return _interleaved(phases, c)


def kernel_gradient(c: Convolution, x: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient with respect to the kernel, `y` being that with respect to y."""
    if c.groups > UNROLLED_GROUPS:
        padded = _padded(x, c.pads)
        c = c._replace(sizes=padded.shape[1:-1], pads=((0, 0),) * len(c.sizes))
        return _sum_of_chunks(_products_of_taps, c, padded, y, x.shape[0])
    if c.groups > 1:
        return _group_by_group(kernel_gradient, c, x, y)
    channels = x.shape[-1], y.shape[-1]
    patches = math.prod((*c.window, *c.outputs, channels[0]))
    transposed = math.prod(x.shape[1:]) + math.prod(y.shape[1:])  # by the convolution below
    if is_symbolic(patches) or patches <= transposed:
        seen = jnp.concatenate(list(_taps(c, x)), -1)
        return (_rows(seen).T @ _rows(y)).reshape(*c.window, *channels)
    if len(c.sizes) == 3:
        of_planes, planes = _planes(c, x)
        gradient = kernel_gradient(of_planes, planes, y.reshape(planes.shape[0], *y.shape[2:]))
        split = gradient.reshape(*c.window[1:], c.window[0], *channels)
        return jnp.moveaxis(split, 2, 0)
    return _sum_of_chunks(_exchanged, c, x, y, _chunks(x, y) if len(c.sizes) == 2 else 1)


def _exchanged(c: Convolution, x: jax.Array, y: jax.Array) -> jax.Array:
    """The same as a convolution: images are channels, y is the kernel, strides become dilation."""
    seen = [r + s * (n - 1) + 1 for r, s, n in zip(c.reach, c.strides, c.outputs, strict=True)]
    pads = tuple((a, e - n - a) for (a, _), e, n in zip(c.pads, seen, c.sizes, strict=True))
    exchanged = Convolution(c.sizes, c.outputs, c.dilation, c.strides, pads)
    axes = tuple(range(1, x.ndim - 1))
    x, y = x.transpose(-1, *axes, 0), y.transpose(*axes, 0, -1)
    return xla_output(exchanged, x, y).transpose(*axes, 0, -1)


CHUNK_BYTES = 4_000_000  # of x and y, so that they stay in the cache
CHUNK_IMAGES = 16  # at least, as it is they that are added, in vectors of as many


def _chunks(x: jax.Array, y: jax.Array) -> int:
    """Into how many equal chunks the batch is divided."""
    if is_symbolic(*x.shape, *y.shape):
        return 1
    excess = (x.nbytes + y.nbytes) / CHUNK_BYTES
    counts = [n for n in range(1, len(x) // CHUNK_IMAGES + 1) if len(x) % n == 0] or [1]
    return next((n for n in counts if n >= excess), counts[-1])


def _sum_of_chunks(
    gradient: Map, c: Convolution, x: jax.Array, y: jax.Array, chunks: int
) -> jax.Array:
    """The gradients of chunks of the batch, one after the other, added in float32 or wider."""
    if chunks == 1:
        return gradient(c, x, y).astype(x.dtype)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(total: jax.Array, chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        return total + gradient(c, *chunk).astype(total.dtype), None

    shape = (*c.window, x.shape[-1] // c.groups, y.shape[-1])
    zero, _ = placed_alike(jnp.zeros(shape, accumulator_dtype(x.dtype)), x)
    images = 1 if chunks == 0 else x.shape[0] // chunks
    split = tuple(z.reshape(chunks, images, *z.shape[1:]) for z in (x, y))
    return lax.scan(add, zero, split)[0].astype(x.dtype)


def _group_by_group(function: Map, c: Convolution, a: jax.Array, b: jax.Array) -> jax.Array:
    """All of the arrays have the groups along the last axis."""
    parts = zip(*(jnp.split(operand, c.groups, -1) for operand in (a, b)), strict=True)
    return jnp.concatenate([function(c._replace(groups=1), *pair) for pair in parts], -1)


def swap_channels(kernel: jax.Array, groups: int) -> jax.Array:
    """`(*window, in / groups, out)` as `(*window, out / groups, in)`, each group by itself."""
    *window, a, b = kernel.shape
    by_group = kernel.reshape(*window, a, groups, b // groups)
    return jnp.swapaxes(by_group, -3, -1).reshape(*window, b // groups, groups * a)


# Phases


def _phases(
    size: int,
    window: int,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    outputs: int,
) -> Iterator[tuple[slice, int, tuple[int, int]] | None]:
    """For each phase of an axis the taps that reach it, backwards, their dilation and the pads."""
    common = math.gcd(stride, dilation)
    step = stride // common
    for phase in range(min(stride, size)):
        shifted = phase + pads[0]
        taps = [k for k in range(window) if (shifted - k * dilation) % stride == 0]
        if not taps:
            yield None
            continue
        first, last = ((shifted - k * dilation) // stride for k in (taps[-1], taps[0]))
        backwards = slice(taps[-1], taps[0] - 1 if taps[0] else None, -step)
        length = -(-size // stride)
        yield backwards, dilation // common, (-first, length + last - outputs)


def _interleaved(phases: list[jax.Array], c: Convolution) -> jax.Array:
    """The phases as one array, cut to the sizes."""
    if len(phases) == 1:
        return phases[0]
    rank = len(c.sizes)
    batch, *length, channels = phases[0].shape
    steps = [min(s, n) for s, n in zip(c.strides, c.sizes, strict=True)]
    x = jnp.stack(phases, axis=1).reshape(batch, *steps, *length, channels)
    pairs = [axis for i in range(rank) for axis in (1 + rank + i, 1 + i)]
    x = x.transpose(0, *pairs, -1)
    x = x.reshape(batch, *(n * s for n, s in zip(length, steps, strict=True)), channels)
    return lax.slice(x, (0,) * x.ndim, (batch, *c.sizes, channels))


# Taps: what one element of the kernel sees


def _taps(c: Convolution, x: jax.Array) -> Iterator[jax.Array]:
    x = _padded(x, c.pads)
    steps = (1, *c.strides, 1)
    for tap in itertools.product(*map(range, c.window)):
        start = [t * d for t, d in zip(tap, c.dilation, strict=True)]
        stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, c.outputs, c.strides, strict=True)]
        yield lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), steps)


def _sum_of_taps(c: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`y`, a product of all groups for each tap, added in float32 or wider."""
    wide = accumulator_dtype(x.dtype)
    by_tap = kernel.astype(wide).reshape(-1, *kernel.shape[-2:])
    products = [
        _product_of_groups(c, tap, matrices)
        for tap, matrices in zip(_taps(c, x.astype(wide)), by_tap, strict=True)
    ]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _product_of_groups(c: Convolution, x: jax.Array, matrices: jax.Array) -> jax.Array:
    a, b = matrices.shape
    if a == 1:  # depthwise
        return jnp.repeat(x, b // c.groups, -1) * along(matrices[0], (x.ndim - 1,), x.ndim)
    by_group = matrices.reshape(a, c.groups, b // c.groups)
    y = jnp.einsum("...gi,igo->...go", _groups(c, x), by_group)
    return y.reshape(*x.shape[:-1], b)


def _products_of_taps(c: Convolution, x: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient with respect to the kernel in float32 or wider."""
    wide = accumulator_dtype(x.dtype)
    x, y = x.astype(wide), y.astype(wide)
    gradients = [_outer_product_of_groups(c, tap, y) for tap in _taps(c, x)]
    return jnp.stack(gradients).reshape(*c.window, x.shape[-1] // c.groups, y.shape[-1])


def _outer_product_of_groups(c: Convolution, x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[-1] == c.groups:  # depthwise
        products = _rows(jnp.repeat(x, y.shape[-1] // c.groups, -1) * y)
        return jnp.ones((1, products.shape[0]), y.dtype) @ products  # which is faster than a sum
    return jnp.einsum("...gi,...go->igo", _groups(c, x), _groups(c, y))


def _groups(c: Convolution, x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-1], c.groups, x.shape[-1] // c.groups)


# Products and planes


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return (_rows(x) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _planes(c: Convolution, x: jax.Array) -> tuple[Convolution, jax.Array]:
    """A convolution of volumes as one of planes, with the channels of all that the kernel sees."""
    along_depth, of_planes = _of_axes(c, slice(1)), _of_axes(c, slice(1, None))
    batch, depth, *plane, channels = x.shape
    flat = x.reshape(batch, depth, math.prod(plane) * channels)
    slabs = (batch * c.outputs[0], *plane)
    seen = [tap.reshape(*slabs, channels) for tap in _taps(along_depth, flat)]
    return of_planes, jnp.concatenate(seen, -1)


def _of_axes(c: Convolution, axes: slice) -> Convolution:
    return Convolution(
        c.sizes[axes], c.window[axes], c.strides[axes], c.dilation[axes], c.pads[axes]
    )


def _kernel_of_planes(kernel: jax.Array) -> jax.Array:
    planes = jnp.moveaxis(kernel, 0, 2)
    return planes.reshape(*planes.shape[:2], -1, planes.shape[-1])


# As jax sees them


def _bilinear(on_cpu: Map, by_xla: Map, first: Map, second: Map) -> Map:
    """A bilinear map of two arrays, which for CPU comes with its transposes.

    `first(c, z, b)` is the transpose of `on_cpu(c, ., b)` and `second(c, a, z)` that of
    `on_cpu(c, a, .)`. A linear map is its own derivative: written as the transpose of its
    transpose, it is in forward mode what it is, and what jax transposes in reverse mode is this.
    """

    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def value(c: Convolution, a: jax.Array, b: jax.Array) -> jax.Array:
        z: jax.Array = lax.platform_dependent(
            a, b, cpu=functools.partial(on_cpu, c), default=functools.partial(by_xla, c)
        )
        return z

    @functools.partial(value.defjvp, symbolic_zeros=True)
    def derivative(
        c: Convolution, primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]
    ) -> tuple[jax.Array, jax.Array]:
        a, b = primals
        da, db = tangents
        z = value(c, a, b)

        # jax.checkpoint: what is computed of a and b alone is not to be kept for reverse mode.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def along_first(da: jax.Array, b: jax.Array) -> jax.Array:
            return _transposed(lambda z: first(c, z, b), z, da)

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def along_second(a: jax.Array, db: jax.Array) -> jax.Array:
            return _transposed(lambda z: second(c, a, z), z, db)

        by_xla_of_c = functools.partial(by_xla, c)
        terms = []
        if not isinstance(da, SymbolicZero):
            terms.append(lax.platform_dependent(da, b, cpu=along_first, default=by_xla_of_c))
        if not isinstance(db, SymbolicZero):
            terms.append(lax.platform_dependent(a, db, cpu=along_second, default=by_xla_of_c))
        return z, sum(terms[1:], terms[0])

    compiled = jax.jit(value, static_argnums=0, inline=True)

    def of_operands(c: Convolution, a: jax.Array, b: jax.Array) -> jax.Array:
        z: jax.Array = compiled(c, *placed_alike(a, b))
        return z

    return of_operands


convolution = _bilinear(output, xla_output, input_gradient, kernel_gradient)
transposed_convolution = _bilinear(
    input_gradient, xla_input_gradient, output, lambda c, y, z: kernel_gradient(c, z, y)
)


def _padded(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    if not any(map(any, pads)):
        return x
    config = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _transposed(
    function: Callable[[jax.Array], jax.Array], example: Any, y: jax.Array
) -> jax.Array:
    result: jax.Array
    (result,) = jax.linear_transpose(function, example)(y)
    return result
