"""stax, the small library that comes with JAX, and its optimizers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers, stax

from benchmarks.contestants.jax_loops import cross_entropy
from benchmarks.row import Run


def training(layers: Any, params: Any, optimizer: Any, data: Any) -> Run:
    """Steps on one batch."""
    _, predict = stax.serial(*layers)
    init, update, get_params = optimizer

    def step(i: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return cross_entropy(predict(params, x), y)

        loss, grads = jax.value_and_grad(objective)(get_params(opt_state))
        return update(i, grads, opt_state), loss

    compiled = jax.jit(step, donate_argnums=1)
    opt_state, count = init(jax.tree.map(jnp.array, params)), 0
    x, y = jnp.array(data["x"]), jnp.array(data["y"])

    def run(n: int) -> np.ndarray:
        nonlocal opt_state, count
        losses = []
        for _ in range(n):
            opt_state, loss = compiled(count, opt_state, x, y)
            count += 1
            losses.append(loss)
        return np.array(jax.block_until_ready(losses))

    return run


def mlp(data: Any) -> Run:
    """The MLP."""
    layers, params = [], []
    for layer in data["weights"]:
        layers += [stax.Dense(len(layer["bias"])), stax.Relu]
        params += [(layer["kernel"], layer["bias"]), ()]
    adam = optimizers.adam(data["learning_rate"])
    return training(layers[:-1], params[:-1], adam, data)


def cnn(data: Any) -> Run:
    """The CNN."""
    layers, params = [], []
    *convolutions, last = data["weights"]
    for layer in convolutions:
        channels = len(layer["bias"])
        pool = stax.MaxPool((2, 2), strides=(2, 2))
        layers += [stax.Conv(channels, (3, 3), padding="SAME"), stax.Relu, pool]
        params += [(layer["kernel"], layer["bias"].reshape(1, 1, 1, -1)), (), ()]
    layers += [stax.Flatten, stax.Dense(10)]
    params += [(), (last["kernel"], last["bias"])]
    return training(layers, params, optimizers.sgd(data["learning_rate"]), data)
