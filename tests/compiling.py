"""Compilation for tests, where most programs run once."""

import functools
from contextlib import contextmanager

import jax

# Half the time of jax.jit; the optimisations it leaves out are XLA's own.
fast_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


@contextmanager
def counted_compilations():
    """A list with an entry for each program that XLA compiles meanwhile."""
    seen = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
