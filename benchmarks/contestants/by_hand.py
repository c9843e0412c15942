"""JAX alone, as one would write it without any library."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contestants import jax_loops
from benchmarks.row import Run

Step = Callable[[Any, jax.Array, jax.Array, Any], tuple[Any, jax.Array]]


def product(data: Any) -> Run:
    """A matrix product again and again."""
    size = data["size"]
    a = jnp.full((size, size), 1 / size, data["dtype"])
    multiply = jax.jit(jnp.matmul, donate_argnums=0)
    b = jnp.full((size, size), 1.0, data["dtype"])

    def run(n: int) -> np.ndarray:
        nonlocal b
        for _ in range(n):
            b = multiply(b, a)
        return np.array(b[0, 0], np.float32)

    return run


def stream(data: Any) -> Run:
    """An update in place."""
    x = jnp.array(data["x"])
    update = jax.jit(lambda x: x * 0.5, donate_argnums=0)

    def run(n: int) -> np.ndarray:
        nonlocal x
        for _ in range(n):
            x = update(x)
        return np.array(x[0])

    return run


def sgd(data: Any) -> Run:
    """A step of SGD."""

    def step(grads: Any, params: Any) -> Any:
        return (jax.tree.map(lambda p, g: p - data["learning_rate"] * g, params, grads),)

    donated = functools.partial(jax.jit, donate_argnums=1)
    return jax_loops.updating(step, data["params"], donated=donated, grads=data["grads"])


def network(weights: Any, x: jax.Array) -> jax.Array:
    """Dense layers with ReLU between them."""
    *hidden, last = weights
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def sigmoid_loss(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean binary cross-entropy."""
    return jnp.mean(jax.nn.softplus(logits) - logits * y)


def sgd_step(weights: Any, x: jax.Array, y: jax.Array, _: Any) -> Any:
    """A step of the tutorial's network."""

    def objective(weights: Any) -> jax.Array:
        return sigmoid_loss(network(weights, x), y)

    loss, grads = jax.value_and_grad(objective)(weights)
    return jax.tree.map(lambda p, g: p - 0.1 * g, weights, grads), loss


def adam_step(carry: Any, x: jax.Array, y: jax.Array, count: jax.Array) -> Any:
    """A step of the MLP, by Adam."""
    weights, mu, nu = carry

    def objective(weights: Any) -> jax.Array:
        return jax_loops.cross_entropy(network(weights, x), y)

    loss, grads = jax.value_and_grad(objective)(weights)
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
    nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, nu, grads)
    first, second = 1 - 0.9 ** (count + 1), 1 - 0.999 ** (count + 1)

    def updated(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - 1e-3 * m / first / (jnp.sqrt(v / second) + 1e-8)

    return (jax.tree.map(updated, weights, mu, nu), mu, nu), loss


def scanned(step: Step, start: Any, data: Any, transform: Any = lambda f: f) -> Run:
    """All epochs in one program, from the same beginning again and again."""
    start, x, y = jax.tree.map(jnp.array, (start, data["x"], data["y"]))

    def train(start: Any, x: jax.Array, y: jax.Array) -> Any:
        counts = jnp.arange(data["epochs"])
        return jax.lax.scan(lambda carry, count: step(carry, x, y, count), start, counts)

    compiled = jax.jit(transform(train))

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            _, losses = jax.block_until_ready(compiled(start, x, y))
        return np.array(losses)

    return run


def tiny(data: Any) -> Run:
    """The tutorial's network."""
    return scanned(sgd_step, data["weights"], data)


def tiny64(data: Any) -> Run:
    """Many of them."""
    side_by_side = functools.partial(jax.vmap, in_axes=(0, None, None))
    return scanned(sgd_step, data["weights"], data, side_by_side)


def mlp(data: Any) -> Run:
    """The MLP."""
    zeros = jax.tree.map(np.zeros_like, data["weights"])
    return scanned(adam_step, (data["weights"], zeros, zeros), data)
