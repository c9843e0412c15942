"""optax, with networks by hand: a jitted step in a Python loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.contestants import by_hand, jax_loops
from benchmarks.row import Run


def update_with(optimizer: Any, data: Any) -> Run:
    """Updates by an optimizer."""

    def step(grads: Any, params: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(jax.tree.map(jnp.array, data["params"]))
    return jax_loops.updating(
        step, data["params"], opt_state, donated=jax_loops.jit, grads=data["grads"]
    )


def adam(data: Any) -> Run:
    """Adam."""
    return update_with(optax.adam(data["learning_rate"], eps=data["eps"]), data)


def sgd(data: Any) -> Run:
    """SGD."""
    return update_with(optax.sgd(data["learning_rate"]), data)


def tiny(data: Any) -> Run:
    """The tutorial's network, from the same beginning again and again."""
    optimizer = optax.sgd(0.1)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return by_hand.sigmoid_loss(by_hand.network(params, x), y)

        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    x, y = jnp.array(data["x"]), jnp.array(data["y"])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            params = jax.tree.map(jnp.array, data["weights"])
            opt_state, losses = optimizer.init(params), []
            for _ in range(data["epochs"]):
                params, opt_state, loss = compiled(params, opt_state, x, y)
                losses.append(loss)
            jax.block_until_ready(losses)
        return np.array(losses)

    return run


def digits(data: Any) -> Run:
    """Digits, shuffled by NumPy."""
    optimizer = optax.adam(data["learning_rate"])

    def run(n: int) -> np.ndarray:
        (images, targets), (x_test, y_test) = data["training"], data["test"]
        rng, weights = np.random.default_rng(1), []
        for i, o in ((64, data["hidden"]), (data["hidden"], 10)):
            kernel = rng.normal(0, i**-0.5, (i, o)).astype(np.float32)
            weights.append({"kernel": jnp.array(kernel), "bias": jnp.zeros(o)})

        @jax.jit
        def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
            def objective(params: Any) -> jax.Array:
                return jax_loops.cross_entropy(by_hand.network(params, x), y)

            updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state)
            return optax.apply_updates(params, updates), opt_state

        params, opt_state = weights, optimizer.init(weights)
        for _ in range(data["epochs"]):
            order = rng.permutation(len(images)).reshape(-1, data["batch"])
            for rows in order:
                params, opt_state = step(params, opt_state, images[rows], targets[rows])
        predicted = np.argmax(by_hand.network(params, x_test), axis=-1)
        return np.mean(predicted == y_test)

    return run
