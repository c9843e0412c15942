"""Losses as drop-ins for optax's: the same parameters, values and gradients in both modes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.optimizer_cases import usual_promotion


@pytest.fixture(scope="module")
def optax():
    """The optax package."""
    return pytest.importorskip("optax")


RNG = np.random.default_rng(0)
N, CLASSES = 5, 4


def normal(*shape):
    return RNG.standard_normal(shape)


def uniform(*shape):
    return RNG.uniform(0.05, 0.95, shape)


def distributions(*shape, axis=-1):
    p = RNG.uniform(0.1, 1.0, shape)
    return p / p.sum(axis, keepdims=True)


LABELS = RNG.integers(0, CLASSES, N)
SIGNS = np.where(RNG.random((N, 3)) < 0.5, -1.0, 1.0)
MASK = RNG.random((N, CLASSES)) < 0.7
MASK[0] = False  # one example without any class
MASK[np.arange(1, N), LABELS[1:]] = True  # optax's loss of an excluded label is none
PREDICTIONS, LOGITS, P = normal(N, 3), 3 * normal(N, CLASSES), distributions(N, CLASSES)
WEIGHTS = uniform(N, CLASSES)
PADDINGS = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]])
SPEECH = (normal(3, 5, 4), PADDINGS, np.array([[1, 1], [2, 3], [3, 0]]), PADDINGS[:, 3:])
IMAGES = normal(2, 3, 3, CLASSES), distributions(2, 3, 3, CLASSES)
FRAMES = np.zeros((2, 3), int)

# Each call: the name, the positional arguments and the keywords, as optax takes them.
CALLS = [
    ("squared_error", (PREDICTIONS, normal(N, 3)), {}),
    ("squared_error", (PREDICTIONS,), {}),
    ("l2_loss", (PREDICTIONS, normal(N, 3)), {}),
    ("l2_loss", (PREDICTIONS,), {}),
    ("huber_loss", (2 * PREDICTIONS, normal(N, 3)), {}),
    ("huber_loss", (PREDICTIONS,), {"delta": 0.3}),
    ("log_cosh", (PREDICTIONS, normal(N, 3)), {}),
    ("log_cosh", (PREDICTIONS,), {}),
    ("cosine_similarity", (PREDICTIONS, normal(N, 3)), {}),
    ("cosine_similarity", (PREDICTIONS, normal(N, 3)), {"epsilon": 3.0, "axis": 0}),
    ("cosine_similarity", (LOGITS, P), {"axis": None, "where": MASK}),
    ("cosine_distance", (PREDICTIONS, normal(N, 3)), {}),
    ("cosine_distance", (LOGITS[1:], P[1:]), {"axis": -1, "where": MASK[1:]}),
    ("sigmoid_binary_cross_entropy", (4 * PREDICTIONS, uniform(N, 3)), {}),
    ("sigmoid_focal_loss", (4 * PREDICTIONS, uniform(N, 3)), {}),
    ("sigmoid_focal_loss", (4 * PREDICTIONS, uniform(N, 3)), {"alpha": 0.3, "gamma": 1.5}),
    ("softmax_cross_entropy", (LOGITS, P), {}),
    ("softmax_cross_entropy", (LOGITS, distributions(N, CLASSES, axis=0)), {"axis": 0}),
    ("softmax_cross_entropy", (IMAGES[0], IMAGES[1]), {"axis": (1, -1)}),
    ("softmax_cross_entropy", (LOGITS, P, None), {}),
    ("softmax_cross_entropy_with_integer_labels", (LOGITS, LABELS), {}),
    ("softmax_cross_entropy_with_integer_labels", (LOGITS, LABELS, -1, MASK), {}),
    ("softmax_cross_entropy_with_integer_labels", (LOGITS, LABELS[:4]), {"axis": 0}),
    (
        "softmax_cross_entropy_with_integer_labels",
        (IMAGES[0], np.array([[3, 11, 7], [0, 4, 8]])),
        {"axis": (3, 1)},
    ),
    (
        "softmax_cross_entropy_with_integer_labels",
        (LOGITS, LABELS),
        {"where": np.array([True, False, True, True, True])},
    ),
    ("poly_loss_cross_entropy", (LOGITS, P), {}),
    ("poly_loss_cross_entropy", (LOGITS, P), {"epsilon": -0.5, "axis": 0}),
    ("poly_loss_cross_entropy", (LOGITS[1:], P[1:]), {"where": MASK[1:]}),
    ("smooth_labels", (P, 0.1), {}),
    ("smooth_labels", (P, 0.1), {"axis": None}),
    ("kl_divergence", (LOGITS, P), {}),
    ("kl_divergence", (LOGITS, P, 0, MASK), {}),
    ("kl_divergence_with_log_targets", (LOGITS, np.log(P)), {}),
    ("kl_divergence_with_log_targets", (LOGITS, np.log(P), None, MASK), {}),
    ("generalized_kl_divergence", (LOGITS, P), {}),
    ("generalized_kl_divergence", (LOGITS, P), {"axis": (0, 1), "where": MASK}),
    ("hinge_loss", (PREDICTIONS, SIGNS), {}),
    ("perceptron_loss", (PREDICTIONS, SIGNS), {}),
    ("multiclass_hinge_loss", (LOGITS, LABELS), {}),
    ("multiclass_perceptron_loss", (LOGITS, LABELS), {}),
    ("triplet_margin_loss", (PREDICTIONS, normal(N, 3), normal(N, 3)), {}),
    (
        "triplet_margin_loss",
        (PREDICTIONS, normal(N, 3), normal(N, 3), 0, 4, 0.5, 1e-3),
        {},
    ),
    ("ntxent", (PREDICTIONS, np.array([0, 1, 0, 0, 1])), {}),
    ("ntxent", (PREDICTIONS, np.array([0, 1, 0, 2, 1]), 0.5), {}),
    ("dice_loss", IMAGES, {}),
    (
        "dice_loss",
        IMAGES,
        {"smooth": 0.1, "alpha": 0.3, "beta": 0.9, "class_weights": np.arange(1.0, 5.0)},
    ),
    ("dice_loss", IMAGES, {"reduction": "sum", "ignore_background": True}),
    ("dice_loss", IMAGES, {"reduction": "none", "axis": (0, 1)}),
    ("dice_loss", (normal(2, 3, 3), uniform(2, 3, 3, 1)), {}),
    ("safe_softmax_cross_entropy", (LOGITS, P), {}),
    ("ranking_softmax_loss", (LOGITS, P), {}),
    ("ranking_softmax_loss", (LOGITS, P), {"weights": WEIGHTS}),
    ("ranking_softmax_loss", (LOGITS[1:], P[1:]), {"where": MASK[1:], "weights": WEIGHTS[1:]}),
    ("ctc_loss", SPEECH, {}),
    ("ctc_loss", SPEECH, {"log_epsilon": -1e4}),
    (
        "ctc_loss",
        (normal(2, 3, 3), FRAMES, np.array([[0, 1], [1, 1]]), FRAMES[:, :2]),
        {"blank_id": 2},
    ),
]
REDUCED = {"ranking_softmax_loss"}  # by optax; here the reduction belongs to the caller
SHARED = sorted({name for name, _, _ in CALLS})
FIRST = [next(call for call in CALLS if call[0] == name) for name in SHARED]
VARIANTS = [call for call in CALLS if all(call is not first for first in FIRST)]


def call_id(call):
    name, arguments, options = call
    return "-".join([name, str(len(arguments)), *options])


@functools.cache
def derived(are_variants):
    """Value, `vjp` and `jvp` of the calls, ours and optax's, in one program."""
    import optax

    def of(module, call):
        name, arguments, options = call
        places = [i for i, a in enumerate(arguments) if getattr(a, "dtype", None) == np.float64]
        floats = [jnp.asarray(arguments[i]) for i in places]
        along = [jnp.cos(7 * a) for a in floats]

        def function(*floats):
            given = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
            for i, value in zip(places, floats, strict=True):
                given[i] = value
            unreduced = {"reduce_fn": None} if name in REDUCED and module is optax.losses else {}
            return getattr(module, name)(*given, **options, **unreduced)

        y, pushforward = jax.linearize(function, *floats)
        return y, jax.linear_transpose(pushforward, *floats)(jnp.cos(y)), pushforward(*along)

    @fast_jit
    def both():
        calls = VARIANTS if are_variants else FIRST
        return [(of(nn.losses, call), of(optax.losses, call)) for call in calls]

    with jax.enable_x64(True), usual_promotion():
        return both()


