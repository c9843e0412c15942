"""Programs in a process of their own: the examples as a user runs them, and tests of devices."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, blocked=()):
    """The finished process of an example; the modules in `blocked` cannot be imported."""
    start = (
        "import runpy, sys; "
        f"sys.modules.update(dict.fromkeys({list(blocked)!r})); "
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", start, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def on_devices(number, program, *arguments):
    """Let a program of the tests check what it does on so many devices of the CPU."""
    flags = f"--xla_force_host_platform_device_count={number} --xla_backend_optimization_level=0"
    subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.{program}", *arguments],
        check=True,
        cwd=EXAMPLES.parent,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )


def printed(name, *arguments):
    """What an example prints."""
    done = run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module_of(name):
    """An example as a module."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def data_file(name):
    """A file of data that is no part of the repository, in the folder that JAXNN_DATA names."""
    path = Path(os.environ.get("JAXNN_DATA", "")) / name
    if not path.is_file():
        pytest.skip(f"JAXNN_DATA names no folder with {name}")
    return path


def losses_of_steps(model, loss, batch, steps):
    """Train on one batch, by one program; the losses on the way."""

    def loss_fn(params, state, batch, key):
        x, y = batch
        predictions, state = model.apply(params, state, x, key=key, train=True)
        return loss(predictions, y).mean(), (state, {})

    optimizer = nn.optimizers.adam(1e-2)
    params, state = fast_jit(model.init)(jax.random.key(0), batch[0])
    step = fast_jit(nn.train_step(loss_fn, optimizer))
    now = nn.train_state(params, state, optimizer, jax.random.key(1))
    losses = []
    for _ in range(steps):
        now, metrics = step(now, batch)
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return losses
