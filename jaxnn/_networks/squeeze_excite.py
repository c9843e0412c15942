"""Channel attention."""

from typing import Any

import jax

from jaxnn import functional
from jaxnn._activations import relu, sigmoid
from jaxnn._combinators.composition import compose
from jaxnn._core.arrays import check_count, floating, spread
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._networks.mlp import feed_forward


@constructor
def squeeze_excite(
    hidden_features: int, activation: LayerLike = relu, *, gate: LayerLike = sigmoid
) -> Layer:
    """Squeeze and excitation: `y = x * gate(dense(activation(dense(mean of x over space))))`.

    Each channel of each example is scaled by a number that depends on the means of all channels.

    Paper: Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507

    Args:
        hidden_features: the hidden size between the two dense layers; in the paper the number of
            channels divided by 16.
        activation: a function of arrays, or a layer, after the first dense layer.
        gate: the same after the second, whose outputs are the scales.

    Returns:
        A `Layer` from `(batch, *spatial, channels)` to the same shape with params `{"mlp",
        "gate"}`, the first being those of `nn.feed_forward`.

    Raises:
        TypeError: `hidden_features` is not an integer.
        ValueError: `hidden_features` is less than 1; `x` has fewer than two axes, or no elements
            along its spatial axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.residual(nn.serial(nn.conv(32, (3, 3)), nn.squeeze_excite(2)))
        >>> params, state = block.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
        >>> block.apply(params, state, jnp.ones((4, 8, 8, 32)))[0].shape
        (4, 8, 8, 32)
    """
    check_count("squeeze_excite", "hidden_features", hidden_features)

    def forward(f: Any, x: jax.Array) -> jax.Array:
        x = floating(x)
        scales = f.gate(f.mlp(functional.global_avg_pool(x)))
        return x * spread(scales, (0, x.ndim - 1), x.shape)

    return compose(
        forward,
        mlp=feed_forward(hidden_features, activation),
        gate=as_layer(gate, "squeeze_excite: gate"),
    )
