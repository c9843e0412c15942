"""Figures: the numbers that they show are those of scikit-learn and of what they were given."""

import numpy as np
import pytest

import jaxnn as nn
from jaxnn import plot

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 60)
SCORES = np.round(LABELS + RNG.normal(size=60), 1)  # with ties
CHANCES = 1 / (1 + np.exp(-SCORES))
LAYERS = {
    "path": np.array(["a", "b", "c"]),
    "std": np.array([1.0, 0.1, 0.01]),
    "gradient_norm": np.array([0.0, 0.1, 1.0]),
}
RATES = {"multiple": np.array([0.1, 1, 10, 100]), "loss": np.array([0.9, 0.2, 5.0, np.inf])}
DIAGNOSIS = nn.Diagnosis((), LAYERS, RATES, {"loss_at_start": 1.0})
HISTORY = {
    "loss": np.linspace(1, 0.1, 5),
    "val_loss": np.linspace(1.1, 0.4, 5),
    "accuracy": np.linspace(0.5, 0.9, 5),
    "epochs": np.array(5),
    "gradient_norm/0/kernel": np.logspace(0, -2, 5),
    "gradient_norm/2/kernel": np.logspace(0.5, -1, 5),
}


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def drawn(figure):
    figure.draw_without_rendering()
    return figure


def test_learning_curves_have_a_panel_for_each_metric():
    first, second = drawn(plot.learning_curves(HISTORY, log=True)).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("loss", "accuracy")
    np.testing.assert_array_equal(lines(first)["training"][:, 1], HISTORY["loss"])
    np.testing.assert_array_equal(lines(first)["validation"][:, 0], np.arange(1, 6))
    (of_members,) = drawn(plot.learning_curves({"loss": np.ones((5, 3))})).axes
    assert len(of_members.lines) == 3


def test_roc_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    (axes,) = drawn(plot.roc(SCORES, LABELS)).axes
    false, true, _ = metrics.roc_curve(LABELS, SCORES, drop_intermediate=False)
    np.testing.assert_allclose(axes.lines[1].get_xydata(), np.stack([false, true], 1))
    assert axes.get_title() == f"area under the curve {metrics.roc_auc_score(LABELS, SCORES):.3f}"


def test_calibration_is_that_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    above, below = drawn(plot.calibration(CHANCES, LABELS, bins=5)).axes
    observed, predicted = calibration.calibration_curve(LABELS, CHANCES, n_bins=5)
    np.testing.assert_allclose(above.lines[1].get_xydata(), np.stack([predicted, observed], 1))
    assert sum(bar.get_height() for bar in below.patches) == len(LABELS)
    of_classes = drawn(plot.calibration(np.stack([1 - CHANCES, CHANCES], 1), LABELS)).axes[0]
    assert of_classes.lines[1].get_xdata().min() >= 0.5


def test_confusion_matrices_filters_and_layers_show_what_they_are_given():
    (axes,) = drawn(plot.confusion_matrix([[3, 1], [0, 0]])).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    kernel = RNG.normal(size=(3, 3, 3, 7))
    assert len(drawn(plot.filters(kernel)).axes) == 7
    assert len(drawn(plot.filters(kernel[:, :, :1], most=2)).axes) == 2
    left, right = drawn(plot.layers_over_depth(DIAGNOSIS)).axes
    np.testing.assert_array_equal(left.lines[0].get_xdata(), LAYERS["std"])
    np.testing.assert_array_equal(right.lines[0].get_xdata(), [np.nan, 0.1, 1.0])
    image, _ = drawn(plot.layers_over_time(HISTORY, "gradient_norm")).axes
    np.testing.assert_array_equal(image.images[0].get_array()[1], HISTORY["gradient_norm/2/kernel"])
    (axes,) = drawn(plot.rate_range(DIAGNOSIS)).axes
    np.testing.assert_array_equal(lines(axes)["after some steps"], [[0.1, 0.9], [1, 0.2]])
    np.testing.assert_array_equal(lines(axes)["above, or not finite"][:, 0], [10, 100])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.learning_curves({"a/b": [1.0]}), "learning_curves: history has"),
        (lambda: plot.roc([0.1, 0.2], [1, 1]), "roc: labels are all the same"),
        (lambda: plot.roc([0.1, np.nan], [1, 0]), "roc: a prediction is NaN"),
        (lambda: plot.roc([0.1], [1, 0]), "roc: there are 1 predictions and 2 labels"),
        (lambda: plot.calibration([1.5], [1]), "calibration: probabilities are from 1.5"),
        (lambda: plot.calibration([0.5], [1], bins=0), "calibration: bins is 0"),
        (lambda: plot.confusion_matrix(np.ones((2, 3))), "confusion_matrix: matrix has shape"),
        (lambda: plot.confusion_matrix(np.ones((2, 2)), ["a"]), "confusion_matrix: names has 1"),
        (lambda: plot.filters(np.ones((3, 3))), r"filters: kernel has shape \(3, 3\)"),
        (lambda: plot.filters(np.ones((3, 3, 1, 2)), most=0), "filters: most is 0"),
        (
            lambda: plot.layers_over_time(HISTORY, "update"),
            r"kind is 'update', of which.*expected one of",
        ),
        (
            lambda: plot.layers_over_time({"a/b": np.ones((2, 3))}, "a"),
            r"history has shape \(2, 3\) for each path",
        ),
        (lambda: plot.layers_over_depth(nn.Diagnosis((), {}, {}, {})), "has no layers"),
        (lambda: plot.rate_range(nn.Diagnosis((), {}, {}, {})), "has no rates"),
    ],
)
def test_what_cannot_be_shown_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
