"""What `nn.fit` and `nn.training_run` cost over a hand-written, donated `lax.scan`.

Run with `python benchmarks/fit_overhead.py`. The rows are interleaved, after one warm-up each;
medians and the median of the ratios to the bare scan, round by round, are printed.
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
Rows = dict[str, Callable[[], Any]]


def bare_scan(model: nn.Layer, loss: Callable[..., Any], optimizer: Any, steps: int) -> Any:
    """Full-batch training as one would write it without `fit`."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def run(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return jnp.mean(loss(model.apply(params, {}, x)[0], y))

        def step(carry: Any, _: None) -> Any:
            params, opt_state = carry
            value, grads = jax.value_and_grad(objective)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (nn.optimizers.apply_updates(params, updates), opt_state), value

        return jax.lax.scan(step, (params, opt_state), None, length=steps)

    return run


def rows_for(
    model: nn.Layer, loss: Callable[..., Any], optimizer: Any, data: Any, steps: int
) -> Rows:
    """The same steps three times: by hand, as a pure run, by `fit`."""
    key = jax.random.key(0)
    params, _ = jax.jit(model.init)(key, data[0])
    host = jax.tree.map(np.asarray, params)
    scan = bare_scan(model, loss, optimizer, steps)
    run = jax.jit(nn.training_run(model, loss=loss, optimizer=optimizer, epochs=steps))
    fit = partial(nn.fit, model, data, loss=loss, optimizer=optimizer, key=key, epochs=steps)

    def by_hand() -> Any:
        params = jax.tree.map(jnp.array, host)
        return scan(params, optimizer.init(params), *data)

    return {
        "lax.scan": by_hand,
        "training_run": lambda: run(key, data),
        "fit": lambda: fit(params=params, progress=False).history["loss"],
    }


def tutorial_network(steps: int) -> Rows:
    """The tutorial's second network: 3-3-1 on three examples."""
    x = jnp.array([[1.2, 0.003, 0.008], [0.85, 0.002, 0.005], [1.5, 0.004, 0.009]])
    y = jnp.array([[1.0], [0.0], [1.0]])
    model = nn.serial(nn.dense(3), nn.relu, nn.dense(1))
    loss = nn.losses.sigmoid_binary_cross_entropy
    return rows_for(model, loss, nn.optimizers.sgd(0.1), (x, y), steps)


def mlp(steps: int) -> Rows:
    """784-512-512-10 with Adam on a batch of 128."""
    x = jax.random.normal(jax.random.key(1), (128, 784))
    y = jax.random.randint(jax.random.key(2), (128,), 0, 10)
    model = nn.serial(nn.dense(512), nn.relu, nn.dense(512), nn.relu, nn.dense(10))
    loss = nn.losses.softmax_cross_entropy
    return rows_for(model, loss, nn.optimizers.adam(1e-3), (x, y), steps)


def measure(title: str, rows: Rows, steps: int) -> None:
    """Run the rows in turn and print medians and ratios."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for round_number in range(ROUNDS + 1):
        for name, call in rows.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if round_number:
                times[name].append(time.perf_counter() - began)
    base = times["lax.scan"]
    print(f"{title}, {steps} steps")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(
            f"  {name:13}{median * 1e3:9.2f} ms {median / steps * 1e6:9.3f} us/step {ratio:6.2f}x"
        )


def main() -> None:
    """Measure and print."""
    for steps in (1_000, 100_000):
        measure("tutorial's second network", tutorial_network(steps), steps)
    measure("784-512-512-10", mlp(300), 300)


if __name__ == "__main__":
    main()
