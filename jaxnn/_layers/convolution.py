"""Convolutions."""

from collections.abc import Callable
from functools import partial

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, pure, shape_of
from jaxnn._core.types import Padding, PerAxis, PyTree, SpatialShape
from jaxnn._layers.params import kernel_and_bias, kernel_and_bias_of
from jaxnn._layers.spatial import check_batched


@constructor
def conv(
    features: int,
    kernel_size: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    feature_group_count: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A convolution: `y[i] = Σ_k x[i * strides + k * kernel_dilation - low] @ kernel[k] + bias`.

    The kernel is not flipped, as in torch and flax. An axis of `n` elements gives
    `(n + low + high - kernel_dilation * (kernel_size - 1) - 1) // strides + 1` outputs.

    Args:
        features: the number of output channels.
        kernel_size: the kernel size, one number for each of 1 to 3 spatial axes, the last axes
            before the channels: `(3,)` for series, `(3, 3)` for images.
        strides: the strides, one number for all spatial axes or one for each.
        padding: the padding of each spatial axis: "SAME", zeros for `ceil(n / strides)` outputs;
            "CIRCULAR", "REFLECT" or "REPLICATE", as many periodic or mirrored elements of `x`, or
            its outermost; "CAUSAL", along one axis, for outputs that depend on no later input;
            "VALID", none; or pairs `(low, high)` of numbers of zeros. `nn.functional.conv` defines
            each exactly.
        kernel_dilation: the dilation of the kernel (1: none), one number or one for each axis.
        feature_group_count: the number of groups into which input and output channels are divided;
            each group of outputs sees its group of inputs alone.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel, shape `(*kernel_size, in / groups, features)`. The
            default, LeCun normal, is a truncated normal of variance `1 / fan_in`, the fan-in being
            the product of all axes but the last.
        bias_init: initializer of the bias, shape `(features,)`.

    Returns:
        A `Layer` from `(*batch, *spatial, in)` to `(*batch, *outputs, features)` with params
        `{"kernel", "bias"}` and the output in the dtype of `x`.

    Raises:
        TypeError: a number is not an integer, or `kernel_size` is a single one.
        ValueError: a number is less than 1, `feature_group_count` does not divide `features` or the
            input channels, or `x` lacks the axis of the batch, of the channels or a spatial one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.conv(16, (3, 3), strides=2)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
        >>> params["kernel"].shape
        (3, 3, 3, 16)
        >>> layer.apply(params, state, jnp.ones((8, 28, 28, 3)))[0].shape
        (8, 14, 14, 16)
    """
    convolve = partial(
        functional.conv,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
    )
    channels = _channels("conv", features, feature_group_count)
    inits = kernel_init, bias_init if use_bias else None
    return convolution_layer("conv", kernel_size, channels, convolve, *inits)


@constructor
def conv_transpose(
    features: int,
    kernel_size: SpatialShape,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    feature_group_count: int = 1,
    output_size: PerAxis | None = None,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A transposed convolution: `y[i * strides + k * kernel_dilation - low] += x[i] @ kernel[k]`.

    It takes outputs of a `conv` with the same options back to the size of its inputs, as the
    transpose of that linear map. With "SAME", `strides=2`
    doubles the spatial axes. `nn.functional.conv_transpose` says how torch's and flax's differ.

    Args:
        features: the number of output channels.
        kernel_size, strides, padding, kernel_dilation, feature_group_count: those of the `conv`.
        output_size: the size of the spatial axes of the result, any that the `conv` takes to that
            of `x`; None for `n * strides`, or for the least if the padding is "VALID" or in
            numbers.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel, shape `(*kernel_size, in / groups, features)`.
        bias_init: initializer of the bias, shape `(features,)`.

    Returns:
        A `Layer` from `(*batch, *spatial, in)` to `(*batch, *output_size, features)` with params
        `{"kernel", "bias"}` and the output in the dtype of `x`.

    Raises:
        TypeError: a number is not an integer, or `kernel_size` is a single one.
        ValueError: a number is less than 1, `feature_group_count` does not divide `features` or the
            input channels, or `x` lacks the axis of the batch, of the channels or a spatial one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.conv_transpose(3, (2, 2), strides=2)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 14, 14, 16)))
        >>> params["kernel"].shape
        (2, 2, 16, 3)
        >>> layer.apply(params, state, jnp.ones((8, 14, 14, 16)))[0].shape
        (8, 28, 28, 3)
    """
    convolve = partial(
        functional.conv_transpose,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        output_size=output_size,
    )
    channels = _channels("conv_transpose", features, feature_group_count)
    inits = kernel_init, bias_init if use_bias else None
    return convolution_layer("conv_transpose", kernel_size, channels, convolve, *inits)


def _channels(name: str, features: int, groups: int) -> Callable[[int], tuple[int, int]]:
    """The channel axes of a grouped kernel, by the number of inputs."""
    check_count(name, "features", features)
    check_count(name, "feature_group_count", groups)
    if features % groups:
        raise ValueError(
            f"{name}: features is {features}, expected a multiple of feature_group_count={groups}"
        )

    def channels(inputs: int) -> tuple[int, int]:
        if inputs % groups:
            raise ValueError(
                f"{name}: x has {inputs} channels, expected a multiple of "
                f"feature_group_count={groups}"
            )
        return inputs // groups, features

    return channels


def convolution_layer(
    name: str,
    kernel_size: SpatialShape,
    channels: Callable[[int], tuple[int, int]],
    convolve: Callable[..., jax.Array],
    kernel_init: Initializer,
    bias_init: Initializer | None,
) -> Layer:
    """A layer of a convolution; `channels` gives the last axes of the kernel for the inputs."""
    rank = len(kernel_size)
    if rank == 0:
        raise ValueError(f"{name}: kernel_size is {kernel_size}, expected 1 to 3 numbers")
    for size in kernel_size:
        check_count(name, "kernel_size", size)

    def init(key: jax.Array, x: PyTree) -> PyTree:
        shape = shape_of(name, x)
        check_batched(name, x, rank)
        if shape[-1] == 0:
            raise ValueError(f"{name}: x has shape {shape}, expected at least one channel")
        kernel_shape = *kernel_size, *channels(shape[-1])
        return kernel_and_bias(name, key, kernel_shape, param_dtype(x), kernel_init, bias_init)

    def call(params: PyTree, x: PyTree) -> jax.Array:
        check_batched(name, x, rank)
        return convolve(x, *kernel_and_bias_of(name, params, bias_init is not None))

    return pure(init, call)
