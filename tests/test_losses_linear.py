"""The cross-entropy of a linear layer in chunks: the same numbers, and no matrix of logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.losses import _linear_cross_entropy
from tests.compiling import fast_jit
from tests.numpy_reference.losses_further import linear_softmax_cross_entropy as reference

linear_softmax_cross_entropy = nn.losses.linear_softmax_cross_entropy
OPTIONS = {"label_smoothing": 0.2, "ignore_index": 1, "soft_cap": 1.5}
ROWS = 600  # three chunks of the least size, the last not full


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(_linear_cross_entropy, "LOGITS_IN_A_CHUNK", 1)


def drawn(rows=ROWS, dtype=np.float64):
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.standard_normal(s).astype(dtype) for s in ((rows, 3), (3, 5), (5,)))
    weights = rng.random(rows).astype(dtype)
    return x, kernel, rng.integers(0, 5, rows), bias, weights


def values(x, kernel, labels, bias):
    return linear_softmax_cross_entropy(x, kernel, labels, bias, **OPTIONS)


def mean(x, kernel, labels, bias, weights):
    return linear_softmax_cross_entropy(
        x, kernel, labels, bias, weights=weights, reduction="mean", **OPTIONS
    )


def test_values_and_gradients_in_chunks(x64, in_chunks):
    x, kernel, labels, bias, dy = drawn()
    y, backward = reference(x, kernel, labels, bias, **OPTIONS)
    dx, dkernel, _, dbias = backward(dy)

    @fast_jit
    def run(x, kernel, bias):
        y, pullback = jax.vjp(lambda *a: values(*a[:2], labels, a[2]), x, kernel, bias)
        return y, pullback(jnp.asarray(dy))

    jax.tree.map(np.testing.assert_allclose, run(x, kernel, bias), (y, (dx, dkernel, dbias)))


def test_the_mean_and_its_derivatives_in_chunks(x64, in_chunks):
    x, kernel, labels, bias, weights = drawn()
    y, backward = reference(x, kernel, labels, bias, **OPTIONS)
    counts = weights * (labels != 1)
    total = counts.sum()
    dx, dkernel, _, dbias = backward(counts / total)
    expected = (y * counts).sum() / total
    dweights = (labels != 1) * (y - expected) / total
    slopes = dx, dkernel, dbias, dweights

    @fast_jit
    def run(*floats):
        def of(x, kernel, bias, weights):
            return mean(x, kernel, labels, bias, weights)

        y, gradients = jax.value_and_grad(lambda *a: of(*a).values, (0, 1, 2, 3))(*floats)
        tangent = jax.jvp(lambda *a: of(*a).values, floats, floats)[1]
        return y, gradients, tangent, of(*floats).weights

    floats = x, kernel, bias, weights
    tangent = sum((a * b).sum() for a, b in zip(floats, slopes, strict=True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        run(*floats),
        (expected, slopes, tangent, total),
    )


def test_second_derivatives_of_the_mean(x64, in_chunks):
    x, kernel, labels, *_ = drawn()

    def plain(kernel):
        return nn.losses.softmax_cross_entropy(x @ kernel, labels).mean()

    def chunked(kernel):
        return linear_softmax_cross_entropy(x, kernel, labels, reduction="mean").values

    direction = jnp.arange(15.0).reshape(3, 5)

    @fast_jit
    def products(kernel):
        return [jax.jvp(jax.grad(f), (kernel,), (direction,))[1] for f in (plain, chunked)]

    np.testing.assert_allclose(*products(kernel), rtol=1e-9)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_logits_are_never_there(in_chunks, reduction):
    rows, classes = 8192, 100
    x, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, 8), (8, classes)))

    def loss(x, kernel):
        y = linear_softmax_cross_entropy(x, kernel, jnp.zeros(rows, int), reduction=reduction)
        return y.values if reduction == "mean" else jnp.mean(y)

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * rows * classes / 2


def test_integer_labels_make_no_one_hot_matrix():
    rows, classes = 512, 1000
    logits = jax.ShapeDtypeStruct((rows, classes), jnp.float32)

    def loss(logits):
        return jnp.mean(nn.losses.softmax_cross_entropy(logits, jnp.zeros(rows, int)))

    compiled = jax.jit(jax.grad(loss)).lower(logits).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * 4 * rows * classes


def test_rows_of_weight_0_have_no_effect():
    x, kernel, labels, bias, _ = drawn(4, np.float32)
    weights = np.array([1.0, 0.0, 2.0, 0.0], np.float32)
    bad = x.copy()
    bad[1], bad[3] = np.nan, np.inf
    outside = np.where(weights > 0, labels, 7)

    @fast_jit
    def run(x, labels):
        return jax.value_and_grad(lambda *a: mean(*a, labels, bias, weights).values, (0, 1))(
            x, kernel
        )

    jax.tree.map(np.testing.assert_array_equal, run(bad, outside), run(x, labels))


def test_a_class_outside_and_nothing_that_counts():
    x, kernel, *_ = drawn(3, np.float32)
    y = linear_softmax_cross_entropy(x, kernel, np.array([0, 5, -1]))
    np.testing.assert_array_equal(np.isnan(y), [False, True, True])
    ignored = linear_softmax_cross_entropy(
        x, kernel, np.full(3, -1), ignore_index=-1, reduction="mean"
    )
    assert ignored == (0, 0)


def test_sums_of_narrow_numbers_are_wide(in_chunks):
    x = jnp.ones((4096, 1), jnp.bfloat16)
    kernel = jnp.zeros((1, 2), jnp.bfloat16)

    def of(kernel, reduction):
        y = linear_softmax_cross_entropy(x, kernel, jnp.zeros(4096, int), reduction=reduction)
        return y.values if reduction == "mean" else jnp.mean(y)

    for reduction in ("none", "mean"):
        slope = jax.grad(of)(kernel, reduction)
        np.testing.assert_allclose(slope.astype(np.float32), [[-0.5, 0.5]], rtol=1e-2)


@pytest.mark.parametrize("head", [pytest.param("dense", marks=pytest.mark.slow), "embedding"])
def test_deferred_heads_train_as_others_do(head):
    """An `nn.dense`, and the table of an embedding with the weights of examples in the loss."""

    def tied(wrap):
        def forward(f, tokens):
            return f.embed(f.body(f.embed(tokens)), attend=True)

        return nn.compose(forward, embed=wrap(nn.embedding(7, 4)), body=nn.dense(4))

    def dense(wrap):
        return nn.serial(nn.embedding(7, 4), wrap(nn.dense(7)))

    def fused(head, labels):
        return linear_softmax_cross_entropy(**head, labels=labels, ignore_index=2, reduction="mean")

    plain = nn.losses.ignoring(nn.losses.softmax_cross_entropy, 2)
    tokens = np.random.default_rng(0).integers(0, 7, (6, 5))
    model = {"dense": dense, "embedding": tied}[head]
    results = [
        nn.fit(
            model(wrap),
            (tokens, tokens[:, ::-1]),
            loss=loss,
            optimizer=nn.optimizers.sgd(0.1),
            key=jax.random.key(0),
            epochs=2,
            batch_size=4,
        )
        for wrap, loss in ((nn.deferred, fused), (lambda layer: layer, plain))
    ]
    got, expected = ((r.params, r.history["loss"]) for r in results)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), got, expected)


def test_deferred_refuses_what_is_not_linear():
    x = jnp.ones((1, 2, 3))
    layer = nn.deferred(nn.layer_norm())
    with pytest.raises(ValueError, match=r"deferred: layer is layer_norm\(\), expected"):
        layer.apply(*layer.init(jax.random.key(0), x), x)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kernel": np.ones((3, 1))}, ValueError, "kernel has shape"),
        ({"x": np.ones((4, 2))}, ValueError, "x has shape"),
        ({"labels": np.ones(4)}, TypeError, "labels have dtype"),
        ({"labels": np.ones((4, 1), int)}, ValueError, "labels has shape"),
        ({"bias": np.ones(4)}, ValueError, "bias has shape"),
        ({"weights": np.ones(4)}, ValueError, "weights are given"),
        ({"weights": -np.ones(4), "reduction": "mean"}, ValueError, "weights is"),
        ({"soft_cap": 0.0}, ValueError, "soft_cap is 0"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing is 1.1"),
    ],
)
def test_errors(changes, error, message):
    x, kernel, labels, *_ = drawn(4, np.float32)
    with pytest.raises(error, match=f"^linear_softmax_cross_entropy: {message}"):
        linear_softmax_cross_entropy(**{"x": x, "kernel": kernel, "labels": labels, **changes})
