"""The examples, run as a user runs them: each in a process of its own."""

import inspect
import re

import numpy as np
import pytest

import jaxnn as nn
from tests.scripts import losses_of_steps, module_of, printed, run

FORWARD = """\
Predicted house price: -1401.69
"""

BACKPROPAGATION = """\
Epoch 0, Loss: 0.4811
Epoch 100, Loss: 0.1614
Epoch 200, Loss: 0.1077
Epoch 300, Loss: 0.0603
Epoch 400, Loss: 0.0293
Epoch 500, Loss: 0.0139
Epoch 600, Loss: 0.0072
Epoch 700, Loss: 0.0046
Epoch 800, Loss: 0.0033
Epoch 900, Loss: 0.0023
Predicted price category: 0.50
"""

OPTIMIZATION = """\
Epoch 0, Loss: 0.2500
Epoch 100, Loss: 0.2104
Epoch 200, Loss: 0.2036
Epoch 300, Loss: 0.2036
Epoch 400, Loss: 0.2039
Epoch 500, Loss: 0.2163
Epoch 600, Loss: 0.1353
Epoch 700, Loss: 0.2127
Epoch 800, Loss: 0.1951
Epoch 900, Loss: 0.2088
"""


def test_forward_propagation():
    assert printed("tutorial_1_forward") == FORWARD


def test_backpropagation():
    assert printed("tutorial_2_backpropagation") == BACKPROPAGATION


@pytest.mark.slow
def test_optimization():
    recipe, textbook, comparison = printed("tutorial_3_optimization").split("\n\n")
    assert recipe + "\n" == OPTIMIZATION
    assert len(re.findall(r"^Epoch \d+, Loss: 0\.\d{4}$", textbook, re.MULTILINE)) == 10
    recipe_loss, textbook_loss, median = map(float, re.findall(r"0\.\d{4}", comparison))
    assert recipe_loss == 0.1567
    assert max(textbook_loss, median) < 0.05


@pytest.fixture
def needs_examples_extra():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")


@pytest.mark.usefixtures("needs_examples_extra")
def test_a_few_steps_on_the_digits_lower_the_loss_and_are_drawn():
    digits = module_of("digits")
    (images, labels), _, _ = digits.load(seed=0)
    few = images[:64], labels[:64]
    losses = losses_of_steps(digits.MODEL, digits.LOSS, few, 10)
    assert losses[-1] < 0.7 * losses[0]
    names = ("loss", "val_loss", "accuracy", "val_accuracy")
    figure = digits.draw(dict.fromkeys(names, np.array(losses)), *few, np.eye(10)[labels[:64]])
    _, predictions = figure.subfigs
    assert predictions.get_suptitle() == "Test: 100.0% right, 0 of 64 wrong (red)"
    assert len(predictions.axes) == 30


@pytest.mark.slow
@pytest.mark.usefixtures("needs_examples_extra")
def test_digits_draws_a_picture(tmp_path):
    picture = tmp_path / "picture.png"
    text = printed("digits", "--epochs", 2, "--output", picture)
    assert re.search(r"^Training time: \d+\.\d s", text, re.MULTILINE)
    assert float(re.search(r"^Test accuracy: (.*)%$", text, re.MULTILINE)[1]) > 50
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["sklearn.datasets", pytest.param("matplotlib.figure", marks=pytest.mark.slow)]
)
def test_digits_names_the_extra_that_it_needs(module):
    done = run("digits", blocked=[module])
    assert done.returncode == 1
    assert "pip install scikit-learn" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("needs_examples_extra")
@pytest.mark.parametrize("seed", range(3))
def test_digits_learns(tmp_path, seed):
    text = printed("digits", "--seed", seed, "--output", tmp_path / "picture.png")
    assert float(re.search(r"^Test accuracy: (.*)%$", text, re.MULTILINE)[1]) >= 97


@pytest.mark.usefixtures("needs_examples_extra")
def test_the_comparison_has_every_optimizer():
    families = module_of("compare_optimizers").FAMILIES
    compared = {name.split(",")[0] for members in families.values() for name in members}

    def is_optimizer(name):
        value = getattr(nn.optimizers, name)
        parameters = list(inspect.signature(value).parameters) if inspect.isfunction(value) else []
        return parameters[:1] == ["learning_rate"] and not name.startswith("scale_by_")

    every = set(filter(is_optimizer, nn.optimizers.__all__))
    assert every - compared == {"adamaxw", "nadamw"}  # one row for each kind of decay
    assert compared <= every


@pytest.mark.slow
@pytest.mark.usefixtures("needs_examples_extra")
def test_the_comparison_of_optimizers(tmp_path):
    picture = tmp_path / "picture.png"
    text = printed("compare_optimizers", "--epochs", 2, "--out", picture)
    rows = re.findall(r"^\| (.*) \| ([\d.]+) bytes \| .* \| ([\d.]+)% \|$", text, re.MULTILINE)
    assert len(rows) == 31
    state = {name: float(size) for name, size, _ in rows}
    assert (state["sgd"], state["lion"], state["adam"]) == (0, 4, 8)
    assert all(float(accuracy) > 50 for name, _, accuracy in rows if name == "adam")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.slow
def test_many_processes(tmp_path):
    lines = printed("many_processes", tmp_path, "--epochs", 4).splitlines()
    assert "2 processes, 4 devices: " in lines[-1]
    assert float(lines[-1].split()[-1]) > 0.9
    assert nn.load(tmp_path / "params.safetensors")["more/kernel"].shape == (256, 256)
