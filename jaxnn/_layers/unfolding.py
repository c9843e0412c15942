"""Windows of the spatial axes as channels, and their sum."""

from functools import partial

import jax

from jaxnn import functional
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer
from jaxnn._core.types import Padding, PerAxis, SpatialShape
from jaxnn._layers.spatial import spatial_layer


@constructor
def unfold(
    window_shape: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
) -> Layer:
    """The elements of each window as channels (im2col): `y[i, c, k] = x[i * strides + k - low, c]`.

    Args:
        window_shape, strides, padding, window_dilation: as in `nn.functional.unfold`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *outputs, channels * n)`, for `n` elements in a window.

    Raises:
        TypeError: `window_shape` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.unfold((4, 4), strides=4).apply({}, {}, jnp.ones((2, 32, 32, 3)))[0].shape
        (2, 8, 8, 48)
    """
    unfolded = partial(
        functional.unfold, strides=strides, padding=padding, window_dilation=window_dilation
    )
    return spatial_layer("unfold", window_shape, unfolded)


@constructor
def fold(
    output_size: SpatialShape,
    window_shape: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
) -> Layer:
    """The sum of windows that overlap (col2im): `y[i * strides + k - low, c] += x[i, c, k]`.

    Args:
        output_size, window_shape, strides, padding, window_dilation: as in `nn.functional.fold`.

    Returns:
        A `Layer` without parameters, from `(*batch, *outputs, channels * n)`, for `n` elements in a
        window, to `(*batch, *output_size, channels)`.

    Raises:
        TypeError: `output_size` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.fold((32, 32), (4, 4), strides=4).apply({}, {}, jnp.ones((2, 8, 8, 48)))[0].shape
        (2, 32, 32, 3)
    """

    def folded(x: jax.Array, output_size: SpatialShape) -> jax.Array:
        return functional.fold(
            x,
            output_size,
            window_shape,
            strides=strides,
            padding=padding,
            window_dilation=window_dilation,
        )

    return spatial_layer("fold", output_size, folded)
