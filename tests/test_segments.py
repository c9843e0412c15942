"""What graph networks are built from, and the layers that the page on them makes."""

import doctest
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

f = nn.functional
REDUCTIONS = ("segment_sum", "segment_mean", "segment_max", "segment_softmax")
IDS = np.array([2, 0, 2, 0, 2])


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def each(x, ids, where=None):
    """All reductions of an array to 3 segments, by name."""
    return {name: getattr(f, name)(x, ids, 3, where=where) for name in REDUCTIONS}


def test_padding_has_no_effect():
    """Not even as NaN with ids outside; and no gradient but 0 flows to it."""
    where = np.array([True, False, True, False, True])

    @fast_jit
    def run(x, ids):
        def of(name):
            y, pullback = jax.vjp(lambda x: each(x, ids, where)[name], x)
            return y, *pullback(jnp.cos(y))

        return {name: of(name) for name in REDUCTIONS}

    x = normal(0, 5, 2)
    results = run(x, IDS)
    padded = run(np.where(where[:, None], x, np.nan), np.where(where, IDS, 7))
    jax.tree.map(np.testing.assert_array_equal, padded, results)
    for name, (y, dx) in results.items():
        np.testing.assert_array_equal(dx[~where], 0)
        empty = y[~where] if name == "segment_softmax" else y[:2]
        np.testing.assert_array_equal(empty, 0)


def test_no_elements_at_all():
    ys = fast_jit(each)(np.zeros((0, 2), np.float32), np.zeros(0, np.int32))
    for name, y in ys.items():
        np.testing.assert_array_equal(y, np.zeros((0 if name == "segment_softmax" else 3, 2)))


def test_an_id_outside_is_seen():
    run = fast_jit(lambda x, ids: (f.gather(x[:3], ids), each(x, ids)))
    for bad in (3, -1):
        ids = np.where(np.arange(5) == 1, bad, IDS)
        gathered, reduced = run(normal(0, 5), ids)
        assert np.isnan(gathered).tolist() == (ids == bad).tolist()
        assert all(np.isnan(y).any() for y in reduced.values())


def test_what_is_not_finite_stays_in_its_segment():
    run = fast_jit(each)
    y = run(np.array([np.nan, 1.0, 2.0, -np.inf, 3.0], np.float32), IDS)
    for name, first in (("segment_sum", -np.inf), ("segment_max", 1.0)):
        assert y[name][0] == first
        assert np.isnan(y[name][2])
    y = run(np.array([1000.0, -1000.0, 1000.0, -1000.0, -1000.0], np.float32), IDS)
    np.testing.assert_array_equal(y["segment_softmax"], [0.5, 0.5, 0.5, 0.5, 0])


def test_segments_of_minus_infinity_have_no_weights():
    logits = np.array([0.0, -np.inf, -np.inf, -np.inf, 0.0], np.float32)

    @fast_jit
    @jax.value_and_grad
    def gradient(logits):
        return jnp.sum(jnp.square(f.segment_softmax(logits, IDS, 3)))

    value, dlogits = gradient(logits)
    assert value == 0.5
    np.testing.assert_allclose(dlogits, 0, atol=1e-7)


def test_sums_and_gradients_are_float32():
    """In bfloat16, 1 added to 256 is 256."""

    @fast_jit
    def run(ones):
        ids = jnp.zeros(1000, int)
        gradient = jax.grad(lambda x: jnp.sum(f.gather(x, ids)).astype(jnp.float32))(ones[:1])
        return f.segment_sum(ones, ids, 1), f.segment_mean(ones, ids, 1), gradient

    assert [y.item() for y in run(jnp.ones(1000, jnp.bfloat16))] == [1000, 1, 1000]


def test_of_equal_elements_the_first_gets_the_gradient():
    gradient = fast_jit(jax.grad(lambda x: f.segment_max(x, IDS, 3)[2]))(np.ones(5, np.float32))
    np.testing.assert_array_equal(gradient, [1, 0, 0, 0, 0])


