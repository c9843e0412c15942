"""Where one form of an operation overtakes another: how the library's thresholds were found.

python -m benchmarks.thresholds

Each constant is set to several values, and the same work is compiled and timed with each, in turn.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from benchmarks import machine
from jaxnn._training import loop
from jaxnn.functional import _convolution_forms as _convolution
from jaxnn.functional import _windows

Work = Callable[[], Any]


class Threshold(NamedTuple):
    """A constant of a module, the values to try, and the work for which they matter."""

    module: Any
    name: str
    values: dict[str, int]  # by what they bring about
    works: dict[str, Callable[[], Work]]  # the work anew, to be compiled with each value


def steps_of(function: Callable[..., jax.Array], *arguments: jax.Array) -> Work:
    """Three steps of descent in a loop, as in `fit`."""

    def step(arguments: Any, _: None) -> tuple[Any, None]:
        gradients = jax.grad(lambda a: jnp.square(function(*a)).mean())(arguments)
        return jax.tree.map(lambda a, g: a - 0.1 * g, arguments, gradients), None

    train = jax.jit(lambda a: jax.lax.scan(step, a, length=3)[0])
    return functools.partial(train, arguments)


def normal(*shape: int) -> jax.Array:
    """Normal numbers."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def grouped_convolution(groups: int, channels: int = 128) -> Work:
    """Windows of 3 by 3 on 32 images of 14 by 14."""
    convolve = functools.partial(nn.functional.conv, feature_group_count=groups)
    return steps_of(
        convolve, normal(32, 14, 14, channels), normal(3, 3, channels // groups, channels)
    )


def convolution(side: int, channels: int, outputs: int) -> Work:
    """Windows of 3 by 3 on 64 images."""
    return steps_of(
        nn.functional.conv, normal(64, side, side, channels), normal(3, 3, channels, outputs)
    )


def pooling(pool: Callable[..., jax.Array], window: int, stride: int) -> Work:
    """Square windows on 16 images of about 56 by 56 and 32 channels."""
    side = 56 // window * window
    x = normal(16, side, side, 32)
    return steps_of(lambda x: pool(x, (window, window), strides=(stride, stride)), x)


def tiny_training(hidden: int) -> Work:
    """1,000 epochs of one step on three examples."""
    train = nn.training_run(
        nn.serial(nn.dense(hidden), nn.relu, nn.dense(1)),
        loss=nn.losses.sigmoid_binary_cross_entropy,
        optimizer=nn.optimizers.sgd(0.1),
        epochs=1000,
    )
    return functools.partial(jax.jit(train), jax.random.key(0), (normal(3, 3), jnp.ones((3, 1))))


THRESHOLDS = (
    Threshold(
        _convolution,
        "UNROLLED_GROUPS",
        {"group by group": 10**9, "tap by tap": 1},
        {
            f"{g} groups of 128 channels": functools.partial(grouped_convolution, g)
            for g in (2, 4, 8, 16, 32)
        },
    ),
    Threshold(
        _convolution,
        "CHUNK_BYTES",
        {"whole": 10**9, "16 MB": 16 * 10**6, "4 MB": 4 * 10**6, "1 MB": 10**6},
        {
            f"{side} by {side}, {a} to {b} channels": functools.partial(convolution, side, a, b)
            for side, a, b in ((56, 16, 16), (28, 32, 64), (14, 64, 64), (14, 128, 128))
        },
    ),
    Threshold(
        _windows,
        "UNROLLED",
        {"all elements": 10**9, "axis by axis": 0},
        {
            f"{kind}, {window} by {window}, stride {stride}": functools.partial(
                pooling, pool, window, stride
            )
            for kind, pool in (("max", nn.functional.max_pool), ("average", nn.functional.avg_pool))
            for window, stride in ((2, 2), (3, 3), (3, 2), (4, 4), (5, 2), (7, 7))
        },
    ),
    Threshold(
        loop,
        "ROWS_AT_ONCE",
        {f"{n:,}": n for n in (1, 8, 64, 200, 1000)},
        {f"3-{h}-1, 1,000 epochs": functools.partial(tiny_training, h) for h in (3, 16, 64)},
    ),
)


def medians(threshold: Threshold, make: Callable[[], Work], rounds: int) -> list[float]:
    """The seconds with each value."""
    compiled = []
    for value in threshold.values.values():
        with mock.patch.object(threshold.module, threshold.name, value):
            jax.clear_caches()  # parts of programs that were traced with another value
            work = make()
            jax.block_until_ready(work())
        compiled.append(work)
    seconds: list[list[float]] = [[] for _ in compiled]
    for _ in range(rounds):
        for work, measured in zip(compiled, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(work())
            measured.append(time.perf_counter() - began)
    return [statistics.median(measured) for measured in seconds]


def lines_of(threshold: Threshold, rounds: int) -> Iterator[str]:
    """A Markdown table of milliseconds, the fastest in bold."""
    yield f"## {threshold.name} = {getattr(threshold.module, threshold.name)}\n"
    yield f"| ms | {' | '.join(threshold.values)} |"
    yield f"| --- |{' ---: |' * len(threshold.values)}"
    for label, make in threshold.works.items():
        times = medians(threshold, make, rounds)
        cells = [f"**{t * 1e3:.3g}**" if t == min(times) else f"{t * 1e3:.3g}" for t in times]
        yield f"| {label} | {' | '.join(cells)} |"
    yield ""


def main() -> None:
    """Print a table for each threshold, or for those that are named."""
    by_name = {threshold.name: threshold for threshold in THRESHOLDS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=by_name, help=", ".join(by_name))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    unknown = set(options.names) - set(by_name)
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected any of {', '.join(by_name)}")
    print(machine.description())
    for name in options.names:
        for line in lines_of(by_name[name], options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
