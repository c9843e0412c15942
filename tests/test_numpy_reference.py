"""The hand-derived references are themselves checked.

Backward passes against central differences of their own forward passes; forward passes,
optimizers and schedules against `jax.nn` and optax in float64; and every public function of
`numpy_reference` must have an entry here.
"""

import inspect
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import pytest

from tests.numpy_reference import (
    activations,
    dense,
    dropout,
    finite_difference,
    losses,
    metrics,
    network,
    normalization,
    optimizers,
    regularizers,
    schedules,
)
from tests.table import FUNCTIONS

TOLERANCE = 1e-6


def rng_for(name):
    """Return a generator that depends on the name of a case only."""
    return np.random.default_rng(list(name.encode()))


def off_kinks(rng, shape):
    """Draw from (-8, 8), at least 0.1 from the integers, where the activations have kinks."""
    return rng.integers(-8, 8, shape) + rng.uniform(0.1, 0.9, shape)


# Each case: (reference, draw(rng) -> array arguments, hyperparameters).


def activation_cases():
    def draw(rng):
        return (off_kinks(rng, (4, 6)),)

    options = {
        "leaky_relu": [{}, {"negative_slope": 0.3}],
        "squareplus": [{}, {"b": 0.7}],
        "elu": [{}, {"alpha": 0.6}],
        "celu": [{}, {"alpha": 1.7}],
        "gelu": [{}, {"approximate": False}],
        "glu": [{}, {"axis": 0}],
        "softmax": [{}, {"axis": 0}, {"axis": (0, 1)}],
        "log_softmax": [{}, {"axis": 0}, {"axis": (0, 1)}],
    }
    for name, f in public_functions(activations).items():
        for kwargs in options.get(name, [{}]):
            yield f, draw, kwargs


def normal(*shapes):
    """Return a draw of normal arrays of these shapes; None stays None."""
    return lambda rng: tuple(None if s is None else rng.standard_normal(s) for s in shapes)


def given_statistics(*shapes, features):
    """Return a draw whose second and third arrays are a mean and a positive variance."""

    def draw(rng):
        x, *rest = normal(*shapes)(rng)
        return x, rng.standard_normal(features), rng.uniform(0.3, 2.0, features), *rest

    return draw


def distributions(shape, axis):
    def draw(rng):
        p = rng.uniform(0.1, 1.0, shape)
        return rng.standard_normal(shape) * 3, p / p.sum(axis, keepdims=True)

    return draw


def integer_labels(shape, axis):
    def draw(rng):
        rest = np.delete(shape, axis)
        return rng.standard_normal(shape) * 3, rng.integers(0, shape[axis], rest)

    return draw


def masked(rate):
    return lambda rng: (rng.standard_normal((4, 5)), rng.random((4, 5)) < 0.6, rate)


def soft_labels(rng):
    return rng.standard_normal((4, 3)) * 3, rng.random((4, 3))


def public_functions(module):
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and name[0] != "_"
    }


PAIR = normal((4, 3), (4, 3))
PENALTY = {"strength": 0.3}

