"""Ragged data at few sizes: texts and graphs, with losses and gradients as without padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

RNG = np.random.default_rng(0)


def same(got, expected):
    """Compare two trees of arrays, dtypes included."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda g, e: np.testing.assert_array_equal(g, e, strict=True), got, expected)


# Sizes and masks


@pytest.mark.parametrize(
    ("length", "sizes", "expected"),
    [
        (0, 4, 4),
        (4, 4, 4),
        (5, 4, 8),
        (8, 4, 8),
        (9, 4, 16),
        (7, 3, 12),
        (1, 1, 1),
        (1000, 1, 1024),
        (0, [2, 3, 7], 2),
        (3, [2, 3, 7], 3),
        (4, [2, 3, 7], 7),
    ],
)
def test_size(length, sizes, expected):
    x = np.arange(length, dtype=np.int16)
    padded, mask = nn.pad_to(x, sizes)
    same(padded, np.concatenate([x, np.zeros(expected - length, np.int16)]))
    same(mask, np.arange(expected) < length)


def test_examples_are_stacked():
    (x, y), (of_x, of_y) = nn.pad_to(
        [(np.ones((2, 3), np.float32), 7), (np.ones((5, 3)), 8)][:1], 4
    )
    same(x, np.concatenate([np.ones((1, 2, 3)), np.zeros((1, 2, 3))], 1).astype(np.float32))
    same((y, of_y), (np.array([7]), np.array([True])))
    same(of_x, np.array([[True, True, False, False]]))


def test_parts_have_sizes_of_their_own_and_go_up_together():
    batch = {"text": [[1, 2, 3], [4]], "image": [np.ones(5), np.zeros(5)], "label": np.arange(2)}
    padded, mask = nn.pad_to(batch, {"text": [2, 9], "image": None, "label": None})
    same(padded["text"], np.array([[1, 2, 3, *[0] * 6], [4, *[0] * 8]]))
    same((padded["image"], padded["label"]), (np.stack(batch["image"]), batch["label"]))
    assert jax.tree.map(np.shape, mask) == {"text": (2, 9), "image": (2,), "label": ()}
    few, many = np.ones(1), np.ones(20)
    (a, b), _ = nn.pad_to((few, many), (2, 5))
    assert (len(a), len(b)) == (8, 20)


def test_what_jax_has_is_taken():
    padded, _ = nn.pad_to([jnp.ones(2, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)], 2)
    same(padded, np.array([[1, 1], [1, 0]], jnp.bfloat16))


@pytest.mark.parametrize(
    ("batch", "sizes", "error", "message"),
    [
        ([], 4, ValueError, "batch is an empty list"),
        ({}, 4, ValueError, "batch is {}, expected arrays"),
        (["abc"], 4, TypeError, "batch .* expected an array of numbers"),
        ([[1], [[1]]], 4, ValueError, "examples of ndim 1 and 2, expected one"),
        ([[1], [1.5]], 4, ValueError, "examples of dtype int64 and float64"),
        ([[[1]], [[1, 2]]], 4, ValueError, r"shape \(1,\) and \(2,\), expected one apart from"),
        ([[1], [1, 2]], None, ValueError, r"shape \(1,\) and \(2,\), expected one$"),
        ([(1, 2), (1,)], 4, ValueError, "example 1 lacks '1'"),
        ({"x": [[1, 2, 3]]}, [1, 2], ValueError, "'x' has the length 3, expected at most 2"),
        ([[1]], 0, ValueError, "sizes is 0, expected a positive integer"),
        ([[1]], [2, 2], ValueError, r"sizes is \[2, 2\], expected .* ascending"),
        ([[1]], [], ValueError, r"sizes is \[\]"),
        ([[1]], 2.5, TypeError, "sizes is 2.5"),
        ([[1]], (2, 4), ValueError, r"sizes is \(2, 4\), expected .* the structure of batch"),
        (([1], [1]), ([1, 2], [1]), ValueError, r"lists of \[1, 2\] sizes"),
    ],
)
def test_errors(batch, sizes, error, message):
    with pytest.raises(error, match=f"pad_to: .*{message}"):
        nn.pad_to(batch, sizes)


def test_a_traced_batch_is_refused():
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda x: nn.pad_to(x, 4)[0])(jnp.ones(3))


