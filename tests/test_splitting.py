"""Splitting data in two, and weights that make up for rare classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

ROWS = np.arange(20)
LABELS = np.repeat([7, 2, 5], [11, 6, 3])


def test_sizes_are_exact_and_no_example_is_lost():
    for size, held_out in [(0.2, 4), (0.33, 7), (5, 5), (np.int64(1), 1), (0.95, 19)]:
        rest, part = nn.split({"x": ROWS, "y": 2 * ROWS}, size, jax.random.key(0))
        assert len(part["x"]) == held_out
        np.testing.assert_array_equal(np.sort(np.concatenate([rest["x"], part["x"]])), ROWS)
        for half in (rest, part):
            np.testing.assert_array_equal(half["y"], 2 * half["x"])
            assert np.all(np.diff(half["x"]) > 0)  # in the order of the data


def test_each_example_is_held_out_as_often():
    times = np.zeros(20)
    for seed in range(300):
        times[nn.split(ROWS, 0.2, jax.random.key(seed))[1]] += 1
    assert np.all(np.abs(times - 60) < 4 * np.sqrt(300 * 0.2 * 0.8))


@pytest.mark.parametrize("size", [0.2, 0.5, 7])
def test_classes_have_their_shares(size, key):
    pytest.importorskip("sklearn")
    from sklearn.model_selection import train_test_split

    _, part = nn.split((ROWS, LABELS), size, key, stratify=LABELS)
    _, theirs = train_test_split(LABELS, test_size=size, stratify=LABELS, random_state=0)
    assert len(part[1]) == len(theirs)
    for label, count in zip(*np.unique(LABELS, return_counts=True), strict=True):
        share = count * len(theirs) / 20
        assert np.floor(share) <= np.sum(part[1] == label) <= np.ceil(share)
        assert abs(np.sum(part[1] == label) - np.sum(theirs == label)) <= 1


def test_classes_smaller_than_a_share_have_their_turns():
    labels = np.arange(20) // 2
    held = [nn.split(labels, 5, jax.random.key(i), stratify=labels)[1] for i in range(20)]
    assert all(len(np.unique(part)) == 5 for part in held)
    assert len(np.unique(np.concatenate(held))) == 10


def test_it_is_a_pure_function():
    data = {"x": jnp.asarray(ROWS), "y": LABELS}

    def halves(key, data):
        return nn.split(data, 0.2, key, stratify=data["y"])

    eager = halves(jax.random.key(0), data)
    jax.tree.map(np.testing.assert_array_equal, fast_jit(halves)(jax.random.key(0), data), eager)
    assert isinstance(eager[0]["x"], jax.Array)
    assert isinstance(eager[0]["y"], np.ndarray)


def test_groups_stay_whole():
    groups = np.array([3, 3, 9, 1, 9, 9, 1, 3, 4, 4, 4, 4, 8, 8, 0, 0, 0, 0, 0, 5])
    sizes = []
    for seed in range(20):
        rest, part = nn.split(groups, 0.25, jax.random.key(seed), groups=groups)
        assert not set(rest) & set(part)
        assert len(rest) + len(part) == 20
        sizes.append(len(part))
    assert set(sizes) <= {3, 4, 5, 6, 7}  # half of the largest group away
    assert abs(np.mean(sizes) - 5) < 1


def test_the_last_ones_are_held_out_without_a_key(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rest, part = nn.split(mapped, 0.2, None)
    np.testing.assert_array_equal(rest, ROWS[:16])
    np.testing.assert_array_equal(part, ROWS[16:])
    assert isinstance(rest, np.memmap)
    with pytest.raises(ValueError, match=r"split: data has an np\.memmap, expected key=None"):
        nn.split(mapped, 0.2, jax.random.key(0))


def test_batches_stay_whole(key):
    batches = [(ROWS[i : i + 2], LABELS[i : i + 2]) for i in range(0, 10, 2)]
    rest, part = nn.split(batches, 0.4, key)
    assert (len(rest), len(part)) == (3, 2)
    assert {id(batch) for batch in rest + part} == {id(batch) for batch in batches}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "size is 0, expected a fraction of 20 examples or a number"),
        ({"size": 20}, ValueError, "size is 20, expected"),
        ({"size": 1.0}, ValueError, r"size is 1\.0, expected"),
        ({"size": 3.0}, ValueError, r"size is 3\.0, expected"),
        ({"size": 0.01}, ValueError, r"size is 0\.01, expected"),
        ({"key": 0}, TypeError, "key is int, expected a typed PRNG key"),
        ({"stratify": LABELS, "groups": LABELS}, ValueError, "both stratify and groups"),
        ({"stratify": LABELS[1:]}, ValueError, r"stratify has shape \(19,\), expected.*\(20,\)"),
        ({"groups": np.ones(20, int)}, ValueError, "groups has 1 group, expected at least 2"),
        ({"key": None, "stratify": LABELS}, ValueError, "key is None, expected a key with"),
        ({"data": (ROWS, ROWS[1:])}, ValueError, "data has arrays of different lengths"),
        ({"data": iter([ROWS])}, TypeError, "data is <list_iterator.*expected arrays or a list"),
    ],
)
def test_what_cannot_be_split(arguments, error, message, key):
    with pytest.raises(error, match=f"split: {message}"):
        nn.split(**{"data": ROWS, "size": 0.2, "key": key} | arguments)


def test_folds_have_each_class(key):
    """A model that predicts 0 tells by its loss how many of the held-out labels are 1."""
    zero = nn.training_run(
        nn.serial(nn.dense(1), lambda y: 0 * y),
        loss=nn.losses.squared_error,
        optimizer=nn.optimizers.sgd(0.1),
        epochs=1,
    )
    x = np.ones((20, 1), np.float32)
    for ones, expected in [(8, [2, 2, 2, 2]), (5, [1, 1, 1, 2])]:
        y = (ones > ROWS)[:, None].astype(np.float32)
        _, _, history = nn.cross_validate(zero, key, (x, y), 4, stratify=y[:, 0])
        found = np.sort(np.round(5 * history["val_loss"][:, 0]))
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="shuffle is False, expected True with stratify"):
        nn.cross_validate(zero, key, (x, y), 4, stratify=y[:, 0], shuffle=False)


def test_balanced_weights_are_those_of_scikit_learn():
    weights = pytest.importorskip("sklearn.utils.class_weight")
    expected = weights.compute_sample_weight("balanced", LABELS)
    np.testing.assert_allclose(nn.balanced_weights(LABELS), expected, rtol=1e-6)
    np.testing.assert_allclose(fast_jit(nn.balanced_weights)(LABELS), expected, rtol=1e-6)
    rare = LABELS == 5
    expected = weights.compute_sample_weight("balanced", rare)
    np.testing.assert_allclose(nn.balanced_weights(rare), expected, rtol=1e-6)
    for labels, error in [(LABELS / 2, TypeError), (LABELS[:, None], ValueError)]:
        with pytest.raises(error, match="balanced_weights: labels have"):
            nn.balanced_weights(labels)
