"""Upsampling by repetition or interpolation, and pixel shuffling."""

from functools import partial

from jaxnn import functional
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer
from jaxnn._core.types import PartialSpatialShape, SpatialShape
from jaxnn._layers.spatial import spatial_layer
from jaxnn.functional._resampling import Method, ResizeMethod, check_method, check_resize


@constructor
def upsample(scale: SpatialShape, *, method: Method = "nearest") -> Layer:
    """Upsample each spatial axis by a factor `scale`.

    Args:
        scale, method: as in `nn.functional.upsample`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *(scale * spatial), channels)`.

    Raises:
        TypeError: `scale` is a single number.
        ValueError: `method` is unknown; when it is called: `x` lacks the axis of the batch or of
            the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.array([[[0.0], [8.0]]])
        >>> nn.upsample((2,), method="linear").apply({}, {}, x)[0].ravel()
        Array([0., 2., 6., 8.], dtype=float32)
    """
    check_method(method)
    return spatial_layer("upsample", scale, partial(functional.upsample, method=method))


@constructor
def resize(
    output_size: PartialSpatialShape, *, method: ResizeMethod = "linear", antialias: bool = False
) -> Layer:
    """Resample the spatial axes to any size, with half-pixel centres.

    Args:
        output_size, method, antialias: as in `nn.functional.resize`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *output_size, channels)`.

    Raises:
        TypeError: `output_size` is a single number.
        ValueError: `method` is unknown or has no antialiasing; when it is called: `x` lacks the
            axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.resize((224, 224), method="cubic", antialias=True)
        >>> layer.apply({}, {}, jnp.ones((2, 300, 260, 3)))[0].shape
        (2, 224, 224, 3)
    """
    check_resize(method, antialias)
    resized = partial(functional.resize, method=method, antialias=antialias)
    return spatial_layer("resize", output_size, resized)


@constructor
def pixel_shuffle(factor: SpatialShape) -> Layer:
    """Channels become pixels: `(h, w, c * r * r)` to `(h * r, w * r, c)`, for `factor` `r`.

    After a convolution to `c * r * r` channels it makes upsampling that is learned. The order of
    the channels is torch's.

    Paper: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network, https://arxiv.org/abs/1609.05158

    Args:
        factor: the upsampling factor, as in `nn.functional.pixel_shuffle`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *(factor * spatial), channels / product of the factors)`.

    Raises:
        TypeError: `factor` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.arange(4.0).reshape(1, 1, 1, 4)
        >>> nn.pixel_shuffle((2, 2)).apply({}, {}, x)[0][0, :, :, 0]
        Array([[0., 1.],
               [2., 3.]], dtype=float32)
    """
    return spatial_layer("pixel_shuffle", factor, functional.pixel_shuffle)


@constructor
def pixel_unshuffle(factor: SpatialShape) -> Layer:
    """Pixels become channels, the inverse of `pixel_shuffle`: `(h * r, w * r, c)` to `(h, w, ...)`.

    Fewer pixels, and nothing is lost. The order of the channels is torch's.

    Args:
        factor: the downsampling factor, as in `nn.functional.pixel_unshuffle`.

    Returns:
        A `Layer` without parameters, from `(*batch, *spatial, channels)` to
        `(*batch, *(spatial / factor), channels * product of the factors)`.

    Raises:
        TypeError: `factor` is a single number.
        ValueError: when it is called: `x` lacks the axis of the batch or of the channels.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.pixel_unshuffle((2, 2)).apply({}, {}, jnp.zeros((8, 32, 32, 3)))[0].shape
        (8, 16, 16, 12)
    """
    return spatial_layer("pixel_unshuffle", factor, functional.pixel_unshuffle)