CASES = [
    *activation_cases(),
    (dense.linear, normal((4, 3), (3, 2), None), {}),
    (dense.linear, normal((3,), (3, 2), (2,)), {}),
    (dense.linear, normal((2, 4, 3), (3, 5), (5,)), {}),
    (normalization.layer_norm, normal((4, 6), None, None), {}),
    (normalization.layer_norm, normal((4, 6), (6,), (6,)), {"epsilon": 0.1}),
    (normalization.layer_norm, normal((4, 6), None, (6,)), {}),
    (normalization.layer_norm, normal((4, 6), (6,), None), {}),
    (normalization.layer_norm, normal((2, 3, 4), (2, 4), (2, 4)), {"axis": (-1, 0)}),
    (normalization.layer_norm, normal((2, 5, 4), (5,), (5,)), {"axis": 1}),
    (normalization.batch_norm, given_statistics((5, 3), None, None, features=3), {}),
    (normalization.batch_norm, given_statistics((5, 3), (3,), (3,), features=3), {}),
    (normalization.batch_norm, given_statistics((5, 3), None, (3,), features=3), {}),
    (
        normalization.batch_norm,
        given_statistics((2, 3, 4), (3,), (3,), features=3),
        {"axis": 1, "epsilon": 0.1},
    ),
    (normalization.batch_norm_training, normal((5, 3), None, None), {}),
    (normalization.batch_norm_training, normal((5, 3), (3,), (3,)), {}),
    (normalization.batch_norm_training, normal((5, 3), (3,), None), {}),
    (normalization.batch_norm_training, normal((3, 2, 4), (2,), (2,)), {"axis": -2}),
    (normalization.batch_statistics, normal((5, 3)), {}),
    (normalization.batch_statistics, normal((3, 2, 4)), {"axis": 1}),
    *((dropout.dropout, masked(rate), {}) for rate in (0.0, 0.4, 1.0)),
    (losses.squared_error, PAIR, {}),
    (losses.absolute_error, PAIR, {}),
    (losses.huber_loss, PAIR, {}),
    (losses.huber_loss, PAIR, {"delta": 0.4}),
    (losses.softmax_cross_entropy, distributions((4, 3), -1), {}),
    (losses.softmax_cross_entropy, normal((4, 3), (4, 3)), {"label_smoothing": 0.2}),
    (losses.softmax_cross_entropy, distributions((2, 3, 4), 1), {"axis": 1}),
    (losses.softmax_cross_entropy, integer_labels((4, 3), -1), {}),
    (
        losses.softmax_cross_entropy,
        integer_labels((2, 3, 4), 1),
        {"axis": 1, "label_smoothing": 0.1},
    ),
    (losses.softmax_cross_entropy, integer_labels((5,), 0), {}),
    (losses.sigmoid_binary_cross_entropy, soft_labels, {}),
    (regularizers.l1, normal((4, 3)), PENALTY),
    (regularizers.l2, normal((4, 3)), PENALTY),
    (regularizers.elastic_net, normal((4, 3)), {"l1": 0.3, "l2": 0.2}),
]


def case_id(case):
    f, draw, kwargs = case
    shapes = [np.shape(a) for a in draw(np.random.default_rng(0))]
    return f"{f.__name__}-{shapes}-{kwargs}"


def bind(case):
    f, draw, kwargs = case
    return (lambda *args: f(*args, **kwargs)), draw(rng_for(case_id(case)))


every_case = pytest.mark.parametrize("case", CASES, ids=case_id)


@every_case
def test_backward_is_the_derivative_of_forward(case):
    call, arguments = bind(case)
    assert finite_difference.check(call, arguments, rng_for("check")) < TOLERANCE


@every_case
def test_the_check_sees_one_wrong_element(case):
    call, arguments = bind(case)
    differentiable = [i for i, a in enumerate(arguments) if finite_difference.is_differentiable(a)]
    for wrong in differentiable:

        def broken(*args, wrong=wrong):
            y, backward = call(*args)

            def broken_backward(dy):
                gradients = list(backward(dy))
                gradients[wrong] = gradients[wrong].copy()
                gradients[wrong].flat[-1] += 1e-3 * (1 + np.abs(gradients[wrong]).max())
                return tuple(gradients)

            return y, broken_backward

        assert finite_difference.check(broken, arguments, rng_for("check")) > 10 * TOLERANCE


@every_case
def test_float64_whatever_is_given(case):
    call, arguments = bind(case)
    narrow = tuple(
        a.astype(np.float32) if finite_difference.is_differentiable(a) else a for a in arguments
    )
    y, backward = call(*narrow)
    dy = tuple(np.float32(v) for v in y) if isinstance(y, tuple) else np.float32(y)
    for value in (*(y if isinstance(y, tuple) else (y,)), *backward(dy)):
        assert value is None or value.dtype == np.float64


# Values: a forward pass that is wrong together with its backward pass passes the checks above.


@contextmanager
def jax_float64():
    """Give JAX float64 and its usual promotion rules, which optax is written for."""
    jax = pytest.importorskip("jax")
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield jax


@pytest.mark.parametrize("case", list(activation_cases()), ids=case_id)
def test_activations_are_those_of_jax(case):
    f, _, kwargs = case
    call, (x,) = bind(case)
    with jax_float64() as jax:
        theirs = getattr(jax.nn, f.__name__)
        np.testing.assert_allclose(call(x)[0], theirs(x, **kwargs), rtol=1e-12, atol=1e-14)
        ours = list(inspect.signature(f).parameters)
        assert ours == list(inspect.signature(theirs).parameters)[: len(ours)]