# Losses and gradients


def test_one_trace_for_each_size():
    traced = []

    @fast_jit
    def total(x, mask):
        traced.append(x.shape)
        return jnp.sum(x, where=mask)

    for length in range(1, 33):
        x = np.arange(length, dtype=np.float32)
        np.testing.assert_allclose(total(*nn.pad_to(x, 4)), x.sum())
    assert traced == [(4,), (8,), (16,), (32,)]


def bond_energy(params, graph, mask):
    """The energy of a graph: a sum over nodes of a network of their features and messages."""
    x, senders, receivers = graph["position"], graph["senders"], graph["receivers"]
    distance = jnp.sum((x[senders] - x[receivers]) ** 2, -1, keepdims=True)
    message = jnp.where(mask["senders"][:, None], jnp.tanh(distance @ params["edge"]), 0)
    gathered = jnp.zeros((len(x), message.shape[-1])).at[receivers].add(message)
    return jnp.sum(jnp.tanh(gathered @ params["node"]), where=mask["position"][:, None])


def test_energies_and_forces_of_graphs():
    params = {"edge": RNG.normal(size=(1, 3)), "node": RNG.normal(size=(3, 1))}
    traced = []

    @fast_jit
    def padded_results(params, graph, mask):
        traced.append(graph["position"].shape)
        return jax.value_and_grad(bond_energy, (0, 1), allow_int=True)(params, graph, mask)

    plain = fast_jit(jax.value_and_grad(bond_energy, (0, 1), allow_int=True))
    for nodes, edges in ((2, 2), (3, 4), (4, 9)):
        graph = {
            "position": RNG.normal(size=(nodes, 3)).astype(np.float32),
            "senders": RNG.integers(0, nodes, edges),
            "receivers": RNG.integers(0, nodes, edges),
        }
        everything = jax.tree.map(lambda leaf: np.ones(len(leaf), bool), graph)
        energy, (of_params, of_graph) = plain(params, graph, everything)
        padded, mask = nn.pad_to(graph, {"position": 3, "senders": 5, "receivers": 5})
        got, (got_of_params, got_of_graph) = padded_results(params, padded, mask)
        np.testing.assert_allclose(got, energy, 1e-5)
        jax.tree.map(
            lambda g, e: np.testing.assert_allclose(g, e, 1e-4, 1e-6), got_of_params, of_params
        )
        forces = got_of_graph["position"]
        np.testing.assert_allclose(forces[:nodes], of_graph["position"], 1e-4, 1e-6)
        np.testing.assert_array_equal(forces[nodes:], 0)
    assert traced == [(3, 3), (6, 3)]


TEXTS = [RNG.integers(1, 9, n) for n in (3, 5, 2, 9, 12)]
BATCHES = TEXTS[:3], TEXTS[3:]  # of sizes 4 and 16


def test_fit_on_padded_texts_is_fit_on_the_texts():
    """Weighted by the mask, the mean over a batch is that over the tokens of its texts."""
    model = nn.serial(nn.embedding(9, 4), nn.conv(9, (2,), padding="CAUSAL"))
    params, _ = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))

    def batches():
        for texts in BATCHES:
            (x, y), (mask, _) = nn.pad_to([(text[:-1], text[1:]) for text in texts], 4)
            yield x, y, mask

    assert [x.shape for x, _, _ in batches()] == [(3, 4), (2, 16)]
    optimizer = nn.optimizers.sgd(0.5)
    result = nn.fit(
        model,
        batches,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=optimizer,
        key=jax.random.key(1),
        epochs=1,
        params=params,
        progress=False,
    )

    @fast_jit
    @jax.value_and_grad
    def loss_of(params, texts):
        values = [
            nn.losses.softmax_cross_entropy(model.apply(params, {}, t[None, :-1])[0], t[None, 1:])
            for t in texts
        ]
        return jnp.mean(jnp.concatenate(values, 1))

    losses = []
    for texts in BATCHES:
        loss, grads = loss_of(params, texts)
        losses.append((loss, sum(len(t) - 1 for t in texts)))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-4, 1e-5), result.params, params)
    values, weights = zip(*losses, strict=True)
    np.testing.assert_allclose(result.history["loss"], [np.average(values, weights=weights)], 1e-5)
