"""Updates that keep the parameters where they may be."""

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import refuse_complex
from jaxnn._core.construction import constructor
from jaxnn._core.types import PyTree
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._leafwise import leafwise


@constructor
def keep_params_nonnegative() -> Optimizer:
    """Keep the parameters nonnegative: `u = max(g, -w)`. The last of a chain.

    Returns:
        An `Optimizer` without state, whose `update` requires the params.

    Raises:
        TypeError: a parameter is complex.
        ValueError: `update` is called without params; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> last = nn.optimizers.keep_params_nonnegative()
        >>> last.update(jnp.array([-0.5, -3.0]), last.init(jnp.ones(2)), jnp.ones(2))[0]
        Array([-0.5, -1. ], dtype=float32)
    """

    def rule(g: jax.Array, w: jax.Array) -> tuple[jax.Array]:
        refuse_complex("keep_params_nonnegative", "a parameter", w)
        return (jnp.where(w + g < 0, -w, g),)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        check.params("keep_params_nonnegative", params)
        return leafwise("keep_params_nonnegative", rule, updates, given=(params,))[0]

    return stateless_transformation(function)
