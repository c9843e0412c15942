"""Results as Markdown."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.match import Outcome, Result
from benchmarks.row import Row


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios round by round, and their quartiles."""
    found = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    if len(found) == 1:
        return found[0], found[0], found[0]
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return middle, low, high


def seconds(value: float) -> str:
    """Seconds in a unit that suits them, with three digits."""
    size, unit = next((u for u in ((1.0, "s"), (1e-3, "ms")) if value >= u[0]), (1e-6, "µs"))
    return f"{three_digits(value / size)} {unit}"


def three_digits(value: float) -> str:
    """A number with three digits, or with all that are before its point."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def table(row: Row, outcome: Outcome, roof: float | None = None) -> str:
    """The section of a row; `roof` is the best speed there is, in its unit."""
    head = ["", "time", "÷ ours", "quartiles", "goal", *([row.unit] if row.unit else [])]
    head += ["of the roof"] * (roof is not None) + ([] if row.cold else ["first"]) + ["memory"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    ours = next(iter(outcome.results.values()))
    for name, result in outcome.results.items():
        lines.append(cells(row, name, result, ours, roof))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = [f"{name} is left out: {reason}." for name, reason in outcome.missing.items()]
    if outcome.deviation > 0:
        notes.append(f"Results deviate by {outcome.deviation:.0e} at most.")
    return "\n\n".join([f"## {row.title}", text, *([" ".join(notes)] if notes else [])]) + "\n"


def cells(row: Row, name: str, result: Result, ours: Result, roof: float | None) -> list[str]:
    """The line of a contestant."""
    time = statistics.median(result.times)
    middle, low, high = ratios(result.times, ours.times)
    goal = row.contestants[name].goal
    line = [name, seconds(time), f"{middle:.3g}", f"{low:.3g}-{high:.3g}"]
    line.append("" if goal is None else f"{goal:.3g}{'' if high >= goal else ' missed'}")
    if row.unit:
        line.append(three_digits(row.work / time))
    if roof is not None:
        line.append(f"{row.work / time / roof:.0%}")
    if not row.cold:
        line.append(seconds(result.first))
    return [*line, f"{result.memory:,.0f} MB"]


def speeds(row: Row, outcome: Outcome) -> Mapping[str, float]:
    """The speed of each contestant, in the row's unit."""
    return {
        name: row.work / statistics.median(result.times) for name, result in outcome.results.items()
    }
