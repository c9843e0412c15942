"""The example of sequences: a short training in this process, and the script as users run it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

SCRIPT = Path(__file__).parent.parent / "examples" / "sequence_classifier.py"


@pytest.fixture(scope="module")
def example():
    """The script as a module."""
    pytest.importorskip("sklearn")
    specification = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_data_hold_each_image_whole_and_shortened(example):
    (x, labels), (x_test, labels_test) = example.load(0)
    assert x["rows"].shape == (2816, 8, 8)
    np.testing.assert_array_equal(x["lengths"][:1408], 8)
    assert set(x["lengths"][1408:].tolist()) == {3, 4, 5, 6, 7}
    np.testing.assert_array_equal(labels[:1408], labels[1408:])
    assert len(x_test["rows"]) == len(labels_test) == 389


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_few_steps_of_training_lower_the_loss(example, cell):
    (x, labels), _ = example.load(0)
    few = jax.tree.map(lambda leaf: leaf[::22], (x, labels))
    train = nn.training_run(
        example.make_model(cell, features=8),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adam(3e-2),
        epochs=8,
        batch_size=32,
    )
    _, _, history = fast_jit(train)(jax.random.key(0), few)
    assert history["loss"][-1] < 0.7 * history["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_script_learns(example, cell):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cell", cell],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracies = [float(text) for text in re.findall(r": (.*)%$", done.stdout, re.MULTILINE)]
    assert accuracies[0] > 95
    assert accuracies[-1] > 75
