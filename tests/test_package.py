"""The package as a whole: what importing it brings, and what it says of itself."""

import subprocess
import sys
from importlib.metadata import requires, version

import jaxnn as nn

EXTRAS = {"optax", "flax", "equinox", "haiku", "torch", "tqdm", "matplotlib", "sklearn", "chex"}


def test_importing_brings_jax_and_nothing_else():
    script = "import sys, jax; had = {*sys.modules}; import jaxnn; print(*{*sys.modules} - had)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in run.stdout.split()}
    assert not imported & EXTRAS
    assert "jaxnn" in imported


def test_jax_and_jaxlib_are_all_that_is_required():
    runtime = [line for line in requires("jaxnn") if "extra ==" not in line]
    assert sorted(line.partition(">")[0] for line in runtime) == ["jax", "jaxlib"]


def test_the_version_is_that_of_the_distribution():
    assert version("jaxnn") == nn.__version__


def test_every_public_name_is_there():
    for name in nn.__all__:
        assert hasattr(nn, name)
