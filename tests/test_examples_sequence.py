"""The example of sequences: a short training in this process, and the script as users run it."""

import re

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.scripts import module_of, printed


@pytest.fixture(scope="module")
def example():
    """The script as a module."""
    pytest.importorskip("sklearn")
    return module_of("sequence_classifier")


def test_the_data_hold_each_image_whole_and_shortened(example):
    (x, labels), (x_test, labels_test) = example.load(0)
    assert x["rows"].shape == (2816, 8, 8)
    np.testing.assert_array_equal(x["lengths"][:1408], 8)
    assert set(x["lengths"][1408:].tolist()) == {3, 4, 5, 6, 7}
    np.testing.assert_array_equal(labels[:1408], labels[1408:])
    assert len(x_test["rows"]) == len(labels_test) == 389


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
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
    text = printed("sequence_classifier", "--cell", cell)
    accuracies = [float(percent) for percent in re.findall(r": (.*)%$", text, re.MULTILINE)]
    assert accuracies[0] > 95
    assert accuracies[-1] > 75
