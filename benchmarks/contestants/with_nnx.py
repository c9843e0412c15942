"""flax nnx and optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.contestants.jax_loops import cross_entropy, training
from benchmarks.row import Run


def mlp_of(data: Any) -> nnx.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[Any] = []
    for layer in data["weights"]:
        linear = nnx.Linear(*layer["kernel"].shape, rngs=nnx.Rngs(0))
        linear.kernel = nnx.Param(jnp.array(layer["kernel"]))
        linear.bias = nnx.Param(jnp.array(layer["bias"]))
        layers += [linear, nnx.relu]
    return nnx.Sequential(*layers[:-1])


def mlp(data: Any) -> Run:
    """The MLP, split once, so that no step pays for walking the modules."""
    graph, params = nnx.split(mlp_of(data))
    optimizer = optax.adam(data["learning_rate"])
    return training(
        lambda params, x: nnx.merge(graph, params)(x), cross_entropy, optimizer, params, data
    )


def mlp_in_place(data: Any) -> Run:
    """The MLP as flax's documentation trains: `nnx.jit` updates model and optimizer in place."""
    model = mlp_of(data)
    optimizer = nnx.Optimizer(model, optax.adam(data["learning_rate"]), wrt=nnx.Param)
    x, y = jnp.array(data["x"]), jnp.array(data["y"])

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    def run(n: int) -> np.ndarray:
        return np.array(jax.block_until_ready([step(model, optimizer, x, y) for _ in range(n)]))

    return run


class Leaves(nnx.Module):
    """Parameters and nothing else."""

    def __init__(self, arrays: Any) -> None:
        self.leaves = nnx.List([nnx.Param(jnp.array(array)) for array in arrays])


def sgd(data: Any) -> Run:
    """A step of SGD by `nnx.jit`, which updates the module in place."""
    model, grads = Leaves(data["params"]), [jnp.array(grad) for grad in data["grads"]]

    @nnx.jit
    def step(model: Leaves, grads: Any) -> None:
        for leaf, grad in zip(model.leaves, grads, strict=True):
            leaf[...] = leaf[...] - data["learning_rate"] * grad

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            step(model, grads)
        return np.array(model.leaves[0][...])

    return run
