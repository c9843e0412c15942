"""CTC against the enumeration of alignments, torch, and at its edges."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import ctc as reference
from tests.parameters import each_value_once

ctc_loss = fast_jit(nn.losses.ctc_loss, static_argnames="blank_id")


@fast_jit
def both_modes(logits, *rest, log_epsilon=-1e5):
    """The sum of the losses, its gradient, and the derivatives of the losses along ones."""

    def losses(logits):
        return nn.losses.ctc_loss(logits, *rest, log_epsilon=log_epsilon)

    value, gradient = jax.value_and_grad(lambda z: jnp.sum(losses(z)))(logits)
    return value, gradient, jax.jvp(losses, (logits,), (jnp.ones_like(logits),))[1]


def paddings(lengths, longest):
    """1 from each length on."""
    return (np.arange(longest) >= np.asarray(lengths)[:, None]).astype(np.float32)


def spelled(string, blank_id):
    """What a string of frames spells: repeats are one, blanks are dropped."""
    return [c for c, _ in itertools.groupby(string) if c != blank_id]


def enumerated(logits, labels, blank_id):
    """Minus the log of the sum of the probabilities of all strings that spell the labels."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    frames, classes = p.shape
    total = sum(
        np.prod([p[t, c] for t, c in enumerate(string)])
        for string in itertools.product(range(classes), repeat=frames)
        if spelled(string, blank_id) == list(labels)
    )
    return -np.log(total)


FRAMES, CLASSES = 4, 3


@pytest.mark.parametrize("blank_id", [0, 2])
def test_every_possible_sequence_of_labels(blank_id, x64):
    """All sequences over the classes, which together have probability 1."""
    logits = 2 * np.random.default_rng(blank_id).standard_normal((FRAMES, CLASSES))
    symbols = [c for c in range(CLASSES) if c != blank_id]
    strings = itertools.product(range(CLASSES), repeat=FRAMES)
    sequences = sorted({tuple(spelled(string, blank_id)) for string in strings})
    assert () in sequences
    assert (symbols[0], symbols[0]) in sequences
    labels = np.full((len(sequences), FRAMES), -1)
    for row, sequence in zip(labels, sequences, strict=True):
        row[: len(sequence)] = sequence

    losses = ctc_loss(
        np.broadcast_to(logits, (len(sequences), FRAMES, CLASSES)),
        np.zeros((len(sequences), FRAMES)),
        labels,
        labels < 0,
        blank_id=blank_id,
    )
    expected = [enumerated(logits, sequence, blank_id) for sequence in sequences]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(-losses).sum(), 1, rtol=1e-12)


def batch(seed, lengths, label_lengths, classes, longest_label=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, classes, (len(lengths), longest_label))
    labels[0, 1] = labels[0, 0]  # a repeat
    return (
        rng.standard_normal((len(lengths), max(lengths), classes)).astype(np.float32),
        paddings(lengths, max(lengths)),
        labels,
        paddings(label_lengths, longest_label),
    )


def test_torch():
    torch = pytest.importorskip("torch")
    lengths, label_lengths = [9, 7, 5, 3], [3, 2, 0, 1]
    logits, logit_paddings, labels, label_paddings = batch(0, lengths, label_lengths, 5)
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        torch.log_softmax(z, -1).transpose(0, 1),
        torch.tensor(labels),
        torch.tensor(lengths),
        torch.tensor(label_lengths),
        reduction="none",
    )
    expected.sum().backward()
    _, gradient, _ = both_modes(logits, logit_paddings, labels, label_paddings)
    losses = ctc_loss(logits, logit_paddings, labels, label_paddings)
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient, z.grad, rtol=1e-4, atol=1e-6)


IMPOSSIBLE = {
    "more labels than frames": ([1, 2, 1], 3, 2),
    "a repeat without a frame for the blank between": ([1, 1], 2, 2),
    "labels and no frames": ([1], 1, 0),
}