def assert_equal(ours, theirs):
    """Also where optax's derivative is NaN, in the label of an excluded class: ours is 0."""
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(got, np.nan_to_num(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.slow  # `tests/test_gradients.py` has NumPy's
@pytest.mark.parametrize("i", range(len(FIRST)), ids=SHARED)
def test_value_and_derivatives(optax, i):
    assert_equal(*derived(are_variants=False)[i])


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(VARIANTS)), ids=[call_id(call) for call in VARIANTS])
def test_value_and_derivatives_with_options(optax, i):
    assert_equal(*derived(are_variants=True)[i])


def test_every_shared_name_is_compared(optax):
    assert sorted(set(nn.losses.__all__) & set(vars(optax.losses))) == SHARED


@pytest.mark.parametrize("name", SHARED)
def test_the_parameters_are_those_of_optax_and_optional_ones(optax, name):
    ours = list(inspect.signature(getattr(nn.losses, name)).parameters.values())
    theirs = list(inspect.signature(getattr(optax.losses, name)).parameters.values())
    by_name = {p.name: p for p in ours}
    if name in REDUCED:
        theirs = [p for p in theirs if p.name != "reduce_fn"]
    for place, parameter in enumerate(theirs):
        counterpart = by_name.pop(parameter.name)
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert ours[place] is counterpart
            assert counterpart.kind is parameter.kind
        assert counterpart.default == parameter.default
    for extra in by_name.values():
        assert extra.kind is extra.KEYWORD_ONLY
        assert extra.default is not extra.empty