X, IDS_OF_TWO = jnp.ones((2, 5, 3)), jnp.zeros((2, 5), int)


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (
            lambda: f.gather(X, IDS_OF_TWO[:1]),
            ValueError,
            r"gather: x has shape \(2, 5, 3\) and ids \(1, 5\)",
        ),
        (lambda: f.gather(X, X), TypeError, "ids have dtype float32, expected integers"),
        (
            lambda: f.segment_sum(X, IDS_OF_TWO[:, :4], 2),
            ValueError,
            r"segment_ids \(2, 4\), expected",
        ),
        (lambda: f.segment_mean(X, X, 2), TypeError, "segment_ids have dtype float32"),
        (lambda: f.segment_max(X, IDS_OF_TWO, 0), ValueError, "segment_max: num_segments is 0"),
        (
            lambda: f.segment_max(X, IDS_OF_TWO, 2, where=IDS_OF_TWO),
            TypeError,
            r"where has dtype int32, expected bool \(True: the element counts",
        ),
        (
            lambda: f.segment_max(X.astype(complex), IDS_OF_TWO, 2),
            TypeError,
            "x has dtype complex64",
        ),
        (
            lambda: f.segment_softmax(X.astype(complex), IDS_OF_TWO, 2),
            TypeError,
            "logits has dtype complex64",
        ),
        (
            lambda: f.segment_softmax(X, IDS_OF_TWO, 2, where=IDS_OF_TWO[0] == 0),
            ValueError,
            "where has shape",
        ),
        (lambda: f.segment_softmax(X, IDS_OF_TWO[None], 2), ValueError, "logits has shape"),
    ],
)
def test_bad_input(call, exception, message):
    with pytest.raises(exception, match=message):
        call()


# The layers of docs/graphs.md against matrices, as in the papers and in PyTorch Geometric


@pytest.fixture(scope="module")
def page():
    """The names that the page defines before it trains."""
    text = (Path(nn.__file__).parents[1] / "docs" / "graphs.md").read_text(encoding="utf-8")
    names = {}
    for example in doctest.DocTestParser().get_examples(text.partition("## Batches")[0]):
        exec(example.source, names)
    return names


NODES, SENDERS, RECEIVERS = 4, np.array([0, 1, 2, 2, 0, 1]), np.array([1, 0, 1, 3, 3, 3])


def run(layer, nodes, **edges):
    """Its params in float64, and what it gives for a graph with two edges of padding."""
    ends = {"senders": SENDERS, "receivers": RECEIVERS, **edges}
    padded = {name: np.concatenate([a, np.zeros_like(a[:2])]) for name, a in ends.items()}
    where = np.arange(len(SENDERS) + 2) < len(SENDERS)
    params, state = fast_jit(layer.init)(jax.random.key(0), nodes, where=where, **padded)
    y = fast_jit(lambda p, x: layer.apply(p, state, x, where=where, **padded)[0])(params, nodes)
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params), y


def test_graph_convolution(page):
    """D^(-1/2) (A + I) D^(-1/2) X W."""
    nodes = normal(0, NODES, 3)
    params, y = run(page["graph_convolution"](2), nodes)
    adjacency = np.eye(NODES)
    adjacency[RECEIVERS, SENDERS] += 1
    root = np.diag(adjacency.sum(1) ** -0.5)
    expected = root @ adjacency @ root @ nodes @ params["dense"]["kernel"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_graph_attention(page):
    """Softmax over each row of leaky_relu(a h_i + b h_j), where there is an edge from j to i."""
    nodes = normal(0, NODES, 3)
    params, y = run(page["graph_attention"](2, 3), nodes)
    h = np.einsum("ni,ihf->nhf", nodes, params["heads"]["kernel"])
    to, by = (np.einsum("nhf,hf->nh", h, params[p]["kernel"]) for p in ("receiver", "sender"))
    expected = np.zeros((NODES, 2, 3))
    for i in set(RECEIVERS):
        own = SENDERS[i == RECEIVERS]
        logits = to[i] + by[own]
        powers = np.exp(np.where(logits > 0, logits, 0.2 * logits))
        expected[i] = np.einsum("jh,jhf->hf", powers / powers.sum(0), h[own])
    np.testing.assert_allclose(y, expected.reshape(NODES, 6), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_message_passing(page):
    """The greatest message of each feature; a node that receives none gets 0."""
    nodes, edges = normal(0, NODES, 3), normal(1, len(SENDERS), 2)
    params, y = run(page["message_passing"](4), nodes, edges=edges)

    def mlp(params, x):
        layers = params["dense_0"], params["dense_1"]
        x = np.maximum(x @ layers[0]["kernel"] + layers[0]["bias"], 0)
        return x @ layers[1]["kernel"] + layers[1]["bias"]

    ends = np.concatenate([nodes[RECEIVERS], nodes[SENDERS], edges], -1)
    messages, received = mlp(params["message"], ends), np.zeros((NODES, 4))
    for i in set(RECEIVERS):
        received[i] = messages[i == RECEIVERS].max(0)
    expected = mlp(params["update"], np.concatenate([nodes, received], -1))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
