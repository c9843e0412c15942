"""The package as a whole: what importing it brings, and what it says of itself."""

import importlib
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path
from types import ModuleType

import jax
import pytest

import jaxnn as nn

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "jaxnn-functional"
EXTRAS = {"optax", "flax", "equinox", "haiku", "torch", "tqdm", "matplotlib", "sklearn", "chex"}


def test_importing_brings_jax_and_nothing_else():
    script = "import sys, jax; had = {*sys.modules}; import jaxnn; print(*{*sys.modules} - had)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in run.stdout.split()}
    assert not imported & EXTRAS
    assert "jaxnn" in imported


def test_jax_and_jaxlib_are_all_that_is_required():
    runtime = [line for line in requires(DISTRIBUTION) if "extra ==" not in line]
    assert sorted(line.partition(">")[0] for line in runtime) == ["jax", "jaxlib"]


def test_the_version_is_that_of_the_distribution():
    assert version(DISTRIBUTION) == nn.__version__


def public_modules():
    """The package, and every module among its public names."""
    values = {f"jaxnn.{name}": getattr(nn, name) for name in nn.__all__}
    modules = {name: value for name, value in values.items() if isinstance(value, ModuleType)}
    return {"jaxnn": nn} | modules


@pytest.mark.parametrize("name", public_modules())
def test_what_one_sees_is_what_is_public(name):
    module = importlib.import_module(name)
    assert [seen for seen in dir(module) if not seen.startswith("_")] == sorted(module.__all__)


def test_every_file_is_private_unless_its_module_is_public():
    found = [info.name for info in pkgutil.walk_packages(nn.__path__, "jaxnn.")]
    assert {name for name in found if "._" not in name} == public_modules().keys() - {"jaxnn"}


def test_nobody_is_sent_to_the_package_of_a_stranger():
    """`jaxnn` on the package index belongs to another project."""
    folders = ("jaxnn", "examples", "docs", "benchmarks", "tests", ".github", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".cff", "")]
    wanted = re.compile(r"(?:pip|uv|poetry) +(?:install|add)[^`\n#]*?[ '\"]jaxnn(?![-\w])")
    texts = {path: path.read_bytes() for path in files if path.is_file()}
    found = [
        str(path) for path, text in texts.items() if wanted.search(text.decode(errors="ignore"))
    ]
    assert found == []


def test_the_versions_of_jax_that_are_promised_have_this_one():
    text = (ROOT / "SECURITY.md").read_text()
    oldest, newest = re.search(r"jax (\d+\.\d+\.\d+) to (\d+\.\d+)", text).groups()
    assert f'"jax>={oldest}", "jaxlib>={oldest}"' in (ROOT / "pyproject.toml").read_text()
    running = jax.__version_info__
    assert running >= tuple(map(int, oldest.split(".")))
    if running[:2] > tuple(map(int, newest.split("."))):
        pytest.skip(f"jax {jax.__version__} is newer than {newest}, which SECURITY.md promises")


def test_workflows_use_actions_by_their_hash_and_end_in_time():
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text()
        for action in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
        assert text.count("timeout-minutes:") == text.count("runs-on:"), path
        assert "\npermissions:\n  contents: read\n" in text
