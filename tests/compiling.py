"""Compilation for tests, where most programs run once."""

import functools

import jax

# Half the time of jax.jit; the optimisations it leaves out are XLA's own.
fast_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)
