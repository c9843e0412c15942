"""Whole training runs against the training loop that is derived by hand, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.numpy_reference import network
from tests.numpy_reference import optimizers as reference
from tests.numpy_reference import schedules as reference_schedules
from tests.parameters import quick_first

pytestmark = pytest.mark.usefixtures("x64")

EXAMPLES, EPOCHS = 22, 3
L2 = 0.05
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
MODEL = nn.serial(nn.dense(5), nn.tanh, nn.dense(3))

# For each problem: jaxnn's loss, the name of the loss of the reference.
PROBLEMS = {
    "regression": (nn.losses.squared_error, "squared_error"),
    "classification": (nn.losses.softmax_cross_entropy, "softmax_cross_entropy"),
}
MAIN = ("regression", "mini-batches")
BATCHES = {"full-batch": None, "mini-batches": 8}  # 22 = 8 + 8 + 6


def both(constructor, rate=0.05, **kwargs):
    return (
        getattr(nn.optimizers, constructor)(rate, **kwargs),
        getattr(reference, constructor)(rate, **kwargs),
    )


OPTIMIZERS = {
    "sgd": both("sgd"),
    "sgd-momentum": both("sgd", momentum=0.9),
    "sgd-nesterov": both("sgd", momentum=0.9, nesterov=True),
    "sgd-averaged": both("sgd", momentum=0.9, averaged=True),
    "rmsprop": both("rmsprop", 0.01),
    "rmsprop-centered": both("rmsprop", 0.01, centered=True, momentum=0.5, eps=1e-3),
    "adam": both("adam"),
    "adam-nesterov": both("adam", nesterov=True),
    "adamw": both("adamw", weight_decay=0.3),
    "adam-schedule": (
        nn.optimizers.adam(nn.schedules.cosine_decay_schedule(0.1, 5)),
        reference.adam(reference_schedules.cosine_decay_schedule(0.1, 5)),
    ),
}

# Some that differ in what a step is given; that an optimizer is right alone is tested elsewhere.
QUICK = {
    ("sgd-nesterov", *MAIN),
    ("rmsprop-centered", *MAIN),
    ("adam-schedule", *MAIN),
    ("adam", *MAIN),
    ("adam", "classification", "mini-batches"),
    ("adam", "regression", "full-batch"),
}
RUNS = [
    pytest.param(
        *(name, problem, batches),
        marks=[] if (name, problem, batches) in QUICK else pytest.mark.slow,
    )
    for problem in PROBLEMS
    for batches in BATCHES
    for name in OPTIMIZERS
]


def data_for(problem):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((EXAMPLES, 4))
    if problem == "regression":
        return x, np.sin(x @ rng.standard_normal((4, 3)))
    return x, rng.integers(0, 3, EXAMPLES)


def run(problem, batches, optimizer, epochs=EPOCHS, regularizer=None):
    """The params as a list of layers, and the history."""
    train = nn.training_run(
        MODEL,
        loss=PROBLEMS[problem][0],
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCHES[batches],
        regularizer=regularizer,
        shuffle=False,
    )
    params, _, history = jax.jit(train, compiler_options=QUICK_TO_COMPILE)(
        jax.random.key(5), data_for(problem)
    )
    return [jax.tree.map(np.asarray, layer) for layer in params if "kernel" in layer], history


@functools.cache
def initial_params(problem):
    return run(problem, "full-batch", nn.optimizers.sgd(0.0), epochs=1)[0]


def run_by_hand(problem, batches, optimizer):
    """The same by the reference, its losses as the mean over each epoch."""
    size = BATCHES[batches] or EXAMPLES
    epoch = [np.arange(EXAMPLES)[i : i + size] for i in range(0, EXAMPLES, size)]
    params, losses = network.train(
        initial_params(problem),
        *data_for(problem),
        epoch * EPOCHS,
        optimizer,
        loss=PROBLEMS[problem][1],
    )
    return params, epoch_means(losses, epoch)


def epoch_means(values, epoch):
    sizes = [len(batch) for batch in epoch]
    return np.average(np.reshape(values, (EPOCHS, len(epoch))), axis=1, weights=sizes)


def assert_same_params(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-9)


@quick_first(3)
@pytest.mark.parametrize(("name", "problem", "batches"), RUNS)
def test_params_and_losses(name, problem, batches):
    ours, by_hand = OPTIMIZERS[name]
    params, history = run(problem, batches, ours)
    expected, losses = run_by_hand(problem, batches, by_hand)
    assert_same_params(params, expected)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
    assert history["loss"].dtype == jnp.float64
    assert losses[-1] < losses[0]


def with_l2(optimizer, strength, penalties):
    """The gradient of the penalty added to the loss's; notes the penalty of each kernel."""

    def update(g, state, w):
        if w.ndim == 2:
            penalties.append(strength * np.sum(w**2))
            g = g + 2 * strength * w
        return optimizer.update(g, state, w)

    return reference.Reference(optimizer.init, update)


@pytest.mark.parametrize("name", [pytest.param("sgd-momentum", marks=pytest.mark.slow), "adamw"])
def test_l2_regularizer(name):
    ours, by_hand = OPTIMIZERS[name]
    params, history = run("regression", "mini-batches", ours, regularizer=nn.regularizers.l2(L2))
    penalties = []
    expected, losses = run_by_hand("regression", "mini-batches", with_l2(by_hand, L2, penalties))
    assert_same_params(params, expected)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
    of_each_step = np.reshape(penalties, (-1, 2)).sum(1)
    epoch = [range(8), range(8), range(6)]
    np.testing.assert_allclose(history["penalty"], epoch_means(of_each_step, epoch), rtol=1e-9)


@pytest.mark.parametrize("constructor", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_derivative_of_a_run_in_its_learning_rate(constructor):
    train = nn.training_run(
        MODEL,
        loss=nn.losses.squared_error,
        optimizer=getattr(nn.optimizers, constructor),
        epochs=3,
        batch_size=8,
        shuffle=False,
    )

    @jax.value_and_grad
    def last_loss(rate):
        return train(jax.random.key(5), data_for("regression"), rate)[2]["loss"][-1]

    last_loss = jax.jit(last_loss, compiler_options=QUICK_TO_COMPILE)

    rate, h = 0.03, 1e-5
    above, below = last_loss(rate + h)[0], last_loss(rate - h)[0]
    np.testing.assert_allclose(last_loss(rate)[1], (above - below) / (2 * h), rtol=1e-6)
    assert abs(last_loss(rate)[1]) > 1e-3
