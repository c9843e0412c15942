"""Compiled programs, of which the last ones are kept for the next equal call."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxnn._core.construction import IncomparableError, comparable

MOST_PROGRAMS = 128

_programs: OrderedDict[Hashable, jax.stages.Wrapped] = OrderedDict()
_lock = threading.RLock()  # a handler of signals may ask while its thread does


def compiled(function: Callable[..., Any], *static: Any, **options: Any) -> jax.stages.Wrapped:
    """`jax.jit(partial(function, *static), **options)`, the same for equal calls.

    The functions among `static` (a layer, a loss) live as long as the program: until
    `MOST_PROGRAMS` others were asked for since. `jax.jit` by itself would keep its static arguments
    alive for ever.

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
            while len(_programs) > MOST_PROGRAMS:
                _programs.popitem(last=False)
        _programs.move_to_end(key)
    return program
