"""What `nn.sweep` costs over one network alone, and over the same networks one by one.

Run with `python benchmarks/sweep_speed.py`. The rows are interleaved, after one warm-up each, in
which everything is compiled; medians are printed, and the medians of the ratios to one network,
round by round. How long the first call of each takes, compilation included, is printed as well.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

ROUNDS = 11
Rows = dict[str, Callable[[], Any]]


def rows_for(train: Callable[..., Any], data: Any, networks: int) -> Rows:
    """The same networks, which differ in their learning rates, in each way."""
    key, rates = jax.random.key(0), np.geomspace(1e-3, 1.0, networks, dtype=np.float32)
    alone = jax.jit(train)
    sweep = functools.partial(nn.sweep, train, key, {"rate": rates}, data)

    def one(rate: Any) -> Any:
        return alone(key, data, {"rate": rate})

    return {
        "one": lambda: one(rates[0]),
        f"sweep of {networks}": lambda: sweep().params,
        f"{networks} one by one": lambda: [one(rate) for rate in rates],
    }


def tutorial_network() -> Rows:
    """The tutorial's second network: 3-3-1 on three examples."""
    x = jnp.array([[1.2, 0.003, 0.008], [0.85, 0.002, 0.005], [1.5, 0.004, 0.009]])
    y = jnp.array([[1.0], [0.0], [1.0]])
    train = nn.training_run(
        nn.serial(nn.dense(3), nn.relu, nn.dense(1)),
        loss=nn.losses.sigmoid_binary_cross_entropy,
        optimizer=lambda h: nn.optimizers.sgd(h["rate"]),
        epochs=1_000,
    )
    return rows_for(train, (x, y), 64)


def mlp() -> Rows:
    """64-64-10 with dropout and Adam on 1,280 examples in batches of 64."""
    x = jax.random.normal(jax.random.key(1), (1280, 64))
    y = jax.random.randint(jax.random.key(2), (1280,), 0, 10)
    train = nn.training_run(
        nn.serial(nn.dense(64), nn.relu, nn.dropout(0.2), nn.dense(10)),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=lambda h: nn.optimizers.adam(h["rate"]),
        epochs=3,
        batch_size=64,
    )
    return rows_for(train, (x, y), 16)


def measure(title: str, rows: Rows) -> None:
    """Run the rows in turn and print medians and ratios."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS + 1):
        for name, call in rows.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - began)
    print(title)
    for name, (first, *values) in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["one"][1:], strict=True))
        median = statistics.median(values)
        print(f"  {name:15}{median * 1e3:9.2f} ms {ratio:7.2f}x    first {first * 1e3:8.0f} ms")


def main() -> None:
    """Measure and print."""
    measure("3-3-1, 1,000 epochs of one step", tutorial_network())
    measure("64-64-10, 3 epochs of 20 steps", mlp())


if __name__ == "__main__":
    main()
