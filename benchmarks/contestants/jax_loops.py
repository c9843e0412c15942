"""The loops of contestants that use JAX: a compiled step, called again and again."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.row import Run


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of integer labels."""
    rows = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(rows, labels[..., None], axis=-1))


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean squared error."""
    return jnp.mean((predictions - targets) ** 2)


def training(
    predict: Callable[[Any, jax.Array], jax.Array],
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    optimizer: Any,
    params: Any,
    data: Any,
) -> Run:
    """Steps on one batch with an optax optimizer; what is updated is donated."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return loss(predict(params, x), y)

        value, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)  # optax.apply_updates
        return params, opt_state, value

    params = jax.tree.map(jnp.array, params)
    opt_state, x, y = optimizer.init(params), jnp.array(data["x"]), jnp.array(data["y"])

    def run(n: int) -> np.ndarray:
        nonlocal params, opt_state
        losses = []
        for _ in range(n):
            params, opt_state, value = step(params, opt_state, x, y)
            losses.append(value)
        return np.array(jax.block_until_ready(losses))

    return run


def updating(step: Callable[..., Any], params: Any, *rest: Any, donated: Any, grads: Any) -> Run:
    """Calls of `(params, *rest) = step(grads, params, *rest)`, `rest` being an optimizer's state.

    `donated` compiles the step; the first leaf is what must agree.
    """
    compiled = donated(step)
    now = (jax.tree.map(jnp.array, params), *rest)
    grads = jax.tree.map(jnp.array, grads)

    def run(n: int) -> np.ndarray:
        nonlocal now
        for _ in range(n):
            now = compiled(grads, *now)
        return np.array(jax.block_until_ready(now)[0][0])

    return run


def jit(step: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that donates all but the gradients."""
    return jax.jit(step, donate_argnums=(1, 2))
