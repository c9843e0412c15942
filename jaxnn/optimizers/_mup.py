"""Maximal update parametrization: initial scales and learning rates by the width of a model."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.construction import constructor
from jaxnn._core.paths import path_text, same_structure
from jaxnn._core.types import Arrays, PyTree
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._scaling import scaled

Factor = Callable[[float, float], float]  # of how often wider the inputs and the outputs are

_RATES: dict[str, Factor] = {
    "adam": lambda inputs, outputs: 1 / inputs,
    "sgd": lambda inputs, outputs: outputs / inputs,
}


@checked
def mup_initial_params(params: Arrays, base_params: Arrays) -> PyTree:
    """Initial params of a wide model with the scales of the maximal update parametrization (muP).

    A kernel whose inputs are r times as many as in the base model and whose outputs are s times as
    many is multiplied by `min(1, √(s / r))`: that of the last layer by `1 / √r`, all others stay.
    So it is for kernels whose variance is `1 / inputs`, as the layers draw them. With
    `scale_by_mup` in the optimizer, the best learning rate and the like of a small model, the base,
    are those of a wide one.

    Papers: Yang et al., Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
    Hyperparameter Transfer, https://arxiv.org/abs/2203.03466; Yang, Simon and Bernstein, A Spectral
    Condition for Feature Learning, https://arxiv.org/abs/2310.17813

    Args:
        params: the parameters that the wide model's `init` made. The last axis of a kernel has its
            outputs, one of the others its inputs.
        base_params: those of the same model at its base width, arrays or shapes: the first of
            `jax.eval_shape(base.init, key, x)`.

    Returns:
        The params, those of the last layer smaller.

    Raises:
        ValueError: the structures differ, or numbers of axes; more than one axis of inputs differs.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = lambda width: nn.mlp([width, width, 2])
        >>> key, x = jax.random.key(0), jnp.ones((1, 3))
        >>> base, _ = jax.eval_shape(model(64).init, key, x)
        >>> params, state = model(1024).init(key, x)
        >>> params = nn.optimizers.mup_initial_params(params, base)
        >>> optimizer = nn.optimizers.chain(
        ...     nn.optimizers.adam(1e-2), nn.optimizers.scale_by_mup(base))
    """
    factors = _factors(
        "mup_initial_params", params, base_params, lambda r, s: min(1.0, math.sqrt(s / r))
    )
    return jax.tree.map(scaled, params, factors)


@constructor
def scale_by_mup(base_params: Arrays, rule: Literal["adam", "sgd"] = "adam") -> Optimizer:
    """Multiply the updates of a wide model by what the maximal update parametrization (muP) says.

    A kernel whose inputs are r times as many as in the base model and whose outputs are s times as
    many: `u = g / r` after Adam and others whose steps do not depend on the size of the gradients,
    `u = g s / r` after gradient descent, with or without momentum. All else has one input: biases,
    scales, embeddings. See `mup_initial_params`, which belongs to it.

    After a whole optimizer, it scales weight decay too; to decay all alike, put it between:
    `chain(scale_by_adam(), scale_by_mup(base), add_decayed_weights(0.1),
    scale_by_learning_rate(rate))`. Where the head dimension grows, attention wants
    `scale=constant / head_dim`; where an embedding is also the last layer, its logits want a factor
    of `base width / width`.

    Papers: those of `mup_initial_params`.

    Args:
        base_params: the params of the same model at its base width, arrays or shapes.
        rule: whose steps they are: "adam" or "sgd".

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: in `update`, the structures differ, or numbers of axes; more than one axis of
            inputs differs.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> base = {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}
        >>> g = {"kernel": jnp.ones((16, 32)), "bias": jnp.ones(32)}
        >>> for rule in ("adam", "sgd"):
        ...     updates, _ = nn.optimizers.scale_by_mup(base, rule).update(g, ())
        ...     print(updates["kernel"][0, 0], updates["bias"][0])
        0.25 1.0
        1.0 4.0
    """
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), float), base_params)
    factor = _RATES[rule]

    def function(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(scaled, updates, _factors("scale_by_mup", updates, shapes, factor))

    return stateless_transformation(function)


def _factors(function: str, tree: PyTree, base: PyTree, factor: Factor) -> PyTree:
    """For each leaf `factor` of how often wider its inputs and outputs are than in the base."""
    same_structure(function, base_params=base, params=tree)

    def one(path: tuple[object, ...], leaf: jax.Array, base_leaf: jax.Array) -> float:
        shape, base_shape = jnp.shape(leaf), jnp.shape(base_leaf)
        inputs = [n / m for n, m in zip(shape[:-1], base_shape[:-1], strict=False) if n != m]
        if len(shape) != len(base_shape) or len(inputs) > 1:
            raise ValueError(
                f"{function}: base_params has shape {base_shape} at {path_text(path)!r} where "
                f"params has {shape}, expected as many axes, of which the last and one other differ"
            )
        outputs = shape[-1] / base_shape[-1] if shape else 1.0
        return factor(inputs[0] if inputs else 1.0, outputs)

    return jax.tree_util.tree_map_with_path(one, tree, base)
