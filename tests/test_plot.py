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


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def test_histograms_count_what_is_finite():
    values = {"a": RNG.normal(size=(5, 4)), "b": np.array([1.0, np.nan, 2.0], np.float32)}
    first, second = drawn(plot.histograms(values, bins=6)).axes
    assert heights(first) == np.histogram(values["a"], 6)[0].tolist()
    assert (first.get_xlabel(), second.get_xlabel()) == ("a", "b")
    assert second.get_title() == "1.5 ± 0.5, 1 not finite"
    assert len(drawn(plot.histograms(values, most=1)).axes) == 1


def test_an_embedding_is_by_the_principal_components_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors = RNG.normal(size=(60, 5)) * [3, 2, 1, 1, 1] + 7
    pca = decomposition.PCA(2)
    expected = pca.fit_transform(vectors)
    (axes,) = drawn(plot.embedding(vectors, names=[f"n{i}" for i in range(60)])).axes
    found = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert axes.get_xlabel().startswith(f"component 1, {pca.explained_variance_ratio_[0]:.0%} of")
    assert [text.get_text() for text in axes.texts[:2]] == ["n0", "n1"]
    (axes,) = drawn(plot.embedding(vectors, LABELS)).axes
    for label, points in zip((0, 1), axes.collections, strict=True):
        np.testing.assert_array_equal(points.get_offsets(), found[label == LABELS])
    axes, _ = drawn(plot.embedding(vectors, SCORES)).axes
    np.testing.assert_array_equal(axes.collections[0].get_array(), SCORES)


def test_attention_maps_have_one_scale_and_the_names_of_queries_and_keys():
    weights = RNG.uniform(size=(3, 2, 4))
    first, second, third, _ = drawn(
        plot.attention_maps(weights, queries=list("ab"), keys=list("cdef"))
    ).axes
    for head, axes in enumerate((first, second, third)):
        np.testing.assert_array_equal(axes.images[0].get_array(), weights[head])
        assert axes.images[0].get_clim() == (0, weights.max())
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in first.get_xticklabels()] == ["c", "d", "e", "f"]
    one, _ = drawn(plot.attention_maps(weights[1])).axes
    assert one.get_title() == ""


def test_a_sweep_is_shown_by_each_hyperparameter_and_by_both():
    table = {
        "rate": np.array([1e-3, 1e-3, 1e-1, 1e-1, 1e-3, 1e-1], np.float32),
        "width": np.array([8, 8, 8, 8, 9, 9]),
        "constant": np.ones(6),
        "seed": np.array([0, 1, 0, 1, 0, 0]),
        "loss": np.array([3.0, 5.0, 2.0, 1.0, 7.0, np.nan]),
    }
    result = nn.SweepResult(table, {}, {}, {}, None)
    rate, width, both, _ = drawn(plot.sweep(result)).axes
    assert [axes.get_xlabel() for axes in (rate, width, both)] == ["rate", "width", "rate"]
    assert (rate.get_xscale(), width.get_xscale(), both.get_ylabel()) == ("log", "linear", "width")
    known, lost, best = rate.collections
    assert known.get_offsets()[:, 1].tolist() == [3, 5, 2, 1, 7]
    assert lost.get_offsets()[:, 1].tolist() == [7]
    assert best.get_offsets()[:, 1].tolist() == [1]
    squares = both.collections[0]
    shown = np.column_stack([squares.get_offsets(), squares.get_array()])
    np.testing.assert_allclose(shown, [[1e-3, 8, 4], [1e-3, 9, 7], [1e-1, 8, 1.5]])
    alone = {name: table[name] for name in ("rate", "seed", "loss")}
    worst = drawn(plot.sweep(nn.SweepResult(alone, {}, {}, {}, None), "loss", "max")).axes
    assert len(worst) == 1
    assert worst[0].collections[2].get_offsets()[:, 1].tolist() == [7]


def test_predictions_have_bands_of_their_spread():
    x, order = np.array([[2.0], [0.0], [1.0]]), [1, 2, 0]
    mean, spread = np.array([[5.0], [3.0], [4.0]]), np.array([0.3, 0.1, 0.2])
    (axes,) = drawn(plot.predictions(x, mean, spread, data=([0.5], [3.5]))).axes
    np.testing.assert_array_equal(lines(axes)["mean"], np.hstack([x, mean])[order])
    np.testing.assert_array_equal(lines(axes)["data"], [[0.5, 3.5]])
    wide, narrow = (band.get_paths()[0].get_extents() for band in axes.collections)
    np.testing.assert_allclose([narrow.y0, narrow.y1, wide.y0, wide.y1], [2.9, 5.3, 2.8, 5.6])


def test_predicted_against_true_tells_the_score_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    true, found = RNG.normal(size=(2, 20))
    (axes,) = drawn(plot.predicted_against_true(true[:, None], found, np.ones(20))).axes
    np.testing.assert_array_equal(axes.lines[-1].get_xydata(), np.stack([true, found], 1))
    assert axes.get_title() == f"R² {metrics.r2_score(true, found):.3f}"
    assert len(axes.collections[0].get_segments()) == 20


SWEPT = nn.SweepResult(
    {"rate": np.ones(2), "seed": np.ones(2), "loss": np.ones(2)}, {}, {}, {}, None
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.histograms({}), "histograms: there is nothing to show"),
        (lambda: plot.histograms({"a": np.ones(2)}, bins=0), "histograms: bins is 0"),
        (lambda: plot.embedding(np.ones((1, 4))), r"embedding: vectors has shape \(1, 4\)"),
        (lambda: plot.embedding([[1.0, np.inf], [1, 2]]), "embedding: vectors has numbers that"),
        (lambda: plot.embedding(np.eye(2), names=["a"]), r"embedding: names has shape \(1,\)"),
        (lambda: plot.attention_maps(np.ones((1, 2, 3, 3))), r"weights has shape \(1, 2, 3, 3\)"),
        (lambda: plot.attention_maps(np.ones((2, 3)), keys=["a"]), "keys has 1 names, expected 3"),
        (lambda: plot.attention_maps(np.ones((0, 3))), r"weights has shape \(0, 3\)"),
        (lambda: plot.sweep(SWEPT, "val_loss"), "metric is 'val_loss', expected one of"),
        (lambda: plot.predictions([1, 2], [1.0]), r"predictions: mean has shape \(1,\)"),
        (lambda: plot.predictions(np.ones((2, 2)), [1, 2.0]), r"x has shape \(2, 2\)"),
        (lambda: plot.predictions([1, 2], [1, 2], [1, -1]), "predictions: spread is -1"),
        (lambda: plot.predicted_against_true([], []), r"targets has shape \(0,\)"),
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
