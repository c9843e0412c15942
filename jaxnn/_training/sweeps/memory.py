"""How much memory a program needs, and how much there is."""

import os
from pathlib import Path
from typing import Any

import jax

GROUPS = Path("/sys/fs/cgroup")
CONTROL_GROUPS = (  # the limit and what is used, in the second and the first version
    (GROUPS / "memory.max", GROUPS / "memory.current"),
    (GROUPS / "memory/memory.limit_in_bytes", GROUPS / "memory/memory.usage_in_bytes"),
)


def needed_bytes(compiled: Any) -> int:
    """What a compiled program needs besides its arguments; 0 if the backend does not tell."""
    stats = compiled.memory_analysis()
    if stats is None:
        return 0
    return int(stats.temp_size_in_bytes + stats.output_size_in_bytes)


def available_bytes() -> int | None:
    """What is free on the default device; None if nobody tells."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    limits = [value for value in (_free_memory(), _free_in_container()) if value is not None]
    return min(limits, default=None)


def _free_memory() -> int | None:
    """What the operating system has; if it only tells how much there is, that."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        pages = _system("SC_AVPHYS_PAGES") or _system("SC_PHYS_PAGES")
        size = _system("SC_PAGE_SIZE")
        return None if pages is None or size is None else pages * size
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _system(name: str) -> int | None:
    known = name in getattr(os, "sysconf_names", ())
    return os.sysconf(name) if known else None


def _free_in_container() -> int | None:
    """What the control group of this process may still take, if it has a limit."""
    for limit, used in CONTROL_GROUPS:
        try:
            return max(int(limit.read_text()) - int(used.read_text()), 0)
        except (OSError, ValueError):  # there is none, or its limit is "max"
            continue
    return None
