"""The whole suite runs under JAX's strictest settings.

What makes it quick, in compiling and in what is looked for, ends where `XLA_FLAGS` is set:
`make test-all` sets it to nothing, and so tests what users run.
"""

import gc
import os
import signal
import threading

import jax
import pytest
from jax._src.interpreters import mlir

# Tests compile much and run little: with these they take a third of the time.
QUICK_TO_COMPILE = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 11):  # later ones do not know it
    QUICK_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")
FLAGS = " ".join(QUICK_TO_COMPILE)
QUICK = os.environ.setdefault("XLA_FLAGS", FLAGS) == FLAGS  # in the processes of xdist as well

# Where a program is written down, no test asks: without it they are lowered in less time.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
# It takes a sixth of the time. `keys_are_used_once` asks for it where keys are split and passed on.
jax.config.update("jax_debug_key_reuse", not QUICK)


class _Contexts(threading.local):
    """Ten programs are lowered in one context of MLIR, as later versions do by themselves."""

    left = 0

    def __init__(self, make):
        self.make = make

    def get(self):
        if not self.left:
            self.context, self.left = self.make(), 10
        self.left -= 1
        return self.context


if jax.__version_info__ < (0, 11):  # to make one takes a third of the time of lowering
    mlir.make_ir_context = _Contexts(mlir.make_ir_context).get


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as of nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish():
    """Thousands of collected tests are not looked through again at each garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


compiled = 0


def _count_what_is_compiled(event, duration, **_):
    global compiled
    compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count_what_is_compiled)


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_do_not_pile_up():
    """Thousands of programs that run once would fill the memory; modules share some hundreds."""
    yield
    global compiled
    if compiled > 1500:
        jax.clear_caches()
        compiled = 0


@pytest.fixture
def key():
    """A typed PRNG key."""
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Double precision while the test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def keys_are_used_once():
    """JAX raises `KeyReuseError` where a key is used twice."""
    with jax.debug_key_reuse(True):
        yield
