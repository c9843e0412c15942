"""Kernels as integers against float32: error, memory and speed.

python -m benchmarks.quantized
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

FEATURES, DEPTH, ROUNDS = 1024, 4, 15
ROWS = (1, 256)


def model(wrap: Callable[[nn.Layer], nn.Layer]) -> nn.Layer:
    """The feed-forward halves of a transformer, each kernel in a layer of its own."""

    def dense(features: int) -> nn.Layer:
        return wrap(nn.dense(features))

    block = nn.serial(nn.layer_norm(), dense(4 * FEATURES), nn.gelu, dense(FEATURES))
    return nn.stack(nn.residual(block), DEPTH)


def main() -> None:
    """Print the table."""
    x = jax.random.normal(jax.random.key(1), (ROWS[-1], FEATURES))
    contestants: dict[str, Callable[[nn.Layer], nn.Layer]] = {
        "float32": lambda layer: layer,
        "int8": lambda layer: nn.quantized(layer, "int8"),
        "int4": lambda layer: nn.quantized(layer, "int4"),
    }
    results: dict[str, Any] = {}
    programs: dict[tuple[str, int], Callable[[], Any]] = {}
    sizes = {}
    for name, wrap in contestants.items():
        layer = model(wrap)  # the same key: the same kernels, rounded
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        results[name] = layer.apply(*variables, x)[0]
        for rows in ROWS:
            arguments = *variables, x[:rows]
            program = jax.jit(lambda *args, apply=layer.apply: apply(*args)[0])
            compiled = program.lower(*arguments).compile()
            programs[name, rows] = lambda run=compiled, given=arguments: run(*given)
            sizes[name] = compiled.memory_analysis().argument_size_in_bytes - x[:rows].nbytes
    times: dict[tuple[str, int], list[float]] = {case: [] for case in programs}
    for _ in range(ROUNDS):
        for case, run in programs.items():
            begin = perf_counter()
            jax.block_until_ready(run())
            times[case].append(perf_counter() - begin)
    heads = [f"{rows} row{'s' * (rows > 1)}, ms" for rows in ROWS]
    print(f"| kernels | error | memory, MB | {' | '.join(heads)} |")
    print("|---|---|---|---|---|")
    exact = results["float32"]
    for name, y in results.items():
        error = jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact - x)
        cells = [f"{1000 * median(times[name, rows]):.1f}" for rows in ROWS]
        print(f"| {name} | {100 * error:.2g} % | {sizes[name] / 1e6:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
