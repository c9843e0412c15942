"""Cross-validation against single runs, and temperature scaling against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 2)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0]], np.float32) + 0.1).astype(np.float32)
TRAIN = nn.training_run(
    nn.dense(1), loss=nn.losses.squared_error, optimizer=nn.optimizers.sgd(0.1), epochs=4
)


@each_value_once
@pytest.mark.parametrize("examples", [12, 11])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_fold_is_a_run_without_its_part(examples, weighted, key):
    """In order, the parts are those of scikit-learn's KFold: the first are the longer ones."""
    weights = (1 + np.arange(examples) % 3).astype(np.float32)
    data = (X[:examples], Y[:examples], *([weights] if weighted else []))
    params, state, history = fast_jit(
        lambda key: nn.cross_validate(TRAIN, key, data, 3, shuffle=False)
    )(key)
    assert state == {}
    single = fast_jit(TRAIN)
    for fold, held in enumerate(np.array_split(np.arange(examples), 3)):
        others = np.setdiff1d(np.arange(examples), held)
        parts = [tuple(a[rows] for a in data) for rows in (others, held)]
        expected, _, of_one = single(jax.random.fold_in(key, fold), parts[0], None, parts[1])
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(params[name][fold], expected[name], rtol=1e-5, atol=1e-6)
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(history[name][fold], of_one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_shuffled_parts_hold_each_example_out_once(key):
    """The loss of a model that predicts 0 is the mean square of what is held out."""
    zero = nn.training_run(
        lambda h: nn.serial(nn.dense(1, kernel_init=nn.initializers.zeros), lambda y: 0 * h * y),
        loss=nn.losses.squared_error,
        optimizer=nn.optimizers.sgd(0.1),
        epochs=1,
    )
    y = np.sqrt(2.0 ** np.arange(12)).astype(np.float32)[:, None]
    _, _, history = nn.cross_validate(zero, key, (X, y), 4, hyperparams=1.0)
    squares = np.round(3 * history["val_loss"][:, 0]).astype(int)
    assert squares.sum() == 2**12 - 1  # each bit once
    assert all(bin(s).count("1") == 3 for s in squares)
    assert [int(s) for s in squares] != [7, 56, 448, 3584]


@pytest.mark.parametrize(
    ("data", "folds", "message"),
    [
        ((X, Y), 1, "folds is 1, expected 2 to 12"),
        ((X, Y), 13, "folds is 13, expected 2 to 12"),
        (X, 3, r"data is no \(x, y\)"),
    ],
)
def test_wrong_folds(data, folds, message, key):
    with pytest.raises(ValueError, match=f"cross_validate: {message}"):
        nn.cross_validate(TRAIN, key, data, folds)


LOGITS = (3 * RNG.standard_normal((200, 4))).astype(np.float32)
LABELS = np.array([RNG.choice(4, p=np.exp(z / 2) / np.exp(z / 2).sum()) for z in LOGITS])


@pytest.mark.parametrize("weights", [None, RNG.uniform(0, 2, 200).astype(np.float32)])
def test_the_temperature_is_that_of_scipy(weights):
    w = np.ones(200) if weights is None else weights.astype(np.float64)

    def loss(temperature):
        z = LOGITS.astype(np.float64) / temperature
        return (w * (np.log(np.exp(z).sum(-1)) - z[np.arange(200), LABELS])).sum()

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
    ours = fast_jit(nn.temperature_scaling)(LOGITS, LABELS, weights)
    np.testing.assert_allclose(ours, best, rtol=1e-4)
    assert 1.5 < ours < 2.7
    turned = nn.temperature_scaling(LOGITS.T[:, None], LABELS[None], axis=0)
    np.testing.assert_allclose(turned, nn.temperature_scaling(LOGITS, LABELS), rtol=1e-5)


def test_it_calibrates_and_stays_finite():
    error = nn.metrics.expected_calibration_error(4)
    before, after = (
        error.compute(error.update(error.init(), LOGITS / t, LABELS))
        for t in (1.0, nn.temperature_scaling(LOGITS, LABELS))
    )
    assert after < before / 2
    right = nn.temperature_scaling(LOGITS, LOGITS.argmax(-1))
    wrong = nn.temperature_scaling(LOGITS, LOGITS.argmin(-1))
    np.testing.assert_allclose([right, wrong], [1e-3, 1e3], rtol=1e-2)
    with pytest.raises(ValueError, match="temperature_scaling: logits have shape"):
        nn.temperature_scaling(LOGITS, LABELS[:5])
    assert jnp.shape(right) == ()
