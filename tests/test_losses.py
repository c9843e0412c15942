"""What every loss keeps to: dtypes, masks, empty batches, second derivatives; and their edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once
from tests.table import losses as table
from tests.table.rows import rng_for

losses = nn.losses
INF = np.inf
FIRST_ROWS = {row.name: row for row in reversed(table.FUNCTIONS)}
MASKED_ROWS = [row for row in table.FUNCTIONS if "where" in row.variant]

every_loss = pytest.mark.parametrize("row", FIRST_ROWS.values(), ids=FIRST_ROWS)


def is_float(array):
    return array.dtype.kind == "f"


def drawn(row, dtype=np.float32):
    """The arguments of a row, those that are floating in `dtype`."""
    shape = row.shapes[-1]
    arguments = row.draw(rng_for(row.case(shape)), shape)
    return [a.astype(dtype) if is_float(a) else a for a in arguments]


def bound(row, arguments):
    """The loss as a function of its floating arguments, and those."""
    places = [i for i, a in enumerate(arguments) if is_float(a)]

    def function(floats):
        given = list(arguments)
        for i, value in zip(places, floats, strict=True):
            given[i] = value
        return row.function(*given, **row.options)

    return function, [arguments[i] for i in places]


def value_and_gradients(function, floats):
    y, pullback = jax.vjp(function, floats)
    return y, pullback(jnp.ones_like(y))[0]


# Dtypes


@each_value_once
@every_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_result_is_float32_or_wider(row, dtype):
    function, floats = bound(row, [jnp.asarray(a) for a in drawn(row)])
    narrow = [jax.ShapeDtypeStruct(a.shape, dtype) for a in floats]
    y, gradients = jax.eval_shape(functools.partial(value_and_gradients, function), narrow)
    assert y.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [dtype] * len(narrow)


@each_value_once
@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_result_is_no_wider_than_the_arguments(row, dtype, x64):
    function, floats = bound(row, drawn(row, dtype))
    assert jax.eval_shape(function, floats).dtype == dtype


@every_loss
def test_integers_count_as_default_floats(row):
    shapes = [jax.ShapeDtypeStruct(a.shape, jnp.int32) for a in drawn(row)]
    if row.name == "losses.smooth_labels":
        pytest.skip("refuses integers, which may be classes")
    y = jax.eval_shape(functools.partial(row.function, **row.options), *shapes)
    assert y.dtype == jnp.float32


def test_low_precision_is_computed_in_float32():
    cases = {name: row for name, row in FIRST_ROWS.items() if name != "losses.ctc_loss"}

    @fast_jit
    def both(arguments):
        results = {}
        for name, row in cases.items():
            function, floats = bound(row, arguments[name])
            wide = [a.astype(jnp.float32) for a in floats]
            results[name] = function(floats), function(wide)
        return results

    rounded = {
        name: [jnp.asarray(a, jnp.bfloat16) if is_float(a) else a for a in drawn(row)]
        for name, row in cases.items()
    }

    def bound(row, arguments):
        floats = [a for a in arguments if a.dtype == jnp.bfloat16]

        def function(values):
            values = iter(values)
            given = [next(values) if a.dtype == jnp.bfloat16 else a for a in arguments]
            return row.function(*given, **row.options)

        return function, floats

    for name, (narrow, wide) in both(rounded).items():
        np.testing.assert_array_equal(narrow, wide, err_msg=name)


# Masks


@functools.cache
def with_nan_where_masked():
    """Value and gradients of each loss with a mask, NaN at what is masked, and the masks."""
    arguments, kept = {}, {}
    for row in MASKED_ROWS:
        given = drawn(row)
        mask = given[-1][..., 0] if "dice_loss" in row.name else given[-1]
        case = row.case(row.shapes[-1])
        arguments[case] = [
            np.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, np.nan).astype(
                a.dtype
            )
            if is_float(a) and a.shape[: mask.ndim] == mask.shape
            else a
            for a in given
        ]
        kept[case] = mask
    bounds = {r.case(r.shapes[-1]): bound(r, arguments[r.case(r.shapes[-1])]) for r in MASKED_ROWS}

    @fast_jit
    def results(floats):
        return {case: value_and_gradients(f, floats[case]) for case, (f, _) in bounds.items()}

    return results({case: floats for case, (_, floats) in bounds.items()}), kept


@pytest.mark.parametrize("case", [row.case(row.shapes[-1]) for row in MASKED_ROWS])
def test_masked_nan_reaches_neither_the_loss_nor_a_gradient(case):
    results, kept = with_nan_where_masked()
    (y, gradients), mask = results[case], kept[case]
    assert 0 < mask.mean() < 1
    assert np.isfinite(y).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        if gradient.shape[: mask.ndim] == mask.shape:
            np.testing.assert_array_equal(gradient[~mask], 0)


NOTHING = {"losses.cosine_distance": 1.0}  # the distance of vectors of zeros


@functools.cache
def fully_masked():
    bounds = {}
    for row in MASKED_ROWS:
        arguments = drawn(row)
        arguments[-1] = np.zeros_like(arguments[-1])
        bounds[row.case(row.shapes[-1])] = bound(row, arguments)

    @fast_jit
    def results(floats):
        return {case: value_and_gradients(f, floats[case]) for case, (f, _) in bounds.items()}

    return results({case: floats for case, (_, floats) in bounds.items()})


@pytest.mark.parametrize("row", MASKED_ROWS, ids=lambda row: row.case(row.shapes[-1]))
def test_a_mask_of_everything_leaves_zeros(row):
    y, gradients = fully_masked()[row.case(row.shapes[-1])]
    np.testing.assert_array_equal(y, np.full(y.shape, NOTHING.get(row.name, 0.0)))
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


@every_loss
def test_every_loss_has_a_mask(row):
    # Paddings; a label; its `where` is for classes; weights, in test_losses_linear.py.
    others = {"ctc_loss", "ignoring", "smooth_labels", "linear_softmax_cross_entropy"}
    others = {f"losses.{name}" for name in others}
    assert row.name in others | {masked.name for masked in MASKED_ROWS}


@pytest.mark.parametrize(
    "loss",
    [losses.softmax_cross_entropy, losses.poly_loss_cross_entropy, losses.nll],
)
def test_a_mask_of_examples(loss):
    scores, labels = np.log(np.full((3, 2), 0.5, np.float32)), np.array([0, 1, 1])
    whole = loss(scores, labels)
    masked = loss(scores, labels, where=np.array([True, False, True]))
    np.testing.assert_array_equal(masked, np.where([True, False, True], whole, 0))


# Batches without examples


@functools.cache
def of_empty_batches():
    def emptied(row):
        first, *others = drawn(row)
        return [first[:0], *(a[:0] if len(a) == len(first) else a for a in others)]

    bounds = {name: bound(row, emptied(row)) for name, row in FIRST_ROWS.items()}

    @fast_jit
    def results(floats):
        return {name: value_and_gradients(f, floats[name]) for name, (f, _) in bounds.items()}

    return results({name: floats for name, (_, floats) in bounds.items()})


@every_loss
def test_an_empty_batch(row):
    y, gradients = of_empty_batches()[row.name]
    assert y.size == 0 or y == 0
    assert not any(gradient.any() for gradient in gradients)


# Second derivatives


@pytest.mark.slow
def test_second_derivatives_agree_in_both_orders():
    """Forward over reverse is symmetric, hence the derivative of the gradient."""
    bounds = {name: bound(row, drawn(row, np.float32)) for name, row in FIRST_ROWS.items()}

    @fast_jit
    def products(floats, u, v):
        def total(name, x):
            return jnp.sum(jnp.sin(bounds[name][0](x)))

        results = {}
        for name, x in floats.items():
            gradient = jax.grad(functools.partial(total, name))
            hessian_u, hessian_v = (
                jax.jvp(gradient, (x,), (direction[name],))[1] for direction in (u, v)
            )
            results[name] = dot(v[name], hessian_u), dot(u[name], hessian_v)
        return results

    def dot(a, b):
        return sum(jnp.sum(x * y) for x, y in zip(a, b, strict=True))

    rng = rng_for("second derivatives")
    floats = {name: x for name, (_, x) in bounds.items()}
    u, v = (
        jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), floats)
        for _ in range(2)
    )
    for name, (uv, vu) in products(floats, u, v).items():
        np.testing.assert_allclose(uv, vu, rtol=1e-3, atol=1e-3, err_msg=name)


# Extreme inputs: the loss, its arguments, and what it comes to

BIG = 1e4
EXTREMES = {
    "squared_error": (losses.squared_error, ([BIG, -BIG],), [1e8, 1e8]),
    "l2_loss": (losses.l2_loss, ([BIG, -BIG],), [5e7, 5e7]),
    "absolute_error": (losses.absolute_error, ([BIG, -BIG, 0],), [BIG, BIG, 0]),
    "huber_loss": (losses.huber_loss, ([BIG, -BIG, 0],), [BIG - 0.5, BIG - 0.5, 0]),
    "log_cosh": (
        losses.log_cosh,
        ([BIG, -BIG, 1e30, 0, 1e-4],),
        [BIG - np.log(2), BIG - np.log(2), 1e30, 0, 5e-9],
    ),
    "quantile_loss": (
        functools.partial(losses.quantile_loss, quantile=0.25),
        ([BIG, -BIG, 0], [0, 0, 0]),
        [7500, 2500, 0],
    ),
    "gaussian_nll": (
        losses.gaussian_nll,
        ([BIG, 0, 1], [-BIG, 0, 0], [1, 0, BIG]),
        [2e8, np.log(1e-6) / 2, np.log(BIG) / 2 + 0.5e-4],
    ),
    "poisson_nll": (losses.poisson_nll, ([-BIG, -BIG, 80], [0, 2, 0]), [0, 2e4, np.exp(80)]),
    "poisson_nll_of_rates": (
        functools.partial(losses.poisson_nll, log_input=False, full=True),
        ([0, BIG], [0, 0]),
        [0, BIG],
    ),
    "sigmoid_focal_loss": (
        losses.sigmoid_focal_loss,
        ([BIG, -BIG, BIG, -BIG, INF, -INF], [0, 1, 1, 0, 1, 0]),
        [BIG, BIG, 0, 0, 0, 0],
    ),
    "sigmoid_focal_loss_of_a_root": (
        functools.partial(losses.sigmoid_focal_loss, gamma=0.5),
        ([BIG, INF, -BIG], [1, 1, 0]),
        [0, 0, 0],
    ),
    "sigmoid_focal_loss_without_focus": (
        functools.partial(losses.sigmoid_focal_loss, gamma=0.0),
        ([BIG, INF, -BIG, BIG], [1, 1, 0, 0]),
        [0, 0, 0, BIG],
    ),
    "poly_loss_cross_entropy": (
        losses.poly_loss_cross_entropy,
        ([[BIG, -BIG], [0, -INF], [0, -INF]], [[0, 1], [1, 0], [1, 0]]),
        [2 * BIG + 2, 0, 0],
    ),
    "nll": (losses.nll, ([[0, -INF], [-BIG, 0]], [[1, 0], [1, 0]]), [0, BIG]),
    "hinge_loss": (losses.hinge_loss, ([BIG, -BIG, 1], [1, 1, 1]), [0, BIG + 1, 0]),
    "perceptron_loss": (losses.perceptron_loss, ([BIG, -BIG, 0], [1, 1, 1]), [0, BIG, 0]),
    "multiclass_hinge_loss": (
        lambda scores: losses.multiclass_hinge_loss(scores, jnp.array([0, 1, 0])),
        ([[BIG, -BIG], [BIG, -BIG], [0, -INF]],),
        [0, 2 * BIG + 1, 0],
    ),
    "multiclass_perceptron_loss": (
        lambda scores: losses.multiclass_perceptron_loss(scores, jnp.array([0, 1, 0])),
        ([[BIG, -BIG], [BIG, -BIG], [0, -INF]],),
        [0, 2 * BIG, 0],
    ),
    "absolute_percentage_error": (
        losses.absolute_percentage_error,
        ([BIG, 0, 1e-3], [1, 0, 0]),
        [100 * (BIG - 1), 0, 1e6],
    ),
    "squared_logarithmic_error": (
        losses.squared_logarithmic_error,
        ([1e30, -BIG, 0, -1], [1e30, 0, 0, -1]),
        [0, 0, 0, 0],
    ),
    "squared_hinge_loss": (
        losses.squared_hinge_loss,
        ([BIG, -BIG, 1], [1, 1, 1]),
        [0, (BIG + 1) ** 2, 0],
    ),
    "margin_ranking_loss": (
        losses.margin_ranking_loss,
        ([BIG, -BIG, 1], [0, 0, 1], [1, 1, 1]),
        [0, BIG, 0],
    ),
    "dpo_loss": (
        losses.dpo_loss,
        ([BIG, -BIG], [-BIG, BIG], [0, 0], [0, 0]),
        [0, 0.2 * BIG],
    ),
    "gaussian_kl_divergence": (
        losses.gaussian_kl_divergence,
        ([0, BIG, 0], [0, 0, -BIG]),
        [0, BIG**2 / 2, (BIG - 1) / 2],
    ),
    "cosine_embedding_loss": (
        lambda a, b: losses.cosine_embedding_loss(a, b, jnp.array([1, -1, -1])),
        ([[BIG, 0], [0, 0], [1e-18, 0]], [[-BIG, 0], [1, 2], [1e15, 0]]),
        [2, 0, 1],
    ),
    "clip_loss": (
        losses.clip_loss,
        ([[BIG, 0], [0, 0]], [[-BIG, 0], [0, 0]]),
        [(1 / 0.07) + np.log1p(np.exp(-1 / 0.07)), np.log(2)],
    ),
    "ranking_softmax_loss": (
        losses.ranking_softmax_loss,
        ([[BIG, -BIG], [0, -INF], [0, -INF]], [[0, 2], [3, 0], [0, 0]]),
        [4 * BIG, 0, 0],
    ),
    "safe_softmax_cross_entropy": (
        losses.safe_softmax_cross_entropy,
        ([[BIG, -BIG], [0, -INF]], [[0, 1], [1, 0]]),
        [2 * BIG, 0],
    ),
    "generalized_dice_loss": (
        losses.generalized_dice_loss,
        ([[[BIG, -BIG], [-BIG, BIG]]], [[[1, 0], [0, 1]]]),
        [0],
    ),
    "generalized_dice_loss_of_nothing": (
        functools.partial(losses.generalized_dice_loss, apply_softmax=False),
        ([[[0, 0]], [[1, 0]]], [[[0, 0]], [[0, 0]]]),
        [0, 1],
    ),
    "kl_divergence": (
        losses.kl_divergence,
        ([[-BIG, 0], [0, -INF], [-INF, 0]], [[1, 0], [1, 0], [0, 1]]),
        [BIG, 0, 0],
    ),
    "kl_divergence_with_log_targets": (
        losses.kl_divergence_with_log_targets,
        ([[-BIG, 0], [0, -INF]], [[0, -BIG], [0, -INF]]),
        [BIG, 0],
    ),
    "generalized_kl_divergence": (
        losses.generalized_kl_divergence,
        ([[-BIG, 0], [0, -INF]], [[1, 0], [1, 0]]),
        [BIG, 0],
    ),
    "cosine_similarity": (
        losses.cosine_similarity,
        ([[BIG, 0], [0, 0], [1e-18, 0]], [[-BIG, 0], [1, 2], [1e15, 0]]),
        [-1, 0, 1],
    ),
    "cosine_distance": (losses.cosine_distance, ([[0, 0]], [[0, 0]]), [1]),
    "triplet_margin_loss": (
        losses.triplet_margin_loss,
        ([[BIG, 0], [1, 1]], [[BIG, 0], [1, 1]], [[-BIG, 0], [1, 1]]),
        [0, 1],
    ),
    "triplet_margin_loss_without_eps": (
        functools.partial(losses.triplet_margin_loss, eps=0.0, norm_degree=1.0),
        ([[0, 0], [3, 0]], [[0, 0], [0, 4]], [[0, 0], [0, 0]]),
        [1, 5],
    ),
    "ntxent": (
        lambda x: losses.ntxent(x, jnp.array([0, 0, 1])),
        ([[BIG, 0], [BIG, 0], [0, 0]],),
        np.log1p(np.exp(-1 / 0.07)),
    ),
    "ntxent_without_pairs": (
        lambda x: losses.ntxent(x, jnp.array([0, 1, 2])),
        ([[BIG, 0], [BIG, 0], [0, 1]],),
        0,
    ),
    "ntxent_without_negatives": (
        lambda x: losses.ntxent(x, jnp.array([0, 0, 0])),
        ([[BIG, 0], [-BIG, 0], [0, 1]],),
        0,
    ),
    "dice_loss": (
        losses.dice_loss,
        ([[[BIG], [-BIG]], [[-BIG], [-BIG]]], [[[1], [0]], [[0], [0]]]),
        [0, 0],
    ),
    "dice_loss_of_an_empty_region": (
        functools.partial(losses.dice_loss, smooth=0.0, apply_softmax=False),
        ([[[0], [0]], [[1], [0]]], [[[0], [0]], [[0], [0]]]),
        [0, 1],
    ),
}


@functools.cache
def at_extremes():
    @fast_jit
    def results(arguments):
        computed = {}
        for name, (function, _, _) in EXTREMES.items():
            given = arguments[name]
            y, gradients = value_and_gradients(lambda x, f=function: f(*x), given)
            ones = jax.tree.map(jnp.ones_like, given)
            tangent = jax.jvp(lambda x, f=function: f(*x), (given,), (ones,))[1]
            computed[name] = y, gradients, tangent
        return computed

    return results(
        {
            name: [jnp.asarray(a, jnp.float32) for a in arguments]
            for name, (_, arguments, _) in EXTREMES.items()
        }
    )


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_inputs(name):
    y, gradients, tangent = at_extremes()[name]
    np.testing.assert_allclose(y, EXTREMES[name][2], rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    assert np.isfinite(tangent).all()
    total = sum(np.sum(np.asarray(g, np.float64)) for g in gradients)
    along_ones = np.sum(np.asarray(tangent, np.float64))
    np.testing.assert_allclose(along_ones, total, rtol=1e-4, atol=1e-4)


def test_log_cosh_keeps_small_errors():
    errors = np.float32([1e-6, 1e-3, 0.5, 0.999, 1.0, 1.001, 5.0])
    exact = np.log(np.cosh(np.float64(errors)))
    exact[:2] = np.float64(errors[:2]) ** 2 / 2
    np.testing.assert_allclose(losses.log_cosh(errors), exact, rtol=1e-6)


# Definitions


def test_the_derivative_at_a_kink():
    for loss, at in (
        (lambda x: losses.hinge_loss(x, jnp.ones(1)), 1.0),
        (lambda x: losses.perceptron_loss(x, jnp.ones(1)), 0.0),
        (lambda x: losses.triplet_margin_loss(x, x, x, margin=0.0)[None], 0.0),
    ):
        assert jax.grad(lambda x, f=loss: f(x)[0])(jnp.array([at])) == 0


@pytest.mark.parametrize("name", ["multiclass_hinge_loss", "multiclass_perceptron_loss", "nll"])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_gives_nan(name, label):
    loss = getattr(losses, name)(jnp.zeros((2, 3)), jnp.array([label, 0]))
    np.testing.assert_array_equal(np.isnan(loss), [True, False])


def test_ignored_examples_count_in_no_way():
    logits, labels = jnp.array([[1.0, 2.0], [np.nan, 0.0]]), jnp.array([0, -100])
    loss = functools.partial(losses.softmax_cross_entropy, labels=labels, ignore_index=-100)
    values, gradient = fast_jit(functools.partial(value_and_gradients, loss))(logits)
    np.testing.assert_allclose(values, [np.log1p(np.e), 0], rtol=1e-6)
    np.testing.assert_allclose(gradient[0], [-gradient[0, 1], gradient[0, 1]], rtol=1e-6)
    np.testing.assert_array_equal(gradient[1], 0)


def test_classes_of_several_axes_are_flattened_in_the_order_given():
    logits = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    labels = np.array([5, 11])
    log_probs = logits - np.log(np.exp(logits).sum((1, 2), keepdims=True))
    for axis, flat in (((1, 2), log_probs), ((-1, -2), log_probs.swapaxes(1, 2))):
        np.testing.assert_allclose(
            losses.softmax_cross_entropy(logits, labels, axis),
            -flat.reshape(2, 12)[[0, 1], labels],
            rtol=1e-5,
        )
    everything = losses.softmax_cross_entropy(logits, np.array(7), None)
    expected = np.log(np.exp(logits).sum()) - logits.reshape(-1)[7]
    np.testing.assert_allclose(everything, expected, rtol=1e-5)


def test_one_quantile_for_each_output():
    predictions, targets = jnp.zeros((2, 3)), jnp.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    loss = losses.quantile_loss(predictions, targets, jnp.array([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(loss, [[0.1, 0.5, 0.9], [0.9, 0.5, 0.1]], rtol=1e-6)


def test_the_best_constant_for_the_quantile_loss_is_the_quantile():
    targets = jnp.asarray(np.random.default_rng(0).exponential(size=999), jnp.float32)
    candidates = jnp.sort(targets)
    costs = jax.vmap(lambda c: jnp.mean(losses.quantile_loss(jnp.full(999, c), targets, 0.9)))(
        candidates
    )
    np.testing.assert_allclose(candidates[jnp.argmin(costs)], np.quantile(targets, 0.9), rtol=0.02)


def test_full_likelihoods_are_those_of_the_distributions():
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(
        losses.gaussian_nll(1.0, 3.0, 2.5, full=True), -stats.norm.logpdf(3, 1, 2.5**0.5), rtol=1e-6
    )
    np.testing.assert_allclose(
        losses.poisson_nll(jnp.log(2.5), 4, full=True), -stats.poisson.logpmf(4, 2.5), rtol=1e-6
    )


TRACED = {
    "quantile": lambda h, x: losses.quantile_loss(x, 0 * x, h),
    "epsilon": lambda h, x: losses.gaussian_nll(x, x, x, epsilon=h),
    "rate epsilon": lambda h, x: losses.poisson_nll(x, x, log_input=False, epsilon=h),
    "alpha": lambda h, x: losses.sigmoid_focal_loss(x, x, alpha=h, gamma=h),
    "smoothing": lambda h, x: losses.softmax_cross_entropy(x, x, label_smoothing=h),
    "poly": lambda h, x: losses.poly_loss_cross_entropy(x, x, epsilon=h),
    "smooth_labels": lambda h, x: losses.smooth_labels(x, h),
    "cosine": lambda h, x: losses.cosine_similarity(x, x, epsilon=h),
    "triplet": lambda h, x: losses.triplet_margin_loss(x, 2 * x, 3 * x, -1, 1 + h, h, h),
    "ntxent": lambda h, x: losses.ntxent(x, jnp.arange(4) % 2, h),
    "dice": lambda h, x: losses.dice_loss(x, x, smooth=h, alpha=h, beta=h),
    "percentage": lambda h, x: losses.absolute_percentage_error(x, 2 * x, epsilon=h),
    "ranking": lambda h, x: losses.margin_ranking_loss(x, x, x, margin=h),
    "embedding": lambda h, x: losses.cosine_embedding_loss(x, x, -jnp.ones(4), margin=h),
    "clip": lambda h, x: losses.clip_loss(x, 2 - x, temperature=h),
    "dpo": lambda h, x: losses.dpo_loss(x, -x, x, x, beta=h, label_smoothing=h / 2),
    "ctc": lambda h, x: losses.ctc_loss(
        x[None], jnp.zeros((1, 4)), jnp.ones((1, 1), int), jnp.zeros((1, 1)), log_epsilon=h
    ),
}


def test_hyperparameters_may_be_traced():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)), jnp.float32)
    strengths = jnp.array([0.2, 0.7])

    @fast_jit
    def swept(strengths):
        return {name: jax.vmap(lambda h, f=f: f(h, x))(strengths) for name, f in TRACED.items()}

    @fast_jit
    def one_by_one():
        return {name: jnp.stack([f(h, x) for h in (0.2, 0.7)]) for name, f in TRACED.items()}

    expected = one_by_one()
    for name, values in swept(strengths).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


# Errors


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


LABELS = np.zeros(4, int)
PAIRS = [
    losses.absolute_error,
    losses.absolute_percentage_error,
    losses.cosine_distance,
    losses.cosine_similarity,
    losses.gaussian_kl_divergence,
    losses.generalized_kl_divergence,
    losses.hinge_loss,
    losses.huber_loss,
    losses.kl_divergence,
    losses.kl_divergence_with_log_targets,
    losses.l2_loss,
    losses.log_cosh,
    losses.perceptron_loss,
    losses.poisson_nll,
    losses.sigmoid_binary_cross_entropy,
    losses.sigmoid_focal_loss,
    losses.squared_error,
    losses.squared_hinge_loss,
    losses.squared_logarithmic_error,
]
REFUSED = {
    **{
        loss.__name__: (functools.partial(loss, ones(4, 1), ones(4)), ["(4, 1)", "(4,)"])
        for loss in PAIRS
    },
    "quantile_loss": (lambda: losses.quantile_loss(ones(4, 1), ones(4), 0.5), ["(4, 1)", "(4,)"]),
    "quantile_loss quantile": (lambda: losses.quantile_loss(ones(4), ones(4), 1.5), ["1.5"]),
    "quantile_loss quantiles": (
        lambda: losses.quantile_loss(ones(4), ones(4), ones(2)),
        ["quantile has shape (2,)", "(4,)"],
    ),
    "gaussian_nll": (
        lambda: losses.gaussian_nll(ones(4), ones(4), ones(1)),
        ["(4,), targets (4,) and variances (1,)"],
    ),
    "gaussian_nll epsilon": (
        lambda: losses.gaussian_nll(ones(1), ones(1), ones(1), epsilon=-1.0),
        ["epsilon is -1.0"],
    ),
    "poisson_nll where": (
        lambda: losses.poisson_nll(ones(4), ones(4), where=ones(1, dtype=bool)),
        ["where has shape (1,)", "(4,)"],
    ),
    "sigmoid_focal_loss gamma": (
        lambda: losses.sigmoid_focal_loss(ones(4), ones(4), gamma=-1.0),
        ["gamma is -1.0"],
    ),
    "sigmoid_focal_loss alpha": (
        lambda: losses.sigmoid_focal_loss(ones(4), ones(4), alpha=2.0),
        ["alpha is 2.0"],
    ),
    "softmax_cross_entropy class_weights": (
        lambda: losses.softmax_cross_entropy(ones(4, 3), LABELS, class_weights=ones(4)),
        ["class_weights has shape (4,)", "(3,)"],
    ),
    "softmax_cross_entropy ignore_index": (
        lambda: losses.softmax_cross_entropy(ones(4, 3), ones(4, 3), ignore_index=0),
        ["ignore_index is 0", "distributions"],
    ),
    "softmax_cross_entropy_with_integer_labels": (
        lambda: losses.softmax_cross_entropy_with_integer_labels(ones(4, 3), ones(4)),
        ["float32", "integer"],
    ),
    "nll": (lambda: losses.nll(ones(4, 3), LABELS[:3]), ["(3,)", "(4, 3)"]),
    "poly_loss_cross_entropy": (
        lambda: losses.poly_loss_cross_entropy(ones(4, 3), ones(3, 4)),
        ["(3, 4)", "(4, 3)"],
    ),
    "smooth_labels": (lambda: losses.smooth_labels(LABELS, 0.1), ["int32", "distributions"]),
    "smooth_labels alpha": (lambda: losses.smooth_labels(ones(4), 1.1), ["alpha is 1.1"]),
    "multiclass_hinge_loss": (
        lambda: losses.multiclass_hinge_loss(ones(4, 3), LABELS[:, None]),
        ["labels has shape (4, 1)", "(4,)"],
    ),
    "multiclass_perceptron_loss": (
        lambda: losses.multiclass_perceptron_loss(ones(4, 3), ones(4)),
        ["float32", "integer"],
    ),
    "kl_divergence where": (
        lambda: losses.kl_divergence(ones(4, 3), ones(4, 3), where=ones(4, dtype=bool)),
        ["where has shape (4,)", "(4, 3)"],
    ),
    "cosine_similarity axis": (
        lambda: losses.cosine_similarity(ones(4), ones(4), axis=1),
        ["axis 1"],
    ),
    "triplet_margin_loss": (
        lambda: losses.triplet_margin_loss(ones(4, 3), ones(4, 3), ones(3)),
        ["anchors have shape (4, 3), positives (4, 3) and negatives (3,)"],
    ),
    "triplet_margin_loss where": (
        lambda: losses.triplet_margin_loss(*[ones(4, 3)] * 3, where=ones(3, dtype=bool)),
        ["where has shape (3,)", "(4,)"],
    ),
    "ntxent": (lambda: losses.ntxent(ones(4), LABELS), ["(4,)", "(batch, features)"]),
    "ntxent labels": (lambda: losses.ntxent(ones(4, 3), LABELS[:3]), ["labels has shape (3,)"]),
    "margin_ranking_loss": (
        lambda: losses.margin_ranking_loss(ones(4), ones(4), ones(1)),
        ["first have shape (4,), second (4,) and targets (1,)"],
    ),
    "dpo_loss label_smoothing": (
        lambda: losses.dpo_loss(*[ones(4)] * 4, label_smoothing=0.7),
        ["label_smoothing is 0.7"],
    ),
    "absolute_percentage_error epsilon": (
        lambda: losses.absolute_percentage_error(ones(4), ones(4), epsilon=0.0),
        ["epsilon is 0.0"],
    ),
    "cosine_embedding_loss": (
        lambda: losses.cosine_embedding_loss(ones(4, 3), ones(4, 3), ones(4, 3)),
        ["targets has shape (4, 3)", "(4,)"],
    ),
    "cosine_embedding_loss where": (
        lambda: losses.cosine_embedding_loss(ones(4, 3), ones(4, 3), ones(4), where=ones(3)),
        ["where has shape (3,)", "(4,)"],
    ),
    "clip_loss": (lambda: losses.clip_loss(ones(4), ones(4)), ["(4,)", "(batch, features)"]),
    "clip_loss labels": (
        lambda: losses.clip_loss(ones(4, 3), ones(4, 3), LABELS[:3]),
        ["labels has shape (3,)"],
    ),
    "clip_loss temperature": (
        lambda: losses.clip_loss(ones(4, 3), ones(4, 3), temperature=0.0),
        ["temperature is 0.0"],
    ),
    "ranking_softmax_loss": (
        lambda: losses.ranking_softmax_loss(ones(4, 3), LABELS),
        ["labels has shape (4,)", "(4, 3)"],
    ),
    "ranking_softmax_loss weights": (
        lambda: losses.ranking_softmax_loss(ones(4, 3), ones(4, 3), weights=-ones(4, 3)),
        ["weights is", ">= 0"],
    ),
    "generalized_dice_loss": (
        lambda: losses.generalized_dice_loss(ones(4, 5, 3), ones(4, 3, 5)),
        ["(4, 5, 3)", "(4, 3, 5)"],
    ),
    "dice_loss": (
        lambda: losses.dice_loss(ones(4, 5, 3), ones(4, 3, 5)),
        ["(4, 5, 3)", "(4, 3, 5)"],
    ),
    "dice_loss reduction": (
        lambda: losses.dice_loss(ones(4, 5, 3), ones(4, 5, 3), reduction="max"),
        ["reduction is 'max'"],
    ),
    "dice_loss class_weights": (
        lambda: losses.dice_loss(ones(4, 5, 3), ones(4, 5, 3), class_weights=ones(5)),
        ["class_weights has shape (5,)", "(3,)"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case):
    call, fragments = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=f"^{case.split()[0]}: ") as error:
        call()
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)
