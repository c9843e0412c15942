"""A fresh interpreter that imports a library."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks.row import Run


def importing(module: str) -> Callable[[Any], Run]:
    """Start Python, import the module, end."""

    def build(data: None) -> Run:
        if find_spec(module.partition(".")[0]) is None:
            raise ModuleNotFoundError(f"No module named {module!r}")

        # An installed library has its bytecode; one that is worked on gets it the first time.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-c", f"import {module}"]

        def run(n: int) -> None:
            for _ in range(n):
                subprocess.run(command, check=True, env=environment)

        return run

    return build


jaxnn, jax, optax = importing("jaxnn"), importing("jax"), importing("optax")
linen, equinox, torch = importing("flax.linen"), importing("equinox"), importing("torch")
