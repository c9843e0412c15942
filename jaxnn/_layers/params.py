"""The parameters that many layers have: kernel and bias, scale and bias."""

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxnn._core.arrays import check_key

Shape = tuple[int, ...]


def scale_and_bias(
    layer: str,
    key: jax.Array,
    shape: Shape,
    dtype: jnp.dtype,
    scale_init: Initializer | None,
    bias_init: Initializer | None,
) -> dict[str, jax.Array]:
    """The scale and the bias of a normalisation, without those whose initializer is None."""
    check_key(layer, key)
    inits = {"scale": scale_init, "bias": bias_init}
    keys = jax.random.split(key)
    return {
        name: init(keys[i], shape, dtype)
        for i, (name, init) in enumerate(inits.items())
        if init is not None
    }
