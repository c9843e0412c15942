"""What `nn.fit` and `nn.training_run` cost per step over a hand-written, donated `lax.scan`.

Run with `python benchmarks/fit_overhead.py`. The rows are interleaved, after one warm-up each;
medians of the time per step and the ratio of medians to the bare scan are printed.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

ROUNDS = 15


def bare_scan(model: nn.Layer, loss: Callable[..., Any], rate: float, epochs: int) -> Any:
    """Full-batch gradient descent as one would write it without a library."""

    @partial(jax.jit, donate_argnums=0)
    def run(params: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return jnp.mean(loss(model.apply(params, {}, x)[0], y))

        def step(params: Any, _: None) -> Any:
            value, grads = jax.value_and_grad(objective)(params)
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), value

        return jax.lax.scan(step, params, None, length=epochs)

    return run


def tutorial_network(epochs: int) -> dict[str, Callable[[], Any]]:
    """The tutorial's second network: 3-3-1 on three examples, one step an epoch."""
    x = jnp.array([[1.2, 0.003, 0.008], [0.85, 0.002, 0.005], [1.5, 0.004, 0.009]])
    y = jnp.array([[1.0], [0.0], [1.0]])
    model = nn.serial(nn.dense(3), nn.relu, nn.dense(1))
    loss, optimizer = nn.losses.sigmoid_binary_cross_entropy, nn.optimizers.sgd(0.1)
    key = jax.random.key(0)
    params, _ = jax.jit(model.init)(key, x)
    host = jax.tree.map(np.asarray, params)
    scan = bare_scan(model, loss, 0.1, epochs)
    run = jax.jit(nn.training_run(model, loss=loss, optimizer=optimizer, epochs=epochs))
    fit = partial(nn.fit, model, (x, y), loss=loss, optimizer=optimizer, key=key, epochs=epochs)
    return {
        "lax.scan": lambda: scan(jax.tree.map(jnp.array, host), x, y),
        "training_run": lambda: run(key, (x, y)),
        "fit": lambda: fit(params=params, progress=False).history["loss"],
    }


def main() -> None:
    """Measure and print."""
    for epochs in (1_000, 100_000):
        rows = tutorial_network(epochs)
        times: dict[str, list[float]] = {name: [] for name in rows}
        for round_number in range(ROUNDS + 1):
            for name, call in rows.items():
                began = time.perf_counter()
                jax.block_until_ready(call())
                if round_number:
                    times[name].append(time.perf_counter() - began)
        base = statistics.median(times["lax.scan"])
        print(f"tutorial's second network, {epochs} epochs of one step")
        for name, values in times.items():
            median = statistics.median(values)
            print(
                f"  {name:14} {median * 1e3:9.3f} ms {median / epochs * 1e9:9.0f} ns/step "
                f"{median / base:7.2f}x"
            )


if __name__ == "__main__":
    main()
