"""What the benchmark runs on."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

LIBRARIES = ("jaxnn", "jax", "jaxlib", "torch", "flax", "optax", "equinox", "numpy")


def processor() -> str:
    """The name of the processor."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> str:
    """The versions of Python and of the libraries."""
    found = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"no {library}")
    return ", ".join(found)


def description() -> str:
    """The machine, the versions and the day, as a paragraph."""
    device = jax.devices()[0]
    gpu = "" if device.platform == "cpu" else f", {device.device_kind}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    day = datetime.datetime.now(datetime.UTC).date()
    return f"{cores} cores of {processor()}{gpu}; {versions()}; {day}."
