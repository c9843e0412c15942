"""The process of one contestant: it works when it is asked to, and sleeps in between.

Alone in its process, a library has its own threads and its own way of waiting, and the peak of
memory is its own. What is asked and answered are lines of JSON.
"""

import argparse
import json
import os
import resource
import sys
import time
from typing import Any

import numpy as np

from benchmarks.row import load_builder
from benchmarks.rows import ROWS

CHECKED = 2
"""How many pieces of work, besides the first, contestants must agree in."""


def numbers(result: Any) -> list[float]:
    """Results as JSON has them."""
    flat: list[float] = [] if result is None else np.ravel(result).astype(float).tolist()
    return flat


def peak_memory() -> float:
    """The most memory that the process has had, in MB: of a GPU, if JAX or torch has one."""
    if "jax" in sys.modules:
        statistics = sys.modules["jax"].devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            return statistics["peak_bytes_in_use"] / 1e6  # type: ignore[no-any-return]
    elif "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated() / 1e6  # type: ignore[no-any-return]
    if os.path.exists("/proc/self/status"):  # getrusage there begins with the peak of the parent
        with open("/proc/self/status") as status:
            (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
        return int(peak) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def start(row_name: str, contestant_name: str, tiny: bool) -> tuple[Any, dict[str, Any]]:
    """Do the work for the first time; what there is to say of it."""
    row = ROWS[row_name]
    data = row.data(tiny)
    build = load_builder(row.contestants[contestant_name].builder)
    if "jax" in sys.modules:
        sys.modules["jax"].devices()  # starts the backend
    imported = peak_memory()
    began = time.perf_counter()
    run = build(data)
    values = numbers(run(1))
    first = time.perf_counter() - began
    memory = peak_memory() - imported
    if not row.cold:
        values += numbers(run(CHECKED))
    return run, {"first": first, "memory": memory, "values": values}


def main() -> None:
    """Work until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("contestant")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        run, report = start(options.row, options.contestant, options.tiny)
    except ModuleNotFoundError as error:
        answer({"missing": str(error)})
        return
    answer(report)
    for line in sys.stdin:
        began = time.perf_counter()
        run(int(line))
        answer(time.perf_counter() - began)


if __name__ == "__main__":
    main()
