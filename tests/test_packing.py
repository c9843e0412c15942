"""Texts packed into rows, and batches of similar lengths: every element once, nothing mixed."""

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit


def texts(lengths):
    """Texts of which no two elements are equal, from 1."""
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end) + 1 for n, end in zip(lengths, ends, strict=True)]


LENGTHS = [3, 7, 1, 0, 5, 8, 2, 19, 4, 4, 6, 1]


def unpacked(packed):
    """The sequences of each row."""
    rows = zip(packed.data, packed.segment_ids, strict=True)
    return [[row[ids == i] for i in range(1, ids.max() + 1)] for row, ids in rows]


def test_every_element_is_once_in_a_row_and_in_order():
    sequences = texts(LENGTHS)
    packed = nn.pack(sequences, 8)
    assert packed.data.shape == packed.segment_ids.shape == packed.positions.shape == (8, 8)
    assert packed.data.shape[0] == -(-sum(LENGTHS) // 8)  # none could be fewer
    pieces = [piece for text in sequences for piece in np.split(text, range(8, len(text), 8))]
    rows = unpacked(packed)
    found = sorted(piece.tolist() for row in rows for piece in row)
    assert found == sorted(piece.tolist() for piece in pieces if len(piece))
    for row in rows:
        assert [piece[0] for piece in row] == sorted(piece[0] for piece in row)
    firsts = [row[0][0] for row in rows]
    assert firsts == sorted(firsts)
    for row, ids, at in zip(*packed, strict=True):
        for i in range(1, ids.max() + 1):
            np.testing.assert_array_equal(at[ids == i], np.arange((ids == i).sum()))
        is_padding = ids == 0
        assert not row[is_padding].any()
        assert not at[is_padding].any()
        assert (np.diff(is_padding.astype(int)) >= 0).all()


def test_arrays_of_a_sequence_stay_together():
    pairs = [{"x": np.ones((n, 2), np.float16) * n, "y": np.full(n, n)} for n in (2, 3, 1)]
    (x, y), ids, _ = (packed := nn.pack(pairs, 3)).data.values(), *packed[1:]
    assert x.shape == (2, 3, 2)
    assert x.dtype == np.float16
    np.testing.assert_array_equal(y, [[2, 2, 1], [3, 3, 3]])
    np.testing.assert_array_equal(x[..., 0], y)
    np.testing.assert_array_equal(ids, [[1, 1, 2], [1, 1, 1]])


def test_packed_texts_do_not_see_each_other():
    """Each gets what it gets alone."""

    def forward(f, x):
        h = f.positions(f.embed(x["tokens"]), positions=x["positions"])
        return f.attention(h, mask=nn.functional.segment_mask(x["segment_ids"]))

    model = nn.compose(
        forward,
        embed=nn.embedding(40, 4),
        positions=nn.learned_positions(6),
        attention=nn.attention(2, is_causal=True),
    )
    sequences = texts([2, 5, 3, 1])
    packed = nn.pack(sequences, 6)
    x = {"tokens": packed.data, "segment_ids": packed.segment_ids, "positions": packed.positions}
    params, state = model.init(jax.random.key(0), x)
    apply = fast_jit(lambda x: model.apply(params, state, x)[0])
    y = np.asarray(apply(x))
    for text in sequences:
        row = np.zeros((2, 6), int)
        row[0, : len(text)] = text  # causal: the padding after it is not seen
        at = np.broadcast_to(np.arange(6), (2, 6))
        alone = apply({"tokens": row, "segment_ids": np.ones((2, 6), int), "positions": at})
        here = y[np.isin(packed.data, text)]
        np.testing.assert_allclose(here, alone[0, : len(text)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sequences", "length", "error", "text"),
    [
        ([], 4, ValueError, "pack: sequences is an empty list, expected at least one example"),
        ([[], []], 4, ValueError, "pack: sequences are all empty"),
        ([[1], [2]], 0, ValueError, "pack: length is 0"),
        ([1, 2], 4, ValueError, "pack: sequences has numbers, expected arrays with an axis"),
        (["ab"], 4, TypeError, "pack: sequences"),
        ([[1], [0.5]], 4, ValueError, "examples of dtype int64 and float64"),
        ([np.ones((2, 3)), np.ones((2, 4))], 4, ValueError, "expected one apart from axis 0"),
        (
            [(np.ones(2), np.ones(2)), (np.ones(2), np.ones(3))],
            4,
            ValueError,
            r"pack: sequences\[1\] has arrays of the lengths \[2, 3\], expected one length",
        ),
    ],
)
def test_what_cannot_be_packed(sequences, length, error, text):
    with pytest.raises(error, match=text):
        nn.pack(sequences, length)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("sizes", [4, [5, 10, 20]])
def test_batches_have_every_example_once_and_one_size(sizes, seed):
    def bucketed():
        key = None if seed is None else jax.random.key(seed)
        return nn.bucket_by_length(LENGTHS, sizes, batch_size=2, key=key)

    batches = bucketed()
    assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
    shapes = []
    for rows in batches:
        _, mask = nn.pad_to([np.ones(LENGTHS[i]) for i in rows], sizes)
        needed = {nn.pad_to([np.ones(LENGTHS[i])], sizes)[1].shape[1] for i in rows}
        assert needed == {mask.shape[1]}
        shapes.append(mask.shape)
    assert all(shape[0] == 2 for shape in shapes if shapes.count(shape) > 1)
    assert [rows.tolist() for rows in bucketed()] == [rows.tolist() for rows in batches]


def test_batches_of_so_many_elements_at_most():
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    batches = nn.bucket_by_length(lengths, 4, max_elements=64, drop_remainder=True)
    padded = [4 * 2 ** int(np.ceil(np.log2(max(lengths[rows].max() / 4, 1)))) for rows in batches]
    assert {len(rows) * size for rows, size in zip(batches, padded, strict=True)} == {64}
    assert [len(rows) for rows in nn.bucket_by_length([9, 9], 4, max_elements=5)] == [1, 1]


def test_another_key_is_another_order():
    orders = [
        [rows.tolist() for rows in nn.bucket_by_length([1] * 20, 4, batch_size=4, key=key)]
        for key in jax.random.split(jax.random.key(0))
    ]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("lengths", "options", "error", "text"),
    [
        ([1.5], {"batch_size": 2}, TypeError, "lengths have dtype float64"),
        ([[1]], {"batch_size": 2}, ValueError, r"shape \(1, 1\), expected integers with one axis"),
        ([1], {}, ValueError, "batch_size is None and max_elements None, expected one of them"),
        ([1], {"batch_size": 2, "max_elements": 4}, ValueError, "expected one of them"),
        ([1], {"batch_size": 0}, ValueError, "batch_size is 0"),
        ([1, 9], {"batch_size": 1, "sizes": [4, 8]}, ValueError, "has the length 9, expected at"),
        ([1], {"batch_size": 1, "sizes": [4, 4]}, ValueError, "ascending"),
        ([-1], {"batch_size": 1}, ValueError, "lengths"),
    ],
)
def test_wrong_buckets(lengths, options, error, text):
    with pytest.raises(error, match=f"bucket_by_length: .*{text}"):
        nn.bucket_by_length(lengths, **{"sizes": 4, **options})
