"""Compiled programs, of which the last ones are kept for the next equal call."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxnn._core.construction import IncomparableError, comparable

MOST_PROGRAMS = 128
# Of the 65,530 memory maps that Linux gives a process, which ends without them. XLA's programs for
# CPUs take hundreds each, those of deep networks thousands.
MOST_MAPS = 30_000

_programs: OrderedDict[Hashable, jax.stages.Wrapped] = OrderedDict()
_lock = threading.RLock()  # a handler of signals may ask while its thread does


def compiled(function: Callable[..., Any], *static: Any, **options: Any) -> jax.stages.Wrapped:
    """`jax.jit(partial(function, *static), **options)`, the same for equal calls.

    The functions among `static` (a layer, a loss) live as long as the program: until
    `MOST_PROGRAMS` others were asked for since, or memory maps run out. `jax.jit` by itself would
    keep its static arguments alive for ever.

    Args:
        function: a pure function.
        *static: its first arguments, which the program depends on.
        **options: those of `jax.jit`, argument numbers counted without `static`.

    Returns:
        A function of the remaining arguments.
    """
    try:
        key = (function, comparable(options), *map(comparable, static))
    except IncomparableError:  # an array among them: nobody can tell whether it is the same
        return jax.jit(functools.partial(function, *static), **options)
    with _lock:
        program = _programs.get(key)
        if program is None:
            program = _programs[key] = jax.jit(functools.partial(function, *static), **options)
            most = MOST_PROGRAMS if _memory_maps() < MOST_MAPS else 1 + len(_programs) // 2
            while len(_programs) > most:
                _programs.popitem(last=False)
        _programs.move_to_end(key)
    return program


def _memory_maps() -> int:
    """How many memory maps the process has, 0 where the system does not tell."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return 0
