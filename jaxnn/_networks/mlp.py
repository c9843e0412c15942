"""Networks made of layers, ready to use."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnn._activations import gelu, relu
from jaxnn._combinators.chains import serial
from jaxnn._core.arrays import check_count, check_range, concrete
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer, shape_of
from jaxnn._core.types import PyTree, Scalar
from jaxnn._layers.dense import DenseLike
from jaxnn._layers.dense import dense as dense_layer
from jaxnn._layers.dropout import dropout


@constructor
def mlp(
    features: Sequence[int],
    activation: LayerLike = relu,
    *,
    activate_final: bool = False,
    dropout_rate: Scalar = 0.0,
    use_bias: bool = True,
) -> Layer:
    """A multilayer perceptron: `dense`, activation and dropout in turn.

    The last `dense` has neither activation nor dropout after it, unless `activate_final`.

    Args:
        features: the number of output features of each dense layer.
        activation: a function of arrays, or a layer, which is then initialised for each place.
        activate_final: whether activation and dropout follow the last dense layer too.
        dropout_rate: the probability of dropping an element; 0 leaves dropout out.
        use_bias: whether the dense layers add biases.

    Returns:
        A `Layer` from `(..., in)` to `(..., features[-1])` with params
        `{"dense_0", "activation_0", "dropout_0", "dense_1", ...}`.

    Raises:
        TypeError: `features` are not integers.
        ValueError: `features` is empty or has a number less than 1; `dropout_rate` is outside
            [0, 1].

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.mlp([64, 64, 10], activation=nn.tanh)
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 784)))
        >>> params["dense_2"]["kernel"].shape
        (64, 10)
        >>> model.apply(params, state, jnp.ones((8, 784)))[0].shape
        (8, 10)
    """
    if not features:
        raise ValueError("mlp: features is empty, expected a number for each dense layer")
    children: dict[str, Any] = {}
    check_range("mlp", "dropout_rate", dropout_rate, 0, 1)
    activation = as_layer(activation, "mlp: activation")
    for i, size in enumerate(features):
        check_count("mlp", "features", size)
        children[f"dense_{i}"] = dense_layer(size, use_bias=use_bias)
        if activate_final or i < len(features) - 1:
            children[f"activation_{i}"] = activation
            children |= _dropout(f"dropout_{i}", dropout_rate)
    return serial(**children)


@constructor
def feed_forward(
    hidden_features: int,
    activation: LayerLike = gelu,
    *,
    dropout_rate: Scalar = 0.0,
    use_bias: bool = True,
    dense: DenseLike = dense_layer,
) -> Layer:
    """The feed-forward network of a transformer block: `y = dense(dropout(activation(dense(x))))`.

    The first dense layer has `hidden_features` outputs, the second as many as `x` has features. A
    gated activation such as `nn.swiglu` halves the features: the second then has
    `hidden_features / 2` inputs.

    Papers: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762; Shazeer,
    GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202

    Args:
        hidden_features: the hidden size: the number of outputs of the first dense layer.
        activation: a function of arrays, or a layer.
        dropout_rate: the probability of dropping an element; 0 leaves dropout out.
        use_bias: whether the dense layers add biases.
        dense: makes both dense layers, called as `dense(features, use_bias=use_bias)`.

    Returns:
        A `Layer` from `(..., features)` to `(..., features)` with params
        `{"hidden", "activation", "dropout", "out"}`.

    Raises:
        TypeError: `hidden_features` is not an integer.
        ValueError: `hidden_features` is less than 1; `dropout_rate` is outside [0, 1]; `x` has no
            feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.residual(nn.serial(nn.rms_norm(), nn.feed_forward(32, nn.swiglu)))
        >>> params, state = block.init(jax.random.key(0), jnp.zeros((1, 8)))
        >>> jax.tree.map(jnp.shape, params["layer"][1]["out"])
        {'bias': (8,), 'kernel': (16, 8)}
    """
    check_count("feed_forward", "hidden_features", hidden_features)
    check_range("feed_forward", "dropout_rate", dropout_rate, 0, 1)
    activation = as_layer(activation, "feed_forward: activation")
    first = {
        "hidden": dense(hidden_features, use_bias=use_bias),
        "activation": activation,
        **_dropout("dropout", dropout_rate),
    }

    def network(x: PyTree) -> Layer:
        shape = shape_of("feed_forward", x)
        if not shape or not shape[-1]:
            raise ValueError(
                f"feed_forward: x has shape {shape}, expected shape (..., features) with at least "
                "one feature"
            )
        return serial(**first, out=dense(shape[-1], use_bias=use_bias))

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        return network(x).init(key, x)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        return network(x).apply(params, state, x, key=key, train=train)

    return Layer(init, apply)


def _dropout(name: str, rate: Scalar) -> dict[str, Layer]:
    """Dropout by its name; nothing for a rate that is known to be 0."""
    known = concrete(rate)
    return {} if known is not None and not known.any() else {name: dropout(rate)}