@each_value_once
@pytest.mark.parametrize(("labels", "n", "frames"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize(("log_epsilon", "expected"), [(-1e5, 1e5), (0.0, 0.0), (-np.inf, np.inf)])
def test_impossible_labels(labels, n, frames, log_epsilon, expected):
    """A second, possible example keeps its loss and gradient."""
    logits = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    row = np.zeros(3, int)
    row[:n] = labels
    arguments = (
        logits,
        paddings([frames, 4], 4),
        np.stack([row, [2, 1, 0]]),
        paddings([n, 2], 3),
    )
    losses = ctc_loss(*arguments, log_epsilon=log_epsilon)
    assert losses[0] == expected
    _, gradient, tangent = both_modes(*arguments, log_epsilon=log_epsilon)
    np.testing.assert_array_equal(gradient[0], 0)
    assert tangent[0] == 0
    y, pull = reference.ctc_loss(*(a[1:] for a in arguments))
    np.testing.assert_allclose(losses[1], y[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[1], pull(np.ones(1))[0][0], rtol=1e-4, atol=1e-6)


def test_no_labels_are_spelled_by_blanks_alone():
    logits = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    blanks = -jax.nn.log_softmax(logits)[0, :, 0].sum()
    for labels in (np.zeros((1, 2), int), np.zeros((1, 0), int)):
        loss = ctc_loss(logits, np.zeros((1, 4)), labels, np.ones(labels.shape))
        np.testing.assert_allclose(loss, [blanks], rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3)], ids=["no examples", "no frames"])
def test_nothing_has_probability_1(shape):
    loss = ctc_loss(
        jnp.zeros(shape),
        jnp.zeros(shape[:2]),
        jnp.zeros((shape[0], 2), int),
        jnp.ones((shape[0], 2)),
    )
    np.testing.assert_array_equal(loss, np.zeros(shape[0]))


def test_padding_does_not_matter():
    """Neither the logits and labels that are padding, nor NaN in them, nor padding inside."""
    logits, logit_paddings, labels, label_paddings = batch(1, [4, 3], [2, 1], 4, 2)
    _, gradient, _ = both_modes(logits, logit_paddings, labels, label_paddings)
    other_logits = np.where(logit_paddings[..., None] == 1, np.nan, logits)
    other_labels = np.where(label_paddings == 1, 999, labels)
    arguments = other_logits, logit_paddings, other_labels, label_paddings
    np.testing.assert_array_equal(both_modes(*arguments)[1], gradient)
    assert (gradient[1, 3] == 0).all()

    spread = np.insert(logits, 1, np.inf, axis=1)
    spread_paddings = np.insert(logit_paddings, 1, 1, axis=1)
    np.testing.assert_allclose(
        ctc_loss(spread, spread_paddings, labels, label_paddings),
        ctc_loss(logits, logit_paddings, labels, label_paddings),
        rtol=1e-6,
    )


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits(scale):
    """The likeliest alignment is all that counts; optax's 1e5 for log 0 would be beaten here."""
    one_hot = np.zeros((1, 20, 3), np.float32)
    one_hot[0, :, 2] = scale  # every frame prefers class 2
    arguments = one_hot, np.zeros((1, 20)), np.array([[1, 1]]), np.zeros((1, 2))
    value, gradient, tangent = both_modes(*arguments)
    np.testing.assert_allclose(value, 20 * scale, rtol=1e-4)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0, :, 2], 1, rtol=1e-6)
    assert np.isfinite(tangent).all()


def test_classes_of_probability_zero():
    logits = np.zeros((1, 3, 3), np.float32)
    logits[..., 2] = -np.inf
    arguments = logits, np.zeros((1, 3)), np.array([[1]]), np.zeros((1, 1))
    value, gradient, _ = both_modes(*arguments)
    np.testing.assert_allclose(value, -np.log(0.75), rtol=1e-6)
    assert np.isfinite(gradient).all()
    value, gradient, _ = both_modes(logits, np.zeros((1, 3)), np.array([[2]]), np.zeros((1, 1)))
    assert value == 1e5
    np.testing.assert_array_equal(gradient, 0)


def test_a_label_outside_the_classes_gives_nan():
    labels = np.array([[1, 3], [1, 2], [-1, 1]])
    loss = ctc_loss(jnp.zeros((3, 5, 3)), jnp.zeros((3, 5)), labels, jnp.zeros((3, 2)))
    np.testing.assert_array_equal(np.isnan(loss), [True, False, True])


def test_a_long_sequence_in_float32():
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((1, 100, 20)).astype(np.float32)
    arguments = logits, np.zeros((1, 100)), rng.integers(1, 20, (1, 15)), np.zeros((1, 15))
    value, gradient, _ = both_modes(*arguments)
    y, pull = reference.ctc_loss(*arguments)
    np.testing.assert_allclose(value, y[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, pull(np.ones(1))[0], atol=2e-4)


GOOD = {
    "logits": np.zeros((2, 4, 3), np.float32),
    "logit_paddings": np.zeros((2, 4)),
    "labels": np.zeros((2, 3), int),
    "label_paddings": np.zeros((2, 3)),
}
BAD = {
    "logits": (np.zeros((4, 3)), ["(4, 3)", "(batch, frames, classes)"]),
    "logit_paddings": (np.zeros((2, 3)), ["logit_paddings has shape (2, 3)", "(2, 4)"]),
    "labels": (np.zeros((3, 3), int), ["(3, 3)", "(2, n)"]),
    "label_paddings": (np.zeros((2, 4)), ["label_paddings has shape (2, 4)", "(2, 3)"]),
    "blank_id": (3, ["blank_id is 3", "3 classes"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    value, fragments = BAD[name]
    with pytest.raises(ValueError, match=r"^ctc_loss: ") as error:
        ctc_loss(**{**GOOD, name: value})
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)


def test_labels_that_are_not_integers():
    with pytest.raises(TypeError, match="ctc_loss: labels have dtype float32"):
        ctc_loss(**{**GOOD, "labels": np.zeros((2, 3), np.float32)})
