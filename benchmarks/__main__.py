"""The benchmark: jaxnn against other libraries, the same work done by each.

python -m benchmarks [ROW ...]
"""

import argparse
import sys
from pathlib import Path

import jax

from benchmarks import machine
from benchmarks.match import ROUNDS, Disagreement, play
from benchmarks.rows import ROWS, chosen
from benchmarks.table import speeds, table

RESULTS = Path(__file__).with_name("RESULTS.md")

HOW = f"""\
# Results

Written by `make bench`. Each contestant is alone in a process of its own, with its library's usual
threads, and sleeps while others work; all begin with the same weights and data and must agree in
what they compute, or the row fails. They work in turn, {ROUNDS} rounds of a quarter of a second,
every second one backwards; "time" is the median for one piece of work, "÷ ours" the median of the
ratios to the first line, round by round: above 1, the first line is faster. "quartiles" are those
of the ratios; a goal is missed if three quarters of the rounds are below it. Timings on shared
machines vary by a fifth: below 1.2 is a tie. "first" is the time to the first result, compilation
included and imports not; "memory" is the peak until then above what the imports need.
JAX steps are compiled with donated buffers; torch is eager, in channels-last and with fused
optimizers where that is faster (`torch.compile` needs a C++ compiler), "passive threads" being what
it must use to share a process with JAX; "huge pages" have GLIBC_TUNABLES=glibc.malloc.hugetlb=1. A
row of fresh processes has no "first": that is its time.
"""


def main() -> None:
    """Run the rows that are asked for; after all of them, write the results down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "rows", nargs="*", help=f"names of rows, or how they begin: {', '.join(ROWS)}"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--output", type=Path, help="where to write all that is printed")
    options = parser.parse_args()

    is_gpu = jax.default_backend() == "gpu"
    texts, failures = [HOW, machine.description() + "\n"], []
    print(texts[-1], flush=True)
    roofs: dict[str, float] = {}
    names = [name for name in chosen(options.rows) if is_gpu or not ROWS[name].gpu_only]
    for name in names:
        row = ROWS[name]
        try:
            outcome = play(name, row, rounds=options.rounds, tiny=options.tiny)
        except (Disagreement, RuntimeError) as error:
            failures.append(f"{name}: {error}")
            texts.append(f"## {row.title}\n\nFailed: {error}\n")
        else:
            roofs[name] = max(speeds(row, outcome).values())
            texts.append(table(row, outcome, roofs.get(row.roof or "")))
        print(texts[-1], flush=True)

    output = options.output
    if output is None and not (options.rows or options.tiny or failures):
        output = RESULTS
    if output is not None:
        output.write_text("\n".join(texts), "utf-8")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
