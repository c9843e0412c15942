"""What many tiny networks cost side by side, against one by one and against one alone.

Run with `python benchmarks/sweep_speed.py`. The rows are interleaved, after one warm-up each;
medians are printed, and the medians of the ratios to one network, round by round. Compilation is
not counted: each row is a program that is compiled before.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

ROUNDS = 11
NETWORKS = 64
EPOCHS = 1_000


def rows() -> dict[str, Callable[[], Any]]:
    """The tutorial's second network, 3-3-1 on three examples, for learning rates of its own."""
    x = jnp.array([[1.2, 0.003, 0.008], [0.85, 0.002, 0.005], [1.5, 0.004, 0.009]])
    y = jnp.array([[1.0], [0.0], [1.0]])
    train = nn.training_run(
        nn.serial(nn.dense(3), nn.relu, nn.dense(1)),
        loss=nn.losses.sigmoid_binary_cross_entropy,
        optimizer=nn.optimizers.sgd,
        epochs=EPOCHS,
    )
    key, rates = jax.random.key(0), jnp.geomspace(1e-3, 1.0, NETWORKS)
    alone = jax.jit(train)
    together = jax.jit(jax.vmap(train, in_axes=(None, None, 0)))
    return {
        "one": lambda: alone(key, (x, y), rates[0]),
        f"{NETWORKS} side by side": lambda: together(key, (x, y), rates),
        f"{NETWORKS} one by one": lambda: [alone(key, (x, y), rate) for rate in rates],
    }


def main() -> None:
    """Measure and print."""
    calls = rows()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if round_number:
                times[name].append(time.perf_counter() - began)
    print(f"3-3-1, {EPOCHS} epochs of one step, medians of {ROUNDS}")
    for name, values in times.items():
        pairs = zip(values, times["one"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"  {name:20}{statistics.median(values) * 1e3:9.2f} ms {ratio:7.2f}x")


if __name__ == "__main__":
    main()
