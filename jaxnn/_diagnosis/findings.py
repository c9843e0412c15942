"""What a diagnosis is, and how it reads."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxnn._diagnosis.faults import FAULTS


class Finding(NamedTuple):
    """A fault that was found: its name and challenge, the evidence in numbers, and the cure."""

    name: str
    challenge: str
    evidence: str
    cure: str


class Diagnosis(NamedTuple):
    """What `diagnose` returns. Printing it prints the report.

    `findings` has a `Finding` for each fault, causes first, and is empty for a healthy set-up.
    `layers` has by column a number for each layer, in the order in which they run: the names in
    "path"; "std", the standard deviation of the output, and "gradient_norm", the norm of the
    gradient with respect to it, at the start. `rates` has multiples of the learning rate, and the
    losses that training by them came to, the columns "multiple" and "loss". `numbers` has what else
    was measured, by name.
    """

    findings: tuple[Finding, ...]
    layers: dict[str, np.ndarray]
    rates: dict[str, np.ndarray]
    numbers: dict[str, float]

    def __str__(self) -> str:
        """The report."""
        parts = [_told(finding) for finding in self.findings] or ["No fault found."]
        if self.layers:
            parts.append(_table(self.layers))
        if self.rates:
            parts.append(_table(self.rates))
        if self.numbers:
            parts.append(_table({name: np.array([v]) for name, v in self.numbers.items()}))
        return "\n\n".join(parts)


def finding(name: str, evidence: str) -> Finding:
    """The finding of a fault."""
    fault = FAULTS[name]
    return Finding(name, fault.challenge, evidence, fault.cure)


def causes(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that no other explains, in the order of the table."""
    found = {one.name: one for one in findings}
    explained = {name for one in found for name in FAULTS[one].explains}
    return tuple(found[name] for name in FAULTS if name in found and name not in explained)


def _told(one: Finding) -> str:
    lines = [f"{one.name} ({one.challenge})"]
    lines += textwrap.wrap(
        f"Evidence: {one.evidence}.", 96, initial_indent="  ", subsequent_indent="  "
    )
    lines += textwrap.wrap(f"Cure: {one.cure}.", 96, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def _table(columns: dict[str, np.ndarray]) -> str:
    cells = [[name, *map(_cell, values)] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    rows = zip(*cells, strict=True)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
