"""How much memory a program needs, and how much there is."""

import os
from pathlib import Path
from typing import Any

import jax


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
    """What the operating system has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        names = ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE")
        if any(name not in getattr(os, "sysconf_names", ()) for name in names):
            return None
        return os.sysconf(names[0]) * os.sysconf(names[1])
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _free_in_container() -> int | None:
    """What the control group of this process may still take, if it has a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
