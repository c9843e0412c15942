"""Convolutions of each channel by itself."""

import jax
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, abstract, child_key, pure
from jaxnn._core.types import Padding, PerAxis, PyTree, SpatialShape
from jaxnn._layers.convolution import conv, convolution_layer


@constructor
def depthwise_conv(
    kernel_size: SpatialShape,
    *,
    depth_multiplier: int = 1,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A convolution of each channel by itself: a `conv` with as many groups as inputs.

    Output channel `c * depth_multiplier + m` is made of input channel `c`.

    Args:
        kernel_size, strides, padding, kernel_dilation: as in `conv`.
        depth_multiplier: the number of outputs of each input channel.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel, shape `(*kernel_size, 1, in * depth_multiplier)`.
        bias_init: initializer of the bias, shape `(in * depth_multiplier,)`.

    Returns:
        A `Layer` from `(*batch, *spatial, in)` to `(*batch, *outputs, in * depth_multiplier)` with
        params `{"kernel", "bias"}`.

    Raises:
        TypeError: a number is not an integer, or `kernel_size` is a single one.
        ValueError: a number is less than 1, or `x` lacks the axis of the batch, of the channels
            or a spatial one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.depthwise_conv((2,), padding="VALID", kernel_init=nn.initializers.ones)
        >>> x = jnp.array([[[1.0, 100.0], [2.0, 200.0], [3.0, 300.0]]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, state, x)[0]
        Array([[[  3., 300.],
                [  5., 500.]]], dtype=float32)
    """
    check_count("depthwise_conv", "depth_multiplier", depth_multiplier)

    def convolve(x: PyTree, *params: jax.Array) -> jax.Array:
        return functional.conv(
            x,
            *params,
            strides=strides,
            padding=padding,
            kernel_dilation=kernel_dilation,
            feature_group_count=x.shape[-1],
        )

    def channels(inputs: int) -> tuple[int, int]:
        return 1, inputs * depth_multiplier

    inits = kernel_init, bias_init if use_bias else None
    return convolution_layer("depthwise_conv", kernel_size, channels, convolve, *inits)


@constructor
def separable_conv(
    features: int,
    kernel_size: SpatialShape,
    *,
    depth_multiplier: int = 1,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    kernel_dilation: PerAxis = 1,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """A depthwise convolution, and then one that mixes the channels of each position.

    Paper: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions,
    https://arxiv.org/abs/1610.02357

    Args:
        features: the number of output channels.
        kernel_size, strides, padding, kernel_dilation, depth_multiplier: those of the
            `depthwise_conv`, which has no bias.
        use_bias: whether to add a bias to the output.
        kernel_init: initializer of both kernels, shapes `(*kernel_size, 1, in * depth_multiplier)`
            and `(1, ..., 1, in * depth_multiplier, features)`.
        bias_init: initializer of the bias, shape `(features,)`.

    Returns:
        A `Layer` from `(*batch, *spatial, in)` to `(*batch, *outputs, features)` with params
        `{"depthwise": {"kernel"}, "pointwise": {"kernel", "bias"}}`.

    Raises:
        TypeError: a number is not an integer, or `kernel_size` is a single one.
        ValueError: a number is less than 1, or `x` lacks the axis of the batch, of the channels
            or a spatial one.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.separable_conv(64, (3, 3))
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
        >>> jax.tree.map(jnp.shape, params)
        {'depthwise': {'kernel': (3, 3, 1, 32)},
         'pointwise': {'bias': (64,), 'kernel': (1, 1, 32, 64)}}
    """
    one = (1,) * len(kernel_size)
    depthwise = depthwise_conv(
        kernel_size,
        depth_multiplier=depth_multiplier,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        use_bias=False,
        kernel_init=kernel_init,
    )
    pointwise = conv(features, one, use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init)

    def init(key: jax.Array, x: PyTree) -> PyTree:
        first, _ = depthwise.init(child_key(key, "depthwise"), x)
        between, _ = jax.eval_shape(depthwise.apply, first, {}, abstract(x))
        second, _ = pointwise.init(child_key(key, "pointwise"), between)
        return {"depthwise": first, "pointwise": second}

    def call(params: PyTree, x: PyTree) -> PyTree:
        between, _ = depthwise.apply(params["depthwise"], {}, x)
        return pointwise.apply(params["pointwise"], {}, between)[0]

    return pure(init, call)