@pytest.mark.parametrize("name", public_functions(activations))
def test_activations_at_the_extremes(name):
    x = np.array([[-1e6, -800.0, -40.0, 40.0, 800.0, 1e6]])
    y, backward = getattr(activations, name)(x)
    (dx,) = backward(np.ones_like(y))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    with jax_float64() as jax:
        theirs, pullback = jax.vjp(getattr(jax.nn, name), jax.numpy.asarray(x))
        # squareplus of jax cancels to 0 for very negative x, where 1 / |x| is right.
        np.testing.assert_allclose(y, theirs, rtol=1e-12, atol=1e-8)
        (theirs_dx,) = pullback(jax.numpy.ones_like(theirs))
        np.testing.assert_allclose(dx, theirs_dx, rtol=1e-12, atol=1e-8)


def optax_softmax_cross_entropy(optax, logits, labels, axis=-1, label_smoothing=0.0):
    jax = pytest.importorskip("jax")
    if labels.dtype.kind == "i":
        labels = jax.nn.one_hot(labels, logits.shape[axis], axis=axis)
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(labels, label_smoothing, axis=axis), axis=axis
    )


LOSS_CASES = [case for case in CASES if case[0].__module__ == losses.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("case", LOSS_CASES, ids=case_id)
def test_losses_are_those_of_optax(case):
    f, _, kwargs = case
    call, arguments = bind(case)
    optax = pytest.importorskip("optax")
    with jax_float64() as jax:
        arguments_of_jax = tuple(map(jax.numpy.asarray, arguments))
        if f is losses.softmax_cross_entropy:
            theirs = optax_softmax_cross_entropy(optax, *arguments_of_jax, **kwargs)
        elif f is losses.absolute_error:
            theirs = abs(arguments_of_jax[0] - arguments_of_jax[1])
        else:
            theirs = getattr(optax, f.__name__)(*arguments_of_jax, **kwargs)
        np.testing.assert_allclose(call(*arguments)[0], theirs, rtol=1e-12, atol=1e-14)


def test_cross_entropy_at_the_extremes():
    logits = np.array([[1e4, -1e4, 0.0], [2.0, -np.inf, 2.0]])
    for labels in (np.array([1, 0]), np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])):
        y, backward = losses.softmax_cross_entropy(logits, labels)
        np.testing.assert_allclose(y, [2e4, np.log(2)])
        dlogits, _ = backward(np.ones(2))
        np.testing.assert_allclose(dlogits, [[1, -1, 0], [-0.5, 0, 0.5]], atol=1e-300)
    _, dlabels = backward(np.ones(2))
    np.testing.assert_allclose(dlabels, [[0, 2e4, 1e4], [np.log(2), np.inf, np.log(2)]])


def test_binary_cross_entropy_at_the_extremes():
    logits = np.array([-np.inf, -1e4, -1e4, 1e4, 1e4, np.inf])
    labels = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    y, backward = losses.sigmoid_binary_cross_entropy(logits, labels)
    np.testing.assert_array_equal(y, [0, 0, 1e4, 1e4, 0, 0])
    np.testing.assert_array_equal(backward(np.ones(6))[0], [0, 0, -1, 1, 0, 0])


@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber_loss"])
def test_losses_refuse_shapes_that_differ(name):
    with pytest.raises(ValueError, match=r"\(3, 1\) and \(3,\)"):
        getattr(losses, name)(np.ones((3, 1)), np.ones(3))


def test_layer_norm_far_from_zero():
    x = np.array([1448.0, 1449.0, 1450.0])
    y, _ = normalization.layer_norm(x, epsilon=0.0)
    np.testing.assert_allclose(y, np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-12)


def test_standardised_mean_and_variance():
    x = rng_for("standardise").standard_normal((6, 2, 5)) * 3 + 7
    for f, axis, over in [
        (normalization.layer_norm, (1, 2), (1, 2)),
        (normalization.batch_norm_training, 2, (0, 1)),
    ]:
        y, _ = f(x, axis=axis, epsilon=0.0)
        np.testing.assert_allclose(y.mean(over), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(over), 1, rtol=1e-12)