# Where the definitions differ


def test_an_odd_degree_has_an_absolute_value(optax):
    anchor, positive, negative = jnp.zeros(2), jnp.array([1.0, -1.0]), jnp.array([3.0, 0.0])
    ours = nn.losses.triplet_margin_loss(anchor, positive, negative, norm_degree=1, eps=0.0)
    theirs = optax.losses.triplet_margin_loss(anchor, positive, negative, norm_degree=1, eps=0.0)
    assert ours == 0  # 2 - 3 + 1
    assert theirs != ours


@pytest.mark.slow
def test_what_is_nan_in_optax_is_not(optax):
    zeros, x = jnp.zeros(2), jnp.array([1.0, 2.0])
    assert nn.losses.cosine_similarity(zeros, x) == 0
    assert np.isnan(optax.losses.cosine_similarity(zeros, x))
    log_predictions, targets = jnp.array([0.0, -jnp.inf]), jnp.array([1.0, 0.0])
    assert nn.losses.kl_divergence(log_predictions, targets) == 0
    assert np.isnan(optax.losses.kl_divergence(log_predictions, targets))
    assert nn.losses.softmax_cross_entropy(log_predictions, targets) == 0
    assert np.isnan(optax.losses.softmax_cross_entropy(log_predictions, targets))
    assert nn.losses.sigmoid_focal_loss(jnp.array(jnp.inf), jnp.array(1.0), gamma=0.0) == 0
    assert np.isnan(optax.losses.sigmoid_focal_loss(jnp.array(jnp.inf), jnp.array(1.0), gamma=0.0))


@pytest.mark.parametrize("name", ["hinge_loss", "log_cosh", "huber_loss"])
def test_what_optax_broadcasts_is_refused(optax, name):
    column, row = jnp.zeros((4, 1)), jnp.zeros(4)
    with usual_promotion():
        assert getattr(optax.losses, name)(column, row).shape == (4, 4)
        with pytest.raises(ValueError, match="equal shapes"):
            getattr(nn.losses, name)(column, row)
