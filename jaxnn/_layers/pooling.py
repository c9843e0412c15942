"""Pooling: the maximum or a mean of the elements in windows of the spatial axes."""

from functools import partial

from jaxnn import functional
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, elementwise
from jaxnn._core.types import Axes, Padding, PartialSpatialShape, PerAxis, SpatialShape
from jaxnn._layers.spatial import spatial_layer


@constructor
def max_pool(
    window_shape: SpatialShape,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    window_dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Layer:
    """The maximum of each window: `y[i] = max_k x[i * strides + k * window_dilation - low]`.

    Among equal maxima, the gradient goes to the first, as in torch; padding counts as -inf.

    Args:
        window_shape, strides, padding, window_dilation, ceil_mode: as in `nn.functional.max_pool`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *outputs, channels)`.

    Raises:
        TypeError: `window_shape` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> nn.max_pool((2, 2)).apply({}, {}, x)[0][0, :, :, 0]
        Array([[ 5.,  7.],
               [13., 15.]], dtype=float32)
    """
    pool = partial(
        functional.max_pool,
        strides=strides,
        padding=padding,
        window_dilation=window_dilation,
        ceil_mode=ceil_mode,
    )
    return spatial_layer("max_pool", window_shape, pool)


@constructor
def avg_pool(
    window_shape: SpatialShape,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> Layer:
    """The mean of each window: `y[i] = mean_k x[i * strides + k - low]`.

    Args:
        window_shape, strides, padding, ceil_mode: as in `nn.functional.max_pool`.
        count_include_pad: whether padding counts as zeros; if not, it is left out of the mean.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *outputs, channels)`.

    Raises:
        TypeError: `window_shape` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> nn.avg_pool((2, 2)).apply({}, {}, x)[0][0, :, :, 0]
        Array([[ 2.5,  4.5],
               [10.5, 12.5]], dtype=float32)
    """
    pool = partial(
        functional.avg_pool,
        strides=strides,
        padding=padding,
        count_include_pad=count_include_pad,
        ceil_mode=ceil_mode,
    )
    return spatial_layer("avg_pool", window_shape, pool)


@constructor
def lp_pool(
    window_shape: SpatialShape,
    p: float = 2.0,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
) -> Layer:
    """The p-norm of each window: `y[i] = (sum_k |x[i * strides + k - low]|^p)^(1/p)`.

    Paper: Sermanet et al., Convolutional Neural Networks Applied to House Numbers Digit
    Classification, https://arxiv.org/abs/1204.3968

    Args:
        window_shape, strides, padding, ceil_mode: as in `nn.functional.max_pool`; padding counts as
            zeros.
        p: the order of the norm, at least 1 and finite.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *outputs, channels)`.

    Raises:
        TypeError: `window_shape` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[[3.0], [4.0], [0.0], [0.0]]])
        >>> nn.lp_pool((2,)).apply({}, {}, x)[0].ravel()
        Array([5., 0.], dtype=float32)
    """
    pool = partial(functional.lp_pool, p=p, strides=strides, padding=padding, ceil_mode=ceil_mode)
    return spatial_layer("lp_pool", window_shape, pool)


@constructor
def adaptive_max_pool(output_size: PartialSpatialShape) -> Layer:
    """The maximum of each of `output_size` nearly equal parts of the spatial axes.

    Args:
        output_size: as in `nn.functional.adaptive_max_pool`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *output_size, channels)`.

    Raises:
        TypeError: `output_size` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.adaptive_max_pool((7, 7)).apply({}, {}, jnp.ones((2, 30, 20, 3)))[0].shape
        (2, 7, 7, 3)
    """
    return spatial_layer("adaptive_max_pool", output_size, functional.adaptive_max_pool)


@constructor
def adaptive_avg_pool(output_size: PartialSpatialShape) -> Layer:
    """The mean of each of `output_size` nearly equal parts of the spatial axes.

    Args:
        output_size: as in `nn.functional.adaptive_avg_pool`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *output_size, channels)`.

    Raises:
        TypeError: `output_size` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.adaptive_avg_pool((None, 7)).apply({}, {}, jnp.ones((2, 30, 20, 3)))[0].shape
        (2, 30, 7, 3)
    """
    return spatial_layer("adaptive_avg_pool", output_size, functional.adaptive_avg_pool)


@constructor
def global_max_pool(*, axis: Axes | None = None, keepdims: bool = False) -> Layer:
    """The maximum of each channel over the spatial axes: `y = max(x, axis)`.

    Args:
        axis: the axis or axes to reduce; all but the first and the last if None.
        keepdims: whether the reduced axes stay, with size 1.

    Returns:
        A `Layer` without parameters, from `(batch, *spatial, channels)` to `(batch, channels)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.global_max_pool().apply({}, {}, jnp.arange(16.0).reshape(2, 2, 2, 2))[0]
        Array([[ 6.,  7.],
               [14., 15.]], dtype=float32)
    """
    return elementwise(lambda x: functional.global_max_pool(x, axis=axis, keepdims=keepdims))


@constructor
def global_avg_pool(*, axis: Axes | None = None, keepdims: bool = False) -> Layer:
    """The mean of each channel over the spatial axes: `y = mean(x, axis)`.

    Paper: Lin et al., Network In Network, https://arxiv.org/abs/1312.4400

    Args:
        axis: the axis or axes to reduce; all but the first and the last if None.
        keepdims: whether the reduced axes stay, with size 1.

    Returns:
        A `Layer` without parameters, from `(batch, *spatial, channels)` to `(batch, channels)`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.global_avg_pool().apply({}, {}, jnp.arange(16.0).reshape(2, 2, 2, 2))[0]
        Array([[ 3.,  4.],
               [11., 12.]], dtype=float32)
    """
    return elementwise(lambda x: functional.global_avg_pool(x, axis=axis, keepdims=keepdims))