def test_batch_norm_training_is_batch_norm_of_batch_statistics():
    rng = rng_for("chain")
    x, scale, bias = rng.standard_normal((4, 3, 2)), rng.standard_normal(3), rng.standard_normal(3)
    dy = rng.standard_normal(x.shape)
    (mean, var), statistics_backward = normalization.batch_statistics(x, axis=1)
    y, backward = normalization.batch_norm(x, mean, var, scale, bias, axis=1)
    dx, dmean, dvar, dscale, dbias = backward(dy)
    (through_statistics,) = statistics_backward((dmean, dvar))

    y_training, training_backward = normalization.batch_norm_training(x, scale, bias, axis=1)
    np.testing.assert_allclose(y_training, y, rtol=1e-12)
    chain = (dx + through_statistics, dscale, dbias)
    for ours, theirs in zip(training_backward(dy), chain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_dropout_and_linear_and_penalties_by_hand():
    x, keep = np.array([1.0, 2.0, 3.0]), np.array([1, 0, 1])
    np.testing.assert_allclose(dropout.dropout(x, keep, 0.5)[0], [2, 0, 6])
    np.testing.assert_array_equal(dropout.dropout(x, np.ones(3), 1.0)[0], 0)
    kernel = np.array([[1.0, 2.0], [3.0, 4.0]])
    y, _ = dense.linear(np.ones((1, 2)), kernel, np.array([0.5, 0]))
    np.testing.assert_allclose(y, [[4.5, 6]])
    w = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert regularizers.l1(w, 0.5)[0] == 3
    assert regularizers.l2(w, 0.5)[0] == 7
    assert regularizers.elastic_net(w, 0.5, 0.25)[0] == 6.5


# Optimizers, over 50 steps on a loss without symmetry, with a matrix and a vector.


def bumpy_gradients(weights):
    """Return the gradients of sum (k + 1) (w - 1)^2 / 2 - cos(3 w)."""
    scale = {k: 1 + np.arange(w.size).reshape(w.shape) for k, w in weights.items()}
    return {k: scale[k] * (w - 1) + 3 * np.sin(3 * w) for k, w in weights.items()}


def initial_weights():
    rng = rng_for("weights")
    return {"kernel": rng.standard_normal((3, 2)), "bias": rng.standard_normal(2)}


DECAYING = {
    "constant": lambda optax: 0.02,
    "cosine": lambda optax: optax.cosine_decay_schedule(0.02, 40, 0.1),
}
OURS = {"constant": 0.02, "cosine": schedules.cosine_decay_schedule(0.02, 40, 0.1)}


def optax_averaged_sgd(optax, rate, momentum, nesterov=False):
    mean = optax.trace(momentum, nesterov)
    return optax.chain(optax.scale(1 - momentum), mean, optax.scale_by_learning_rate(rate))


def optax_adamw(optax, rate, decay_all=False, **kwargs):
    matrices = {"kernel": True, "bias": False}
    return optax.adamw(rate, mask=None if decay_all else matrices, **kwargs)


RMSPROP = [
    {},
    {"decay": 0.8, "eps": 1e-3, "initial_scale": 1.0},
    {"eps_in_sqrt": False},
    {"bias_correction": True, "eps": 1e-6},
    {"centered": True, "eps": 1e-3},
    {"centered": True, "eps": 1e-3, "eps_in_sqrt": False, "initial_scale": 0.5},
    {"centered": True, "eps": 1e-3, "bias_correction": True, "momentum": 0.5},
    {"momentum": 0.7},
    {"momentum": 0.7, "nesterov": True},
]

OPTIMIZERS = [
    *(
        (optimizers.sgd, lambda optax, rate, **kw: optax.sgd(rate, **kw), kwargs)
        for kwargs in [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}]
    ),
    *(
        (
            optimizers.sgd,
            lambda optax, rate, averaged, **kw: optax_averaged_sgd(optax, rate, **kw),
            {"momentum": 0.8, "nesterov": nesterov, "averaged": True},
        )
        for nesterov in (False, True)
    ),
    *(
        (optimizers.rmsprop, lambda optax, rate, **kw: optax.rmsprop(rate, **kw), kwargs)
        for kwargs in RMSPROP
    ),
    *(
        (optimizers.adam, lambda optax, rate, **kw: optax.adam(rate, **kw), kwargs)
        for kwargs in [
            {},
            {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4},
            {"nesterov": True},
        ]
    ),
    *(
        (optimizers.adamw, optax_adamw, {"weight_decay": 0.3, **kwargs})
        for kwargs in [{}, {"decay_all": True}, {"nesterov": True, "b1": 0.8}]
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("rate", DECAYING)
@pytest.mark.parametrize(
    ("constructor", "theirs", "kwargs"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_optimizers_are_those_of_optax(constructor, theirs, kwargs, rate):
    optax = pytest.importorskip("optax")
    reference = constructor(OURS[rate], **kwargs)
    ours = optimizers.minimize(reference, bumpy_gradients, initial_weights(), 50)

    with jax_float64() as jax:
        optimizer = theirs(optax, DECAYING[rate](optax), **kwargs)
        weights = initial_weights()
        state = optimizer.init(jax.tree.map(jax.numpy.asarray, weights))
        update = jax.jit(optimizer.update)
        for _ in range(50):
            updates, state = update(bumpy_gradients(weights), state, weights)
            weights = {k: w + np.asarray(updates[k]) for k, w in weights.items()}

    for k, w in weights.items():
        np.testing.assert_allclose(ours[k], w, rtol=1e-10, atol=1e-10)
        assert np.abs(w - initial_weights()[k]).max() > 0.01


def test_averaged_momentum_is_the_mean_of_the_gradients():
    optimizer = optimizers.sgd(1.0, momentum=0.5, averaged=True)
    state = optimizer.init(np.zeros(1))
    for g, expected in [(8.0, -4.0), (0.0, -2.0), (4.0, -3.0)]:
        delta, state = optimizer.update(np.array([g]), state, np.zeros(1))
        assert delta == [expected]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.5, 2.0, 100.0])
def test_clipping_is_that_of_optax(limit):
    optax = pytest.importorskip("optax")
    gradients = list(initial_weights().values())
    with jax_float64():
        clipped, _ = optax.clip(limit).update(gradients, optax.EmptyState())
        shrunk, _ = optax.clip_by_global_norm(limit).update(gradients, optax.EmptyState())
    for g, theirs in zip(gradients, clipped, strict=True):
        np.testing.assert_allclose(optimizers.clip(g, limit), theirs, rtol=1e-14)
    for ours, theirs in zip(optimizers.clip_by_global_norm(gradients, limit), shrunk, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_clipping_nothing():
    (g,) = optimizers.clip_by_global_norm([np.zeros(3)], 1.0)
    np.testing.assert_array_equal(g, 0)


SCHEDULES = [
    ("constant_schedule", (0.3,), {}),
    ("cosine_decay_schedule", (0.3, 20), {}),
    ("cosine_decay_schedule", (0.3, 20), {"alpha": 0.2, "exponent": 1.7}),
    ("warmup_cosine_decay_schedule", (0.1, 0.5, 10, 30), {}),
    ("warmup_cosine_decay_schedule", (0.6, 0.5, 10, 30), {"end_value": 0.05, "exponent": 2.0}),
    ("warmup_cosine_decay_schedule", (0.1, 0.5, 0, 30), {}),
    ("exponential_decay", (0.4, 7, 0.5), {}),
    ("exponential_decay", (0.4, 7, 0.5), {"transition_begin": 5, "staircase": True}),
    ("exponential_decay", (0.4, 7, 0.5), {"transition_begin": 5, "end_value": 0.1}),
    ("exponential_decay", (0.4, 7, 1.5), {"end_value": 1.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "args", "kwargs"), SCHEDULES)
def test_schedules_are_those_of_optax(name, args, kwargs):
    optax = pytest.importorskip("optax")
    ours = getattr(schedules, name)(*args, **kwargs)
    with jax_float64():
        theirs = getattr(optax, name)(*args, **kwargs)
        for count in range(45):
            np.testing.assert_allclose(ours(count), theirs(count), rtol=1e-10, atol=1e-15)


def test_metrics_by_hand():
    logits = np.array([[1.0, 2.0, 0.0], [3.0, 1.0, 2.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5]])
    labels = np.array([1, 0, 1, 2])
    assert metrics.accuracy(logits, labels) == 0.5
    assert metrics.accuracy(logits, labels, np.array([1.0, 1.0, 1.0, 0.0])) == 2 / 3
    values, weights = np.array([1.0, 2.0, 6.0]), np.array([1.0, 2.0, 0.0])
    assert metrics.mean(values) == 3
    assert metrics.mean(values, weights) == np.average(values, weights=weights)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.mean(np.ones((3, 1)), np.ones(3))


# The network.


def random_network(rng, sizes):
    return [
        {"kernel": rng.standard_normal((a, b)) / np.sqrt(a), "bias": rng.standard_normal(b) / 5}
        for a, b in pairwise(sizes)
    ]


def network_problem(loss):
    rng = rng_for(loss)
    x = rng.standard_normal((12, 4))
    y = rng.integers(0, 3, 12) if loss == "softmax_cross_entropy" else rng.standard_normal((12, 3))
    return random_network(rng, (4, 6, 5, 3)), x, y


@pytest.mark.parametrize("loss", network.LOSSES)
@pytest.mark.parametrize("activation", network.ACTIVATIONS)
def test_network_gradients(activation, loss):
    params, x, y = network_problem(loss)

    def reference(*arrays):
        layers = [{"kernel": k, "bias": b} for k, b in zip(arrays[::2], arrays[1::2], strict=True)]
        value, gradients = network.loss_and_gradients(layers, x, y, activation, loss)
        flat = [g[name] for g in gradients for name in ("kernel", "bias")]
        return value, lambda dy: tuple(dy * g for g in flat)

    arrays = [layer[name] for layer in params for name in ("kernel", "bias")]
    assert finite_difference.check(reference, arrays, rng_for("network")) < TOLERANCE


@pytest.mark.parametrize("loss", network.LOSSES)
def test_network_loss_is_the_mean_of_the_loss_references(loss):
    params, x, y = network_problem(loss)
    h = x
    for layer in params[:-1]:
        h, _ = activations.tanh(dense.linear(h, layer["kernel"], layer["bias"])[0])
    z, _ = dense.linear(h, params[-1]["kernel"], params[-1]["bias"])
    np.testing.assert_allclose(network.predict(params, x), z, rtol=1e-12)
    value, _ = network.loss_and_gradients(params, x, y, loss=loss)
    np.testing.assert_allclose(value, getattr(losses, loss)(z, y)[0].mean(), rtol=1e-12)


def test_network_trains():
    params, x, y = network_problem("softmax_cross_entropy")
    batches = [np.arange(12)[i::3] for i in range(3)] * 60
    kwargs = {"activation": "tanh", "loss": "softmax_cross_entropy"}
    trained, history = network.train(params, x, y, batches, optimizers.adam(0.02), **kwargs)
    first, _ = network.loss_and_gradients(params, x[batches[0]], y[batches[0]], **kwargs)
    assert history[0] == first
    assert len(history) == 180
    assert network.loss_and_gradients(trained, x, y, **kwargs)[0] < 0.1
    assert metrics.accuracy(network.predict(trained, x), y) == 1


def test_network_step_is_gradient_descent():
    params, x, y = network_problem("squared_error")
    (trained, _), (_, gradients) = (
        network.train(params, x, y, [np.arange(12)], optimizers.sgd(0.1)),
        network.loss_and_gradients(params, x, y),
    )
    for after, before, g in zip(trained, params, gradients, strict=True):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(after[name], before[name] - 0.1 * g[name], rtol=1e-14)


# Completeness.

CHECKED_BY = {
    optimizers.clip: test_clipping_is_that_of_optax,
    optimizers.clip_by_global_norm: test_clipping_is_that_of_optax,
    optimizers.step: test_optimizers_are_those_of_optax,
    optimizers.minimize: test_optimizers_are_those_of_optax,
    metrics.mean: test_metrics_by_hand,
    metrics.accuracy: test_metrics_by_hand,
    network.predict: test_network_loss_is_the_mean_of_the_loss_references,
    network.loss_and_gradients: test_network_gradients,
    network.train: test_network_trains,
}


def test_every_reference_is_checked():
    checked = {f for f, _, _ in CASES} | {f for f, _, _ in OPTIMIZERS} | set(CHECKED_BY)
    checked |= {getattr(schedules, name) for name, _, _ in SCHEDULES}
    # Those in the table by test_reference_derivatives.py; schedules and metrics have tests of their
    # own, which compare with optax and scikit-learn.
    in_table = {row.name.rpartition(".")[2] for row in FUNCTIONS}
    modules = (activations, dense, dropout, losses, network, normalization, optimizers)
    every = {f for m in (*modules, regularizers) for f in public_functions(m).values()}
    assert {f.__name__ for f in every - checked} <= in_table
