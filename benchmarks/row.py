"""What a row of the benchmark is made of."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

Run = Callable[[int], Any]
"""`run(n)` does the work n times, one after the other, and returns once all is done: an array of
numbers in which all contestants must agree, or None. The next call goes on where it ended."""


class Contestant(NamedTuple):
    """One way to do the work of a row."""

    builder: str
    """`module:function` in `benchmarks.contestants`; the function makes a `Run` of the data."""
    goal: float | None = None
    """How many times as long as ours this one should take, at least."""
    environment: Mapping[str, str] = {}
    """Variables for its process."""
    share: int = 1
    """Of how many equal parts of the work it does one, for the slowest; its time is multiplied."""


class Row(NamedTuple):
    """The same work, done by several libraries; the first contestant is ours."""

    title: str
    data: Callable[[bool], Any]
    """`data(tiny)`: weights and batches as NumPy arrays, small ones for a test."""
    contestants: Mapping[str, Contestant]
    tolerance: float = 1e-3
    """The largest deviation of a result, relative to the largest result."""
    cold: bool = False
    """Whether each round is a fresh process, in which the first piece of work counts."""
    work: float = 1.0
    unit: str | None = None
    """How much a piece of work is, for a column with the speed; None for no such column."""
    roof: str | None = None
    """The row that measures the speed that is the limit, in the same unit."""
    gpu_only: bool = False


OMP_PASSIVE = {"OMP_WAIT_POLICY": "passive"}
TWO_DEVICES = {"JAX_NUM_CPU_DEVICES": "2"}
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def torches(function: str, goal: float | None = None) -> dict[str, Contestant]:
    """torch alone with its usual threads, and as it must be to share a process with JAX."""
    builder = f"with_torch:{function}"
    return {
        "torch": Contestant(builder, goal),
        "torch, passive threads": Contestant(builder, None, OMP_PASSIVE),
    }


def on_huge_pages(function: str) -> dict[str, Contestant]:
    """Three libraries, their memory from the system in pages of 2 MB instead of 4 kB."""
    libraries = {"jaxnn": "with_jaxnn", "flax linen + optax": "with_linen", "torch": "with_torch"}
    return {
        f"{library}, huge pages": Contestant(f"{module}:{function}", None, HUGE_PAGES)
        for library, module in libraries.items()
    }


def load_builder(builder: str) -> Callable[[Any], Run]:
    """The function that a contestant names; importing its module imports its library."""
    module, _, function = builder.partition(":")
    found: Callable[[Any], Run] = getattr(
        import_module(f"benchmarks.contestants.{module}"), function
    )
    return found
